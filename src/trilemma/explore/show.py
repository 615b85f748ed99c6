"""A picture of a batch as the network sees it: after every conversion, with captions or class names; or with what each
image shows, by EfficientNet-Lite0, beside a table of its likeliest classes."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from trilemma.arguments import typed
from trilemma.classifiers import imagenet
from trilemma.data import Data, Loader, load_data, texts_of
from trilemma.data.decoding.size import text as size_text
from trilemma.data.load import Source, source_word
from trilemma.keys import Channels, Count, Frames, Resize
from trilemma.metrics.features import extract
from trilemma.pictures.grid import grid
from trilemma.pictures.png import receipt_for
from trilemma.results import Results, claim, out_path
from trilemma.text import csv_text, note, quoted
from trilemma.types import Batch
from trilemma.values import checked_call

LIKELIEST = 3  # classes of an image in the table
Ranked = Sequence[tuple[str, float]]  # classes of an image with their probabilities, the likeliest first


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
    names: Annotated[
        bool,
        Field(
            description="name what each image shows, by the 1,000 classes of EfficientNet-Lite0, and write the "
            "likeliest with their probabilities beside the picture (.csv)"
        ),
    ] = False,
) -> Path:
    """Write a picture of the first n training images, in the order of the first epoch.

    Args:
        seed: of that order; and as in `load_data`, for data not loaded yet.
        size, frames, channels: as in `load_data`. Names are of the images at this size; the network takes 160x160.
        out: the PNG; default: the source's name in the current folder, with names followed by -names.
        names: the text under an image is its likeliest class. OUT.csv beside OUT.png has a row for each image: its
            number in the training split, its file and its class where they are known, and the likeliest classes.
    Raises:
        UserError: as `load_data`; or the weights of the network are not installed.
    """
    picture = None if out is None else out_path(out)
    if picture is not None:
        claim([picture], within=picture.parent)
    split_seed = None if isinstance(source, Data) else seed
    data = load_data(source, size=size, channels=channels, seed=split_seed, frames=frames)
    path = picture or Path(f"{data.name}-names.png" if names else f"{data.name}.png")
    # no picture of an earlier version stands for a table, which is what another verb= says
    results = Results(path, [table_of(path)] if names else [], verb="data show names", within=path.parent)
    batch = Loader(data.train, batch=min(n, len(data.train)), seed=seed, augment=augment).batch_at(0)
    keys = {"n": n, "size": f"{data.shape[1]}x{data.shape[2]}", "channels": data.shape[0], "seed": seed}
    keys |= {"frames": data.options.frames} | ({"augment": augment} if augment else {})
    if not names:
        return results.write(grid(batch.image, texts=texts_of(batch, data)), _receipt(data, keys), {})
    ranked = _likeliest(batch)
    sheet = grid(batch.image, texts=[f"{name} {p:.0%}" for (name, p), *_ in ranked])
    network = {"network": f"{imagenet.NAME}, SHA-256 {imagenet.SHA256}"}
    files = {table_of(path): csv_text(_rows(batch, data, ranked))}
    return results.write(sheet, _receipt(data, {**keys, "names": True}) | network, files)


def _receipt(data: Data, keys: Mapping[str, Any]) -> dict[str, Any]:
    """How the picture was made, with the command that makes it again where the verb has keys for all of it."""
    receipt = receipt_for("data show", data=data.source, **keys, notes=data.notes)
    if (
        data.options.seed == keys["seed"] and data.options.valid is None
    ):  # the verb has no keys for those of loaded data
        receipt["command"] = quoted(["trilemma", "data", "show", source_word(data.source), *typed(keys)])
    return receipt


def table_of(picture: Path) -> Path:
    """Where the names are that belong to a picture."""
    return picture.with_suffix(".csv")


def _likeliest(batch: Batch) -> Sequence[Ranked]:
    """The likeliest classes of each image."""
    height, width = batch.image.shape[2:]
    if min(height, width) < imagenet.SIDE:
        note(
            f"the images are named at {size_text((height, width))}; if the files are larger, size={imagenet.SIDE} "
            "gives better names"
        )
    network = imagenet.load_efficientnet()
    return imagenet.likeliest_classes(extract(network, batch.image), network, k=LIKELIEST)


def _rows(batch: Batch, data: Data, ranked: Sequence[Ranked]) -> list[list[object]]:
    """The table of names, with its head."""
    columns: dict[str, Sequence[object]] = {} if batch.index is None else {"image": batch.index.tolist()}
    if batch.index is not None and data.train.names is not None:
        columns["file"] = [data.train.names[k] for k in batch.index.tolist()]
    if batch.condition.label is not None and data.classes:
        columns["class"] = [data.classes[k] for k in batch.condition.label.tolist()]
    for k in range(LIKELIEST):
        columns[f"name {k + 1}"] = [classes[k][0] for classes in ranked]
        columns[f"probability {k + 1}"] = [f"{classes[k][1]:.4f}" for classes in ranked]
    return [[*columns], *map(list, zip(*columns.values(), strict=True))]
