"""What lies in the folder: runs, their pictures and logs, by ids. Read anew for each page, as others write there.

An id is a few digits of the SHA-256 of a path below the folder. Nothing is reached but by an id of what was listed, and
what is listed is a plain file or folder, never a link.
"""

import hashlib
import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain, islice
from pathlib import Path
from typing import Any

from trilemma.errors import UserError
from trilemma.files import read_json
from trilemma.run.locate import CONFIG, RUNS, WEIGHTS
from trilemma.studio.jobs import is_held
from trilemma.studio.place import NO_RUN, Missing
from trilemma.vocabulary import data_words

DEEPEST, MOST_FOLDERS, MOST_PICTURES = 4, 5_000, 400
NO_PICTURES = {"parts", "checkpoints", "earlier", "metrics"}  # of a run
SAMPLES = re.compile(r"([0-9]{12,}|last)\.png")  # in samples/: of the training, named by the images seen
PICTURES = {".png": "image/png", ".gif": "image/gif", ".webp": "image/webp"}
LARGEST_PICTURE = 64 << 20  # bytes
SUM_DIGITS = (16, 64)  # of the SHA-256 of weights: in a receipt (`Run.weights_id`), and in a summary
NOT_A_PATH = re.compile("[-~=]|[^/]*[=:]")  # what a command takes for an option, a home, a key, or a run of the hub
SCORES = ("valid_rmse", "valid_bce", "valid_neg_elbo_nats", "valid_noise_rmse", "valid_denoising_rmse")


@dataclass(frozen=True)
class StudioRun:
    """A run as its files say: where it is, what was trained on what, and how far it is."""

    id: str
    path: Path
    name: str  # below the folder
    config: dict[str, Any]
    summary: dict[str, Any]
    modified: float

    @property
    def model(self) -> str:
        """The model's name."""
        return str(self.config.get("model", ""))

    @property
    def data(self) -> str:
        """Where its images were."""
        return str(self.config.get("data", ""))

    @property
    def has_weights(self) -> bool:
        """Whether its training came to an end."""
        return (self.path / WEIGHTS).is_file()

    def has_sum(self, weights: str) -> bool:
        """Whether a receipt names these weights: by their SHA-256, or by as many digits of it as a receipt has."""
        written = str(self.summary.get("weights_sha256"))
        return len(weights) in SUM_DIGITS and written[: len(weights)] == weights

    @property
    def is_training(self) -> bool:
        """Whether a process trains it now, also further, beside the weights that it has: its lock says so."""
        return is_held(self.path)

    @property
    def sides(self) -> tuple[int, int]:
        """Height and width of its images, px; 1 and 1 where its config, which may be anybody's, does not say them."""
        settings = self.config.get("model_config")
        shape = settings.get("shape") if isinstance(settings, dict) else None
        if not isinstance(shape, list) or len(shape) != 3 or not all(type(side) is int and side > 0 for side in shape):
            return 1, 1
        return shape[1], shape[2]

    @property
    def score(self) -> tuple[str, float] | None:
        """The value by which a person knows how good it is, with its name."""
        values = {key: value for key, value in self.summary.items() if isinstance(value, float) and "valid_" in key}
        name = next((key for key in SCORES if key in values), next(iter(values), None))
        return None if name is None else (name, values[name])

    @property
    def warnings(self) -> list[str]:
        """What its training warned of, in its words."""
        texts = self.summary.get("warnings")
        return [text for text in texts if isinstance(text, str)] if isinstance(texts, list) else []

    @property
    def settings(self) -> dict[str, Any]:
        """What its training was asked for, by key, in one table."""
        parts = ("model_config", "training", "data_config")
        tables = [table for part in parts if isinstance(table := self.config.get(part), dict)]
        return {"model": self.model, "data": self.data} | {
            key: value for table in tables for key, value in table.items()
        }


@dataclass(frozen=True)
class Picture:
    """A picture of a run."""

    id: str
    path: Path
    name: str  # below the run
    modified: float


