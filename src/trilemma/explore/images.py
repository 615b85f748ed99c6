"""What the verbs that look into a model share: images and codes from anything a user may name, brought to what the
model takes and passed through it in parts; and a table of images with names beside its rows."""

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from trilemma import __version__, rng
from trilemma.data import Data, load_data
from trilemma.data.decode import decode
from trilemma.data.loader import to_float
from trilemma.data.pixels import Item, open_file
from trilemma.errors import UserError, unknown
from trilemma.pictures import TEXT, TILE, font, grid
from trilemma.registry import models_that
from trilemma.run import Run
from trilemma.types import Batch, Conditional, Decodes

if TYPE_CHECKING:
    from PIL import Image

PART = 256  # images that go through a model at a time
GAP = 6  # px between a table and its names

Source = str | Path | Data | None
Named = str | int | Path | Tensor | np.ndarray | Sequence[float]  # what stands for an image or a code


def require(run: Run, doing: str, *protocols: type) -> None:
    """Refuse a run whose model lacks a capability, with the models that have it.

    Args:
        doing: what it would do, as in "does not reconstruct".
    """
    missing = [protocol for protocol in protocols if not isinstance(run.model, protocol)]
    if missing:
        part = "decoder" if missing == [Decodes] else "encoder"
        able = ", ".join(models_that(*protocols))
        raise UserError(f"{run.recipe.name} does not {doing}: it has no {part}; models that do: {able}")


def labels_for(model: nn.Module, labels: Tensor | None) -> Tensor | None:
    """The labels for a model that takes them, None for one that does not.

    Raises:
        UserError: if the model needs labels and there are none, or one is not a class of the model.
    """
    if not isinstance(model, Conditional):
        return None
    if labels is None:
        raise UserError("this model needs the class of each image; give images with classes, or label=")
    outside = labels[(labels < 0) | (labels >= model.n_classes)]
    if len(outside):
        raise UserError(f"label {int(outside[0])} is no class of this model: it has 0 to {model.n_classes - 1}")
    return labels


def source_of(run: Run, data: Source = None) -> Data:
    """The run's own data, or other data in its size and channels; to a conditional model, classes of one name are one.

    Raises:
        UserError: the data cannot be read, or have classes that a conditional model does not know.
    """
    if data is None:
        return run.data
    channels, height, width = run.model_config.shape
    source, known = load_data(data, size=(height, width), channels=channels), run.config["classes"]
    if not isinstance(run.model, Conditional) or not source.classes or list(source.classes) == list(known):
        return source
    strange = [name for name in source.classes if name not in known]
    if strange:
        raise unknown("class", strange[0], known)
    number = torch.tensor([known.index(name) for name in source.classes])
    splits = {
        name: replace(part, labels=None if part.labels is None else number[part.labels])
        for name, part in source.splits.items()
    }
    return replace(source, classes=tuple(known), splits=splits)


def pick_images(
    run: Run, data: Source = None, n: int | None = None, split: str | None = None, *, seed: int | None = None
) -> Batch:
    """Images of a split, with their positions in it, on the run's device.

    Args:
        data: other images than the run's own; they are brought to the size and channels it was trained on.
        n: how many at most; all where None.
        split: "train", "valid" or "test"; the held-out split where None.
        seed: chooses which, spread over the whole split; the first n where None.
    Raises:
        UserError: n is less than 1, or there is no such split.
    """
    if n is not None and n < 1:
        raise UserError(f"n={n}: at least 1 image is needed")
    source = source_of(run, data)
    if split is not None and split not in source.splits:
        raise unknown("split", split, source.splits)
    there = len(source.held_out[1] if split is None else source.splits[split])
    count = there if n is None else min(n, there)
    index = torch.arange(count) if seed is None else rng.permutation(there, seed, "images")[:count].sort().values
    return take(run, source, split, index)


def pick_image(run: Run, what: str | int | Path, data: Source = None) -> Batch:
    """One image on the run's device, with its label where that is known.

    Args:
        what: the number of an image of the held-out split; or an image file, which is brought to the run's size and
            channels by the rules for training images.
        data: other images to count in than the run's own.
    Raises:
        UserError: there is no such number or file, or the file cannot be read.
    """
    number = _number(what)
    if number is None:
        return Batch(to_float(_read(run, Path(str(what))).to(run.device)))
    source = source_of(run, data)
    name, part = source.held_out
    if not 0 <= number < len(part):
        raise UserError(f"there is no image {number} in the {name} split: it has 0 to {len(part) - 1}")
    return take(run, source, None, torch.tensor([number]))


