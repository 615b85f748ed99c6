"""What a comparison sets side by side: trainings, in rows of those that differ in their seed alone."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trilemma.errors import UserError
from trilemma.text import printable

if TYPE_CHECKING:
    from trilemma.run.run import Run

UNIMPORTANT = ("seed", "device", "save_every", "sample_every")  # keys of a training that make it no other one


@dataclass
class Entry:
    """One training: its run and what was measured, or the error that ended it.

    name: of its row in the tables; trainings that differ in their seed alone share one.
    error: why it has no figures.
    path: of a run that cannot be read.
    label: what it is called among the trainings of its row; the row's name where None.
    seed: of the training.
    times: ms per image in each turn of `cost.time_in_turns`.
    """

    name: str
    run: Any = None
    evaluation: Any = None
    error: str | None = None
    label: str = ""
    seed: int | None = None
    times: tuple[float, ...] = ()
    path: Path | None = None

    def __post_init__(self) -> None:
        self.label = self.label or self.name


def rows_of(entries: Sequence[Entry]) -> dict[str, list[Entry]]:
    """The trainings of each row, rows in the order of their first one."""
    return {name: [e for e in entries if e.name == name] for name in dict.fromkeys(e.name for e in entries)}


def shown(row: Sequence[Entry]) -> Entry:
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


def finished(runs: Sequence["Run | str | Path"]) -> list[Entry]:
    """Entries of runs on the same images, with names that tell them apart; all there is of them is read. One that
    cannot be read is an entry with its error.

    Raises:
        UserError: if there is no such folder, none can be read, one is given twice, or trained on other images.
    """
    opened, broken = _opened(runs)
    places = [run.path.resolve() for run in opened] + list(broken)
    labels = dict(zip(places, _names(places), strict=True))
    if not opened:
        raise UserError("; ".join(broken.values()))
    _same_data(opened)
    rows = _rows(opened)
    entries = [
        Entry(name, run, label=labels[run.path.resolve()], seed=run.config["training"].get("seed"))
        for row, name in zip(rows, _row_names(rows, labels), strict=True)
        for run in row
    ]
    return entries + [Entry(labels[place], error=error, path=place) for place, error in broken.items()]


def _opened(runs: Sequence["Run | str | Path"]) -> tuple[list["Run"], dict[Path, str]]:
    """The runs that can be read, and by their folders why the others cannot.

    Raises:
        UserError: if there is no such folder, or one is given twice.
    """
    from trilemma.run.run import Run, as_run

    opened: list[Run] = []
    broken: dict[Path, str] = {}
    for given in runs:
        try:
            run = as_run(given)
            _ = run.model, run.summary, run.log
            path, error = run.path, None
        except (UserError, OSError) as reason:
            if not isinstance(given, Run | str | Path):
                raise
            path, error = given.path if isinstance(given, Run) else Path(given).expanduser(), str(reason)
            if not path.is_dir():
                raise
        if path.resolve() in (*broken, *(run.path.resolve() for run in opened)):
            raise UserError(f"{path} is given twice; name each run once")
        if error is None:
            opened.append(run)
        else:
            broken[path.resolve()] = error
    return opened, broken


def _names(places: Sequence[Path]) -> list[str]:
    """The shortest names of folders that tell all of them apart."""
    plain = [printable(place.name) for place in places]
    names = plain if len(set(plain)) == len(plain) else [printable("/".join(place.parts[-2:])) for place in places]
    return names if len(set(names)) == len(names) else [printable(str(place)) for place in places]


def _rows(runs: Sequence["Run"]) -> list[list["Run"]]:
    """Runs that differ in their seed alone stand together; a seed that is there already begins a row of its own."""
    rows: list[list[Run]] = []
    for run in runs:
        row = next((row for row in rows if _another_seed(run, row)), None)
        if row is None:
            rows.append([run])
        else:
            row.append(run)
    return rows


def _another_seed(run: "Run", row: Sequence["Run"]) -> bool:
    seeds = [other.config["training"]["seed"] for other in row]
    return _apart_from_seed(run) == _apart_from_seed(row[0]) and run.config["training"]["seed"] not in seeds


def _apart_from_seed(run: "Run") -> tuple[Any, ...]:
    training = {key: value for key, value in run.config["training"].items() if key not in UNIMPORTANT}
    return run.recipe.name, run.model_config, training, run.config["data_config"], run.config["parts"]


def _row_names(rows: Sequence[Sequence["Run"]], labels: dict[Path, str]) -> list[str]:
    """The model's name where several of its trainings stand in one row, else the run's."""
    several = [row[0].recipe.name for row in rows if len(row) > 1]
    taken = {labels[row[0].path.resolve()] for row in rows if len(row) == 1}
    return [
        name
        if len(row) > 1 and several.count(name := row[0].recipe.name) == 1 and name not in taken
        else labels[row[0].path.resolve()]
        for row in rows
    ]


def _same_data(runs: Sequence["Run"]) -> None:
    """Refuse runs on different images: their figures would not compare."""
    first = runs[0]
    for run in runs[1:]:
        if _images(run) != _images(first):
            what, other = _images_text(first), _images_text(run)
            why = "the figures would not compare. Train both on the same data="
            if first.config["data"] == run.config["data"]:
                why += ", with the same size= and valid="
            raise UserError(f"{first.path} was trained on {what}, {run.path} on {other}: {why}")


def _images(run: "Run") -> tuple[Any, ...]:
    return run.config["fingerprint"], run.model_config.shape


def _images_text(run: "Run") -> str:
    shape = " x ".join(map(str, run.model_config.shape))
    return f"{run.config['data']} ({shape}, fingerprint {run.config['fingerprint'][:12]})"
