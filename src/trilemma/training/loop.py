"""The one training loop.

    for every step:
        for every player of the model (a GAN has two, the others one):
            for each of its phases: loss <- phase.loss(batch, rng); the gradients add up
            its parameters take a step
        the averaged weights follow, once

Batch and noise are functions of the step, the learning rate of the step and of what is saved with the state, so a
training that was interrupted and continued ends with the same bits as an unbroken one (on a CPU, and unless its length
is given in minutes). Time spent on validation, pictures and checkpoints is not counted as training seconds.

A loss that jumps and does not come back: the training returns to WINDOW steps before the jump, and goes on from there
with SLOWER times the learning rate; once. From which step on is part of the state, and a state that is in doubt is not
saved, so that this, too, is the same wherever a training was interrupted.
"""

import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from trilemma import rng
from trilemma.data import Data, Loader
from trilemma.errors import UserError
from trilemma.memory import copies, is_out_of_memory, release, with_room
from trilemma.modes import own_modes
from trilemma.training.checkpoint import (
    images_of,
    list_checkpoints,
    load_checkpoint,
    read_checkpoint,
    save_checkpoint,
)
from trilemma.training.config import TrainConfig
from trilemma.training.ema import EMA
from trilemma.training.health import WINDOW, Jump, LastingJump, NotFinite, Pulse, Reading
from trilemma.training.log import Averages, Display, Journal, figures_text
from trilemma.training.observe import PARTS, Observer
from trilemma.training.optim import config_of, learning_rate, lr_factor, make_optimizer
from trilemma.training.pace import PICTURES, SHARE, Pace
from trilemma.training.state import Broken, Checkpoint, first_entries, flatten_optimizer, restore_optimizer, spoilt
from trilemma.types import Batch, Logs, Model, Phase, Player, count_rivals, players_of, span_of

VALIDATE_AT_LEAST = 10_000  # images between validations of a data set smaller than this
SNAPSHOTS = 10  # sample pictures in a training, where sample_every is not given
SAVE_EVERY_S = 60.0  # a checkpoint at the next step after this time, where save_every is not given
SETTLED = 0.25  # share of a training after which its samples and codes are judged
SLOWER = 0.5  # times the learning rate, after a loss that jumped and did not come back
START_IMAGES = 10_000  # training images that the start of a phase is shown
MOST_SKIPPED = 5  # steps left out since the last good state, after which a training gives up


class Stopped(KeyboardInterrupt):
    """A signal ended the training after its step and its checkpoint; `code` is the exit status to use."""

    def __init__(self, signum: int, message: str) -> None:
        super().__init__(message)
        self.code = 128 + signum


class Interrupted(KeyboardInterrupt):
    """A signal came in the middle of a report."""


