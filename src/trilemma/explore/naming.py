"""What names an image or a code: a number, a file, an array, a text of numbers."""

import os
import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from trilemma.config import LARGEST_IMAGE
from trilemma.data.decoding.decode import decode
from trilemma.data.decoding.pixels import Header, Item, header, open_file
from trilemma.data.decoding.size import text as size_text
from trilemma.data.load import Source, slug
from trilemma.data.selection import ALL
from trilemma.data.sources.npy import read_array
from trilemma.errors import UserError
from trilemma.explore.codes import (
    ASKED,
    check_one_caption,
    code_width,
    condition_of_codes,
    note_search,
    read_codes,
)
from trilemma.explore.images import source_of, take, unseen
from trilemma.files import user_path
from trilemma.pictures.levels import to_float
from trilemma.rng import check_seed, normal
from trilemma.run.run import Run
from trilemma.text import note
from trilemma.types import UNCONDITIONAL, Batch, Condition, DrawsCodes, Encodes, Inverts, flags

LARGEST = 8 * LARGEST_IMAGE  # bytes of a code or an image in a .npy file
SEED = re.compile(r"seed:(\d+)")  # a code that is drawn
CROPPED = 1.5  # shapes (width / height) that differ by more than this factor lose so much that the user is warned
Named = str | int | Path | Tensor | np.ndarray | Sequence[float]  # what stands for an image or a code


def pick_image(run: Run, what: str | int | Path, data: Source | None = None) -> Batch:
    """One image on the run's device, with its label where that is known.

    Args:
        what: the number of an image of the held-out split; or an image file, which is brought to the run's size and
            channels by the rules for training images, which standard error says where it changes the image.
        data: other images to count in than the run's own, all of them.
    Raises:
        UserError: the number or the file does not exist, or the file cannot be read.
    """
    number = number_of(what)
    if number is None:
        return Batch(to_float(_read(run, Path(str(what))).to(run.device)))
    source = source_of(run, data)
    part = unseen(run, source)
    if not 0 <= number < len(part):
        where = source.name if part.name == ALL else f"the {part.name} split"
        raise UserError(f"image {number} not found in {where}: choose from 0 to {len(part) - 1}")
    return take(run, part, torch.tensor([number]))


def load_image(run: Run, what: str | int | Path, data: Source | None = None) -> Tensor:
    """One image on the run's device, float32 in [0, 1], (1, C, H, W); see `pick_image`."""
    return pick_image(run, what, data).image


def find_code(
    run: Run,
    what: Named,
    data: Source | None = None,
    label: str | int | None = None,
    caption: str | None = None,
) -> tuple[Tensor, Condition, Tensor | None]:
    """The code that a user names, for a model that encodes.

    Args:
        what: an image, as for `pick_image` or as a tensor (C, H, W) of the run's shape; or a code: its numbers, with
            commas between them in a text, a .npy file of them, the .npz file of `invert`, or seed:3 for that of image 0
            of a seed.
        label: the class, for a conditional model (default: the image's).
        caption: for a model that reads captions (default: the image's, of one that was never without; else none).
    Returns:
        The code (1, Z) on the CPU; the condition that it needs; the image (1, C, H, W) that it was encoded from, None
        where the code itself was given.
    Raises:
        UserError: several captions are given; or it has another shape than the run's, is not finite, lacks the class or
            caption that the model needs, or is of a kind that the model does not decode; or a code is to be drawn, and
            the model draws no images.
    """
    check_one_caption(caption)
    asked = partial(condition_of_codes, run, count=1, label=label, caption=caption, advise=ASKED)
    if isinstance(what, str) and (match := SEED.fullmatch(what)):
        condition = asked(UNCONDITIONAL)
        drawn = run.condition(label, 1, caption=caption)  # also the class that styles hold, and do not need afterwards
        return _drawn_code(run, int(match[1]), drawn), condition, None
    tensor = _values(run, what)
    if isinstance(tensor, Tensor) and tensor.ndim == 1:
        condition = asked(UNCONDITIONAL)
        return _checked_code(run, tensor[None]), condition, None
    batch = Batch(_checked_image(run, tensor)) if isinstance(tensor, Tensor) else pick_image(run, tensor, data)
    condition = asked(batch.condition)
    note_search(run)
    return run.encode(batch.image, condition=condition), condition, batch.image.cpu()


def _drawn_code(run: Run, seed: int, condition: Condition) -> Tensor:
    """The code that image 0 of a seed is drawn from, (1, Z) on the CPU; of a model that encodes, that of the image."""
    check_seed(seed)
    model = run.model
    if isinstance(model, DrawsCodes):
        return model.draw_codes(1, seed=seed, condition=condition.to(run.device)).float().cpu()
    if isinstance(model, Inverts) and not isinstance(model, Encodes) and (length := flags(model).code_length):
        return normal(torch.tensor([0]), (length,), seed, "x_T")  # the noise of samplers.draw_x0
    return run.encode(run.sample(1, seed=seed, condition=condition), condition=condition)


