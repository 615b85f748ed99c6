"""What can be measured: whatever draws images, a run, a published pipeline, or a set of existing images.

A contestant draws image k of a seed by its number, as a run does. A set of images has no model behind it, so that its
cost is not known: its images of a seed are its own in an order that the seed chooses, as many as there are.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Protocol, runtime_checkable

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from trilemma import rng
from trilemma.data import Data, Split, load_data
from trilemma.data.decoding.size import MEASURED_PX, Size, choose_size, fit
from trilemma.data.load import Source
from trilemma.data.selection import ALL, Selection, all_splits
from trilemma.data.sources.arrays import GIVEN, as_numpy, to_images
from trilemma.errors import UserError
from trilemma.files import user_path
from trilemma.pictures.png import read_metadata
from trilemma.pretrained.table import pipeline_name
from trilemma.run.compute import ImageBatch
from trilemma.run.locate import CONFIG, is_of_hub, no_run
from trilemma.run.run import Run, load
from trilemma.run.text_to_image import TextToImage
from trilemma.values import refusal
from trilemma.words import names_counted

Shape = tuple[int, int, int]
KINDS = {1: "grey", 3: "colour"}  # of images, by their channels


@runtime_checkable
class Contestant(Protocol):
    """Draws images of one shape (channels, height, width).

    classes: their names, () where there are none; count: how many different images there are, None where there is no
    end to them.
    """

    @property
    def name(self) -> str: ...
    @property
    def shape(self) -> Shape: ...
    @property
    def classes(self) -> Sequence[str]: ...
    @property
    def count(self) -> int | None: ...

    def draw(self, n: int, *, seed: int, first: int, batch: int, **settings: Any) -> Iterator[ImageBatch]:
        """Images number first ... first + n - 1 of a seed, `batch` at a time: uint8 levels, or floats in [0, 1]."""
        ...


@dataclass(frozen=True)
class ImageSet:
    """Images of a folder, an archive, an array file, or in memory, as a contestant.

    place: the path in full; None of images in memory.
    notes: how the images came to their shape, and which could not be read, in words.
    data: that they are the images of; None of an array.
    """

    name: str
    images: Selection
    shape: Shape
    classes: tuple[str, ...] = ()
    place: Path | None = None
    notes: tuple[str, ...] = ()
    data: Data | None = field(default=None, repr=False, compare=False)

    @property
    def count(self) -> int:
        return len(self.images)

    def fingerprint(self, n: int | None = None, seed: int = 0) -> str:
        """SHA-256, hex, of the levels of the first n images of a seed (default: all), which are read."""
        digest = hashlib.sha256()
        for drawn in self.draw(self.count if n is None else n, seed=seed):
            digest.update(drawn.images.contiguous().numpy().tobytes())
        return digest.hexdigest()

    def draw(self, n: int, *, seed: int = 0, first: int = 0, batch: int = 256, **settings: Any) -> Iterator[ImageBatch]:
        """uint8 levels, in the order that the seed chooses.

        Raises:
            UserError: there are not so many, or a setting is given: there is no sampler.
        """
        if settings:
            raise UserError(
                f"{', '.join(settings)}: sampling settings are for a run, and {self.name} holds images; drop them"
            )
        if n < 1 or batch < 1 or not 0 <= first <= self.count - n:
            raise UserError(f"n={n}, first={first}, batch={batch}: {self.name} holds {self.count} images")
        order = rng.permutation(self.count, seed, "evaluate")[first : first + n]
        for start, part in zip(range(first, first + n, batch), order.split(batch), strict=True):
            yield ImageBatch(self.images.take(part).images, start, (start, len(part)))

    def described(self, n: int) -> str:
        """What n of them are, for a receipt."""
        if n == self.count:
            return f"the generated images are all {n} of {self.name}: a fixed set, whatever the seed"
        return (
            f"the generated images are {n} of the {self.count} of {self.name}: a fixed set, of which the seed chooses"
        )

    def in_shape(self, shape: Shape) -> "ImageSet":
        """The images in a shape: those of a source are read again, an array is scaled.

        Raises:
            UserError: the source is not there any more.
        """
        if self.shape == shape:
            return self
        channels, height, width = shape
        colour = () if channels == self.shape[0] else (f"{KINDS[self.shape[0]]} images, measured as {KINDS[channels]}",)
        if self.data is not None:
            data = load_data(self.data, size=(height, width), channels=channels)
            return _set_of(data, self.name, self.place, colour)
        splits = tuple(Split(fit(split.images, (height, width), channels)) for split in self.images.splits)
        scaled = () if shape[1:] == self.shape[1:] else (choose_size([self.shape[1:]], (height, width))[1],)
        images = replace(self.images, splits=splits)
        return replace(self, images=images, shape=shape, notes=(*scaled, *colour))


Thing = Annotated[Run | Source | Contestant, Field(title="a run, a path, an array or tensor of images, or loaded data")]


def contestant_of(what: Thing, size: Size | None = None) -> Contestant:
    """A run, the folder of one, "pipeline:NAME", or images: a folder or an archive of them, an array file, an array, or
    loaded data.

    Args:
        size: of the images of a folder, an archive or a file; default: as `images_to_measure` says.
    Raises:
        UserError: it is something else, or there is nothing at the path.
    """
    if isinstance(what, Run | ImageSet | TextToImage):
        return what
    if (name := pipeline_name(what)) is not None:
        return TextToImage(name)
    if isinstance(what, str | Path):
        return _of_path(what, size)
    if isinstance(what, Data):
        return _set_of(what, what.name)
    if isinstance(what, np.ndarray | Tensor):
        levels, _ = to_images(as_numpy(what), "the generated images")
        _, channels, height, width = levels.shape
        images = Selection(ALL, (Split(levels),), torch.arange(len(levels)))
        return ImageSet(GIVEN, images, (channels, height, width))
    if isinstance(what, Contestant):
        return what
    raise refusal("what", what, Thing)


def images_to_measure(source: Source, size: Size | None = None) -> Data:
    """Images as they are measured where no model says their size: as large as they are, up to MEASURED_PX on the longer
    side, or as it is asked for. Loaded data stay as they are where nothing is asked for."""
    if isinstance(source, Data):
        return load_data(source, size=size)
    return load_data(source, size=size, most_px=MEASURED_PX)


def is_images(what: Thing) -> bool:
    """Whether a path stands for images, and not for a run; nothing is read."""
    if not isinstance(what, str | Path):
        return False
    path = user_path(what)
    return path.exists() and path.name != CONFIG and not (path / CONFIG).is_file()


def _of_path(place: str | Path, size: Size | None) -> Contestant:
    path = user_path(place)
    if is_of_hub(place):
        return load(place)
    if not path.exists():
        raise no_run(path)
    if not is_images(place):
        return load(path)
    data = images_to_measure(place, size)
    if path.is_dir():
        _refuse_mixtures(path, [name for split in data.splits.values() for name in split.names or ()])
    return _set_of(data, path.resolve().name, path.absolute())


def _set_of(data: Data, name: str, place: Path | None = None, notes: Sequence[str] = ()) -> ImageSet:
    """All images of loaded data; notes: what there is to say beside how they were read."""
    return ImageSet(name, all_splits(data), data.shape, data.classes, place, (*data.reading_notes, *notes), data)


def _refuse_mixtures(folder: Path, names: Sequence[str]) -> None:
    """Each file is to hold one image, and all of ours to be drawn in one way: a grid among them would also spoil the
    size they are read at.

    Raises:
        UserError: a picture of ours holds several, or two were drawn with different weights or settings.
    """
    entries = {name: _metadata(folder / name) for name in names}
    if grids := [name for name, entry in entries.items() if entry.get("grid") or entry.get("n", 1) != 1]:
        holds = names_counted("grids of several", grids)
        raise UserError(f"{folder} holds {holds}; give a folder of single images, as `trilemma sample` writes one")
    if len({(str(entry.get("weights")), str(entry.get("settings"))) for entry in entries.values() if entry}) > 1:
        raise UserError(
            f"{folder} holds images of ours that were drawn with different weights or settings; "
            "draw each kind into a folder of its own with out="
        )


def _metadata(path: Path) -> dict[str, Any]:
    """What a PNG of ours says of how it was made; {} of any other image."""
    try:
        return read_metadata(path)
    except UserError:
        return {}
