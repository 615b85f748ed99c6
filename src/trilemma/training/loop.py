"""The one training loop.

    for every step:
        for every phase of the model (a GAN has two, the others one):
            loss <- phase.loss(batch, rng);  that phase's parameters take a step
        the averaged weights follow, once

Batch, noise and learning rate are functions of the step alone, so a training that was interrupted and continued ends
with the same bits as an unbroken one (on a CPU). Time spent on validation, pictures and checkpoints is not counted as
training seconds.
"""

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from trilemma import rng
from trilemma.data import Data, Loader, batches
from trilemma.errors import UserError
from trilemma.pictures import grid, save_png
from trilemma.training.checkpoint import (
    Checkpoint,
    flatten_optimizer,
    load_checkpoint,
    restore_optimizer,
    save_checkpoint,
)
from trilemma.training.config import TrainConfig
from trilemma.training.ema import EMA
from trilemma.training.log import Averages, Display, Journal, figures_text
from trilemma.training.optim import Plateau, learning_rate, lr_factor, make_optimizer
from trilemma.types import Batch, Finishes, Phase, Samples, Validates

VALIDATE_AT_LEAST = 10_000  # images between validations of a data set smaller than this
SNAPSHOTS = 10  # sample pictures in a training whose length is known
SAVE_EVERY_S = 60.0  # a checkpoint at the next report after this time, where save_every is not given
FINISH_IMAGES = 10_000  # training images shown to a model's last step
VALID_BATCH = 500


class Stopped(KeyboardInterrupt):
    """A signal ended the training after its step and its checkpoint; `code` is the exit status to use."""

    def __init__(self, signum: int, message: str) -> None:
        super().__init__(message)
        self.code = 128 + signum


