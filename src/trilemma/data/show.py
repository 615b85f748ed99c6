"""A picture of a batch as the network sees it: after every conversion, with captions or class names."""

from pathlib import Path
from typing import Annotated

from pydantic import Field

from trilemma.arguments import typed
from trilemma.data.load import Source, load_data, source_word
from trilemma.data.loader import Loader
from trilemma.data.split import Data
from trilemma.keys import Channels, Count, Frames, Resize
from trilemma.pictures.grid import grid
from trilemma.pictures.png import receipt_for, save_png
from trilemma.results import claim, out_path
from trilemma.text import quoted
from trilemma.types import Batch
from trilemma.values import checked_call


@checked_call
def show(
    source: Annotated[Source, Field(description="a word from `trilemma data list`, or a path")],
    *,
    n: Count = 64,
    size: Resize = None,
    seed: Annotated[
        int, Field(description="random seed of the order and of the validation split (split_seed in training)")
    ] = 0,
    out: Annotated[
        str | Path | None, Field(description="picture to write (default: chosen for you and printed)")
    ] = None,
    augment: Annotated[tuple[str, ...], Field(description="augmentation as in training: flip,shift")] = (),
    frames: Frames = None,
    channels: Channels = None,
) -> Path:
    """Write a picture of the first n training images, in the order of the first epoch.

    Args:
        seed: of that order; and as in `load_data`, for data not loaded yet.
        size, frames, channels: as in `load_data`.
        out: the PNG; default: the source's name in the current folder.
    Raises:
        UserError: as `load_data`.
    """
    picture = None if out is None else out_path(out)
    if picture is not None:
        claim([picture], within=picture.parent)
    split_seed = None if isinstance(source, Data) else seed
    data = load_data(source, size=size, channels=channels, seed=split_seed, frames=frames)
    path = picture or Path(f"{data.name}.png")
    claim([path], within=path.parent)
    loader = Loader(data.train, batch=min(n, len(data.train)), seed=seed, augment=augment)
    batch = loader.batch_at(0)
    keys = {"n": n, "size": f"{data.shape[1]}x{data.shape[2]}", "channels": data.shape[0], "seed": seed}
    keys |= {"frames": data.options.frames} | ({"augment": augment} if augment else {})
    words = ["trilemma", "data", "show", source_word(data.source), *typed(keys)]
    receipt = receipt_for("data show", data=data.source, **keys, notes=data.notes)
    if data.options.seed == seed and data.options.valid is None:  # the verb has no keys for those of loaded data
        receipt["command"] = quoted(words)
    return save_png(grid(batch.image, texts=texts_of(batch, data)), path, receipt)


def texts_of(batch: Batch, data: Data) -> list[str] | None:
    """What to write under each image: its caption, else its class, else its file's name; None if it has none.

    The batch is one of the training split.
    """
    if batch.condition.caption is not None:
        return list(batch.condition.caption)
    if batch.condition.label is not None and data.classes:
        return [data.classes[k] for k in batch.condition.label.tolist()]
    if batch.index is not None and data.train.names is not None:
        return [Path(data.train.names[k]).name for k in batch.index.tolist()]
    return None
