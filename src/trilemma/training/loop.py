"""The one training loop.

    for every step:
        for every player of the model that has something due (a GAN has two players, the others one):
            for each of its phases: loss <- phase.loss(batch, rng); the gradients add up
            its parameters take a step
        the averaged weights follow, once
        what follows is agreed on by all processes
        a report, with a validation and a picture, and a checkpoint, where it is time for them

Batch and noise are functions of the step, the learning rate of the step and of what is saved with the state, so a
training that was interrupted and continued ends with the same bits as an unbroken one (on a CPU, and unless its length
is given in minutes). Time spent on validation, pictures and checkpoints is not counted as training seconds.
"""

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

from trilemma import rng
from trilemma.data import Data, Loader
from trilemma.hardware import to_channels_last
from trilemma.memory import with_room
from trilemma.modes import own_modes
from trilemma.progress import Display
from trilemma.run.checkpoint import load_checkpoint, save_checkpoint
from trilemma.run.config import TrainConfig
from trilemma.run.state import Checkpoint, is_finite
from trilemma.training.calendar import Calendar
from trilemma.training.guard import Guard, unless_full
from trilemma.training.log import Averages, Journal, figures_text
from trilemma.training.looks import Looks
from trilemma.training.observe import Observer
from trilemma.training.pace import Pace
from trilemma.training.players import Players
from trilemma.training.state import Parts
from trilemma.training.team import Decision, Interrupted, Stopped, Team
from trilemma.types import Batch, Model, players_of

START_IMAGES = 10_000  # training images that the start of a phase is shown