def image_word(what: str | int | Path) -> str:
    """An image as part of a file's name: its number, or a short form of its file's name."""
    number = number_of(what)
    return slug(Path(str(what))) if number is None else str(number)


def folder_of(what: str | int | Path) -> Path | None:
    """The folder that stands in the place of an image; None for anything else."""
    path = user_path(str(what))
    return path if number_of(what) is None and os.path.isdir(path) else None


def number_of(what: str | int | Path) -> int | None:
    """The number of an image; None for a file."""
    text = str(what)
    is_number = isinstance(what, int) or (text.removeprefix("-").isdecimal() and not os.path.exists(text))
    return int(text) if is_number else None


def _read(run: Run, path: Path) -> Tensor:
    """An image file, uint8 (1, C, H, W)."""
    channels, height, width = run.model_config.shape
    path = user_path(path)
    item = _item(path)
    images = _decoded(item, (height, width), channels)
    if change := _change(header(item), (channels, height, width)):
        note(f"{path.name}: {change}")
    return images


def read_whole(path: Path, channels: int) -> Tensor:
    """An image file at its own size, float32 in [0, 1], (1, channels, H, W).

    Raises:
        UserError: it does not exist, or cannot be read.
    """
    item = _item(user_path(path))
    return to_float(_decoded(item, header(item).size, channels))


def _item(path: Path) -> Item:
    if not os.path.isfile(path):  # False, too, for what is too long for a name
        what = "is a folder" if os.path.isdir(path) else "not found"
        raise UserError(f"image file {path} {what}; give a file, or the number of an image of the held-out split")
    return Item(str(path), lambda: open_file(path))


def _decoded(item: Item, size: tuple[int, int], channels: int) -> Tensor:
    decoded = decode([item], size, channels)
    if decoded.skipped:
        raise UserError(f"cannot read the image {decoded.skipped[0]}")
    return decoded.images


def _change(file: Header, shape: tuple[int, int, int]) -> str | None:
    """What the rule of `data.decoding.size` does to an image file, in words; None if it has the model's shape.

    >>> _change(Header((33, 90), grey=False), (1, 8, 8))
    '33x90 colour (height x width), brought to 8x8 grey; 63% of it is cut off: it is scaled to cover, its centre kept'
    >>> _change(Header((16, 16), grey=False), (3, 8, 8))
    '16x16 colour (height x width), brought to 8x8 colour'
    """
    channels, height, width = shape
    if file == ((height, width), channels == 1):
        return None
    to = f"brought to {size_text((height, width))} {'grey' if channels == 1 else 'colour'}"
    change = f"{size_text(file.size)} {'grey' if file.grey else 'colour'} (height x width), {to}"
    factor = file.size[1] / file.size[0] * height / width  # of the shapes
    factor = max(factor, 1 / factor)
    cut = f"; {1 - 1 / factor:.0%} of it is cut off: it is scaled to cover, its centre kept"
    return change + cut if factor > CROPPED else change


def _values(run: Run, what: Named) -> Tensor | str | int | Path:
    """The numbers of a code (Z,) or of an image (1, C, H, W); or what names an image."""
    if isinstance(what, int):
        return what
    numbers = _numbers_of(run, what) if isinstance(what, str | Path) else what
    if numbers is None:
        return str(what)
    try:
        values = torch.as_tensor(numbers)
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


def _numbers_of(run: Run, what: str | Path) -> np.ndarray | list[float] | None:
    """What a .npy or .npz file or a text with commas holds; None for the name or number of an image."""
    text, path = str(what), user_path(what)
    if path.suffix.lower() == ".npz" and os.path.isfile(path):
        return read_codes(run, path, LARGEST)
    if path.suffix.lower() == ".npy" and os.path.isfile(path):
        array = read_array(path)
        if array.nbytes > LARGEST:
            raise UserError(f"{path} holds {array.nbytes:,} bytes; a code or an image has at most {LARGEST:,}")
        return np.array(array)
    if os.path.exists(path) or number_of(text) is not None:
        return None
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        return None


def _checked_code(run: Run, code: Tensor) -> Tensor:
    """A code (1, Z), if it is one of the model's."""
    width = code_width(run)
    if code.shape[1] != width:
        raise UserError(f"the code has {code.shape[1]} numbers; codes of {run.recipe.name} in {run.path} have {width}")
    if not code.isfinite().all():
        raise UserError("the code has NaN or infinite values; give finite numbers")
    return code


def _checked_image(run: Run, image: Tensor) -> Tensor:
    """An image (1, C, H, W), if it has the run's shape."""
    if len(image) != 1:
        raise UserError(f"got {len(image)} images instead of one; give them one by one, for instance images[0]")
    if tuple(image.shape) != (1, *run.model_config.shape):
        expected = " x ".join(map(str, run.model_config.shape))
        shape = " x ".join(map(str, image.shape[1:]))
        raise UserError(f"the image is {shape} (channels x height x width); {run.path} takes {expected}")
    if not (image >= 0).all() or not (image <= 1).all():
        raise UserError("the image has values outside 0 to 1; give floats in [0, 1], or uint8 levels")
    return image.to(run.device)