class Trainer:
    """A model in training: its optimisers, its averages and its place in the run."""

    def __init__(
        self,
        model: Model,
        data: Data,
        config: TrainConfig,
        path: Path,
        display: Display,
        *,
        bf16: bool,
        command: str = "",
    ) -> None:
        self.model, self.data, self.config = model, data, config
        self.path, self.display, self.bf16 = path, display, bf16
        self.device = next(model.parameters()).device
        self.phases: list[Phase] = list(model.phases)
        self.players = players_of(self.phases)
        if config.channels_last:
            model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.optimizers = {player.name: make_optimizer(player, config) for player in self.players}
        self.spans = {player.name: span_of(player, self.phases) for player in self.players}
        self.clips = {player.name: config_of(player, config).clip for player in self.players}
        self.ema = EMA(model, config.ema_halflife_images) if config.ema_halflife_images else None
        self.observer = Observer(model, data, config, path, self.ema, self._warn, command)
        self.loader = Loader(
            data.train, batch=config.batch, seed=config.seed, device=self.device, augment=config.augment
        )
        self.noise = torch.Generator(self.device)  # of a step, seeded anew in each
        rng.own_dropout(model, self.noise)
        self.repeats = max(phase.repeats for phase in self.phases)
        self.stride = self.repeats * config.batch  # images per step
        self.total = config.total_images(len(data.train), self.stride)
        self.averages = Averages()
        self.journal = Journal(path / "log.jsonl", display.say)
        self.step, self.seconds = 0, 0.0
        self.pieces = 1  # micro-batches that make a batch; more than one after memory ran out
        self.skipped: list[int] = []  # steps left out because a number was not finite
        self.slowed: list[int] = []  # the step from which the learning rate is lower, if there is one
        self.started: list[str] = []  # the phases whose `start` was called
        self.events: dict[str, str] = {}  # by kind, the last thing that happened to the training, with its step
        self.pace = Pace()
        self.pulse = Pulse(model, spikes=count_rivals(self.phases) == 1)
        self.reported = 0.0  # progress at the last report
        self.unreported = False  # whether the last step is to be reported still
        self.unfinished: Checkpoint | None = None  # the state before a report that may take long, while it is made
        self.good = self._state()
        self.earlier: Checkpoint | None = None  # the good state before it, until it is known that no jump began there
        self.never_finite = spoilt(self.good)  # such as a buffer that marks with an infinity
        self.saved = -1  # images of the state that was saved last
        self.stop_signal = 0
        self.save_signal = False  # whether a signal asked for a checkpoint
        self.over = False  # whether the last state is saved

    @property
    def images(self) -> int:
        """Training images seen."""
        return self.step * self.stride

    @property
    def progress(self) -> float:
        """Share of the training that is done, in [0, 1]."""
        if self.total is not None:
            return min(1.0, self.images / self.total)
        return min(1.0, self.seconds / (60 * (self.config.minutes or 1)))

    @own_modes()
    def run(self) -> None:
        """Train to the end; leaves the best weights in the model.

        Raises:
            Stopped: after a signal, when the state is saved.
            UserError: if numbers stop being finite for good, memory runs out in a model whose batch must not be
                divided, or the disk refuses a checkpoint.
        """
        self.journal.cut(rows=self.journal.rows)
        with self.signals():
            with suppress(Interrupted):
                while not self.stop_signal and (self.unreported or self.progress < 1):
                    self._unless_spoilt(self._report if self.unreported else self._train_on)
            if not self._unless_spoilt(lambda: with_room(lambda: self._save(self.unfinished))):
                with_room(self._save)
            self.over = True
            self._obey()
            with self.pace.timed("final weights"):
                self.observer.take_final_weights(self._seconds_to_finish())

    def _seconds_to_finish(self) -> float | None:
        """Seconds for the model's last step, so that the last picture has its time too; None: no limit, as in trainings
        whose result does not depend on the clock. What was spent before a resume is not known: half of its share."""
        if self.config.minutes is None:
            return None
        return max(self.pace.left(self.seconds, "drawing", "judgement"), SHARE / 2 * self.pace.since)

    def _obey(self) -> None:
        """End the training, whose state is saved, if a signal came."""
        if self.stop_signal:
            when = (
                "the state" if self.saved == self.images else f"the state after {self.saved:,}, before the loss jumped,"
            )
            raise Stopped(self.stop_signal, f"stopped after {self.images:,} images; {when} is saved")

    def _train_on(self) -> None:
        """Train until the next report, or until the clock or a signal asks for a save, and make that."""
        self._steps_until_due()
        if self._save_is_late() and not (self.unreported or self.stop_signal):
            self._unless_full("a checkpoint", self._save)

    def _steps_until_due(self) -> None:
        """Train until the next report or the next save by the clock; that of training seconds runs only here."""
        self.model.train()
        start, before = time.perf_counter(), self.seconds
        while not self.stop_signal and not self.unreported:
            advanced = self._guarded(self._next_step)
            self.seconds = before + time.perf_counter() - start
            due = advanced and (self.progress >= 1 or any(self._due(every) for every in self.halts))
            late = self._save_is_late()
            if due or late or self.stop_signal:
                self.unreported = self._guarded(lambda: self._heed(self.pulse.flush())) and due
            if late:
                break
        if self.device.type == "cuda":
            torch.cuda.synchronize()
            self.seconds = before + time.perf_counter() - start

    def _unless_spoilt(self, action: Callable[[], None]) -> bool:
        """Whether an action met sound numbers only; if not, the training has returned to a good state."""
        try:
            action()
            return True
        except NotFinite as found:
            self._roll_back(found)
        except LastingJump as lasting:
            self._slow_down(lasting.jump)
        return False

    def _guarded(self, action: Callable[[], None]) -> bool:
        """Whether an action succeeds; if not, the training has returned to its last good state."""
        try:
            return self._unless_spoilt(action)
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            reason = str(error)  # the error itself holds on to the step that had no room
        self._divide_batch(reason)
        return False

    def _unless_full(self, what: str, action: Callable[[], None]) -> None:
        """Do what a training can go without for a while; a warning if memory runs out, and runs out again."""
        try:
            with_room(action)
            return
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            reason = str(error)
        release()
        self._warn(f"out of memory ({reason}): {what} is left out")

    def _next_step(self) -> None:
        if self.step in self.skipped:
            self.step += 1
        else:
            self._one_step()

    def _one_step(self) -> None:
        generator = self.noise.manual_seed(rng.seed_of(self.config.seed, "step", self.step))
        progress = self.progress
        batches_of_step = [self._batch(self.images + r * self.config.batch) for r in range(self.repeats)]
        due = [phase for phase in self.phases if phase.is_active(progress) and self.step % phase.every == 0]
        for phase in due:
            self._start(phase)
        for player in players_of(due):
            own = [phase for phase in due if phase.player is player]
            self._set_learning_rate(player, progress)
            for repeat, batch in enumerate(batches_of_step[: max(phase.repeats for phase in own)]):
                self._move(player, [phase for phase in own if repeat < phase.repeats], batch, generator)
        if self.ema is not None:
            self.ema.update(self.ema.decay(self.images + self.stride, self.stride))
            self.pulse.feel_average(self.step, self.ema.is_finite())
        self.step += 1

    def _start(self, phase: Phase) -> None:
        """What a phase does once, before its first step; its figures are a row of the log."""
        if phase.start is None or phase.name in self.started:
            return
        self.model.eval()
        with torch.no_grad():
            figures = phase.start(self.observer.training_images(START_IMAGES), self.config.seed)
        self.model.train()
        self.started.append(phase.name)
        self.journal.write({**self._place(), **{f"{phase.name}/{name}": value for name, value in figures.items()}})

    def _set_learning_rate(self, player: Player, progress: float) -> None:
        """For the next step of a player, by how far it is in the span in which it moves."""
        begin, end = self.spans[player.name]
        images = self.images - (self.images * begin / progress if begin else 0)  # since it began
        factor = lr_factor(self.config, (progress - begin) / (end - begin), images, self.observer.plateau)
        for group in self.optimizers[player.name].param_groups:
            group["lr"] = self._slower() * factor * learning_rate(player, self.config)

    def _move(self, player: Player, phases: Sequence[Phase], batch: Batch, generator: torch.Generator) -> None:
        """One step of one player: down the sum of its phases' losses."""
        for parameter in player.parameters:
            parameter.grad = None
        lowered = [(phase, *self._gradient(phase, batch, generator)) for phase in phases]
        norm = nn.utils.get_total_norm([p.grad for p in player.parameters if p.grad is not None], foreach=True)
        for phase, loss, parts in lowered:
            self._heed(self.pulse.feel(Reading(self.step, phase, batch, parts, torch.stack([loss, norm]))))
        if (clip := self.clips[player.name]) is not None:  # after the look: a NaN norm makes every gradient NaN
            nn.utils.clip_grads_with_norm_(player.parameters, clip, norm, foreach=True)
        self.optimizers[player.name].step()
        if player.after_step is not None:
            with torch.no_grad():
                player.after_step()
        for phase, loss, parts in lowered:
            self.averages.add(phase.name, {"loss": loss, **parts})

    def _gradient(self, phase: Phase, batch: Batch, generator: torch.Generator) -> tuple[Tensor, Logs]:
        """Gradients of the mean loss over a batch, times `every`, in micro-batches if memory asks for it; the loss and
        its parts."""
        total, sums = torch.zeros((), dtype=torch.float32, device=self.device), Averages()
        pieces = _split(batch, self.pieces)
        for piece in pieces:
            with torch.autocast(self.device.type, torch.bfloat16) if self.bf16 else nullcontext():
                loss, parts = phase.loss(piece, generator)
            if len(pieces) == 1:
                (loss if phase.every == 1 else phase.every * loss).backward()
                return loss.detach(), parts
            share = len(piece.image) / len(batch.image)
            (phase.every * share * loss).backward()
            total += share * loss.detach()
            sums.add(phase.name, {name: share * len(pieces) * part for name, part in parts.items()})
        return total, {
            name.split("/", 1)[1]: torch.tensor(value, dtype=torch.float32) for name, value in sums.take().items()
        }

    def _roll_back(self, found: NotFinite) -> None:
        """Return to the last good state, and leave out the step that spoilt the numbers from then on."""
        self.skipped.append(found.step)
        recent = [step for step in self.skipped if step >= self.good.values["step"]]
        if len(recent) > MOST_SKIPPED:
            raise UserError(
                f"{found} (step {found.step}); {MOST_SKIPPED} steps were left out and it did not help: try a lower "
                f"lr= (it is {self.config.lr}) or precision=float32. The last checkpoint is as it was"
            )
        self._return_to(self.good)
        self._warn(f"{found}. Resumed from step {self.step:,}; step {found.step:,} is left out")
        self._note("left out", found.step, f"{found}, so this step is left out")

    def _slow_down(self, jump: Jump) -> None:
        """Return to before a jump, and lower the learning rate from WINDOW steps before it on."""
        state = self._state_before(jump.step - WINDOW)
        self.slowed = [max(jump.step - WINDOW, state.values["step"])]
        self._return_to(state)
        text = f"{jump.text}. Resumed from step {self.slowed[0]:,} with half the learning rate"
        self._warn(text)
        self._note("slowed", jump.step, text)

    def _slower(self) -> float:
        """What the learning rate is multiplied by since a loss jumped and did not come back."""
        return SLOWER if self.slowed and self.step >= self.slowed[0] else 1.0

    def _state_before(self, step: int) -> Checkpoint:
        """The newest state that is held, or saved, of this step or before."""
        held = [state for state in (self.good, self.earlier) if state is not None]
        newest = next((state for state in held if state.values["step"] <= step), None)
        folder = self.path / "checkpoints"
        for path in reversed(list_checkpoints(folder) if folder.is_dir() else []):
            if newest is not None and images_of(path) <= newest.values["images"]:
                break
            with suppress(Broken, PermissionError):
                state = read_checkpoint(path, self._form())
                if state.values["step"] <= step:
                    return state
        return newest or held[-1]

    def _divide_batch(self, reason: str) -> None:
        """Go on with half the micro-batch, accumulated to the same batch, where that is the same mathematics."""
        whole = [name or "its loss" for name, module in self.model.named_modules() if _needs_whole_batch(module)]
        size = self.config.batch // self.pieces
        if whole:
            raise UserError(
                f"out of memory with batch={size} ({reason}); smaller pieces would change the statistics that "
                f"{whole[0]} takes over a batch, so choose a smaller batch= or size= yourself"
            )
        if size < 2:
            raise UserError(f"out of memory even for one image at a time ({reason}); choose a smaller size=")
        release()
        self._return_to(self.good)
        self.pieces *= 2
        text = f"out of memory: batches of {self.config.batch} go in {self.pieces} pieces from here on"
        self._warn(text)
        self._note("memory", self.step, text)

    def _return_to(self, state: Checkpoint) -> None:
        """Go on from an earlier state, but for what was learned of the training itself, and the time it took."""
        kept = ("pieces", "skipped", "slowed", "events", "seconds")
        held = {name: getattr(self, name) for name in kept}
        with_room(lambda: self._take(state))
        for name, value in held.items():
            setattr(self, name, value)
        self.good, self.earlier = state, None
        self.pulse.forget()
        self.journal.cut(step=self.step)

    def _warn(self, text: str) -> None:
        """Say a warning and keep it in the log; what is found when the training is over is said with all the others."""
        if not self.over:
            self.display.say(f"warning: {text}")
        self.journal.write({**self._place(), "warning": text})

    def _note(self, kind: str, step: int, text: str) -> None:
        """Keep what happened for the summary."""
        self.events[kind] = f"step {step:,}: {text}"

    @property
    def warnings(self) -> list[str]:
        """What happened to the training, and what is wrong with it now, each with its step."""
        return [*self.events.values(), *(f"step {self.step:,}: {t}" for t in self.observer.said.current.values())]

    def _heed(self, jump: Jump | None) -> None:
        """Say that a loss jumped.

        Raises:
            LastingJump: if it did not come back, for the first time.
        """
        if jump is None:
            return
        if jump.stays and not self.slowed:
            raise LastingJump(jump)
        self._warn(jump.text)
        if jump.stays:
            self._note("risen", jump.step, jump.text)

    def _place(self) -> dict[str, Any]:
        """Where the training is, as every row of the log begins."""
        return {"step": self.step, "images": self.images, "seconds": round(self.seconds, 3)}

    def _batch(self, position: int) -> Batch:
        batch = replace(self.loader.batch_at(position), progress=self.progress)
        if not self.config.channels_last:
            return batch
        return replace(batch, image=batch.image.contiguous(memory_format=torch.channels_last))

    @property
    def epoch(self) -> int:
        """Images between validations: an epoch, or more where an epoch is short."""
        return max(len(self.data.train), VALIDATE_AT_LEAST)

    @property
    def halts(self) -> list[int]:
        """Images after which the training halts to report: twenty times in an epoch, and where the user says so."""
        asked = (self.config.save_every, self.config.sample_every)
        return [max(self.epoch // 20, self.stride), self.epoch, *(every for every in asked if every)]

    def _due(self, every: int) -> bool:
        """Whether the last step passed a multiple of `every` images."""
        return self.images // every > (self.images - self.stride) // every

    def _report(self) -> None:
        """Log the averages; validate, draw and save where it is time for it.

        What may take long is given up when a signal comes, and done when the training goes on.
        """
        over = self.progress >= 1
        draw = not over and self._picture_is_due()
        validate = over or (self._due(self.epoch) and self._has_time_to_validate())
        self.unfinished = self._sound_state() if validate or draw else None
        if self.stop_signal:
            raise Interrupted
        row = {**self._place(), **with_room(self.averages.take)}
        if validate:
            with self.pace.timed("validation"):
                row |= self.observer.validate(self.images)
                self._unless_full("a look at the codes", lambda: row.update(self.observer.active_units()))
        self.journal.write(row)
        self.display.update(self.progress, figures_text(row))
        settled = self.progress >= SETTLED
        with self.pace.timed("judgement"):
            self.observer.listen(row, settled=settled)
        if draw:
            name = f"{self.images:012d}"
            with self.pace.timed("picture"):
                self._unless_full(f"the picture {name}.png", lambda: self.observer.snapshot(name, settled=settled))
        self.reported, self.unreported, self.unfinished = self.progress, False, None
        if validate or self.good.values["unreported"]:
            self._keep(self._sound_state())
        if not self.pulse.in_doubt and self.step >= self.good.values["step"] + WINDOW:
            self.earlier = None
        if not over and self._save_is_due():
            self._unless_full("a checkpoint", self._save)

    def _picture_is_due(self) -> bool:
        """Whether a sample picture is to be drawn: one in `sample_every` images, or SNAPSHOTS in a training at most."""
        if self.config.sample_every:
            return self._due(self.config.sample_every)
        return int(SNAPSHOTS * self.progress) > int(SNAPSHOTS * self.reported) and self._has_time_to_draw()

    def _has_time_to_validate(self) -> bool:
        """Whether there is time for it: in a training of given minutes, for in others the next steps depend on it."""
        if self.config.minutes is None:
            return True
        if "validation" not in self.pace.costs and self.pace.allows("validation", self.seconds):
            with self.pace.timed("validation", times=self.observer.valid_batches):
                self.observer.validate_part()
        return self.pace.allows("validation", self.seconds)

    def _has_time_to_draw(self) -> bool:
        """Whether there is time for a picture. Where warnings follow from it, only minutes depend on the clock."""
        if self.observer.rivals > 1 and self.config.minutes is None:
            return True
        share = PICTURES * SHARE
        if "picture" not in self.pace.costs and self.pace.allows("picture", self.seconds, share):
            self._draw_part(4 * PARTS)  # what is done once in a process, such as an import, does not count
            with self.pace.timed("picture", times=PARTS):
                self._draw_part(PARTS)
        return self.pace.allows("picture", self.seconds, share)

    def _draw_part(self, parts: int) -> None:
        self._unless_full("a picture", lambda: self.observer.draw_part(parts))
        self.pace.costs["drawing"] = self.observer.draw_seconds

    def _save_is_due(self) -> bool:
        return self._save_is_late() or (self.config.save_every is not None and self._due(self.config.save_every))

    def _save_is_late(self) -> bool:
        """Whether a signal asks for a save, or the clock, which it does where the user did not say how often."""
        by_clock = self.config.save_every is None and time.monotonic() - self.saved_at >= SAVE_EVERY_S
        return self.save_signal or by_clock

    def _state(self) -> Checkpoint:
        """Everything that the next steps depend on, as copies."""
        values = {
            "step": self.step,
            "images": self.images,
            "seconds": self.seconds,
            "progress": self.progress,
            "plateau": self.observer.plateau.state(),
            "figures": self.observer.figures,
            "best": self.observer.best,
            "pieces": self.pieces,
            "skipped": list(self.skipped),
            "slowed": list(self.slowed),
            "started": list(self.started),
            "events": dict(self.events),
            "losses": {phase.name: list(self.pulse.losses.get(phase.name, ())) for phase in self.phases},
            "said": dict(self.observer.said.quiet),
            "current": dict(self.observer.said.current),
            "distances": list(self.observer.rivalry.distances),
            "rows": self.journal.rows,
            "averages": self.averages.state(),
            "reported": self.reported,
            "unreported": self.unreported,
        }
        tensors = {"model": dict(self.model.state_dict())}
        if self.ema is not None:
            tensors["ema"] = self.ema.state()
        for name, optimizer in self.optimizers.items():
            tensors[f"optimizer-{name}"] = flatten_optimizer(optimizer)
        held = {file: copies(group) for file, group in tensors.items()}
        if self.observer.best_weights:
            held["best"] = self.observer.best_weights  # replaced as a whole, never changed
        return Checkpoint(values, held)

    def _sound_state(self) -> Checkpoint:
        """The state, to be saved or to be returned to.

        A step's own look is at what it starts from; what the last step made is looked at here.

        Raises:
            NotFinite: if a tensor of it is not finite that was at the start, under the last step that was made.
        """
        self._heed(self.pulse.flush())
        state = self._state()
        if found := [name for name in spoilt(state) if name not in self.never_finite]:
            made = set(range(self.good.values["step"], self.step)) - set(self.skipped)
            raise NotFinite(max(made, default=self.step - 1), f"after the step {found[0]} is not finite")
        return state

    def _take(self, state: Checkpoint) -> None:
        """Go on from a state."""
        self.model.load_state_dict(state.tensors["model"])
        if self.ema is not None:
            self.ema.load(state.tensors["ema"])
        observer = self.observer
        observer.best_weights = state.tensors.get("best", {})
        for name, optimizer in self.optimizers.items():
            restore_optimizer(optimizer, state.tensors.get(f"optimizer-{name}", {}))
        values = state.values
        self.step, self.seconds = values["step"], values["seconds"]
        observer.figures, observer.best = values["figures"], values["best"]
        self.pieces, self.skipped = values["pieces"], values["skipped"]
        self.slowed, self.events = list(values["slowed"]), dict(values["events"])
        self.started = list(values["started"])
        observer.plateau.load(values["plateau"])
        observer.said.quiet, observer.said.current = dict(values["said"]), dict(values["current"])
        observer.rivalry.distances = list(values["distances"])
        self.pulse.losses = {name: deque(losses, maxlen=WINDOW) for name, losses in values["losses"].items()}
        self.averages.load(values["averages"])
        self.reported, self.unreported = min(values["reported"], self.progress), values["unreported"]

    def _save(self, state: Checkpoint | None = None) -> None:
        self.saved_at = time.monotonic()  # if memory runs out, the next attempt has its own time
        self.save_signal = False
        state = state or self._sound_state()
        if self.pulse.in_doubt and not _is_last(state):
            if self.saved >= self.good.values["images"]:
                return
            state = self.good
        self._keep(state)
        save_checkpoint(self.path / "checkpoints", state.values["images"], state, self._warn)
        self.saved, self.saved_at = state.values["images"], time.monotonic()

    def _keep(self, state: Checkpoint) -> None:
        """Keep a state to return to, unless a loss stands out: it may be one to be given up. They are WINDOW steps
        apart, so that one is far enough before every jump; see `_slow_down`."""
        steps = state.values["step"] - self.good.values["step"]
        if steps == 0:
            self.good = state
        elif steps >= WINDOW and not self.pulse.in_doubt:
            self.earlier, self.good = self.good, state

    def _form(self) -> Checkpoint:
        """The form of every saved state: this one, as if one step had been made."""
        state = self._state()
        state.values |= {"step": 1, "images": self.stride}
        state.tensors |= {f"optimizer-{player.name}": first_entries(player, self.config) for player in self.players}
        state.begins = {f"optimizer-{player.name}": self.spans[player.name][0] for player in self.players}
        return state

    def resume(self) -> None:
        """Take the newest checkpoint, if there is one."""
        self.saved_at = time.monotonic()
        found = load_checkpoint(self.path / "checkpoints", self.display.say, self._form)
        if found is not None:
            with_room(partial(self._take, found))
            self.display.say(f"going on from {self.images:,} images")
            self.earlier, self.saved = self.good, self.images  # the first is the state it began with
        self.journal.rows = found.values["rows"] if found is not None else 0
        self.good, self.pace = self._state(), Pace(self.seconds)

    @contextmanager
    def signals(self) -> Iterator[None]:
        """Inside, the first SIGINT, SIGTERM or SIGHUP ends the training after its step, or what follows the last step
        at once; the second one leaves at once. SIGUSR1, by which batch systems announce the end, saves after the step
        and goes on."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def stop(signum: int, frame: Any) -> None:
            if self.stop_signal:
                raise KeyboardInterrupt
            self.stop_signal = signum
            if self.over:
                self._obey()
            if self.unfinished is not None:
                raise Interrupted

        def save(signum: int, frame: Any) -> None:
            self.save_signal = True

        handlers = {signal.SIGINT: stop, signal.SIGTERM: stop}
        if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # as nohup sets it
            handlers[signal.SIGHUP] = stop
        if hasattr(signal, "SIGUSR1"):
            handlers[signal.SIGUSR1] = save
        previous = {signum: signal.signal(signum, handler) for signum, handler in handlers.items()}
        try:
            yield
        finally:
            for signum, handler in previous.items():
                signal.signal(signum, handler)


def _is_last(state: Checkpoint) -> bool:
    """Whether nothing follows a state: its training is over, and reported."""
    return state.values["progress"] >= 1 and not state.values["unreported"]


def _needs_whole_batch(module: nn.Module) -> bool:
    """Whether its training depends on statistics of the batch: batch norm, or a module that says so of itself."""
    return isinstance(module, _BatchNorm) or getattr(module, "batch_statistics", False)


def _split(batch: Batch, pieces: int) -> list[Batch]:
    """A batch in pieces of nearly equal size."""
    if pieces == 1:
        return [batch]
    parts = torch.arange(len(batch.image), device=batch.image.device).tensor_split(pieces)
    return [_take_rows(batch, rows) for rows in parts if len(rows)]


def _take_rows(batch: Batch, rows: Tensor) -> Batch:
    return Batch(
        image=batch.image[rows],
        label=None if batch.label is None else batch.label[rows],
        caption=None if batch.caption is None else [str(batch.caption[i]) for i in rows.tolist()],
        index=None if batch.index is None else batch.index[rows.cpu()],
        progress=batch.progress,
    )
