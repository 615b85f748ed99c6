"""What the pages need, as plain values, and what they ask for, as jobs: no HTML, and no model is loaded."""

import re
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from trilemma.errors import UserError, unknown
from trilemma.files import remove
from trilemma.hardware import available_bytes
from trilemma.studio.estimate import Estimator, TrainingEstimate
from trilemma.studio.forms import (
    IMAGE_KEYS,
    LONGEST_VALUE,
    MOST_WORDS,
    PLACED,
    RUN,
    RUN_KIND,
    WITH_CODES,
    Field,
    fields_of,
    python_line,
    words_of,
)
from trilemma.studio.held_out import HeldOut
from trilemma.studio.images import IMAGE, Images
from trilemma.studio.jobs import Job, State, output_of, process_of
from trilemma.studio.library import PICTURES, Library, StudioRun
from trilemma.studio.live_report import LiveReport, live_report, partial_file
from trilemma.studio.marks import Marks
from trilemma.studio.painter import Painter
from trilemma.studio.place import OWN
from trilemma.studio.queue import Queue
from trilemma.studio.sources import own_word, source_word
from trilemma.studio.uploads import remove_unfinished
from trilemma.text import quoted
from trilemma.verbs import VERBS, Verb, find
from trilemma.vocabulary import models

DATA = "data"  # in the folder, where images that were brought lie
DROPPED = "dropped-"  # before the names of pictures that are read once
READ = {".html": "text/html; charset=utf-8", ".json": "text/plain; charset=utf-8", ".csv": "text/plain; charset=utf-8"}
RESULT = re.compile(r"^([a-z][a-z ]{0,30}?)\s{2,}(\S.*)$")  # a line of a fact, as the command line prints it
LARGEST_RESULT = 64 << 20  # bytes
GIB = 2**30


@dataclass(frozen=True)
class Result:
    """Something that a job left in the folder. kind: "run", "picture", "page" or "file"."""

    title: str
    path: Path
    name: str
    kind: str


@dataclass(frozen=True)
class Machine:
    """Room on the disk of the folder, and memory, in GiB; memory_free is None where the system does not tell."""

    disk_free: float
    memory_free: float | None


