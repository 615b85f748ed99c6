"""What is looked at while a model trains: figures on held-out images, the best weights so far, sample pictures.

All of it is done with the weights that would be used (averaged where there are any), and none of it changes what the
training does next, apart from the learning rate that follows the validation figure.
"""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import cached_property, partial
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from trilemma import rng
from trilemma.config import config_of
from trilemma.data import Data, batches
from trilemma.data.loader import FINISH_IMAGES, VALID_BATCH, training_images
from trilemma.errors import UserError, unknown
from trilemma.memory import copies, halving
from trilemma.metrics.likelihood import active_units, has_posterior
from trilemma.pictures.grid import grid
from trilemma.pictures.png import save_png
from trilemma.run.config import TrainConfig
from trilemma.run.state import Checkpoint
from trilemma.training.ema import EMA
from trilemma.training.monitor import (
    Rivalry,
    Said,
    all_the_same,
    critic_too_strong,
    dead_codes,
    few_distinct_codes,
    mean_image_rmse,
    no_better_than_mean,
    posterior_collapse,
    small,
)
from trilemma.training.optim import Plateau
from trilemma.training.pictures import made_by_training
from trilemma.types import (
    Batch,
    Finishes,
    Model,
    Reconstructs,
    Samples,
    Validates,
    count_rivals,
    for_codes,
)

N_SAMPLES = 64  # in a sample picture
PARTS = 16  # of a sample picture, of which one tells how long it takes
ACTIVE_UNITS = "valid_active_units"


