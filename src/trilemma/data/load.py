"""From a source anyone has to Data: a word, a folder, an archive, arrays, idx or parquet files, the hub, an array."""

import re
import unicodedata
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import Field
from torch import Tensor

from trilemma.data.decoding.listing import TARS
from trilemma.data.decoding.pixels import SUFFIXES
from trilemma.data.decoding.size import Size, parse_size
from trilemma.data.sources.arrays import GIVEN, is_given, load_arrays, load_given
from trilemma.data.sources.builtin import SOURCES, Options, is_named, load_named, where
from trilemma.data.sources.consent import remember
from trilemma.data.sources.decoded import DecodedSource, finish
from trilemma.data.sources.folder import ARRAYS, read_folder
from trilemma.data.sources.hub import PREFIX, read_hub
from trilemma.data.sources.idx import NAME as IDX
from trilemma.data.sources.idx import load_idx
from trilemma.data.sources.parquet import is_parquet, read_parquet
from trilemma.data.split import RULES, Data, share
from trilemma.errors import UserError, unknown
from trilemma.values import checked_call, refusal
from trilemma.vocabulary import DATA_KINDS, no_data

Source = Annotated[
    str | Path | Data | np.ndarray | Tensor | tuple[Any, Any],
    Field(title="a word, a path, an array or tensor of images, a pair (images, labels), or loaded data"),
]
FRAMES = ("first", "all")  # of a file with several
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
) -> Data:
    """Decode a source into uint8 images with splits.

    Args:
        source: a word of `list_sources()`, `hf:NAME`, or a path to a folder of images, a .zip or .tar of one, a
            folder of .tar shards, a .npz or .npy file, an idx file of images, a .parquet file or a folder of them.
            shapes:20000 draws that many training images. Or images in memory: an array or a tensor, uint8 or floats
            in [0, 1], of shape (N, H, W), (N, H, W, C) or (N, C, H, W), or a pair of one with N labels. Of two possible
            orders an array has its channels last, a tensor has them first. A Data is given back as it is, or loaded
            again from its source if it was loaded in another way than is asked; what is not asked stays as it was.
        size: one side as 32, or height x width as "48x64" or (48, 64); inferred where None.
        channels: 1 or 3; inferred where None.
        valid: fraction of the training images to set aside for validation, where the source has none. A tenth where
            None; of a source without test images, which are then measured by, more: a third of them, up to 200.
        seed: chooses them; and draws the shapes. 0 where None.
        frames: "first" takes the first frame or page of a GIF, WebP, PNG or TIFF file that has several; "all" makes
            an image of each, FILE#0 and on, with the file's class, caption and split. "first" where None.
        rule: "tenth" divides as earlier versions did, for their runs: a tenth, whatever the classes. "enough" where
            None.
    Raises:
        UserError: the source is not known or holds nothing that can be read, or a value does not fit.
    """
    target = parse_size(size)
    check_channels(channels)
    if valid is not None:
        share(2, valid)
    check_frames(frames)
    if rule not in (None, *RULES):
        raise unknown("rule", rule, RULES)
    if isinstance(source, Data):
        was = (source.shape[1:], source.shape[0], source.fraction, source.seed, source.frames, source.rule)
        target, channels, frames = target or source.shape[1:], channels or source.shape[0], frames or source.frames
        valid, seed = source.fraction if valid is None else valid, source.seed if seed is None else seed
        rule = rule or source.rule
        if (target, channels, valid, seed, frames, rule) == was:
            return source
        source = source.source if source.given is None else source.given
    seed, rule = seed or 0, rule or RULES[0]
    if not isinstance(source, str | Path):
        return _load_given(source, Options(target, channels, valid, seed, rule))
    path = Path(source).expanduser()
    raw = read_image_files(source, target, channels, frames or "first")
    if raw is not None:
        data = finish(raw, slug(path), str(source if is_hub(source) else path), valid, seed, rule)
        data = replace(data, frames=frames or "first")
    else:
        data = _load_other(source, path, Options(target, channels, valid, seed, rule))
        unused = ("frames=all is not used: the source has no image files",) if frames == "all" else ()
        data = replace(data, notes=(*data.notes, *unused))
    a_word = not is_named(source) and is_named(data.source)  # a path that would be taken for one the next time
    if is_named(source) and path.exists():
        data = replace(data, notes=(*data.notes, f"{source} is the built-in data; for the folder here type ./{source}"))
    data = replace(data, source=str(path.absolute()) if a_word else data.source, fraction=valid, seed=seed, rule=rule)
    remember(source_word(data.source))
    return data