class Library:
    """The runs and pictures below a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def runs(self) -> list[StudioRun]:
        """All runs, the newest first."""
        runs = [run for path in self._run_folders() if (run := self._run_at(path)) is not None]
        return sorted(runs, key=lambda run: -run.modified)

    def run(self, ident: str) -> StudioRun:
        """The run of that id.

        Raises:
            Missing: there is none, or it has vanished.
        """
        path = next((path for path in self._run_folders() if self.id_of(path) == ident), None)
        if path is None or (run := self._run_at(path)) is None:
            raise Missing(NO_RUN)
        return run

    def run_at(self, name: str) -> StudioRun | None:
        """The run of a path, in full or from the folder on; None if it is not listed."""
        places = (path for path in self._run_folders() if path == self.folder / name)
        return next(map(self._run_at, places), None)

    def run_of(self, receipt: Mapping[str, Any]) -> StudioRun | None:
        """The run that drew a picture, by its place, or else by its weights; None if it is not here."""
        if (here := self.run_at(str(receipt.get("run") or "none"))) is not None:
            return here
        weights = str(receipt.get("weights"))
        return next((run for run in self.runs() if run.has_sum(weights)), None)

    def id_of(self, path: Path) -> str:
        """The id of something below the folder."""
        return hashlib.sha256(os.fsencode(path.relative_to(self.folder))).hexdigest()[:16]

    def name_of(self, path: Path) -> str:
        """A path below the folder as a command in it has it: one that the command would take for something else, as an
        option (a folder may be called --import=evil.py), has ./ in front."""
        name = path.relative_to(self.folder).as_posix()
        return f"./{name}" if NOT_A_PATH.match(name) or name in data_words() else name

    def pictures(self, run: StudioRun, most: int = MOST_PICTURES) -> list[Picture]:
        """The pictures of a run, the newest first: those of its training, and what verbs left in it."""
        places = [run.path, *folders_below(run.path, 3, lambda path: path.name not in NO_PICTURES)]
        files = [entry for place in places for entry in plain_files(place) if Path(entry.name).suffix in PICTURES]
        newest = sorted(files, key=lambda entry: -entry.stat().st_mtime)[:most]
        return [self._picture(run, Path(entry.path), entry.stat().st_mtime) for entry in newest]

    def samples(self, run: StudioRun) -> list[Picture]:
        """The pictures of samples that the training of a run drew, the oldest first."""
        files = [entry for entry in plain_files(run.path / "samples") if SAMPLES.fullmatch(entry.name)]
        pictures = [self._picture(run, Path(entry.path), entry.stat().st_mtime) for entry in files]
        return sorted(pictures, key=lambda picture: (picture.modified, picture.name))

    def cover(self, run: StudioRun) -> Picture | None:
        """The newest picture of samples of a run; None if there is none. It does not look at single samples."""
        files = [entry for entry in plain_files(run.path / "samples") if Path(entry.name).suffix in PICTURES]
        newest = max(files, key=lambda entry: entry.stat().st_mtime, default=None)
        return None if newest is None else self._picture(run, Path(newest.path), newest.stat().st_mtime)

    def picture(self, run: StudioRun, ident: str) -> Picture:
        """The picture of that id; raises Missing if there is none."""
        for picture in chain(self.pictures(run), self.samples(run)):
            if picture.id == ident and picture.path.stat().st_size <= LARGEST_PICTURE:
                return picture
        raise Missing("Picture not found. The page of its run shows its pictures.")

    def _picture(self, run: StudioRun, path: Path, modified: float) -> Picture:
        return Picture(self.id_of(path), path, path.relative_to(run.path).as_posix(), modified)

    def _run_folders(self) -> Iterator[Path]:
        """The folders with a config.json; what lies inside one of them is part of a run."""
        places = folders_below(self.folder, DEEPEST, lambda path: not (path / CONFIG).is_file())
        return (place for place in places if (place / CONFIG).is_file())

    def _run_at(self, path: Path) -> StudioRun | None:
        config = _json(path / CONFIG)
        if not isinstance(config.get("model"), str):
            return None
        modified = max(_changed(path / name) for name in (CONFIG, "log.jsonl", "summary.json"))
        return StudioRun(self.id_of(path), path, self.name_of(path), config, _json(path / "summary.json"), modified)


def _changed(path: Path) -> float:
    """When a file was written, in seconds since 1970; 0 if it is not there."""
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def folders_below(place: Path, deepest: int, enters: Callable[[Path], bool]) -> Iterator[Path]:
    """Plain folders below one, in layers, as `folders_in`: a folder is read when the first one in it is asked for.

    Args:
        enters: whether those below a folder are given, too.
    """
    layer, count = [place], 0
    for _ in range(deepest):
        inner = []
        for path in (path for folder in layer for path in folders_in(folder)):
            if count == MOST_FOLDERS:
                return
            count += 1
            inner.append(path)
            yield path
        layer = [path for path in inner if enters(path)]


def folders_in(folder: Path) -> list[Path]:
    """The plain folders in one, none hidden and none a link: that of the runs first, as most are there."""
    inner = [entry.name for entry in entries(folder, is_plain_folder)]
    return [folder / name for name in sorted(inner, key=lambda name: name != RUNS.name)]


def is_plain_folder(entry: os.DirEntry[str]) -> bool:
    """Whether an entry is a folder that is neither hidden nor a link."""
    return not entry.name.startswith(".") and entry.is_dir(follow_symlinks=False)


def plain_files(folder: Path) -> list[os.DirEntry[str]]:
    """The plain files of a folder that are neither hidden nor links. `stat` of each is known, also if it
    vanishes afterwards."""
    return entries(folder, lambda entry: not entry.name.startswith(".") and _is_plain(entry))


def _is_plain(entry: os.DirEntry[str]) -> bool:
    """Whether an entry is a file that is there; the entry keeps what its `stat` says."""
    try:
        entry.stat()
    except OSError:
        return False
    return entry.is_file(follow_symlinks=False)


def entries(folder: Path, wanted: Callable[[os.DirEntry[str]], bool] | None = None) -> list[os.DirEntry[str]]:
    """What lies in a folder, by name; nothing if it has vanished or cannot be read.

    Args:
        wanted: which of it; default: all.
    """
    try:
        with os.scandir(folder) as listing:
            return sorted(filter(wanted, listing), key=lambda entry: entry.name)
    except OSError:
        return []


def some_entries(folder: str, most: int) -> list[os.DirEntry[str]]:
    """At most so many entries of a folder, in no order, without a look at the others."""
    try:
        with os.scandir(folder) as listing:
            return [*islice(listing, most)]
    except OSError:
        return []


def _json(path: Path) -> dict[str, Any]:
    """The object in a file; {} where there is none."""
    try:
        stat = path.stat()
        return _json_at(path, stat.st_mtime_ns, stat.st_size)
    except (OSError, UserError):
        return {}


@lru_cache(maxsize=2_000)
def _json_at(path: Path, modified: int, size: int) -> dict[str, Any]:
    value = read_json(path)
    return value if isinstance(value, dict) else {}
