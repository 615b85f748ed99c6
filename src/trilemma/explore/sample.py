"""Draw images from a run into PNG files that carry how they were made.

With `x`, and `y`, keys vary over the picture: in each of its cells are the same images, drawn with other values.
"""

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import torch
from pydantic import Field
from torch import Tensor

from trilemma import __version__
from trilemma.config import Config
from trilemma.data.sources.labels import class_number
from trilemma.errors import UserError
from trilemma.explore.axes import Axes, axes_of
from trilemma.keys import AlongRow, BatchSize, Caption, Count, DownColumn, Label, Out, Seed
from trilemma.metrics.receipt import protocol_name, settings_words
from trilemma.pictures.grid import grid, tiled
from trilemma.pictures.levels import to_uint8
from trilemma.pictures.png import save_png
from trilemma.ranks import connected_ranks, current_team
from trilemma.results import claim, out_path
from trilemma.run.compute import ImageBatch
from trilemma.run.run import Run, RunLike, as_run
from trilemma.team import Team, by_writer, part_of, together
from trilemma.types import Samples, keys_of
from trilemma.values import checked_call

if TYPE_CHECKING:
    from PIL import Image

FORMAT = 1  # of a receipt
GRID_LIMIT = 400  # images
OPTIONAL = ("unfinished", "guide", "caption", "x", "y")  # of a receipt: not written where there is none
ASKED = ("seed", "label", "caption")  # keys that may vary over a picture, besides those of the sampler
LONGEST_LABEL = 40  # letters in the name of a folder
LIKE_SETTING = re.compile(r"_[a-z_]+-")  # as in label-x_steps-5


@dataclass(frozen=True)
class SampleFiles:
    """The files: the first GRID_LIMIT images in one grid, and one file for each image; with keys that vary, cell by
    cell."""

    grid: Path
    images: list[Path]


