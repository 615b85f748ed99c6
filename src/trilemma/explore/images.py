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
from trilemma.config import LARGEST_IMAGE
from trilemma.data import Data, load_data
from trilemma.data.arrays import read_array
from trilemma.data.builtin import is_named
from trilemma.data.consent import remember
from trilemma.data.decode import decode
from trilemma.data.loader import to_float
from trilemma.data.parts import ALL, Part, all_splits, one_split
from trilemma.data.pixels import Header, Item, header, open_file
from trilemma.data.size import text as size_text
from trilemma.data.sources import Source as DataSource
from trilemma.data.sources import is_given, source_word
from trilemma.errors import UserError, unknown
from trilemma.pictures import TEXT, TILE, font, grid
from trilemma.run import Run
from trilemma.text import note
from trilemma.types import Batch, codes_need_labels

if TYPE_CHECKING:
    from PIL import Image

PART = 256  # images that go through a model at a time
GAP = 6  # px between a table and its names
LARGEST = 8 * LARGEST_IMAGE  # bytes of a code or an image in a .npy file
CROPPED = 1.5  # shapes (width / height) that differ by more than this factor lose so much that it is said

Source = DataSource | None
Named = str | int | Path | Tensor | np.ndarray | Sequence[float]  # what stands for an image or a code


def require(run: Run, doing: str, *protocols: type) -> None:
    """Refuse a run whose model lacks a capability, with the models that have it.

    Args:
        doing: what it would do, as in "does not reconstruct".
    """
    run.require(doing, *protocols)


def labels_for(model: nn.Module, labels: Tensor | None, *, label: bool = False) -> Tensor | None:
    """The labels for a model whose codes need them, None for one whose codes do not.

    Args:
        label: whether the caller takes label=, which the error then advises.
    Raises:
        UserError: if the model needs labels and there are none, or one is not a class of the model.
    """
    if not codes_need_labels(model):
        return None
    if labels is None:
        advice = ", or say the class with label=" if label else ""
        raise UserError(f"this model needs the class of each image; give images with classes{advice}")
    outside = labels[(labels < 0) | (labels >= model.n_classes)]
    if len(outside):
        raise UserError(f"label {int(outside[0])} is not a class of this model: it has 0 to {model.n_classes - 1}")
    return labels


def source_of(run: Run, data: Source = None) -> Data:
    """The run's own data, or other data in its size and channels; where codes need labels, classes of one name are one.

    Raises:
        UserError: the data cannot be read, or have classes that such a model does not know.
    """
    if data is None:
        return run.data
    source, known = load(run, data), run.config["classes"]
    if not codes_need_labels(run.model) or not source.classes or list(source.classes) == list(known):
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


def load(run: Run, data: DataSource) -> Data:
    """Images in the size and channels that a run was trained on; its own data, if named, are split as in training.

    Raises:
        UserError: the data cannot be read, or are the run's own and have changed.
    """
    if isinstance(data, str | Path) and (word := source_word(data)) == run.config["data"]:
        remember(word)
        return run.data
    if is_given(data) and load_data(data).source == run.config["data"]:
        return run.read(data)
    channels, height, width = run.model_config.shape
    return load_data(data, size=(height, width), channels=channels)


def is_own(run: Run, source: Data) -> bool:
    """Whether a run was trained on images of this source.

    Data that are drawn in any number (shapes, shapes:500) are one source: the first of them are the same.
    """
    word, own = source_word(source.source), run.config["data"]
    if is_named(word):
        word, own = word.partition(":")[0], own.partition(":")[0]
    return word == own or source.fingerprint == run.config["fingerprint"]


def unseen(run: Run, source: Data) -> Part:
    """The images of a source that a run was not trained on: the held-out split of its own data, all of any other."""
    return one_split(source, source.held_out[0]) if is_own(run, source) else all_splits(source)


def part_of(run: Run, source: Data, split: str | None) -> Part:
    """A split by name; where None, the images that the run was not trained on.

    Raises:
        UserError: there is no such split.
    """
    if split is None:
        return unseen(run, source)
    if split not in source.splits:
        raise unknown("split", split, source.splits)
    return one_split(source, split)