class Trainer:
    """A model in training; it is resumed from the newest checkpoint in `path`, if there is one.

    Raises:
        UserError: if there are checkpoints and none can be used, or a player's keys do not fit.
    """

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
        self.model, self.data, self.config, self.path, self.display = model, data, config, path, display
        if config.channels_last:
            to_channels_last(model)
        self.players = Players(model, config, bf16=bf16)
        self.loader = Loader(
            data.train, batch=config.batch, seed=config.seed, device=self.players.device, augment=config.augment
        )
        self.calendar = Calendar(config, len(data.train), self.players.repeats * config.batch)
        self.averages, self.journal = Averages(), Journal(path / "log.jsonl", display.say)
        self.observer = Observer(model, data, config, path, self.players.ema, self.warn, command)
        self.looks = Looks(self.observer, self.calendar, Pace(), self.warn)
        self.team = Team()
        others = [self.calendar, self.players, self.observer, self.averages, self.journal]
        self.parts = Parts(others, self.players.first_state)
        folder = path / "checkpoints"
        self.guard = Guard(self.calendar, self.players, self.journal, self.parts, checkpoints=folder, warn=self.warn)
        self.unfinished: Checkpoint | None = None  # the state before a report that may take long, while it is written
        self.saved = -1  # images of the state that was saved last
        self.over = False  # whether the last state is saved
        self.resume()

    @own_modes()
    def run(self) -> None:
        """Train to the end; leaves the best weights in the model.

        Raises:
            Stopped: after a signal, when the state is saved.
            Diverged: if numbers stop being finite for good.
            UserError: if memory runs out in a model whose batch must not be divided, or the disk refuses a checkpoint.
        """
        self.journal.cut(rows=self.journal.rows)
        with self.signals():
            with suppress(Interrupted):
                while not self.team.stop_signal and (self.calendar.unreported or self.calendar.progress < 1):
                    self.guard.attempt(self.report if self.calendar.unreported else self.train_on)
            if not self.guard.attempt(lambda: with_room(lambda: self.save(self.unfinished))):
                with_room(self.save)
            self.over = True
            self._stop_if_asked()
            self.looks.take_final_weights()

    @property
    def spoilt(self) -> list[str]:
        """What is not finite where the training has ended, in words."""
        figures = [f"the figure {name}" for name, value in self.observer.figures.items() if not math.isfinite(value)]
        weights = [name for name, tensor in self.model.state_dict().items() if not is_finite(tensor)]
        return figures + [f"the weight {n}" for n in weights if f"{n} of the model" not in self.guard.never_finite]

    def train_on(self) -> None:
        """Steps until the next report, which is left to do, or until a save between reports, which is done. The clock
        of training seconds runs only here."""
        self.model.train()
        start, before = time.perf_counter(), self.calendar.seconds
        while True:
            self.start_phases()
            advanced = self.guard.attempt_step(self.next_step)
            self.calendar.seconds = before + time.perf_counter() - start
            decision = self.team.agree(
                Decision(advanced and self.calendar.report_is_due(), self.save_is_late, self.team.stop_signal)
            )
            if decision.goes_on:
                continue
            self.calendar.unreported = self.guard.attempt_step(self.guard.flush) and decision.report
            if decision.save or decision.stop or self.calendar.unreported:
                break
        if self.players.device.type == "cuda":
            torch.cuda.synchronize()
            self.calendar.seconds = before + time.perf_counter() - start
        if decision.save and not (self.calendar.unreported or decision.stop):
            unless_full("a checkpoint", self.save, self.warn)

    def next_step(self) -> None:
        """The next step, unless it is one to be skipped."""
        if self.calendar.step in self.guard.skipped:
            self.calendar.step += 1
        else:
            self.take_step()

    def start_phases(self) -> None:
        """What phases do before their first step, which divides no batch of the training if memory runs out."""
        calendar, images = self.calendar, partial(self.observer.training_images, START_IMAGES)
        if not self.players.any_start or calendar.step in self.guard.skipped:
            return
        for phase in self.players.due(calendar.step, calendar.progress):
            if figures := self.players.start(phase, images, self.warn):
                self.journal.write({**calendar.place, **figures})

    def take_step(self) -> None:
        """One step of every player that has something due."""
        calendar, players, guard = self.calendar, self.players, self.guard
        players.noise.manual_seed(rng.seed_of(self.config.seed, "step", calendar.step))
        progress = calendar.progress
        batches = [self.batch_at(calendar.images + r * self.config.batch) for r in range(players.repeats)]
        due = players.due(calendar.step, progress)
        for player in players_of(due):
            own = [phase for phase in due if phase.player is player]
            players.set_learning_rate(player, progress, calendar.images, self.observer.plateau, guard.slower)
            for repeat, batch in enumerate(batches[: max(phase.repeats for phase in own)]):
                phases = [phase for phase in own if repeat < phase.repeats]
                lowered, norm = players.differentiate(player, phases, batch)
                guard.check(lowered, batch, norm)  # before the step, and the clipping: a NaN norm spoils all gradients
                players.move(player, norm)
                for part in lowered:
                    self.averages.add(part.phase.name, {"loss": part.loss, **part.parts})
        if players.ema is not None:
            players.ema.update(players.ema.decay(calendar.images + calendar.stride, calendar.stride))
            guard.pulse.check_average(calendar.step, players.ema.is_finite())
        calendar.step += 1

    def batch_at(self, position: int) -> Batch:
        """Training images from a position of the stream on."""
        batch = replace(self.loader.batch_at(position), progress=self.calendar.progress)
        if not self.config.channels_last:
            return batch
        return replace(batch, image=batch.image.contiguous(memory_format=torch.channels_last))

    def report(self) -> None:
        """Log the averages; validate, draw and save where it is time for it.

        What may take long is given up when a signal arrives, and done when the training is resumed.
        """
        calendar, looks = self.calendar, self.looks
        over = calendar.progress >= 1
        draw = not over and looks.picture_is_due()
        validate = over or looks.validation_is_due()
        self.unfinished = self.guard.sound_state() if validate or draw else None
        if self.team.stop_signal:
            raise Interrupted
        row = {**calendar.place, **with_room(self.averages.take)}
        if validate:
            row |= looks.validate(over)
        self.journal.write(row)
        self.display.update(calendar.progress, figures_text(row))
        looks.judge(row)
        if draw:
            looks.draw()
        calendar.reported, calendar.unreported, self.unfinished = calendar.progress, False, None
        if validate or self.guard.good.values["unreported"]:
            self.guard.keep(self.guard.sound_state())
        self.guard.settle()
        if not over and (self.save_is_late or calendar.save_is_due()):
            unless_full("a checkpoint", self.save, self.warn)

    @property
    def save_is_late(self) -> bool:
        """Whether a signal or the clock asks for a save."""
        return self.team.save_signal or self.calendar.save_is_late()

    def save(self, state: Checkpoint | None = None) -> None:
        """Write a checkpoint; of the last good state, where a loss stands out."""
        self.calendar.saved_at = time.monotonic()  # if memory runs out, the next attempt has its own time
        self.team.save_signal = False
        state = state or self.guard.sound_state()
        if self.guard.pulse.in_doubt and not _is_last(state):
            if self.saved >= self.guard.good.values["images"]:
                return
            state = self.guard.good
        self.guard.keep(state)
        save_checkpoint(self.path / "checkpoints", state.values["images"], state, self.warn)
        self.saved, self.calendar.saved_at = state.values["images"], time.monotonic()

    def resume(self) -> None:
        """Take the newest checkpoint, if there is one."""
        saved = load_checkpoint(self.path / "checkpoints", self.display.say, self.parts.form)
        if saved is None:
            return
        with_room(partial(self.parts.load, saved))
        self.display.say(f"resuming at {self.calendar.images:,} images")
        self.saved = self.calendar.images
        self.guard.resume()
        self.looks.pace = Pace(self.calendar.seconds)

    def warn(self, text: str) -> None:
        """Say a warning and keep it in the log; those of the end are said with all the others."""
        if not self.over:
            self.display.say(f"warning: {text}")
        self.journal.write({**self.calendar.place, "warning": text})

    @property
    def warnings(self) -> list[str]:
        """What happened to the training, and what is wrong with it now, each with its step."""
        current = self.observer.said.current.values()
        return [*self.guard.events.values(), *(f"step {self.calendar.step:,}: {text}" for text in current)]

    @contextmanager
    def signals(self) -> Iterator[None]:
        """Inside, the first signal to stop ends the training after its step, or what follows the last step at once."""

        def stop() -> None:
            if self.over:
                self._stop_if_asked()
            if self.unfinished is not None:
                raise Interrupted

        with self.team.signals(stop):
            yield

    def _stop_if_asked(self) -> None:
        """End the training, whose state is saved, if a signal asked for it."""
        if self.team.stop_signal:
            images = self.calendar.images
            state = "the state" if self.saved == images else f"the state after {self.saved:,}, before the loss jumped,"
            raise Stopped(self.team.stop_signal, f"stopped after {images:,} images; {state} is saved")


def _is_last(state: Checkpoint) -> bool:
    """Whether nothing follows a state: its training is over, and reported."""
    return state.values["progress"] >= 1 and not state.values["unreported"]