class Receipt(Config):
    """How a picture was made: what it takes to make it again, and what its last digits may depend on.

    run, weights: the run's folder, and the `weights_id` it had.
    first, n, grid: the images numbered first ... first + n - 1 of `seed`, in a grid or a single image.
    batches: the batches they were computed in, each with the number of its first image and its size.
    unfinished: how far the training was, if the weights are those of a checkpoint; not written otherwise.
    guide: model, run and weights of the run that guided it; caption: what was asked for, as it was typed; x, y: keys
    that vary over the picture, whose cells have n images each; none of them is written where there is none.
    """

    format: int = FORMAT
    trilemma: str
    torch: str
    device: str
    threads: int
    precision: str
    model: str
    run: str
    weights: str
    seed: int
    label: str | int | None
    exact: bool
    settings: dict[str, Any]
    first: int
    n: int
    grid: bool
    batches: tuple[tuple[int, int], ...]
    unfinished: str | None = None
    guide: dict[str, str] | None = None
    caption: str | None = None
    x: str | None = None
    y: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain values only: what `make` takes back."""
        values = super().to_json()
        return {key: value for key, value in values.items() if value or key not in OPTIONAL or value == ""}


@checked_call
@connected_ranks()
def sample(
    run: RunLike,
    *,
    n: Count = 64,
    seed: Seed = 0,
    first: Annotated[
        int, Field(ge=0, description="number of the first image; image k of a seed is always the same")
    ] = 0,
    label: Label = None,
    caption: Caption = None,
    batch: BatchSize = 256,
    exact: Annotated[
        bool, Field(description="bit-equal for every n, first and batch; always computes whole batches of 64")
    ] = False,
    x: AlongRow = None,
    y: DownColumn = None,
    out: Out = None,
    singles: Annotated[bool, Field(description="also write each image to a file; the grid shows at most 400")] = True,
    **settings: Any,
) -> SampleFiles:
    """Draw `n` images and write `OUT.png`, a grid, and with `singles` one PNG each into OUT, as they are drawn.

    Processes that torchrun has started divide the batches.

    Args:
        batch: images computed at a time, which bounds the memory whatever n is.
        x, y: seed, label, caption or a key of the sampler, with its values, as "steps:5,10"; the picture has a cell
            for each pair of values, with the same n images in all of them, GRID_LIMIT at most together; single images
            lie in OUT/ROW-COLUMN.
        out: the folder of single images, beside which the grid lies, or the grid, if the name ends in .png; default:
            RUN/samples/seed-SEED, with the label and the settings in its name.
        exact, settings: see `Run.sample`.
    Raises:
        UserError: as `Run.sample`, an axis does not fit, or the disk refuses.
    """
    team = current_team()
    run = together(team, partial(as_run, run))
    settings = together(team, lambda: run.sampling(settings, sample).given())
    asked = {"seed": seed, "label": label, "caption": caption, "settings": settings}
    axes = axes_of_picture(run, x, y, n, asked)
    cells = [asked] if axes is None else [asked_in_cell(asked, cell) for cell in axes.cells]
    batch = min(batch, n)
    start, count = part_of(team, -(-n // batch))
    begin, end = (first + min(n, k * batch) for k in (start, start + count))
    parts = together(
        team, lambda: [_parts(run, cell, end - begin, first=begin, batch=batch, exact=exact) for cell in cells]
    )
    receipt = together(team, lambda: receipt_of(run, **asked, exact=exact, first=first, n=1, grid=False, batches=()))
    receipts = [receipt.with_(**cell) for cell in cells]
    if out is None:
        name = _folder_name(seed, label, settings, run.config["classes"], caption, [text for text in (x, y) if text])
        folder = run.path / "samples" / name
    else:
        folder = out_path(out)
    if folder.suffix.lower() == ".png":
        sheet, folder = folder, folder.with_suffix("")
    else:
        sheet = folder.with_name(f"{folder.name}.png")
    folders = [folder] if axes is None else [folder / name for name in axes.names]
    files = [place / f"{k:05d}.png" for place in folders for k in range(first, first + n) if singles]
    by_writer(team, lambda: claim([sheet, *files], within=run.path if out is None else folder))
    drawn = [
        _draw_cell(run, team, part, own, place if singles else None, (first, n))
        for own, part, place in zip(receipts, parts, folders, strict=True)
    ]
    images, batches = [images for images, _ in drawn], drawn[0][1]
    whole = receipt.with_(n=len(images[0]), grid=True, batches=batches, x=x, y=y)
    by_writer(team, lambda: save_png(sheet_of(images, axes), sheet, whole.to_json()))
    return SampleFiles(sheet, files)


def axes_of_picture(run: Run, x: str | None, y: str | None, n: int, asked: Mapping[str, Any]) -> Axes | None:
    """The axes of a picture of a run, each cell with n images; None where nothing varies.

    Args:
        asked: seed, label, caption and settings that were asked for.
    Raises:
        UserError: an axis does not fit, its key was given, too, or there are too many images.
    """
    if x is None:
        if y is not None:
            raise UserError("y= needs x=, the key that varies along a row")
        return None
    own = [key for key in keys_of(run.require("draw samples", Samples)).model_fields if key != "guide"]
    axes = axes_of(x, y, [*ASKED, *own], GRID_LIMIT)
    given = {**{key: asked[key] for key in ("label", "caption") if asked[key] is not None}, **asked["settings"]}
    for key in axes.cells[0]:
        if key in given:
            raise UserError(f"{key} varies over the picture; leave {key}= out")
    if (count := len(axes.cells)) * n > GRID_LIMIT:
        raise UserError(
            f"x= and y= make {count} cells of n={n} images; a picture has at most {GRID_LIMIT}: give "
            f"n={GRID_LIMIT // count} or less"
        )
    for cell in axes.cells:
        run.sampling(asked_in_cell(asked, cell)["settings"], sample)
    return axes


def asked_in_cell(asked: Mapping[str, Any], cell: Mapping[str, Any]) -> dict[str, Any]:
    """What is asked for in a cell: seed, label, caption and settings, with its values."""
    own = {key: str(value) if key == "caption" else value for key, value in cell.items() if key in ASKED}
    settings = {key: value for key, value in cell.items() if key not in ASKED}
    return {**asked, **own, "settings": {**asked["settings"], **settings}}


def sheet_of(images: Sequence[Tensor], axes: Axes | None) -> "Image.Image":
    """The picture of the images (n, C, H, W) of each cell, with its values under it."""
    if axes is None:
        return grid(images[0])
    texts = [axes.text_of(cell) for cell in axes.cells]
    return grid(torch.stack([tiled(part) for part in images]), axes.columns, scale=1, pad=4, texts=texts)


def _parts(run: Run, cell: Mapping[str, Any], n: int, *, first: int, batch: int, exact: bool) -> Iterable[ImageBatch]:
    """The batches of a cell; nothing is drawn before the first is asked for."""
    keys = {"seed": cell["seed"], "label": cell["label"], "caption": cell["caption"], "batch": batch, "exact": exact}
    return run.draw(n, first=first, **keys, keys=run.sampling(cell["settings"], sample)) if n else ()


def _draw_cell(
    run: Run, team: Team, parts: Iterable[ImageBatch], receipt: Receipt, folder: Path | None, place: tuple[int, int]
) -> tuple[Tensor, tuple[tuple[int, int], ...]]:
    """The first GRID_LIMIT images of a cell, uint8 (n, C, H, W), of all processes, and the batches they were drawn in.

    Args:
        folder: for a file of each image, as it is drawn; None for none.
        place: number of the first image, and how many there are.
    """
    first, n = place
    images = torch.zeros(min(n, GRID_LIMIT), *run.shape, dtype=torch.uint8)
    of_batch = torch.zeros(len(images), 2, dtype=torch.int64)  # of each image in the grid, its batch

    def draw_own() -> None:
        for part in parts:
            levels, at = to_uint8(part.images), part.first - first
            images[at : at + len(levels)] = levels[: max(0, len(images) - at)]
            of_batch[at : at + len(levels)] = torch.tensor(part.batch)
            for k, image in enumerate(levels if folder is not None else (), start=part.first):
                single = receipt.with_(first=k, batches=(part.batch,))
                assert folder is not None
                save_png(image, folder / f"{k:05d}.png", single.to_json())

    together(team, draw_own)
    for values in (images, of_batch):
        team.sum(values)
    return images, tuple((int(begin), int(size)) for begin, size in of_batch.unique(dim=0))


def _folder_name(
    seed: int,
    label: str | int | None,
    settings: dict[str, Any],
    classes: Sequence[str] = (),
    caption: str | None = None,
    axes: Sequence[str] = (),
) -> str:
    """
    >>> _folder_name(3, None, {}), _folder_name(0, "T-shirt/top", {"steps": 50, "eta": 0.5})
    ('seed-3', 'seed-0_label-T-shirt-top_eta-0.5_steps-50')
    >>> _folder_name(0, None, {}, caption="a red circle")
    'seed-0_caption-a-red-circle-a1e4a2'
    >>> _folder_name(0, None, {}, axes=["steps:1,2", "eta:0,0.5"])
    'seed-0_steps-1-2-eta-0-0.5-dadd51'
    """
    asked = [] if label is None else [f"label-{label_name(label, classes)}"]
    if caption is not None:  # two that begin alike have folders of their own
        asked.append(f"caption-{_short(caption)}-{hashlib.sha256(caption.encode()).hexdigest()[:6]}")
    if axes:  # as a caption
        asked.append(f"{_short('-'.join(axes))}-{hashlib.sha256(' '.join(axes).encode()).hexdigest()[:6]}")
    return protocol_name(f"seed-{seed}", *asked, *settings_words(settings))


def label_name(label: str | int, classes: Sequence[str]) -> str:
    """A label as part of a name; its number follows where another class, or a setting, would look the same.

    >>> [label_name(label, ["猫", "a b", "a+b", "A"]) for label in ("猫", "a b", 2, "A")]
    ['猫', 'a-b@1', '2', 'A']
    """
    name, number = _short(label), class_number(label, classes)
    others = {_short(other).casefold() for k, other in enumerate(classes) if k != number}
    clear = name.casefold() not in others and not LIKE_SETTING.search(name)
    return name if clear else f"{name}@{number}"


def _short(label: str | int) -> str:
    return protocol_name(str(label))[:LONGEST_LABEL]


def receipt_of(run: Run, **what: Any) -> Receipt:
    """The receipt of a picture made now, on this machine."""
    return Receipt(
        guide=run.guide_origin(run.sampling(what["settings"], Run.sample)),
        trilemma=__version__,
        torch=torch.__version__,
        device=str(run.device),
        threads=torch.get_num_threads(),
        precision=str(next(run.model.parameters()).dtype).removeprefix("torch."),
        model=run.recipe.name,
        **run.origin,
        **what,
    )
