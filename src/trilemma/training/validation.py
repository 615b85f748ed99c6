"""The values of a model in training on held-out images, and the weights with the best of them.

They are measured with the weights that would be used (averaged if there are any), and change nothing in what the
training does next, apart from the learning rate that follows the monitored value.
"""

import math
from collections.abc import Callable, Iterable
from functools import cached_property, partial
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn

from trilemma import rng
from trilemma.data import Data, Split, batches
from trilemma.data.loader import FINISH_IMAGES, VALID_BATCH
from trilemma.errors import UserError, unknown
from trilemma.memory import halving
from trilemma.metrics.likelihood import has_posterior
from trilemma.run.config import TrainConfig
from trilemma.run.state import Checkpoint
from trilemma.training.in_use import ModelInUse
from trilemma.training.monitor import mean_image_rmse
from trilemma.training.optim import Plateau
from trilemma.types import Encodes, Model, Reconstructs, Validates, for_codes


class Validation:
    """The values of the last validation, and `best`, those of `best_weights`. Its state are these.

    Args:
        warn: takes a warning.
    """

    def __init__(self, in_use: ModelInUse, warn: Callable[[str], None]) -> None:
        self.in_use, self.warn = in_use, warn
        self.model, self.split, self.monitor = in_use.model, in_use.data.valid, in_use.config.monitor
        self.plateau = Plateau()
        self.values: dict[str, float] = {}
        self.best: dict[str, Any] = {}
        self.best_weights: dict[str, Tensor] = {}

    def state(self) -> Checkpoint:
        """The best weights so far, and what later values are compared with."""
        values = {"plateau": self.plateau.state(), "figures": self.values, "best": self.best}
        return Checkpoint(values, {"best": self.best_weights} if self.best_weights else {})  # never changed in place

    def load(self, state: Checkpoint) -> None:
        """Take them back."""
        self.plateau.load(state.values["plateau"])
        self.values, self.best = _numbers(state.values["figures"]), _numbers(state.values["best"])
        self.best_weights = state.tensors.get("best", {})

    @cached_property
    def baseline(self) -> float | None:
        """RMSE of the mean training image on the held-out images: what a model that reconstructs has to beat."""
        if not isinstance(self.model, Reconstructs) or not len(self.split):
            return None
        train = (batch.image for batch in self.in_use.training_images(FINISH_IMAGES))
        return mean_image_rmse(train, (batch.image for batch in batches(self.split, VALID_BATCH)))

    @property
    def n_batches(self) -> int:
        """Batches in a validation."""
        return -(-len(self.split) // VALID_BATCH)

    def validate(self, images: int, most: int | None = None) -> dict[str, float]:
        """Values on the validation split after so many images; {} for a model that has none.

        Args:
            most: batches of VALID_BATCH images of the split, None for all; then `valid_images` says how many images.
        """
        if not isinstance(self.model, Validates):
            return {}
        with self.in_use.weights():
            self.values = halving(partial(self._measure, most=most), VALID_BATCH, self.warn)
            if "valid_images" not in self.values or not self.best:  # values of fewer images do not compare
                self._keep_best(images)
        return self.values

    def validate_part(self) -> None:
        """One batch of a validation, to learn how long one takes."""
        if isinstance(self.model, Validates):
            with self.in_use.weights():
                halving(partial(self._measure, most=1), VALID_BATCH)

    def codes(self) -> Tensor | None:
        """The posterior means of the first VALID_BATCH held-out images, (B, Z); None for a model that has none."""
        if not has_posterior(self.model) or len(self.split) < 2:
            return None
        with self.in_use.weights():
            return halving(partial(posterior_means, self.model, self.split), VALID_BATCH)

    def reconstruction_rmse(self) -> float:
        """RMSE of VALID_BATCH held-out images after a pass through a model whose validation does not measure that."""
        assert isinstance(self.model, Reconstructs)
        with self.in_use.weights():
            return halving(partial(reconstruction_rmse, self.model, self.split), VALID_BATCH)

    def _measure(self, size: int, most: int | None = None) -> dict[str, float]:
        assert isinstance(self.model, Validates)
        return mean_values(self.model, self.split, size, seed=self.in_use.config.seed, most=most)

    def _keep_best(self, images: int) -> None:
        """Compare the monitored value, on which all processes agree, with the best one."""
        if self.monitor is None:
            return
        if self.monitor not in self.values:
            raise _unknown_monitor(self.monitor, self.values)
        (value,) = self.in_use.team.agree([self.values[self.monitor]])
        self.plateau.update(value)
        if not math.isfinite(value):  # such weights are never the best
            return
        if not self.best or not math.isfinite(self.best[self.monitor]) or value < self.best[self.monitor]:
            self.best = {**self.values, self.monitor: value, "images": images}
            self.best_weights = self.in_use.weights_kept()


def check_monitor(model: Model, data: Data, config: TrainConfig) -> None:
    """Refuse to follow a value that the model does not have, before anything is trained.

    Raises:
        UserError: with the values that it has.
    """
    in_use = ModelInUse(model, data, config)
    with in_use.weights():
        names = (
            list(mean_values(model, data.valid, 2, seed=config.seed, most=1)) if isinstance(model, Validates) else []
        )
    if config.monitor not in (None, *names):
        raise _unknown_monitor(config.monitor, names)


def _unknown_monitor(name: str, values: Iterable[str]) -> UserError:
    return UserError(f"monitor: {unknown('value', name, values)}")


@torch.no_grad()
def mean_values(model: Validates, split: Split, size: int, *, seed: int, most: int | None = None) -> dict[str, float]:
    """Means of a model's values over a split, or its first `most` * VALID_BATCH images, `size` images at a time; in
    float32."""
    device = device_of(model)
    sums: dict[str, Tensor] = {}
    counts: dict[str, int] = {}
    count = len(split) if most is None else min(most * VALID_BATCH, len(split))
    zero = torch.zeros((), dtype=torch.float32, device=device)
    for number, batch in enumerate(islice(batches(split, size, device), -(-count // size))):
        generator = rng.generator(seed, "valid", number, device=device)
        for name, values in model.validation(batch, generator).items():
            sums[name] = sums.get(name, zero) + values.double().sum().float()
            counts[name] = counts.get(name, 0) + values.numel()
    means = {f"valid_{name}": float(value) / counts[name] for name, value in sums.items()}
    means |= {name.replace("mse", "rmse"): value**0.5 for name, value in means.items() if name.endswith("mse")}
    return means if count == len(split) else means | {"valid_images": count}


@torch.no_grad()
def posterior_means(model: Encodes, split: Split, size: int) -> Tensor:
    """Codes of the first VALID_BATCH images of a split, (B, Z), `size` at a time."""
    parts = islice(batches(split, size, device_of(model)), -(-VALID_BATCH // size))
    return torch.cat([model.encode(batch.image, for_codes(model, batch.condition)) for batch in parts])


@torch.no_grad()
def reconstruction_rmse(model: Reconstructs, split: Split, size: int) -> float:
    """Of the first VALID_BATCH images of a split after a pass through a model, `size` at a time."""
    errors = []
    for batch in islice(batches(split, size, device_of(model)), -(-VALID_BATCH // size)):
        result = model.reconstruct(batch.image, for_codes(model, batch.condition))
        errors.append((result - batch.image).square().flatten(1).mean(1))
    return float(torch.cat(errors).mean().sqrt())


def device_of(model: object) -> torch.device:
    """Where a model's parameters lie."""
    assert isinstance(model, nn.Module)
    return next(model.parameters()).device


def _numbers(values: dict[str, Any]) -> dict[str, Any]:
    """Values of a saved state, in which None stands for one that is not finite."""
    return {name: math.nan if value is None else value for name, value in values.items()}