def pick_images(
    run: Run, data: Source = None, n: int | None = None, split: str | None = None, *, seed: int | None = None
) -> Batch:
    """Images that the run was not trained on, or of a split, with their positions among them, on the run's device.

    Args:
        data: other images than the run's own; they are brought to the size and channels it was trained on.
        n: how many at most; all where None.
        split: "train", "valid" or "test"; where None, the run's held-out split, or all images of other data.
        seed: chooses which, spread over all of them; the first n where None.
    Raises:
        UserError: n is less than 1, or there is no such split.
    """
    if n is not None and n < 1:
        raise UserError(f"n={n}: at least 1 image is needed")
    return choose(run, part_of(run, source_of(run, data), split), n, seed)


def choose(run: Run, part: Part, n: int | None, seed: int | None) -> Batch:
    """The first n images at most, or n drawn by the seed, in their order, on the run's device."""
    count = len(part) if n is None else min(n, len(part))
    index = torch.arange(count) if seed is None else rng.permutation(len(part), seed, "images")[:count].sort().values
    return take(run, part, index)


def pick_image(run: Run, what: str | int | Path, data: Source = None) -> Batch:
    """One image on the run's device, with its label where that is known.

    Args:
        what: the number of an image of the held-out split; or an image file, which is brought to the run's size and
            channels by the rules for training images, which standard error says where it changes the image.
        data: other images to count in than the run's own, all of them.
    Raises:
        UserError: there is no such number or file, or the file cannot be read.
    """
    number = _number(what)
    if number is None:
        return Batch(to_float(_read(run, Path(str(what))).to(run.device)))
    source = source_of(run, data)
    part = unseen(run, source)
    if not 0 <= number < len(part):
        where = source.name if part.name == ALL else f"the {part.name} split"
        raise UserError(f"there is no image {number} in {where}: it has 0 to {len(part) - 1}")
    return take(run, part, torch.tensor([number]))


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
    found = _values(what)
    if isinstance(found, Tensor) and found.ndim == 1:
        labels = labels_for(run.model, class_of(run, label), label=True)
        return _checked_code(run, found[None]), labels, None
    batch = Batch(_checked_image(run, found)) if isinstance(found, Tensor) else pick_image(run, found, data)
    labels = labels_for(run.model, class_of(run, label, batch), label=True)
    return encode(run, batch.image, labels), labels, batch.image.cpu()


def class_of(run: Run, label: str | int | None, batch: Batch | None = None) -> Tensor | None:
    """A class by name or number as labels for a batch of images, or else (1,); where None, the batch's own, if any.

    Raises:
        UserError: if the model takes no class, or has none of that name.
    """
    if label is None:
        return None if batch is None else batch.label
    return torch.tensor([run._label_index(label)], device=run.device).expand(1 if batch is None else len(batch.image))


def encode(run: Run, images: Tensor, labels: Tensor | None = None) -> Tensor:
    """Codes of images (N, C, H, W), with a label for each: (N, Z) on the CPU."""
    return run.encode(images, labels, PART)


def code_width(run: Run) -> int:
    """How many numbers a code has."""
    blank = torch.zeros(1, *run.model_config.shape, dtype=torch.float32)
    return encode(run, blank, labels_for(run.model, torch.zeros(1, dtype=torch.int64))).shape[1]


def decode_codes(run: Run, codes: Tensor, labels: Tensor | None = None) -> Tensor:
    """Images of codes (N, Z): (N, C, H, W) in [0, 1] on the CPU; one label stands for all."""
    return run.decode(codes, None if labels is None else labels.expand(len(codes)), PART)


def through(run: Run, function: Callable[..., Tensor], inputs: Tensor, labels: Tensor | None = None) -> Tensor:
    """`function(inputs, labels)` on the run's device, PART rows at a time, without gradients; on the CPU."""
    return run._passed(function, inputs, labels, PART)


def name_of(data: Source) -> str | None:
    """What images were asked for, in a text."""
    return data if data is None else data.source if isinstance(data, Data) else str(data)


