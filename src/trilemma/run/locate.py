"""Where a run is: the folder a path stands for, and the error if there is none. Loads nothing heavy."""

from pathlib import Path

from trilemma.errors import UserError, nearest
from trilemma.files import user_path
from trilemma.vocabulary import data_words, models

RUNS = Path("runs")  # where runs are written; default of out=
CONFIG, WEIGHTS = "config.json", "weights.safetensors"
EARLIER = "earlier"  # of a run folder: weights that the training kept on its way, by the images seen
HUB = "hf:"  # before OWNER/NAME, of a run of the hub
MOST = 5  # runs named in a message


def run_folder(path: str | Path) -> Path:
    """The folder of a run, given as such or by its config.json; ~ is expanded. For one of the hub: hub.py.

    Raises:
        UserError: if it is not found, with the nearest one.
    """
    path = user_path(path)
    if (path / CONFIG).exists():  # what it is, the reader looks at
        return path
    if path.name == CONFIG and path.is_file():
        return path.parent
    raise no_run(path)


def is_of_hub(path: str | Path) -> bool:
    """Whether a run is named as one of the hub; a folder of that name is written ./hf:NAME."""
    return str(path).startswith(HUB)


def no_run(path: Path) -> UserError:
    """The error for a path that is not a run: what it is instead, the nearest run, or the runs there are."""
    runs = {str(run): run.name for run in known_runs(path.parent)}
    if path.exists():
        what = f"it has no {CONFIG}" if path.is_dir() else "it is a file"
        return UserError(f"{path} is not a run: {what}. Give a folder that `trilemma train` made{_such_as([*runs])}")
    text, word = f"run {path} not found", str(path)
    if word in models():
        own = [run for run, name in runs.items() if name.startswith(f"{word}-")]
        text += f": {word} is a model. Train it first: trilemma train {word} DATA"
        return UserError(text + (f"; or give a run of it: {', '.join(own[:MOST])}" if own else ""))
    if word.partition(":")[0] in data_words():
        return UserError(
            f"{text}: {word} is a data set. Give a run folder{_such_as([*runs])}; to train models on it and compare "
            f"them: trilemma compare data={word}"
        )
    if meant := nearest(path.name, runs.values()):
        return UserError(f"{text}. Did you mean {next(run for run, name in runs.items() if name == meant)}?")
    if not path.is_absolute():
        text += f" (in {Path.cwd()})"
    if not runs:
        return UserError(f"{text}, and no other run here. Give its full path, or train one: trilemma train MODEL DATA")
    more = f" and {len(runs) - MOST} more" if len(runs) > MOST else ""
    return UserError(f"{text}. Runs here: {', '.join([*runs][:MOST])}{more}")


def known_runs(*folders: Path) -> list[Path]:
    """The runs in these folders, in runs/, and in the current folder."""
    places = dict.fromkeys([*folders, RUNS, Path()])
    return [file.parent for place in places if place.is_dir() for file in sorted(place.glob(f"*/{CONFIG}"))]


def _such_as(runs: list[str]) -> str:
    return f", such as {runs[0]}" if runs else ""