def _load_given(source: Any, options: Options) -> Data:
    """Images in memory."""
    if not is_given(source):
        raise refusal("data", source, Source)
    data = load_given(source, **options._asdict())
    return replace(data, fraction=options.valid, seed=options.seed, rule=options.rule, given=source)


def check_channels(channels: int | None) -> None:
    """Raises UserError for a number that images do not have."""
    if channels not in (None, 1, 3):
        raise UserError(f"channels={channels}: choose 1 (grey) or 3 (colour)")


def check_frames(frames: str | None) -> None:
    """Raises UserError for a word that is not known."""
    if frames not in (None, *FRAMES):
        raise UserError(f"frames={frames}: choose first (of each file the first frame or page) or all (each an image)")


def _load_other(source: str | Path, path: Path, options: Options) -> Data:
    """A source that is not made of image files."""
    if is_named(source):
        return load_named(str(source), options)
    if path.suffix.lower() in ARRAYS and path.is_file():
        return load_arrays(path, slug(path), **options._asdict())
    if IDX.search(path.name) and path.is_file():
        return load_idx(path, slug(path), **options._asdict())
    if path.suffix.lower() in SUFFIXES and path.is_file():
        raise UserError(f"{path} is one image; put it in a folder with others, and give the folder")
    if str(source).startswith(f"{GIVEN}:"):
        raise UserError(
            f"{source} was an array in memory: give it as data=, or save it with numpy.save and give the file"
        )
    if path.exists():
        raise UserError(f"{path} is none of the kinds that can be read: {DATA_KINDS}")
    raise no_data(str(source))


def read_image_files(
    source: str | Path, size: tuple[int, int] | None, channels: int | None = None, frames: str = "first"
) -> DecodedSource | None:
    """A source of image files as it was read; None where it is of another kind or not there."""
    if not str(source).strip():
        raise UserError(
            f"the name of the data is empty, as where a variable of the shell is not set; give {DATA_KINDS}"
        )
    if is_named(source):
        return None
    if is_hub(source):
        return read_hub(str(source), size, channels, frames)
    path = Path(source).expanduser()
    if path.is_dir():
        return (read_parquet if is_parquet(path) else read_folder)(path, size, channels, frames)
    if not path.is_file():
        return None
    if path.suffix.lower() == ".parquet":
        return read_parquet(path, size, channels, frames)
    return read_folder(path, size, channels, frames) if path.name.lower().endswith((".zip", *TARS)) else None


def is_hub(source: str | Path) -> bool:
    """Whether a source is one of the Hugging Face hub."""
    return str(source).startswith(PREFIX)


def list_sources() -> list[tuple[str, str, str]]:
    """(word, what it holds, where it is) of every source known by name."""
    return [(word, source.what, where(word)) for word, source in SOURCES.items()]


def slug(path: Path) -> str:
    """A short name for a path, fit for a folder's name.

    >>> slug(Path("My Photos (2024).zip"))
    'my-photos-2024'
    """
    stem = path.resolve().name if path.is_dir() else path.stem
    name = re.sub(r"[^\w]+", "-", unicodedata.normalize("NFC", stem).lower()).strip("-_")
    return name[:NAME_LENGTH].rstrip("-_") or "data"


def source_word(source: str | Path) -> str:
    """The word of a source, or its absolute path: a run is used from other folders, too."""
    if str(source).startswith(f"{GIVEN}:"):
        return str(source)
    path = Path(source).expanduser()
    return str(source) if is_named(source) or not path.exists() else str(path.absolute())