class Studio:
    """A folder in the studio.

    Args:
        folder: in full.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.own = folder, folder / OWN
        self.library, self.queue = Library(folder), Queue(folder, folder / OWN)
        self.marks, self.painter = Marks(self.library, self.own), Painter(folder)
        self.images = Images(self.own / "images", self._files_in_use)
        self.estimator, self.held_out = Estimator(folder, self.own), HeldOut(folder)

    def close(self) -> None:
        """End the processes behind the pages, and begin no other measurement or reading."""
        for one in (self.painter, self.held_out, self.estimator):
            one.close()

    def remove_unfinished(self) -> None:
        """Remove what a killed studio was receiving or measuring; only for a folder that this process has locked."""
        remove_unfinished(self.folder / DATA)
        self.estimator.remove_unfinished()
        for path in self.own.glob(f"{DROPPED}*.png"):
            remove(path)

    def words(
        self,
        verb: Verb,
        chosen: Mapping[str, str],
        filled: Mapping[str, str],
        model: str = "",
        sides: tuple[int, int] = (1, 1),
    ) -> list[str]:
        """The words of the command line that a form stands for.

        Args:
            chosen: by key, the words of what was chosen by ids.
            filled: what was typed, by key.
            model: whose keys the form had; sides: height and width of the run's images, px.
        Raises:
            UserError: a value does not fit.
        """
        chosen = {**chosen, **self._runs_chosen(verb, filled, model)}
        typed = words_of(verb, {key: text for key, text in filled.items() if key not in chosen}, model, sides)
        given = dict(chosen) | {key: text for key, _, text in (pair.partition("=") for pair in typed)}
        named = verb.places[:-1] if verb.gathers else verb.places  # the others follow without a name
        places = [given.pop(name) for name in named if name in given]
        for name in verb.required:
            if name in verb.places and verb.places.index(name) >= len(places):
                raise UserError(f"{name} is missing: {verb.keys[name].get('description', 'choose one')}")
        return [*verb.name.split(), *places, *(f"{key}={text}" for key, text in given.items())]

    def fields(self, verb: Verb, values: Mapping[str, str], model: str = "") -> list[Field]:
        """The fields of a form, as `fields_of`; those that take a run list the runs, and models to train a part by."""
        fields = fields_of(verb, values, model)
        return [self._with_runs(field) if field.kind == RUN_KIND else field for field in fields]

    def train_words(self, model: str, data: str, filled: Mapping[str, str]) -> list[str]:
        """The words of a training of a model on data that were chosen by an id; errors as `words`."""
        return self.words(find("train"), self._chosen(model, data), filled, model)

    def estimate(self, model: str, data: str, filled: Mapping[str, str]) -> TrainingEstimate:
        """Time and memory of a training.

        Raises:
            UserError: a value does not fit, or it is not known.
        """
        _, *words = self.train_words(model, data, filled)
        busy = any(job.state is State.RUNNING for job in self.queue.jobs())
        return self.estimator.estimate(words, busy=busy)

    def run_words(self, verb: Verb, run: StudioRun, filled: Mapping[str, str]) -> list[str]:
        """The words of a verb on a run; errors as `words`."""
        place = next(name for name in ("run", "what") if name in verb.places)
        chosen = {place: run.name}
        if (data := filled.get("data_id", "")) and "data" in verb.keys:
            chosen["data"] = source_word(self.library, data)
        if (data := filled.get("against_id", "")) and "against" in verb.keys:
            chosen["against"] = source_word(self.library, data)
        typed = {key: text for key, text in filled.items() if not key.endswith("_id")}
        images = {key: typed.pop(key, "").strip() for key in IMAGE_KEYS.get(verb.name, ())}
        several = images.pop(verb.places[-1], "") if verb.gathers else ""
        for key, text in images.items():
            if text or key in verb.required:
                chosen[key] = self.image_word(key, text, codes=verb.name in WITH_CODES)
        gathered = self._image_words(verb.places[-1], several)
        if painted := typed.pop("mask_png", ""):
            over = images.get("image", "")
            brought = over.removeprefix(IMAGE) if over.startswith(IMAGE) else ""
            chosen["mask"] = self.library.name_of(self.images.keep_mask(painted, brought))
        return [*self.words(verb, chosen, typed, run.model, run.sides), *gathered]

    def comparison_words(
        self, runs: Sequence[StudioRun], images: Sequence[str], against: str, language: str
    ) -> list[str]:
        """The words of a report over runs and sets of images.

        Args:
            images: ids of data in the folder.
            against: id of the real images that sets of images alone are measured by; "" for the data of the runs.
            language: of the report.
        Raises:
            UserError: there are fewer than two, or `against` is missing or does not apply.
        """
        things = [*(run.name for run in runs), *(own_word(self.library, ident) for ident in images)]
        if len(things) < 2:
            raise UserError("choose two runs or sets of images or more to compare them")
        if runs and against:
            raise UserError("runs are measured by the data that they were trained on; choose no other real images")
        if not runs and not against:
            raise UserError("sets of images alone are compared with real images; choose which")
        keys = [f"against={source_word(self.library, against)}"] if against else []
        keys += [] if language == "en" else [f"lang={language}"]
        return ["compare", *things, *keys]

    def live_report(self, job: Job) -> LiveReport | None:
        """What a comparison knows before its report is there; None of other jobs, and where nothing is known."""
        if job.verb != "compare" or job.state is State.QUEUED:
            return None
        path = partial_file(self.library, job)
        return None if path is None else live_report(self.library, path, running=job.state is State.RUNNING)

    def lines(self, words: Sequence[str]) -> tuple[str, str]:
        """The command line of some words, and the line of Python that does the same in the folder; "" for none."""
        verbs = sorted(VERBS, key=lambda v: -len(v.name))
        verb = next((verb for verb in verbs if _begins(words, verb.name)), None)
        if verb is None:  # a job of somebody else, or of a later version
            return quoted(["trilemma", *words]), ""
        rest = words[len(verb.name.split()) :]
        typed = [word for word in rest if re.match(r"[A-Za-z_][\w.]*=", word)]
        return quoted(["trilemma", *words]), python_line(verb, [word for word in rest if word not in typed], typed)

    def joined_lines(self, *commands: Sequence[str]) -> dict[str, Any]:
        """`lines` of several commands, one below the other."""
        pairs = [self.lines(words) for words in commands]
        return {"command": "\n".join(line for line, _ in pairs), "python": "\n".join(line for _, line in pairs)}

    def results(self, job: Job) -> list[Result]:
        """What a job says that it left, where it is there."""
        matches = (RESULT.match(line) for line in output_of(job.place).split("\n"))
        results = [self._result(match[1], match[2]) for match in matches if match]
        return [result for result in results if result is not None]

    def edited_image(self, job: Job) -> str:
        """The id of the image that was brought and that a job works on; "" if there is none."""
        paths = [self.folder / word for word in job.words]
        return next(
            (path.stem for path in paths if path.parent == self.images.place and self.images.has(path.stem)), ""
        )

    def run_of(self, job: Job) -> StudioRun | None:
        """The run that a job trains or works on; None where there is none yet."""
        named = next((result for result in self.results(job) if result.kind == "run"), None)
        if named is not None:
            return self.library.run_at(named.name)
        if job.verb == "train":
            return self._run_in_training(job)
        return next((run for word in job.words if (run := self.library.run_at(word)) is not None), None)

    def machine(self) -> Machine:
        """Room on the disk and in memory."""
        memory = available_bytes()
        return Machine(shutil.disk_usage(self.folder).free / GIB, memory / GIB if memory else None)

    def _files_in_use(self) -> set[str]:
        """The names of the files that the words of jobs name which have not ended."""
        jobs = (job for job in self.queue.jobs() if not job.has_ended)
        return {Path(word).name for job in jobs for word in job.words}

    def keep_held_out(self, run: StudioRun, number: str, data: str) -> str:
        """Keep a held-out image of a run as one that was brought, so that it can be painted over, and give its id.

        Args:
            data: id of other data in which the number counts; "" for those of the run.
        Raises:
            UserError: there is no such image, or it cannot be read.
        """
        word = source_word(self.library, data) if data else ""
        return self.images.keep(self.held_out.png(run.name, self.image_word("image", number), word))

    def _chosen(self, model: str, data: str) -> dict[str, str]:
        """The words of a model and of data that were chosen by an id."""
        if model not in models():
            raise unknown("model", model[:40], models())
        return {"model": model, "data": source_word(self.library, data)}

    def _with_runs(self, field: Field) -> Field:
        """A field with its list; a run that a receipt names is chosen in it."""
        runs = {f"{RUN}{run.id}": run.name for run in self.library.runs()}
        others = {name: name for name in models() if name != field.default} if field.default in models() else {}
        value = next((ident for ident, name in runs.items() if name == field.value), field.value)
        return replace(field, value=value, options=[*runs.items(), *others.items()])

    def _runs_chosen(self, verb: Verb, filled: Mapping[str, str], model: str) -> dict[str, str]:
        """The words of what was chosen for the keys of a model that take a run.

        Raises:
            Missing: a run is not found.
        """
        fields = [field for field in fields_of(verb, {}, model) if field.kind == RUN_KIND]
        words = {field.name: self._run_word(field, filled.get(field.name, "").strip()) for field in fields}
        return {key: word for key, word in words.items() if word}

    def _run_word(self, field: Field, text: str) -> str:
        """The word of a choice: the place of a run, or a model that a part is trained by; "" for what is not listed."""
        if text.startswith(RUN):
            return self.library.run(text.removeprefix(RUN)).name
        return text if field.default in models() and text in models() and text != field.default else ""

    def image_word(self, key: str, text: str, *, codes: bool = False) -> str:
        """The word of an image: the number of a held-out one, or the file of one that was brought.

        Args:
            codes: whether it may be a code or a seed instead.
        Raises:
            UserError: it is none of them, or Missing: it is not found.
        """
        if text.startswith(IMAGE):
            return self.library.name_of(self.images.path(text.removeprefix(IMAGE)))
        if not (re.fullmatch("[0-9]{1,7}", text) or (codes and PLACED.fullmatch(text) and len(text) <= LONGEST_VALUE)):
            came = f"{key}={text[:40]} is not taken here" if text else f"{key} is missing"
            others = ", a seed as seed:3, a code as 0.5,-1" if codes else ""
            raise UserError(f"{came}: give the number of a held-out image{others}, or bring an image")
        return text

    def _image_words(self, key: str, text: str) -> list[str]:
        """The words of several images, with commas between them; errors as `image_word`, or there are too many."""
        parts = [part.strip() for part in text.split(",") if part.strip()]
        if len(parts) > MOST_WORDS:
            raise UserError(f"{key}: {len(parts)} images are given, and {MOST_WORDS} are the most; leave some out")
        return [self.image_word(key, part) for part in parts]

    def _run_in_training(self, job: Job) -> StudioRun | None:
        """The run whose lock names the process of a job."""
        if (process := process_of(job.place)) is None:
            return None
        return next((run for run in self.library.runs() if _held_by(run, process, job.started or 0.0)), None)

    def _result(self, title: str, text: str) -> Result | None:
        """A result that lies in the folder as a plain file, or is a run."""
        path = self.folder / text
        try:
            inside = path.resolve().is_relative_to(self.folder) and path.resolve() == path.absolute()
        except (OSError, ValueError):
            return None
        if not inside or OWN in path.parts:
            return None
        if path.is_dir():
            return Result(title, path, text, "run") if (path / "config.json").is_file() else None
        if not path.is_file() or path.stat().st_size > LARGEST_RESULT:
            return None
        kind = "picture" if path.suffix in PICTURES else "page" if path.suffix == ".html" else "file"
        return Result(title, path, text, kind) if path.suffix in {**PICTURES, **READ} else None


def _held_by(run: StudioRun, process: int, since: float) -> bool:
    """Whether the lock of a run names a process that began at a time."""
    lock, begin = run.path / "lock", f"process {process} ".encode()
    with suppress(OSError):  # it may vanish at any time
        if lock.is_symlink() or not lock.is_file() or lock.stat().st_mtime < since - 1.0:
            return False
        with lock.open("rb") as file:
            return file.read(len(begin)) == begin
    return False


def _begins(words: Sequence[str], name: str) -> bool:
    return list(words[: len(name.split())]) == name.split()
