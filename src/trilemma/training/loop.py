"""The one training loop.

    for every step:
        for every player of the model that has something due (a GAN has two players, the others one):
            for each of its phases: loss <- phase.loss(batch, rng); the gradients add up
            its parameters take a step
        the averaged weights follow, once
        what follows is agreed on by all processes: recovery from a fault, a report, a checkpoint, the end
        a report, with a validation and a picture, and a checkpoint, where it is time for them

Batch and noise are functions of the step, the learning rate of the step and of what is saved with the state, so a
training that was interrupted and continued ends with the same bits as an unbroken one (on a CPU, and unless its length
is given in minutes). Time spent on validation, pictures and checkpoints is not counted as training seconds.
"""

import math
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from trilemma import rng
from trilemma.data import Data, Loader
from trilemma.hardware import to_channels_last
from trilemma.memory import with_room
from trilemma.modes import own_modes
from trilemma.pictures.levels import to_float
from trilemma.progress import Display
from trilemma.run.config import TrainConfig
from trilemma.run.state import Checkpoint, is_finite
from trilemma.team import ALONE, Team, broadcast_tensors, part_of
from trilemma.training.calendar import Calendar
from trilemma.training.earlier import drop_later
from trilemma.training.evaluation import Evaluation
from trilemma.training.guard import Guard
from trilemma.training.history import History
from trilemma.training.in_use import ModelInUse
from trilemma.training.incidents import Incidents
from trilemma.training.log import Averages, LogFile, row_text
from trilemma.training.outcome import Fault, Outcome, agree
from trilemma.training.players import Players
from trilemma.training.saving import Saver
from trilemma.training.signals import Interrupted, Signals, Stopped
from trilemma.training.spikes import LossSpikeDetector
from trilemma.training.state import Parts
from trilemma.types import Batch, Model, Precomputes, phases_of, players_of, repeats_of

START_IMAGES = 10_000  # training images that the start of a phase is shown


