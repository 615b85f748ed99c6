"""What a comparison sets side by side: trainings, in rows of those that differ in their seed alone, published
pipelines, and sets of images."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import chain, count
from pathlib import Path
from typing import TYPE_CHECKING

from trilemma.data import Data
from trilemma.data.decoding.size import Size
from trilemma.errors import UserError
from trilemma.files import user_path
from trilemma.pretrained.table import pipeline_name
from trilemma.run.contestant import Contestant, ImageSet, Shape, Thing, contestant_of
from trilemma.run.parts import identity
from trilemma.run.run import Run
from trilemma.run.text_to_image import TextToImage
from trilemma.text import printable
from trilemma.values import shown as as_typed

if TYPE_CHECKING:
    from trilemma.comparison.content import LearningPoint, SamplerPoint
    from trilemma.metrics.evaluate import Evaluation

UNIMPORTANT = (
    "seed",
    "device",
    "save_every",
    "sample_every",
    "keep_weights",
)  # keys of a training that make it no other one


@dataclass
class Entry:
    """One training, or one set of images: what was measured of it, or the error that ended it.

    name: of its row in the tables; trainings that differ in their seed alone share one.
    contestant: None of a model that is not trained, or cannot be read.
    error: why it has no scores.
    label: what it is called among the trainings of its row; default: the row's name.
    seed: of the training.
    times: ms per image in each turn of `cost.time_in_turns`.
    path: of a run that cannot be read.
    learning, samplers: of the training that stands for its row.
    """

    name: str
    contestant: Contestant | None = None
    evaluation: "Evaluation | None" = None
    error: str | None = None
    label: str = ""
    seed: int | None = None
    times: tuple[float, ...] = ()
    path: Path | None = None
    learning: "tuple[LearningPoint, ...]" = ()
    samplers: "tuple[SamplerPoint, ...]" = ()

    def __post_init__(self) -> None:
        self.label = self.label or self.name

    @property
    def run(self) -> Run | None:
        """The training's run; None of images, and of a model without one."""
        return self.contestant if isinstance(self.contestant, Run) else None

    @property
    def images(self) -> Contestant | None:
        """The set of images, or another contestant without a training; None of a training."""
        return None if isinstance(self.contestant, Run) else self.contestant

    @property
    def pipeline(self) -> TextToImage | None:
        """The published pipeline; None of any other."""
        return self.contestant if isinstance(self.contestant, TextToImage) else None

    @property
    def place(self) -> Path | None:
        """Where a set of images lies; None of any other, and of one in memory."""
        return self.contestant.place if isinstance(self.contestant, ImageSet) else None


def rows_of(entries: Sequence[Entry]) -> dict[str, list[Entry]]:
    """The trainings of each row, rows in the order of their first one."""
    return {name: [e for e in entries if e.name == name] for name in dict.fromkeys(e.name for e in entries)}


def representative(row: Sequence[Entry]) -> Entry:
    """The training whose samples, curves and settings stand for the row: the first measured, else the first trained."""
    best_first = [e for e in row if e.evaluation is not None] or [e for e in row if e.run is not None] or row
    return best_first[0]


def to_train(names: Sequence[str], seed: int, seeds: int) -> list[Entry]:
    """`seeds` trainings of each model, seed by seed, so that an interrupted comparison is whole in its first seeds."""
    return [
        Entry(name, label=f"{name}-seed-{seed + k}" if k else name, seed=seed + k)
        for k in range(seeds)
        for name in names
    ]


def entries_of(things: Sequence[Thing], size: Size | None = None) -> list[Entry]:
    """Entries of runs on the same images, of pipelines and of sets of images, with names that tell them apart; all
    there is of a run is read. One that cannot be read is an entry with its error.

    Args:
        size: of sets of images (default: as `images_to_measure` says).
    Raises:
        UserError: if there is nothing at a path, none can be read, one is given twice, or trained on other images.
    """
    opened, broken = _opened(things, size)
    if not opened:
        raise UserError("; ".join(broken.values()))
    runs = [run for run in opened.values() if isinstance(run, Run)]
    _same_data(runs)
    places = [*opened, *broken]
    labels = dict(zip(places, _names(places), strict=True))
    own = {id(contestant): labels[place] for place, contestant in opened.items()}
    rows = _rows(list(opened.values()))
    entries = [
        Entry(name, contestant, label=own[id(contestant)], seed=_seed(contestant))
        for row, name in zip(rows, _row_names(rows, own), strict=True)
        for contestant in row
    ]
    return entries + [Entry(labels[place], error=error, path=place) for place, error in broken.items()]


def _opened(things: Sequence[Thing], size: Size | None) -> tuple[dict[Path, Contestant], dict[Path, str]]:
    """What can be read, by its place, and by their folders why the others cannot.

    Raises:
        UserError: if there is nothing at a path, or one is given twice.
    """
    opened: dict[Path, Contestant] = {}
    broken: dict[Path, str] = {}
    for thing in things:
        place, error = _place(thing, opened), None
        try:
            contestant = contestant_of(thing, size)
            if isinstance(contestant, Run):
                _ = contestant.model, contestant.summary, contestant.log
                place = contestant.path.resolve()
        except (UserError, OSError) as reason:
            if not place.exists():
                raise
            contestant, error = None, str(reason)
        if place in (*opened, *broken):
            raise UserError(f"{as_typed(thing)} is given twice; name each run once")
        if contestant is None:
            broken[place] = str(error)
        else:
            opened[place] = contestant
    return opened, broken


