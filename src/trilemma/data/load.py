"""From a source anyone has to Data: a word, a folder, an archive, arrays, idx or parquet files, the hub, an array."""

import os
import re
import unicodedata
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import Field
from torch import Tensor

from trilemma.data.decoding.decoded import DecodedSource
from trilemma.data.decoding.listing import TARS
from trilemma.data.decoding.pixels import SUFFIXES
from trilemma.data.decoding.size import Size
from trilemma.data.options import FRAMES, Options, change
from trilemma.data.sources.arrays import GIVEN, is_given, load_arrays, load_given
from trilemma.data.sources.builtin import SOURCES, is_named, load_named, where_is
from trilemma.data.sources.consent import note_source
from trilemma.data.sources.divide import divide
from trilemma.data.sources.folder import ARRAYS, read_folder
from trilemma.data.sources.hub import PREFIX, read_hub
from trilemma.data.sources.idx import NAME as IDX
from trilemma.data.sources.idx import load_idx
from trilemma.data.sources.parquet import is_parquet, read_parquet
from trilemma.data.split import Data
from trilemma.errors import UserError
from trilemma.files import user_path
from trilemma.values import checked_call, refusal
from trilemma.vocabulary import DATA_KINDS, no_data

Source = Annotated[
    str | Path | Data | np.ndarray | Tensor | tuple[Any, Any],
    Field(title="a word, a path, an array or tensor of images, a pair (images, labels), or loaded data"),
]
Images = Annotated[Source | None, Field(description="images to use (default: the data of the run)")]
NAME_LENGTH = 40  # characters of a source's short name


@checked_call
def load_data(
    source: Source,
    *,
    size: Size | None = None,
    channels: int | None = None,
    valid: float | None = None,
    seed: int | None = None,
    frames: str | None = None,
    rule: str | None = None,
    most_px: int | None = None,
) -> Data:
    """Decode a source into uint8 images with splits.

    Args:
        source: a word of `list_sources()`, `hf:NAME`, or a path to a folder of images, a .zip or .tar of one, a
            folder of .tar shards, a .npz or .npy file, an idx file of images, a .parquet file or a folder of them.
            shapes:20000 draws that many training images. Or images in memory: an array or a tensor, uint8 or floats
            in [0, 1], of shape (N, H, W), (N, H, W, C) or (N, C, H, W), or a pair of one with N labels. Of two possible
            orders an array has its channels last, a tensor has them first. A Data is returned as it is, or loaded
            again from its source if other values are asked for; keys that are not given stay as they were.
        size: one side as 32, or height x width as "48x64" or (48, 64); inferred by default.
        channels: 1 or 3; inferred by default.
        valid: fraction of the training images to hold out for validation, where the source has none (default: a tenth;
            of a source without test images, where these serve to measure by, more: a third of them, up to 200).
        seed: chooses them; and draws the shapes (default: 0).
        frames: "first" (the default) takes the first frame or page of a GIF, WebP, PNG or TIFF file that has several;
            "all" makes an image of each, FILE#0, FILE#1 ..., with the file's class, caption and split.
        rule: "tenth" divides as earlier versions did, for their runs: a tenth, whatever the classes (default:
            "enough").
        most_px: of a side, where the size is inferred (default: 128 of images of one size, or else 64).
    Raises:
        UserError: the source is not found or holds nothing that can be read, or a value does not fit.
    """
    keys = {"size": size, "channels": channels, "valid": valid, "frames": frames, "seed": seed, "rule": rule}
    keys["most_px"] = most_px
    if isinstance(source, Data):
        options = change(source.options, **keys)
        if options == source.options:
            return source
        source = source.source if source.given is None else source.given
    else:
        options = change(Options(), **keys)
    if isinstance(source, str | Path):
        data = _load(source, options)
        note_source(source_word(data.source))
        return data
    if not is_given(source):
        raise refusal("data", source, Source)
    return load_given(source, options)


def _load(source: str | Path, options: Options) -> Data:
    """A source by its word or path."""
    path = user_path(source)
    where = str(source if is_hub(source) else path)
    if not is_named(source) and is_named(where):  # a path that would be taken for a word the next time
        where = str(path.absolute())
    decoded = read_image_files(source, options)
    notes = []
    if decoded is not None:
        data = divide(decoded, slug(path), where, options)
    else:
        data = _load_other(source, path, where, options._replace(frames=FRAMES[0]))
        notes += ["frames=all is not used: the source has no image files"] if options.frames == "all" else []
    if is_named(source) and path.exists():
        notes.append(f"{source} is the built-in data; for the folder here type ./{source}")
    return replace(data, notes=(*data.notes, *notes)) if notes else data


def _load_other(source: str | Path, path: Path, where: str, options: Options) -> Data:
    """A source that is not made of image files."""
    if is_named(source):
        return load_named(str(source), options)
    if path.suffix.lower() in ARRAYS and path.is_file():
        return load_arrays(path, slug(path), where, options)
    if IDX.search(path.name) and path.is_file():
        return load_idx(path, slug(path), where, options)
    if path.suffix.lower() in SUFFIXES and path.is_file():
        raise UserError(f"{path} is one image; put it in a folder with others, and give the folder")
    if str(source).startswith(f"{GIVEN}:"):
        raise UserError(
            f"{source} was an array in memory: give it as data= (of a run: trilemma.load(path, data=ARRAY)), or save "
            "it with numpy.save and give the file"
        )
    if path.exists():
        raise UserError(f"{path} is not of a kind that can be read: {DATA_KINDS}")
    raise no_data(str(source))


def read_image_files(source: str | Path, options: Options) -> DecodedSource | None:
    """A source of image files, decoded; None if it is of another kind or not found."""
    if not str(source).strip():
        raise UserError(f"the name of the data is empty; is a variable of the shell not set? Give {DATA_KINDS}")
    if is_named(source):
        return None
    if is_hub(source):
        return read_hub(str(source), options)
    path = user_path(source)
    if path.is_dir():
        return (read_parquet if is_parquet(path) else read_folder)(path, options)
    if not path.is_file():
        return None
    if path.suffix.lower() == ".parquet":
        return read_parquet(path, options)
    return read_folder(path, options) if path.name.lower().endswith((".zip", *TARS)) else None


def is_hub(source: str | Path) -> bool:
    """Whether a source is one of the Hugging Face hub."""
    return str(source).startswith(PREFIX)


def list_sources() -> list[tuple[str, str, str]]:
    """(word, what it holds, where it is) of every source known by name."""
    return [(word, source.what, where_is(word)) for word, source in SOURCES.items()]


def slug(path: Path) -> str:
    """A short name for a path, fit for a folder's name.

    >>> slug(Path("My Photos (2024).zip"))
    'my-photos-2024'
    """
    stem = path.resolve().name if os.path.isdir(path) else path.stem  # False for what is too long for a name
    name = re.sub(r"[^\w]+", "-", unicodedata.normalize("NFC", stem).lower()).strip("-_")
    return name[:NAME_LENGTH].rstrip("-_") or "data"


def source_word(source: str | Path) -> str:
    """The word of a source, or its absolute path: a run is used from other folders, too."""
    if str(source).startswith(f"{GIVEN}:"):
        return str(source)
    path = user_path(source)
    return str(source) if is_named(source) or not path.exists() else str(path.absolute())
