"""A training that is not finished, as it can be used already: by the weights of its newest checkpoint.

They are those that the training would end with now: the best, else the averaged, else the last ones. Nothing in the
folder is changed; the training may be running.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from trilemma.data import Data
from trilemma.data.loader import FINISH_IMAGES, training_images
from trilemma.errors import UserError
from trilemma.files import sha256_of
from trilemma.run.checkpoint import MANIFEST, list_checkpoints, read_values
from trilemma.run.state import Broken
from trilemma.run.weights import Form, difference, forms_of, load_tensors, read_forms
from trilemma.types import Batch, Finishes, flags, not_averaged

CHECKPOINTS = "checkpoints"
NUMBERS = ("step", "images", "seconds", "progress")  # of the values that are read here


@dataclass(frozen=True)
class Snapshot:
    """A checkpoint whose files are those that were written.

    weights_id: the first 16 digits of the SHA-256 of the manifest, which holds those of all files; values: the plain
    values of the state; groups: names of its groups of tensors.
    """

    path: Path
    weights_id: str
    values: dict[str, Any]
    groups: tuple[str, ...]

    def reached(self, minutes: float | None) -> str:
        """How far the training was: "61,440 of 600,000 images".

        Args:
            minutes: that the training is to take, or None where its length is a number of images.
        """
        images, progress = self.values["images"], self.values["progress"]
        if minutes is not None:
            return f"{images:,} images, {progress:.0%} of {minutes:g} minutes"
        total = images / progress if progress else math.inf
        whole = f"{round(total):,}" if math.isfinite(total) else "?"
        return f"{images:,} of {whole} images" if images else "0 images"

    def weights(self, outline: Callable[[int], nn.Module]) -> dict[str, Tensor]:
        """The weights to use.

        Args:
            outline: gives the run's network without memory, from the number of tensors that there are.
        Raises:
            UserError: if they have other names, types or shapes than its.
            FileNotFoundError: the training has removed them meanwhile.
        """
        name = "best" if "best" in self.groups else "model"
        model = outline(len(read_forms(self._file(name))))
        expected = forms_of(model.state_dict())
        weights = self._group(name, expected)
        if name == "model" and "ema" in self.groups:
            weights |= self._group("ema", {name: expected[name] for name in self._averaged(model)})
        return weights

    def _averaged(self, model: nn.Module) -> list[str]:
        """Names of the parameters in the group of averages: those of every player in earlier versions."""
        left_out = set(map(id, not_averaged(flags(model).phases)))
        kept = read_forms(self._file("ema"))
        return [name for name, p in model.named_parameters() if id(p) not in left_out or name in kept]

    def _file(self, group: str) -> Path:
        return self.path / f"{group}.safetensors"

    def _group(self, name: str, expected: Mapping[str, Form]) -> dict[str, Tensor]:
        if (text := difference(read_forms(self._file(name)), expected)) is not None:
            raise UserError(f"{self._file(name)} does not hold the weights of this run: {text}")
        return load_tensors(self._file(name))


def newest_snapshot(run: Path) -> Snapshot | None:
    """The newest checkpoint of a run folder that can be trusted; None where there is none."""
    return next(iter(_snapshots(run)), None)


def find_snapshot(run: Path, weights_id: str) -> Snapshot | None:
    """The checkpoint of a run folder with these weights; None where it is not there any more."""
    return next((snapshot for snapshot in _snapshots(run) if snapshot.weights_id == weights_id), None)


def _snapshots(run: Path) -> Iterator[Snapshot]:
    """The newest first."""
    folder = run / CHECKPOINTS
    for path in reversed(list_checkpoints(folder) if folder.is_dir() else []):
        with suppress(Broken, UserError, OSError):
            weights_id = sha256_of(path / MANIFEST)[:16]
            values, groups = read_values(path)
            if is_sound(values):
                yield Snapshot(path, weights_id, values, tuple(groups))


def is_sound(values: dict[str, Any]) -> bool:
    """Whether what is read of the values has its types."""
    numbers = all(type(values.get(key)) in (int, float) and 0 <= values[key] < 2**63 for key in NUMBERS)
    return (
        numbers
        and values["progress"] <= 1
        and all(isinstance(values.get(key), dict) for key in ("figures", "best", "events", "current"))
    )


@torch.no_grad()
def finish(model: Finishes, data: Callable[[], Data], seed: int) -> None:
    """The last step of a model, as at the end of a training (see `ModelInUse.finish`); the data are read where it looks
    at them."""
    assert isinstance(model, nn.Module)
    device = next(model.parameters()).device

    def images() -> Iterator[Batch]:
        yield from training_images(data().train, FINISH_IMAGES, seed=seed, device=device)

    model.finish(images(), seed=seed)


def summary_of(snapshot: Snapshot, parameters: int) -> dict[str, Any]:
    """What summary.json would say of the training so far."""
    values = snapshot.values
    seconds = values["seconds"]
    happened = [*values["events"].values(), *(f"step {values['step']:,}: {t}" for t in values["current"].values())]
    return {
        **values["figures"],
        "images": values["images"],
        "steps": values["step"],
        "seconds": round(seconds, 3),
        "images_per_second": round(values["images"] / max(seconds, 1e-9), 1),
        "parameters": parameters,
        "best": values["best"],
        "warnings": happened,
    }