def _place(thing: Thing, others: Collection[Path]) -> Path:
    """Where a thing is; of one in memory a name that the others do not have."""
    if (pipeline := pipeline_name(thing)) is not None:
        return Path(pipeline)
    if isinstance(thing, str | Path):
        return user_path(thing).resolve()
    if isinstance(thing, TextToImage):
        return Path(thing.model)
    return thing.path.resolve() if isinstance(thing, Run) else _name_in_memory(thing, others)


def _name_in_memory(thing: Thing, others: Collection[Path]) -> Path:
    """The name of a contestant or of loaded data, numbered where it is not the first; that of an array is its place."""
    name = Path(thing.name).name if isinstance(thing, Data | Contestant) else ""
    first = Path(name or f"images-{len(others) + 1}")
    numbered = (Path(f"{first}-{k}") for k in count(2))
    return next(place for place in chain([first], numbered) if place not in others)


def _seed(contestant: Contestant) -> int | None:
    return contestant.config["training"].get("seed") if isinstance(contestant, Run) else None


def _names(places: Sequence[Path]) -> list[str]:
    """The shortest names of folders that tell all of them apart."""
    plain = [printable(place.name) for place in places]
    names = plain if len(set(plain)) == len(plain) else [printable("/".join(place.parts[-2:])) for place in places]
    return names if len(set(names)) == len(names) else [printable(str(place)) for place in places]


def _rows(contestants: Sequence[Contestant]) -> list[list[Contestant]]:
    """Runs that differ in their seed alone stand together; a repeated seed begins a row of its own."""
    rows: list[list[Contestant]] = []
    for contestant in contestants:
        row = next((row for row in rows if _another_seed(contestant, row)), None)
        if row is None:
            rows.append([contestant])
        else:
            row.append(contestant)
    return rows


def _another_seed(contestant: Contestant, row: Sequence[Contestant]) -> bool:
    if not isinstance(contestant, Run) or not isinstance(row[0], Run):
        return False
    return _apart_from_seed(contestant) == _apart_from_seed(row[0]) and _seed(contestant) not in map(_seed, row)


def _apart_from_seed(run: Run) -> tuple[object, ...]:
    training = {key: value for key, value in run.config["training"].items() if key not in UNIMPORTANT}
    return run.recipe.name, run.model_config, training, run.config["data_config"], identity(run.config)


def _row_names(rows: Sequence[Sequence[Contestant]], labels: dict[int, str]) -> list[str]:
    """The model's name where several of its trainings stand in one row, else the run's."""
    models = [row[0].recipe.name if len(row) > 1 and isinstance(row[0], Run) else None for row in rows]
    run_names = {labels[id(row[0])] for row in rows if len(row) == 1}
    return [
        model if model and models.count(model) == 1 and model not in run_names else labels[id(row[0])]
        for row, model in zip(rows, models, strict=True)
    ]


def _same_data(runs: Sequence[Run]) -> None:
    """Refuse runs on different images: their scores would not compare."""
    for run in runs[1:]:
        first = runs[0]
        if _images(run) != _images(first):
            what, other = _images_text(first), _images_text(run)
            why = "the scores would not compare. Train both on the same data="
            if first.config["data"] == run.config["data"]:
                why += ", with the same size= and valid="
            raise UserError(f"{first.path} was trained on {what}, {run.path} on {other}: {why}")


def prepare_pipelines(entries: Sequence[Entry], data: Data, split: str, prompt: str | None) -> None:
    """Tell pipelines what they are to draw; they are located, too, so that an absent one is refused before any work.

    Raises:
        UserError: a pipeline is not found, or there is nothing to draw by.
    """
    for entry in entries:
        if entry.pipeline is not None:
            entry.contestant = pipeline = entry.pipeline.prepared(data, split, prompt)
            _ = pipeline.place


def prepare_images(entries: Sequence[Entry], shape: Shape, data_name: str) -> None:
    """Bring sets of images to the shape of the real ones, and refuse what draws in another one.

    Raises:
        UserError: one does not fit, or is not there any more.
    """
    for entry in entries:
        if isinstance(entry.contestant, ImageSet):
            entry.contestant = entry.contestant.in_shape(shape)
        if entry.images is None or tuple(entry.images.shape) == tuple(shape):
            continue
        same_size = tuple(entry.images.shape[1:]) == tuple(shape[1:])
        advice = "draw them with as many channels" if same_size else "resize them"
        raise UserError(
            f"{entry.label} draws images of {_by(entry.images.shape)} (channels, height, width), and the real ones "
            f"of {data_name} are {_by(shape)}; {advice}, or give other real images with against="
        )


def _images(run: Run) -> tuple[object, ...]:
    return run.config["fingerprint"], run.model_config.shape


def _images_text(run: Run) -> str:
    return f"{run.config['data']} ({_by(run.model_config.shape)}, fingerprint {run.config['fingerprint'][:12]})"


def _by(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape))
