"""Draw images from a run into PNG files that carry how they were made."""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import Field

from trilemma import __version__
from trilemma.config import Config
from trilemma.data.sources.labels import class_number
from trilemma.keys import BatchSize, Caption, Count, Label, Out, Seed
from trilemma.metrics.receipt import protocol_name, settings_words
from trilemma.pictures.grid import grid
from trilemma.pictures.levels import to_uint8
from trilemma.pictures.png import save_png
from trilemma.ranks import connected_ranks, current_team
from trilemma.results import claim, out_path
from trilemma.run.run import Run, RunLike, as_run
from trilemma.team import part_of, together
from trilemma.values import checked_call

FORMAT = 1  # of a receipt
GRID_LIMIT = 400  # images
OPTIONAL = ("unfinished", "guide", "caption")  # of a receipt: not written where there is none
LONGEST_LABEL = 40  # letters in the name of a folder
LIKE_SETTING = re.compile(r"_[a-z_]+-")  # as in label-x_steps-5


@dataclass(frozen=True)
class SampleFiles:
    """The files: the first GRID_LIMIT images in one grid, and one file for each image."""

    grid: Path
    images: list[Path]


class Receipt(Config):
    """How a picture was made: what it takes to make it again, and what its last digits may depend on.

    run, weights: the run's folder, and the `weights_id` it had.
    first, n, grid: the images numbered first ... first + n - 1 of `seed`, in a grid or a single image.
    batches: the batches they were computed in, each with the number of its first image and its size.
    unfinished: how far the training was, if the weights are those of a checkpoint; not written otherwise.
    guide: model, run and weights of the run that guided it; caption: what was asked for, as it was typed; neither is
    written where there is none.
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

    def to_json(self) -> dict[str, Any]:
        """Plain values only: what `make` takes back."""
        values = super().to_json()
        return {
            key: value
            for key, value in values.items()
            if value or key not in ("unfinished", "guide", "caption") or value == ""
        }


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
    out: Out = None,
    singles: Annotated[bool, Field(description="also write each image to a file; the grid shows at most 400")] = True,
    **settings: Any,
) -> SampleFiles:
    """Draw `n` images and write `OUT.png`, a grid, and with `singles` one PNG each into OUT, as they are drawn.

    Processes that torchrun has started divide the batches.

    Args:
        batch: images computed at a time, which bounds the memory whatever n is.
        out: the folder of single images, beside which the grid lies, or the grid, if the name ends in .png; default:
            RUN/samples/seed-SEED, with the label and the settings in its name.
        exact, settings: see `Run.sample`.
    Raises:
        UserError: as `Run.sample`, or if the disk refuses.
    """
    run, team = as_run(run), current_team()
    keys = run.sampling(settings, sample)
    settings = keys.given()
    batch = min(batch, n)
    start, count = part_of(team, -(-n // batch))
    begin, end = (first + min(n, k * batch) for k in (start, start + count))
    asked = {"label": label, "caption": caption, "batch": batch, "exact": exact, "keys": keys}
    parts = run.draw(end - begin, seed=seed, first=begin, **asked) if count else ()
    receipt = receipt_of(
        run,
        seed=seed,
        label=label,
        caption=caption,
        exact=exact,
        settings=settings,
        first=first,
        n=1,
        grid=False,
        batches=(),
    )
    if out is None:
        folder = run.path / "samples" / _folder_name(seed, label, settings, run.config["classes"], caption)
    else:
        folder = out_path(out)
    if folder.suffix.lower() == ".png":
        sheet, folder = folder, folder.with_suffix("")
    else:
        sheet = folder.with_name(f"{folder.name}.png")
    files = [folder / f"{k:05d}.png" for k in range(first, first + n) if singles]
    together(team, lambda: claim([sheet, *files], within=run.path if out is None else folder) if team.writes else None)
    images = torch.zeros(min(n, GRID_LIMIT), *run.shape, dtype=torch.uint8)
    of_batch = torch.zeros(len(images), 2, dtype=torch.int64)  # of each image in the grid, its batch

    def draw_own() -> None:
        for part in parts:
            levels, place = to_uint8(part.images), part.first - first
            images[place : place + len(levels)] = levels[: max(0, len(images) - place)]
            of_batch[place : place + len(levels)] = torch.tensor(part.batch)
            for k, image in enumerate(levels if singles else (), start=part.first):
                single = receipt.with_(first=k, batches=(part.batch,))
                save_png(image, folder / f"{k:05d}.png", single.to_json())

    together(team, draw_own)
    for values in (images, of_batch):
        team.sum(values)
    batches = tuple((int(begin), int(size)) for begin, size in of_batch.unique(dim=0))
    whole = receipt.with_(n=len(images), grid=True, batches=batches)
    together(team, lambda: save_png(grid(images), sheet, whole.to_json()) if team.writes else None)
    return SampleFiles(sheet, files)


def _folder_name(
    seed: int,
    label: str | int | None,
    settings: dict[str, Any],
    classes: Sequence[str] = (),
    caption: str | None = None,
) -> str:
    """
    >>> _folder_name(3, None, {}), _folder_name(0, "T-shirt/top", {"steps": 50, "eta": 0.5})
    ('seed-3', 'seed-0_label-T-shirt-top_eta-0.5_steps-50')
    >>> _folder_name(0, None, {}, caption="a red circle")
    'seed-0_caption-a-red-circle-a1e4a2'
    """
    asked = [] if label is None else [f"label-{label_name(label, classes)}"]
    if caption is not None:  # two that begin alike have folders of their own
        asked.append(f"caption-{_short(caption)}-{hashlib.sha256(caption.encode()).hexdigest()[:6]}")
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