def made_by(run: Run, verb: str, **what: Any) -> dict[str, Any]:
    """What a picture says of how it was made."""
    return {"trilemma": __version__, "verb": verb, "model": run.recipe.name, **run.origin, **what}


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


def take(run: Run, part: Part, index: Tensor) -> Batch:
    """The images numbered `index`, on the run's device."""
    chosen = part.take(index)
    return Batch(
        to_float(chosen.images.to(run.device)),
        None if chosen.labels is None else chosen.labels.to(run.device),
        chosen.captions,
        index.to(run.device),
    )


def rows_of(batch: Batch, source: Data, part: Part) -> list[dict[str, Any]]:
    """What is known of each image: its position in the part of the source, its class and its file."""
    assert batch.index is not None
    names = part.take(batch.index.cpu()).names
    rows: list[dict[str, Any]] = [{"index": int(k)} for k in batch.index]
    for k, row in enumerate(rows):
        if batch.label is not None:
            row["class"] = class_name(source, int(batch.label[k]))
        if names is not None:
            row["file"] = names[k]
    return rows


def class_name(source: Data, label: int) -> str:
    """The name of a class, or its number where the classes have none."""
    return source.classes[label] if source.classes else str(label)


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
    item = Item(str(path), lambda: open_file(path))
    done = decode([item], (height, width), channels)
    if done.skipped:
        raise UserError(f"cannot read the image {done.skipped[0]}")
    if change := _change(header(item), (channels, height, width)):
        note(f"{path.name}: {change}")
    return done.images


def _change(came: Header, shape: tuple[int, int, int]) -> str | None:
    """What the rule of data/size.py does to an image file, in words; None where it has the model's shape (C, H, W).

    >>> _change(Header((33, 90), grey=False), (1, 8, 8))
    '33x90 colour (height x width), brought to 8x8 grey; 63% of it is cut off: it is scaled to cover, its centre kept'
    >>> _change(Header((16, 16), grey=False), (3, 8, 8))
    '16x16 colour (height x width), brought to 8x8 colour'
    """
    channels, height, width = shape
    if came == ((height, width), channels == 1):
        return None
    to = f"brought to {size_text((height, width))} {'grey' if channels == 1 else 'colour'}"
    said = f"{size_text(came.size)} {'grey' if came.grey else 'colour'} (height x width), {to}"
    factor = came.size[1] / came.size[0] * height / width  # of the shapes
    factor = max(factor, 1 / factor)
    cut = f"; {1 - 1 / factor:.0%} of it is cut off: it is scaled to cover, its centre kept"
    return said + cut if factor > CROPPED else said


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
        array = read_array(path)
        if array.nbytes > LARGEST:
            raise UserError(f"{path} holds {array.nbytes:,} bytes; a code or an image has at most {LARGEST:,}")
        return np.array(array)
    if os.path.exists(path) or _number(text) is not None:
        return None
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        return None


def _checked_code(run: Run, code: Tensor) -> Tensor:
    """A code (1, Z), if it is one of the model's."""
    width = code_width(run)
    if code.shape[1] != width:
        raise UserError(f"the code has {code.shape[1]} numbers; those of {run.recipe.name} in {run.path} have {width}")
    if not code.isfinite().all():
        raise UserError("the code has NaN or infinite values; give finite numbers")
    return code


def _checked_image(run: Run, image: Tensor) -> Tensor:
    """An image (1, C, H, W), if it has the run's shape."""
    if len(image) != 1:
        raise UserError(f"{len(image)} images were given, and one is needed; give them one by one, as images[0]")
    if tuple(image.shape) != (1, *run.model_config.shape):
        expected = " x ".join(map(str, run.model_config.shape))
        came = " x ".join(map(str, image.shape[1:]))
        raise UserError(f"the image is {came} (channels x height x width); {run.path} takes {expected}")
    if not (image >= 0).all() or not (image <= 1).all():
        raise UserError("the image has values outside 0 to 1; give floats in [0, 1], or uint8 levels")
    return image.to(run.device)