class Trainer:
    """A model in training; it is resumed from the newest checkpoint in `path`, if there is one.

    Args:
        bf16: whether losses are computed under bfloat16 autocast; command: of the training, for its pictures; team: the
            processes that train it together, whose models have the same form; they begin with the weights of process 0.
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
        team: Team = ALONE,
    ) -> None:
        self.model, self.data, self.config, self.display, self.team = model, data, config, display, team
        # a module of one's own may have drawn other ones in each process
        broadcast_tensors(team, (*model.parameters(), *model.buffers()))
        if config.channels_last and not config.shard:  # shards are rows, one after the other
            to_channels_last(model)
        self.players = Players(model, config, bf16=bf16, team=team)
        if self.players.shards is not None:
            display.say(f"  {self.players.shards.note}")
        self.loader = Loader(
            data.train, batch=config.batch, seed=config.seed, device=self.players.device, augment=config.augment
        )
        self.calendar = Calendar(config, len(data.train), self.players.repeats * config.batch)
        self.averages, self.log = Averages(), LogFile(path / "log.jsonl", display.say, writes=team.writes)
        in_use = ModelInUse(model, data, config, self.players.ema, team, self.players.shards)
        self.evaluation = Evaluation(in_use, self.calendar, path, command, self.warn)
        self.validation, self.diagnosis = self.evaluation.validation, self.evaluation.diagnosis
        self.incidents, detector = Incidents(), LossSpikeDetector(phase.name for phase in self.players.phases)
        stateful = [self.calendar, self.players, self.validation, self.diagnosis, self.averages, self.log]
        self.parts = Parts([*stateful, self.incidents, detector], self.players.first_state, self.players.shards)
        self.history = History(self.parts, path / "checkpoints")
        self.guard = Guard(
            self.calendar, self.players, self.log, self.history, self.incidents, detector, team, self.warn
        )
        self.signals = Signals(self.on_stop)
        self.unfinished: Checkpoint | None = None  # the state before a report that may take long, while it is written
        self.over = False  # whether the last state is saved
        self.saver = Saver(self.guard, self.calendar, self.signals, self.warn)
        self.saver.resume(display.say)
        if team.writes:
            drop_later(path, self.calendar.images)
        self.evaluation.budget.since = self.calendar.seconds

    @own_modes()
    def run(self) -> None:
        """Train to the end; leaves the best weights in the model.

        Raises:
            Stopped: after a signal, when the state is saved.
            Diverged: if numbers stop being finite for good.
            UserError: if memory runs out in a model whose batch must not be divided, or the disk refuses a checkpoint.
        """
        calendar, guard, saver = self.calendar, self.guard, self.saver
        self.log.cut(rows=self.log.rows)
        self.precompute()
        self.model.train()
        with self.signals.handled():
            decided = self.decide()
            with suppress(Interrupted):
                while not (decided.stop or calendar.is_over):
                    if not calendar.unreported:  # as it is where a report was interrupted
                        decided = self.advance()
                    if calendar.unreported and not decided.stop:
                        decided = self.decide(guard.attempt(partial(self.report, decided)))
                    elif decided.save and not decided.stop:
                        decided = self.decide(guard.attempt(saver.save_if_room))
            if self.decide(guard.attempt(partial(saver.save_last, self.unfinished))).fault is not None:
                saver.save_last(None)
            self.over = True
            if self.signals.stop:
                self.on_stop()
            self.evaluation.take_final_weights()

    def precompute(self) -> None:
        """What the losses need of each image once, which is no longer true of an image that changes."""
        if isinstance(self.model, Precomputes) and not self.config.augment and not self.calendar.is_over:
            split, device = self.data.train, self.players.device

            def images(first: int, count: int) -> Tensor:
                return to_float(split.images[first : first + count].to(device))

            with self.calendar.timed(), self.players.whole():
                note = self.model.precompute(images, len(split), self.team)
            if note:
                self.display.say(f"  note: {note}")

    def advance(self) -> Outcome:
        """The next step, and what all processes do after it. The clock of training seconds runs only here."""
        calendar, guard = self.calendar, self.guard
        with calendar.timed():
            self.start_phases()
            fault = guard.attempt_step(self.take_step)
        decided = self.decide(fault)
        calendar.unreported = decided.fault is None and calendar.report_is_due()
        if calendar.unreported or decided.save or decided.stop:
            with calendar.timed():
                fault = guard.attempt_step(guard.flush)
            decided = self.decide(fault)
            calendar.unreported = decided.fault is None and calendar.report_is_due()
        return decided

    def take_step(self) -> None:
        """One step of every player that has something due; none in a step to skip."""
        calendar, players, guard = self.calendar, self.players, self.guard
        if calendar.step in self.incidents.skipped:
            calendar.step += 1
            return
        players.noise.manual_seed(rng.seed_of(self.config.seed, "step", calendar.step))
        progress = calendar.progress
        due = players.due(calendar.step, progress)
        moves = [(player, phases_of(player, due)) for player in players_of(due)]
        # before the images, for which memory may run out: the other processes wait for these exchanges
        players.exchange.left = [player for player, own in moves for _ in range(repeats_of(own))]
        batches = [self.batch_at(calendar.images + r * self.config.batch) for r in range(players.repeats)]
        for player, own in moves:
            players.set_learning_rate(player, progress, calendar.images, self.validation.plateau, guard.lr_factor)
            for repeat, batch in enumerate(batches[: repeats_of(own)]):
                phases = [phase for phase in own if repeat < phase.repeats]
                losses, norm = players.differentiate(player, phases, batch)
                guard.check(losses, batch, norm)  # before the step, and the clipping: a NaN norm spoils all gradients
                players.step(player, norm)
                if self.diagnosis.n_players > 1 and len({phase.every for phase in phases}) == 1:  # no lazy term in it
                    self.averages.add(player.name, {"gradient_norm": norm})
                for part in losses:
                    self.averages.add(part.phase.name, {"loss": part.loss, **part.parts})
        if players.ema is not None:
            players.ema.update(players.ema.decay(calendar.images + calendar.stride, calendar.stride))
            guard.monitor.check_average(calendar.step, players.average_is_finite())
        calendar.step += 1

    def start_phases(self) -> None:
        """What phases do before their first step, which divides no batch of the training if memory runs out."""
        calendar, images = self.calendar, partial(self.evaluation.in_use.training_images, START_IMAGES)
        if not self.players.has_start or calendar.step in self.incidents.skipped:
            return
        for phase in self.players.due(calendar.step, calendar.progress):
            if values := self.players.start(phase, images, self.warn):
                self.log.write({**calendar.position, **values})

    def batch_at(self, position: int) -> Batch:
        """Training images from a position of the stream on: the part of a batch that this process has."""
        first, count = part_of(self.team, self.config.batch)
        batch = replace(self.loader.batch_at(position + first, count), progress=self.calendar.progress)
        if not self.config.channels_last:
            return batch
        return replace(batch, image=batch.image.contiguous(memory_format=torch.channels_last))

    def decide(self, fault: Fault | None = None) -> Outcome:
        """What all processes do next; if one of them met a fault, all have returned to an earlier state."""
        guard, seconds = self.guard, self.calendar.seconds
        own = Outcome(fault, guard.monitor.in_doubt, seconds, self.saver.is_late, self.signals.stop)
        decided = agree(self.team, own)
        self.calendar.seconds = decided.seconds
        if decided.stop:
            self.signals.stop = decided.stop
        guard.recover(decided)
        return decided

    def report(self, decided: Outcome) -> None:
        """Log the averages; validate, draw and save where it is time for it.

        What may take long is given up when a signal arrives, and done when the training is resumed; several processes
        finish it, for they are at different places of it.
        """
        calendar, evaluation, guard, history = self.calendar, self.evaluation, self.guard, self.history
        over = calendar.progress >= 1
        draw = not over and evaluation.picture_is_due()
        validate = over or evaluation.validation_is_due()
        self.unfinished = guard.sound_state() if validate or draw else None
        if self.signals.stop:
            self.on_stop()
        row = {**calendar.position, **with_room(self.averages.take)}
        if validate:
            row |= evaluation.validate(over)
        self.log.write(row)
        self.display.update(calendar.progress, row_text(row))
        evaluation.check_row(row)
        if draw:
            evaluation.draw()
        if calendar.keep_is_due():
            evaluation.keep_weights()
        calendar.reported, calendar.unreported, self.unfinished = calendar.progress, False, None
        if validate or history.good.values["unreported"]:
            history.keep(guard.sound_state(), in_doubt=guard.in_doubt)
        if not guard.in_doubt:
            history.drop_earlier(calendar.step)
        if not over and (decided.save or calendar.save_is_due()):
            self.saver.save_if_room()

    def warn(self, text: str) -> None:
        """Show a warning and keep it in the log; those of the end are shown with all the others."""
        if not self.over:
            self.display.say(f"warning: {text}")
        self.log.write({**self.calendar.position, "warning": text})

    @property
    def warnings(self) -> list[str]:
        """What happened to the training, and what is wrong with it now, each with its step."""
        current = self.diagnosis.warnings.current.values()
        return [*self.incidents.events.values(), *(f"step {self.calendar.step:,}: {text}" for text in current)]

    @property
    def not_finite(self) -> list[str]:
        """What is not finite where the training has ended, in words."""
        values = [f"the value {name}" for name, value in self.validation.values.items() if not math.isfinite(value)]
        weights = [name for name, tensor in self.model.state_dict().items() if not is_finite(tensor)]
        return values + [f"the weight {n}" for n in weights if f"{n} of the model" not in self.guard.never_finite]

    def on_stop(self) -> None:
        """What a signal to stop ends at once: all that follows the last step, and in one process alone a report that
        may take long."""
        if self.over:
            images, saved = self.calendar.images, self.saver.saved
            state = "the state" if saved == images else f"the state after {saved:,}, before the loss jumped,"
            raise Stopped(self.signals.stop, f"stopped after {images:,} images; {state} is saved")
        if self.unfinished is not None and self.team.size == 1:
            raise Interrupted
