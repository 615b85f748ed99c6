"""Codes of images and images of codes, with the condition that a model needs; which kind of code a file holds."""

import io
from collections.abc import Collection, Iterable
from copy import copy
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, cast
from weakref import WeakSet

import numpy as np
import torch
from torch import Tensor, nn

from trilemma.data.sources.npy import bytes_of, read_arrays
from trilemma.errors import UserError
from trilemma.run.condition import needed
from trilemma.run.run import Run
from trilemma.text import note
from trilemma.types import (
    UNCONDITIONAL,
    Batch,
    Condition,
    DrawsCodes,
    Encodes,
    HasStyles,
    Inverts,
    drawing_needs,
    flags,
)

ASKED = ("label", "caption")  # keys of verbs that say what codes are decoded as
KINDS = {"noise": "noise that images are drawn from", "z": "latents z", "w": "styles w"}  # of what `invert` gives
_noted: WeakSet[Run] = WeakSet()  # of which the user knows what their codes cost


def condition_for(
    run: Run,
    batch: Batch,
    label: str | int | None = None,
    caption: str | None = None,
    *,
    advise: Collection[str] = (),
) -> Condition:
    """What the codes of some images need, see `condition_of_codes`; by default what the images themselves have."""
    return condition_of_codes(run, batch.condition, len(batch.image), label, caption, advise=advise)


def condition_of_codes(
    run: Run,
    own: Condition,
    count: int,
    label: str | int | None = None,
    caption: str | None = None,
    *,
    advise: Collection[str] = (),
    fields: Collection[str] | None = None,
) -> Condition:
    """What `count` codes need: a class by name or number, or captions in turns, or else what they have of their own.

    Args:
        own: what is known of their images; advise, fields: see `needed`.
    Raises:
        UserError: if the model needs what is not given, or does not take what is.
    """
    asked = run.condition(label, count, own if label is None and caption is None else UNCONDITIONAL, caption=caption)
    part = needed(run.model, asked, advise=advise, fields=fields)
    return part if caption is None else replace(part, caption=asked.caption)


def check_one_caption(caption: str | None) -> None:
    """Raises UserError for several captions where one image or code is meant."""
    if caption is not None and "|" in caption:
        raise UserError(f"caption={caption}: one image has one caption; leave out | and what follows it")


def code_width(run: Run) -> int:
    """How many numbers a code has."""
    if (length := flags(run.model).code_length) is not None:
        return length
    blank = torch.zeros(1, *run.shape, dtype=torch.float32)
    condition = needed(run.model, Condition(label=torch.zeros(1, dtype=torch.int64)))
    return run.encode(blank, condition=condition).shape[1]


def decode_alike(run: Run, codes: Tensor, condition: Condition) -> Tensor:
    """As `run.decode`, all under the condition of one image."""
    return run.decode(codes, condition=condition.rows(torch.zeros(len(codes), dtype=torch.int64)))


def note_search(run: Run) -> None:
    """Say on standard error, before images are encoded, that it costs much for a model without an encoder."""
    if isinstance(run.model, Encodes) or not isinstance(run.model, Inverts) or run in _noted:
        return
    _noted.add(run)
    note(f"{run.recipe.name} has no encoder: the code of each image takes many network calls (see trilemma invert)")


def in_space(run: Run, space: Literal["z", "w"] | None) -> Run:
    """The run, whose codes are its latents z or its styles w; default: its own.

    Raises:
        UserError: its model has no styles.
    """
    model: object = run.model
    if space == "w" and not isinstance(model, HasStyles):
        raise UserError(f"space=w: {run.recipe.name} has no styles w; leave space out")
    if space == "z" and isinstance(model, DrawsCodes):
        run = copy(run)
        run.model = cast(nn.Module, model.in_z())
    return run


class NoiseCodes(nn.Module):
    """A model whose codes are the noise that it draws images from, in `steps` network calls for each; None: as many as
    it takes by default."""

    def __init__(self, model: nn.Module, steps: int | None = None) -> None:
        super().__init__()
        own = flags(model)
        self.model: Any = model
        self.steps, self.code_length, self.codes_need = steps, own.code_length, drawing_needs(model)
        self.n_classes, self.takes, self.null_condition = own.n_classes, own.takes, own.null_condition

    def invert(
        self, image: Tensor, condition: Condition = UNCONDITIONAL, *, steps: int | None = None, seed: int = 0
    ) -> Tensor:
        """As the model does."""
        return self.model.invert(image, condition, steps=steps, seed=seed)

    def generate(self, z: Tensor, condition: Condition = UNCONDITIONAL, *, steps: int | None = None) -> Tensor:
        """Noise (B, Z) -> (B, C, H, W) in [0, 1]."""
        return self.model.generate(z, condition, steps=steps or self.steps)

    def unknown_words(self, caption: str) -> list[str]:
        """As the model says."""
        return self.model.unknown_words(caption)

    def captions_cut(self, captions: Iterable[str]) -> int:
        """As the model says."""
        return self.model.captions_cut(captions)


def by_noise(run: Run, steps: int | None = None) -> Run:
    """The run, whose codes are the noise that its images are drawn from; see `NoiseCodes`."""
    run = copy(run)
    run.model = NoiseCodes(run.model, steps)
    return run


def inverted_kind(model: Inverts) -> str:
    """Which of KINDS the codes are that a model inverts images to."""
    return "w" if isinstance(model, HasStyles) else "z" if isinstance(model, DrawsCodes) else "noise"


def codes_content(codes: Tensor, kind: str) -> bytes:
    """The content of a .npz file of codes (N, Z): one array, whose name is their kind."""
    buffer = io.BytesIO()
    arrays: dict[str, Any] = {kind: codes.numpy()}
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def read_codes(run: Run, path: Path, most: int) -> np.ndarray:
    """The codes (N, Z) in a .npz file that `invert` wrote, if they are of the kind that the run decodes.

    Args:
        most: bytes that it may hold.
    Raises:
        UserError: it holds more, something else, or codes of another kind.
    """
    if (size := bytes_of(path)) > most:
        raise UserError(f"{path} holds {size:,} bytes; a code or an image has at most {most:,}")
    arrays = read_arrays(path)
    kind = next(iter(arrays), "")
    if len(arrays) != 1 or kind not in KINDS:
        names = ", ".join(arrays) or "none"
        raise UserError(f"{path} holds no codes: its arrays are {names}; give a file that `invert` wrote, or an image")
    model = run.model
    own = inverted_kind(model) if isinstance(model, Inverts) and not isinstance(model, Encodes) else None
    if kind != own:
        taken = "what its encoder gives" if own is None else KINDS[own]
        raise UserError(
            f"{path} holds {KINDS[kind]}, and codes of {run.recipe.name} are {taken} here; give the image itself, as a "
            "file or by its number"
        )
    return arrays[kind]