def load_image(run: Run, what: str | int | Path, data: Source = None) -> Tensor:
    """One image on the run's device, float32 in [0, 1], (1, C, H, W); see `pick_image`."""
    return pick_image(run, what, data).image


def find_code(
    run: Run, what: Named, data: Source = None, label: str | int | None = None
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """The code that a user names, for a model that encodes.

    Args:
        what: an image, as for `pick_image` or as a tensor (C, H, W) of the run's shape; or a code: its numbers, with
            commas between them in a text, or a .npy file of them.
        label: the class, for a conditional model; where None, that of the image.
    Returns:
        The code (1, Z) on the CPU; its labels (1,), None for a model without classes; the image (1, C, H, W) that it
        was encoded from, None where the code itself was given.
    Raises:
        UserError: it has another shape than the run's, is not finite, or lacks the class that the model needs.
    """
    found, index = _values(what), class_of(run, label)
    if isinstance(found, Tensor) and found.ndim == 1:
        labels = labels_for(run.model, index)
        return _checked_code(run, found[None]), labels, None
    batch = Batch(_checked_image(run, found)) if isinstance(found, Tensor) else pick_image(run, found, data)
    labels = labels_for(run.model, batch.label if index is None else index)
    return encode(run, batch.image, labels), labels, batch.image.cpu()


def class_of(run: Run, label: str | int | None) -> Tensor | None:
    """A class by name or number as labels (1,), for a model that takes one; None stays None."""
    return None if label is None else torch.tensor([run._label_index(label)], device=run.device)


def encode(run: Run, images: Tensor, labels: Tensor | None = None) -> Tensor:
    """Codes of images (N, C, H, W): (N, Z) on the CPU.

    Raises:
        UserError: if a code is not finite.
    """
    codes = through(run, run.model.encode, images, labels)  # type: ignore[arg-type]
    if not codes.isfinite().all():
        raise UserError(f"{run.path}: the encoder gives NaN or infinite codes; train again with a lower lr=")
    return codes


def decode_codes(run: Run, codes: Tensor, labels: Tensor | None = None) -> Tensor:
    """Images of codes (N, Z): (N, C, H, W) in [0, 1] on the CPU; one label stands for all."""
    labels = labels if labels is None else labels.expand(len(codes))
    return through(run, run.model.decode, codes, labels)  # type: ignore[arg-type]


def through(run: Run, function: Callable[..., Tensor], inputs: Tensor, labels: Tensor | None = None) -> Tensor:
    """`function(inputs, labels)` on the run's device, PART rows at a time, without gradients; on the CPU."""
    parts = inputs.split(PART)
    of_part = [None] * len(parts) if labels is None else labels.to(run.device).split(PART)
    with torch.no_grad():
        done = [function(x.to(run.device), y).float().cpu() for x, y in zip(parts, of_part, strict=True)]
    return torch.cat(done)


def made_by(run: Run, verb: str, **what: Any) -> dict[str, Any]:
    """What a picture says of how it was made."""
    run_of = {"model": run.recipe.name, "run": str(run.path.resolve()), "weights": run.weights_id}
    return {"trilemma": __version__, "verb": verb, **run_of, **what}


def table(
    images: Tensor, names: Sequence[str], heads: Sequence[str] = (), texts: Sequence[str] | None = None
) -> "Image.Image":
    """Images in rows of equal length, with a name beside each row and heads above the columns.

    Args:
        images: (N, C, H, W), row by row; N is a multiple of the number of names.
        heads: one per column; where they are too wide, only every second, third ... is written.
        texts: what to write under each image.
    """
    from PIL import Image, ImageDraw

    letters, columns, pad = font(), len(images) // len(names), 4 if texts else 1
    body = grid(images, columns=columns, pad=pad, texts=texts)
    left = GAP + math.ceil(max(map(letters.getlength, names))) + GAP
    top = GAP + TEXT + GAP if heads else 0
    row, column = (body.height - pad) / len(names), (body.width - pad) / columns
    tile = images.shape[2] * max(1, TILE // max(images.shape[2:]))
    page = Image.new(body.mode, (left + body.width + GAP, top + body.height + GAP), "white")
    page.paste(body, (left, top))
    draw = ImageDraw.Draw(page)
    for k, name in enumerate(names):
        draw.text((left - GAP, top + k * row + tile / 2), name, fill="black", font=letters, anchor="rm")
    every = math.ceil(max(map(letters.getlength, heads), default=0) / column) or 1
    for k, head in enumerate(heads):
        if k % every == 0:
            draw.text((left + (k + 0.5) * column, top - GAP), head, fill="black", font=letters, anchor="ms")
    return page


def take(run: Run, source: Data, split: str | None, index: Tensor) -> Batch:
    """The images numbered `index` of a split, on the run's device."""
    chosen = (source.held_out[1] if split is None else source.splits[split]).take(index)
    return Batch(
        to_float(chosen.images.to(run.device)),
        None if chosen.labels is None else chosen.labels.to(run.device),
        chosen.captions,
        index.to(run.device),
    )


def _number(what: str | int | Path) -> int | None:
    """The number of an image; None for a file."""
    text = str(what)
    is_number = isinstance(what, int) or (text.removeprefix("-").isdecimal() and not os.path.exists(text))
    return int(text) if is_number else None


def _read(run: Run, path: Path) -> Tensor:
    """An image file, uint8 (1, C, H, W)."""
    channels, height, width = run.model_config.shape
    path = path.expanduser()
    if not os.path.isfile(path):  # False, too, for what is too long for a name
        raise UserError(f"there is no image file {path}; give one, or the number of an image of the held-out split")
    done = decode([Item(str(path), lambda: open_file(path))], (height, width), channels)
    if done.skipped:
        raise UserError(f"cannot read the image {done.skipped[0]}")
    return done.images


def _values(what: Named) -> Tensor | str | int | Path:
    """The numbers of a code (Z,) or of an image (1, C, H, W), where they are given; else what names an image."""
    if isinstance(what, int):
        return what
    given = _numbers_of(what) if isinstance(what, str | Path) else what
    if given is None:
        return str(what)
    try:
        values = torch.as_tensor(given)
    except (TypeError, ValueError, RuntimeError) as error:
        raise UserError(f"neither an image nor a code: {error}; give an image, its number, or a code") from None
    if values.ndim in (3, 4):
        values = values.float() / (255 if values.dtype == torch.uint8 else 1)
        return values if values.ndim == 4 else values[None]
    if values.ndim == 2 and len(values) == 1:
        values = values[0]
    if values.ndim != 1:
        raise UserError(f"a code is one row of numbers, and an image has 3 axes; got shape {tuple(values.shape)}")
    return values.float()


def _numbers_of(what: str | Path) -> np.ndarray | list[float] | None:
    """What a .npy file or a text with commas holds; None where it is the name or number of an image."""
    text, path = str(what), Path(what).expanduser()
    if path.suffix.lower() == ".npy" and os.path.isfile(path):
        try:
            return np.load(path, allow_pickle=False)
        except (ValueError, OSError) as error:
            raise UserError(f"{path} cannot be read: {error}; give a .npy file of numbers") from None
    if os.path.exists(path) or _number(text) is not None:
        return None
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        return None


def _checked_code(run: Run, code: Tensor) -> Tensor:
    """A code (1, Z), if it is one of the model's."""
    blank = torch.zeros(1, *run.model_config.shape)
    width = encode(run, blank, labels_for(run.model, torch.zeros(1, dtype=torch.int64))).shape[1]
    if code.shape[1] != width:
        raise UserError(f"the code has {code.shape[1]} numbers; those of {run.recipe.name} in {run.path} have {width}")
    if not code.isfinite().all():
        raise UserError("the code has NaN or infinite values; give finite numbers")
    return code


def _checked_image(run: Run, image: Tensor) -> Tensor:
    """An image (1, C, H, W), if it has the run's shape."""
    if tuple(image.shape) != (1, *run.model_config.shape):
        expected = " x ".join(map(str, run.model_config.shape))
        came = " x ".join(map(str, image.shape[1:]))
        raise UserError(f"the image is {came} (channels x height x width); {run.path} takes {expected}")
    if not (image >= 0).all() or not (image <= 1).all():
        raise UserError("the image has values outside 0 to 1; give floats in [0, 1], or uint8 levels")
    return image.to(run.device)