class Observer:
    """Follows a model in training. `figures` are the last validation's, `best` those of `best_weights`."""

    def __init__(
        self,
        model: Model,
        data: Data,
        config: TrainConfig,
        path: Path,
        ema: EMA | None,
        warn: Callable[[str], None],
        command: str = "",
    ) -> None:
        self.model, self.data, self.config, self.path = model, data, config, path
        self.ema, self.warn, self.command = ema, warn, command
        self.rivals = count_rivals(model.phases)
        self.device = next(model.parameters()).device
        self.plateau, self.said, self.rivalry = Plateau(), Said(), Rivalry()
        self.figures: dict[str, float] = {}
        self.best: dict[str, Any] = {}
        self.best_weights: dict[str, Tensor] = {}
        self.draw_seconds = 0.0  # that the images of a sample picture take, by the last that were drawn
        self.units = 0  # of the code that `active_units` saw

    def state(self) -> Checkpoint:
        """The best weights so far, and what later looks are compared with."""
        values = {
            "plateau": self.plateau.state(),
            "figures": self.figures,
            "best": self.best,
            "said": dict(self.said.quiet),
            "current": dict(self.said.current),
            "distances": list(self.rivalry.distances),
        }
        return Checkpoint(values, {"best": self.best_weights} if self.best_weights else {})  # never changed in place

    def load(self, state: Checkpoint) -> None:
        """Take them back."""
        values = state.values
        self.plateau.load(values["plateau"])
        self.figures, self.best = _numbers(values["figures"]), _numbers(values["best"])
        self.best_weights = state.tensors.get("best", {})
        self.said.quiet, self.said.current = dict(values["said"]), dict(values["current"])
        self.rivalry.distances = list(values["distances"])

    @cached_property
    def baseline(self) -> float | None:
        """RMSE of the mean training image on the held-out images: what a model that reconstructs has to beat."""
        if not isinstance(self.model, Reconstructs) or not len(self.data.valid):
            return None
        train = (batch.image for batch in self.training_images(FINISH_IMAGES))
        return mean_image_rmse(train, (batch.image for batch in batches(self.data.valid, VALID_BATCH)))

    def validate(self, images: int, most: int | None = None) -> dict[str, float]:
        """Figures on the validation split after so many images; {} for a model that has none.

        Args:
            most: batches of VALID_BATCH images of the split, all where None; then `valid_images` says how many images.
        """
        if not isinstance(self.model, Validates):
            return {}
        with self.weights_in_use():
            self.figures = halving(lambda size: self._validate(size, most), VALID_BATCH, self.warn)
            if "valid_images" not in self.figures or not self.best:  # figures of fewer images do not compare
                self._keep_best(images)
        return self.figures

    @property
    def valid_batches(self) -> int:
        """Batches in a validation."""
        return -(-len(self.data.valid) // VALID_BATCH)

    def validate_part(self) -> None:
        """One batch of a validation, to learn how long one takes."""
        if isinstance(self.model, Validates):
            with self.weights_in_use():
                halving(partial(self._validate, most=1), VALID_BATCH)

    def check_monitor(self) -> None:
        """Refuse to follow a figure that the model does not have, before anything is trained.

        Raises:
            UserError: with the figures that it has.
        """
        with self.weights_in_use():
            names = list(self._validate(2, most=1)) if isinstance(self.model, Validates) else []
        if self.config.monitor not in (None, *names):
            raise unknown("figure in monitor", self.config.monitor, names)

    def active_units(self) -> dict[str, int]:
        """How many units of a variational code are in use, by held-out images; {} for a model that has none."""
        if not has_posterior(self.model) or len(self.data.valid) < 2:
            return {}
        with self.weights_in_use():
            codes = halving(self._posterior_means, VALID_BATCH)
        self.units = codes.shape[1]
        return {ACTIVE_UNITS: active_units(codes)}

    @torch.no_grad()
    def _posterior_means(self, size: int) -> Tensor:
        """Codes of the first VALID_BATCH held-out images, (B, Z), `size` at a time."""
        parts = islice(batches(self.data.valid, size, self.device), -(-VALID_BATCH // size))
        return torch.cat([self.model.encode(b.image, for_codes(self.model, b.condition)) for b in parts])  # type: ignore

    def judge(self) -> None:
        """Say what is wrong with the weights that the training ends with."""
        self.figures = self.figures | self.active_units()
        self._tell("mean image", self._no_better_than_mean(self.figures))
        if ACTIVE_UNITS in self.figures:
            self._tell("posterior", posterior_collapse(self.figures[ACTIVE_UNITS], self.units, config_of(self.model)))
        self._tell("distinct codes", few_distinct_codes(self.figures.get("train_distinct_codes")))

    def _no_better_than_mean(self, figures: dict[str, float]) -> str | None:
        if self.baseline is None:
            return None
        rmse = figures["valid_rmse"] if "valid_rmse" in figures else halving(self._reconstruction_rmse, VALID_BATCH)
        return no_better_than_mean(rmse, self.baseline, config_of(self.model))

    @torch.no_grad()
    def _reconstruction_rmse(self, size: int) -> float:
        """Of held-out images after a pass through a model that does not measure that itself, `size` at a time."""
        errors = []
        with self.weights_in_use():
            for batch in islice(batches(self.data.valid, size, self.device), -(-VALID_BATCH // size)):
                condition = for_codes(self.model, batch.condition)
                passed = self.model.reconstruct(batch.image, condition)  # type: ignore[operator]
                errors.append((passed - batch.image).square().flatten(1).mean(1))
        return float(torch.cat(errors).mean().sqrt())

    def listen(self, row: dict[str, Any], *, settled: bool) -> None:
        """Warn of what a row of the log says; of codes from the first validation on."""
        validated = any(name.startswith("valid_") for name in row)
        if settled:
            self._tell("critic", critic_too_strong(row))
        if settled and validated:
            self._tell("mean image", self._no_better_than_mean(row))
        if settled or validated:
            self._tell("codes", dead_codes(row))
        if ACTIVE_UNITS in row:
            self._tell("posterior", posterior_collapse(row[ACTIVE_UNITS], self.units, config_of(self.model)))

    def snapshot(self, name: str, *, settled: bool) -> None:
        """A sample picture on the way, which leaves the training as it was."""
        with self._untouched():
            self.finish(FINISH_IMAGES // 5)
            self.draw_samples(name, settled=settled)

    @contextmanager
    def _untouched(self) -> Iterator[None]:
        """Inside, the model has the weights to use, and what it does to its buffers is undone afterwards."""
        held = copies(dict(self.model.named_buffers()))
        with self.weights_in_use(), torch.no_grad():
            try:
                yield
            finally:
                for key, buffer in self.model.named_buffers():
                    buffer.copy_(held[key])

    def draw_part(self, parts: int) -> None:
        """One of so many parts of the work of a sample picture, to learn how long one takes."""
        if isinstance(self.model, Samples):
            with self._untouched():
                self.finish(FINISH_IMAGES // 5 // parts)
                self._draw(N_SAMPLES // parts, N_SAMPLES // parts)

    def draw_samples(self, name: str, *, settled: bool = True, last: bool = False) -> None:
        """The same latents as every time, as samples/NAME.png; a failure is a warning, never the end.

        Args:
            settled: whether the samples of rivals are judged; last: whether those of every model are.
        """
        if not isinstance(self.model, Samples):
            return
        images = halving(self._draw, N_SAMPLES, self.warn)
        try:
            (self.path / "samples").mkdir(exist_ok=True)
            made = made_by_training(self.command, f"samples {name}")
            save_png(grid(images.cpu()), self.path / "samples" / f"{name}.png", made, replace=True)
        except (OSError, UserError) as error:
            self.warn(f"the sample picture {name}.png was not written ({error}); training continues")
        if self.rivals > 1 or last:
            real = next(self.training_images(N_SAMPLES)).image
            self._judge_samples(images[: len(real)], real, settled=settled, last=last)

    def _judge_samples(self, images: Tensor, real: Tensor, *, settled: bool, last: bool) -> None:
        if self.rivals > 1:  # players against each other
            wrong = self.rivalry.look(images, real)
            for rule in ("collapse", "divergence"):
                self._tell(rule, wrong.get(rule) if settled else None)
        if last and len(real) > 1:
            self._tell("one image", all_the_same(real=small(real), fake=small(images)))

    def finish(self, n: int = FINISH_IMAGES) -> dict[str, float]:
        """Let the model take its last step, on the first `n` training images; figures of it are named train_..."""
        if not isinstance(self.model, Finishes):
            return {}
        figures = self.model.finish(self.training_images(n), seed=self.config.seed)
        return {f"train_{name}": value for name, value in figures.items()}

    def _finish_within(self, seconds: float | None) -> dict[str, float]:
        """The last step on FINISH_IMAGES training images, or on as many as take so many seconds; one batch at least."""
        if seconds is None:
            return self.finish()
        few, start = VALID_BATCH, time.perf_counter()
        figures = self.finish(few)
        took = max(time.perf_counter() - start, 1e-9)
        n = int(min(FINISH_IMAGES, few * (seconds - took) / took))
        return self.finish(n) if n > few and len(self.data.train) > few else figures

    def take_final_weights(self, seconds: float | None = None) -> None:
        """The model ends with its best weights, or the averaged, or the last ones; then its last step, which may take
        so many seconds."""
        if self.best_weights:
            self.model.load_state_dict(self.best_weights)
            self.figures = {name: value for name, value in self.best.items() if name != "images"}
        elif self.ema is not None:
            self.ema.swap()
        self.model.eval()
        self.ema = None
        with torch.no_grad():
            self.figures = self.figures | self._finish_within(seconds)

    @contextmanager
    def weights_in_use(self) -> Iterator[None]:
        """Inside, the model is in eval mode and has its averaged weights where there are any."""
        training = self.model.training
        self.model.eval()
        try:
            with self.ema.applied() if self.ema is not None else nullcontext():
                yield
        finally:
            self.model.train(training)

    @torch.no_grad()
    def _validate(self, size: int, most: int | None = None) -> dict[str, float]:
        """Means over the validation split, or its first `most` * VALID_BATCH images, `size` images at a time; in
        float32."""
        sums: dict[str, Tensor] = {}
        count = len(self.data.valid) if most is None else min(most * VALID_BATCH, len(self.data.valid))
        for number, batch in enumerate(islice(batches(self.data.valid, size, self.device), -(-count // size))):
            generator = rng.generator(self.config.seed, "valid", number, device=self.device)
            for name, values in self.model.validation(batch, generator).items():  # type: ignore[operator]
                sums[name] = (
                    sums.get(name, torch.zeros((), dtype=torch.float32, device=self.device))
                    + values.double().sum().float()
                )
        figures = {f"valid_{name}": float(value) / count for name, value in sums.items()}
        figures |= {n.replace("mse", "rmse"): v**0.5 for n, v in figures.items() if n.endswith("mse")}
        return figures if count == len(self.data.valid) else figures | {"valid_images": count}

    def _keep_best(self, images: int) -> None:
        name = self.config.monitor
        if name is None:
            return
        if name not in self.figures:
            raise unknown("figure in monitor", name, self.figures)
        figure = self.figures[name]
        self.plateau.see(figure)
        if not math.isfinite(figure):  # such weights are never the best
            return
        if not self.best or not math.isfinite(self.best[name]) or figure < self.best[name]:
            self.best = {**self.figures, "images": images}
            self.best_weights = copies(self.model.state_dict())

    @torch.no_grad()
    def _draw(self, size: int, n: int = N_SAMPLES) -> Tensor:
        """The first `n` images of the sample pictures, `size` at a time."""
        seed, size, start = self.config.seed, min(size, n), time.perf_counter()
        images = torch.cat([self.model.sample(size, seed=seed, first=first) for first in range(0, n, size)])  # type: ignore
        self.draw_seconds = (time.perf_counter() - start) * N_SAMPLES / n
        return images

    def training_images(self, n: int, size: int = VALID_BATCH) -> Iterator[Batch]:
        """The first `n` images of the training order, `size` at a time, as they are."""
        return training_images(self.data.train, n, seed=self.config.seed, device=self.device, size=size)

    def _tell(self, rule: str, text: str | None) -> None:
        """Pass a warning on if it is new."""
        if (news := self.said.news(rule, text)) is not None:
            self.warn(news)


def _numbers(figures: dict[str, Any]) -> dict[str, Any]:
    """Figures of a saved state, in which None stands for one that is not finite."""
    return {name: math.nan if value is None else value for name, value in figures.items()}