class Trainer:
    """A model in training: its optimisers, its averages and its place in the run."""

    def __init__(
        self, model: nn.Module, data: Data, config: TrainConfig, path: Path, display: Display, *, bf16: bool
    ) -> None:
        self.model, self.data, self.config, self.path, self.display, self.bf16 = (
            model,
            data,
            config,
            path,
            display,
            bf16,
        )
        self.device = next(model.parameters()).device
        self.phases: list[Phase] = list(model.phases)  # type: ignore[arg-type]
        if config.channels_last:
            model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.optimizers = {phase.name: make_optimizer(phase, config) for phase in self.phases}
        self.ema = EMA(model, config.ema_halflife_images) if config.ema_halflife_images else None
        self.plateau = Plateau()
        self.loader = Loader(
            data.train, batch=config.batch, seed=config.seed, device=self.device, augment=config.augment
        )
        self.repeats = max(phase.repeats for phase in self.phases)
        self.stride = self.repeats * config.batch  # images per step
        self.total = config.total_images(len(data.train), self.stride)
        self.averages = Averages()
        self.journal = Journal(path / "log.jsonl", display.say)
        self.step, self.seconds = 0, 0.0
        self.figures: dict[str, float] = {}
        self.best: dict[str, Any] = {}
        self.best_weights: dict[str, Tensor] = {}
        self.stop_signal = 0

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

    def run(self) -> bool:
        """Train to the end, from the newest checkpoint if there is one; leaves the best weights in the model.

        Returns:
            Whether there was anything left to train.
        Raises:
            Stopped: after a signal, when the state is saved.
            UserError: if the loss is not finite, or the disk refuses a checkpoint.
        """
        self._resume()
        if self.progress >= 1:
            self._take_final_weights()
            return False
        with rng.isolated(), self._signals():
            while self.progress < 1 and not self.stop_signal:
                self._steps_until_due()
                self._report()
            self._save()
            if self.stop_signal:
                raise Stopped(self.stop_signal, f"stopped after {self.images:,} images; the state is saved")
        self._take_final_weights()
        return True

    def _steps_until_due(self) -> None:
        """Train until the next report; the clock of training seconds runs only here."""
        self.model.train()
        start, before = time.perf_counter(), self.seconds
        while self.progress < 1 and not self.stop_signal:
            self._one_step()
            self.seconds = before + time.perf_counter() - start
            if self._due(self.report_every):
                break
        if self.device.type == "cuda":
            torch.cuda.synchronize()
            self.seconds = before + time.perf_counter() - start

    def _one_step(self) -> None:
        generator = _default_generator(self.device)
        generator.manual_seed(rng.seed_of(self.config.seed, "step", self.step))
        factor = lr_factor(self.config, self.progress, self.images, self.plateau)
        batches_of_step = [self._batch(self.images + r * self.config.batch) for r in range(self.repeats)]
        for phase in self.phases:
            if self.step % phase.every:
                continue
            optimizer = self.optimizers[phase.name]
            for group in optimizer.param_groups:
                group["lr"] = factor * learning_rate(phase.name, self.config)
            for batch in batches_of_step[: phase.repeats]:
                self._move(phase, optimizer, batch, generator)
        self.step += 1
        if self.ema is not None:
            self.ema.update(self.ema.decay(self.images, self.stride))

    def _move(self, phase: Phase, optimizer: torch.optim.Optimizer, batch: Batch, generator: torch.Generator) -> None:
        """One step of one player."""
        with torch.autocast(self.device.type, torch.bfloat16) if self.bf16 else nullcontext():
            loss, parts = phase.loss(batch, generator)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        if self.config.clip is not None:
            nn.utils.clip_grad_norm_(phase.parameters, self.config.clip, foreach=True)
        optimizer.step()
        self.averages.add(phase.name, {"loss": loss.detach(), **parts})

    def _batch(self, position: int) -> Batch:
        batch = self.loader.batch_at(position)
        if not self.config.channels_last:
            return batch
        return replace(batch, image=batch.image.contiguous(memory_format=torch.channels_last))

    @property
    def epoch(self) -> int:
        """Images between validations: an epoch, or more where an epoch is short."""
        return max(len(self.data.train), VALIDATE_AT_LEAST)

    @property
    def report_every(self) -> int:
        """Images between lines of the log: twenty to an epoch."""
        return max(self.epoch // 20, self.stride)

    def _due(self, every: int) -> bool:
        """Whether the last step passed a multiple of `every` images."""
        return self.images // every > (self.images - self.stride) // every

    def _report(self) -> None:
        """Log the averages; validate, draw and save where it is time for it."""
        row: dict[str, Any] = {"step": self.step, "images": self.images, "seconds": round(self.seconds, 3)}
        row |= self.averages.take()
        bad = [
            name for name, value in row.items() if isinstance(value, float) and not torch.isfinite(torch.tensor(value))
        ]
        if bad:
            self.journal.write(row)
            raise UserError(
                f"{bad[0]} is {row[bad[0]]} after {self.images:,} images; try a lower lr= (it is {self.config.lr})"
                " or precision=float32. The last checkpoint is as it was"
            )
        over = self.progress >= 1
        if isinstance(self.model, Validates) and (over or self._due(self.epoch)):
            row |= self._validate()
        self.journal.write(row)
        self.display.update(self.progress, figures_text(row))
        if not over and self._due(self.sample_every):
            self._snapshot()
        if not over and self._save_is_due():
            self._save()

    @property
    def sample_every(self) -> int:
        """Images between sample pictures."""
        return self.config.sample_every or (self.total // SNAPSHOTS if self.total else 2 * self.epoch) or self.stride

    def _save_is_due(self) -> bool:
        if self.config.save_every is not None:
            return self._due(self.config.save_every)
        return time.monotonic() - self.saved_at >= SAVE_EVERY_S

    @torch.no_grad()
    def _validate(self) -> dict[str, float]:
        """Figures on the validation split, with the averaged weights where there are any; always in float32."""
        sums: dict[str, Tensor] = {}
        with self._weights_in_use():
            for number, batch in enumerate(batches(self.data.valid, VALID_BATCH, self.device)):
                generator = rng.generator(self.config.seed, "valid", number, device=self.device)
                for name, values in self.model.validation(batch, generator).items():  # type: ignore[operator]
                    sums[name] = sums.get(name, torch.zeros((), device=self.device)) + values.double().sum().float()
            figures = {f"valid_{name}": float(value) / len(self.data.valid) for name, value in sums.items()}
            figures |= {n.replace("mse", "rmse"): v**0.5 for n, v in figures.items() if n.endswith("mse")}
            self.figures = figures
            self._keep_best()
        return figures

    def _keep_best(self) -> None:
        name = self.config.monitor
        if name is None:
            return
        if name not in self.figures:
            raise UserError(f'monitor="{name}" is no figure of this model; it has {", ".join(self.figures)}')
        figure = self.figures[name]
        self.plateau.see(figure)
        if not self.best or figure < self.best[name]:
            self.best = {**self.figures, "images": self.images}
            self.best_weights = {k: v.detach().clone() for k, v in self.model.state_dict().items()}

    def _snapshot(self) -> None:
        """A sample picture on the way, which leaves the training as it was."""
        held = {name: buffer.clone() for name, buffer in self.model.named_buffers()}
        with self._weights_in_use(), torch.no_grad():
            self.finish(FINISH_IMAGES // 5)
            self.draw_samples(f"{self.images:012d}")
        for name, buffer in self.model.named_buffers():
            buffer.copy_(held[name])

    def draw_samples(self, name: str) -> None:
        """The same 64 latents as every time, as samples/NAME.png; a failure is a warning, never the end."""
        if not isinstance(self.model, Samples):
            return
        with torch.no_grad():
            images = self.model.sample(64, seed=self.config.seed)
        try:
            (self.path / "samples").mkdir(exist_ok=True)
            save_png(grid(images.cpu()), self.path / "samples" / f"{name}.png")
        except (OSError, UserError) as error:
            self.display.say(f"warning: the sample picture {name}.png was not written ({error}); training goes on")

    def finish(self, n: int) -> None:
        """Let the model take its last step, on the first `n` training images."""
        if not isinstance(self.model, Finishes):
            return
        count = min(n, len(self.data.train))
        steps = range(0, count, VALID_BATCH)
        plain = Loader(self.data.train, batch=VALID_BATCH, seed=self.config.seed, device=self.device)
        self.model.finish((plain.batch_at(p, min(VALID_BATCH, count - p)) for p in steps), seed=self.config.seed)

    @contextmanager
    def _weights_in_use(self) -> Iterator[None]:
        """Inside, the model is in eval mode and has its averaged weights where there are any."""
        training = self.model.training
        self.model.eval()
        with self.ema.applied() if self.ema is not None else nullcontext():
            yield
        self.model.train(training)

    def _take_final_weights(self) -> None:
        """The model ends with its best weights, or the averaged, or the last ones; then its last step."""
        if self.best_weights:
            self.model.load_state_dict(self.best_weights)
            self.figures = {name: value for name, value in self.best.items() if name != "images"}
        elif self.ema is not None:
            self.ema._swap()
        self.model.eval()
        self.ema = None
        with torch.no_grad():
            self.finish(FINISH_IMAGES)

    def _save(self) -> None:
        values = {
            "step": self.step,
            "images": self.images,
            "seconds": self.seconds,
            "plateau": self.plateau.state(),
            "figures": self.figures,
            "best": self.best,
        }
        tensors = {"model": dict(self.model.state_dict())}
        if self.ema is not None:
            tensors["ema"] = self.ema.state()
        if self.best_weights:
            tensors["best"] = self.best_weights
        for name, optimizer in self.optimizers.items():
            tensors[f"optimizer-{name}"] = flatten_optimizer(optimizer)
        save_checkpoint(self.path / "checkpoints", self.images, Checkpoint(values, tensors))
        self.saved_at = time.monotonic()

    def _resume(self) -> None:
        """Take the newest checkpoint, if there is one."""
        self.saved_at = time.monotonic()
        found = load_checkpoint(self.path / "checkpoints", self.display.say)
        if found is None:
            self.journal.cut(-1)
            return
        self.model.load_state_dict(found.tensors["model"])
        if self.ema is not None:
            self.ema.load(found.tensors["ema"])
        self.best_weights = {k: v.to(self.device) for k, v in found.tensors.get("best", {}).items()}
        for name, optimizer in self.optimizers.items():
            restore_optimizer(optimizer, found.tensors.get(f"optimizer-{name}", {}))
        self.step, self.seconds = found.values["step"], found.values["seconds"]
        self.plateau.load(found.values["plateau"])
        self.figures, self.best = found.values["figures"], found.values["best"]
        self.journal.cut(self.step)
        self.display.say(f"going on from {self.images:,} images")

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """The first SIGINT or SIGTERM ends the training after its step; the second one leaves at once."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def stop(signum: int, frame: Any) -> None:
            if self.stop_signal:
                raise KeyboardInterrupt
            self.stop_signal = signum

        previous = {s: signal.signal(s, stop) for s in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for signum, handler in previous.items():
                signal.signal(signum, handler)


def _default_generator(device: torch.device) -> torch.Generator:
    """The generator that torch's own layers (dropout) draw from on this device."""
    if device.type == "cuda":
        return torch.cuda.default_generators[device.index or 0]
    if device.type == "mps":
        return torch.mps._get_default_mps_generator()
    return torch.default_generator
