"""The folder of a comparison: request.json says what was asked, report.json that it is done.

The same request takes the newest folder of its kind: an interrupted comparison is resumed, and a finished one is
measured again without training again. How many seeds were asked for makes no other request: more of them add trainings.
Nor does the place of the images, which their fingerprint tells apart: a project may be moved.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from glob import escape
from itertools import count
from pathlib import Path
from typing import IO

from trilemma.arguments import word
from trilemma.comparison.measured import FOLDER as MEASURED
from trilemma.comparison.plain import Json, clean
from trilemma.errors import UserError
from trilemma.files import disk_errors, read_json, refuse_links, user_path, write_json
from trilemma.run.folder import LOCK, RUNS, Busy, hold, is_free
from trilemma.studio_files import PARTIAL_REPORT

REQUEST, REPORT = "request.json", "report.json"
LARGEST_REQUEST = 1 << 20  # bytes
UNIMPORTANT = ("seeds", "data")  # keys of a request that make it no other one


@contextmanager
def claim_folder(
    name: str, request: Json, out: str | Path | None, say: Callable[[str], None] = lambda text: None
) -> Iterator[Path]:
    """A folder for this request, held by this process inside: `out`, the newest with this request, or a new one.

    Args:
        name: of the data; new folders are runs/compare-NAME, runs/compare-NAME-2, ...
        request: plain values.
        say: called with why a new folder is begun beside another.
    Raises:
        UserError: if `out` holds another comparison, or another process is writing to it.
    """
    request = clean(request)
    path, lock = _named(user_path(out), request) if out is not None else _chosen(f"compare-{name}", request, say)
    try:
        refuse_links(path / REQUEST, path / "runs", path / MEASURED, path / PARTIAL_REPORT)
        with disk_errors(path):
            write_json(path / REQUEST, request)
        yield path
    finally:
        lock.close()


def _named(path: Path, request: Json) -> tuple[Path, IO[str]]:
    if reasons := _differences(_request_in(path), request):
        if any((path / name).exists() for name in (REQUEST, REPORT)):
            text = f"{path} holds another comparison: {'; '.join(reasons)}"
            raise UserError(f"{text} (see {path / REQUEST}); choose another out=, or remove it")
        if not is_free(path):
            raise UserError(f"{path} holds files that are not a comparison; choose another out=")
    with disk_errors(path):
        path.mkdir(parents=True, exist_ok=True)
        return path, hold(path / LOCK)


def _chosen(name: str, request: Json, say: Callable[[str], None]) -> tuple[Path, IO[str]]:
    others: list[tuple[Path, list[str]]] = []
    requests = RUNS.glob(f"{escape(name)}*/{REQUEST}")
    for file in sorted(requests, key=lambda file: file.stat().st_mtime, reverse=True):
        if reasons := _differences(_request_in(file.parent), request):
            others.append((file.parent, [f"holds another: {reasons[0]}", *reasons[1:]]))
            continue
        try:
            return file.parent, hold(file.parent / LOCK)
        except Busy:  # the same comparison is running in another process: this one is another
            others.append((file.parent, ["is being made by another process"]))
            continue
    with disk_errors(RUNS):
        RUNS.mkdir(exist_ok=True)
        for number in count(1):
            path = RUNS / (name if number == 1 else f"{name}-{number}")
            try:
                path.mkdir()  # of two processes only one succeeds
            except FileExistsError:
                continue
            if others:
                nearest, reasons = min(others, key=lambda other: len(other[1]))
                say(f"{path} is a new comparison, because {nearest} {'; '.join(reasons)}")
            return path, hold(path / LOCK)
    raise AssertionError  # count never ends


def _differences(earlier: object, request: Json) -> list[str]:
    """In what the comparison of a folder is another one, in words; [] if it is this one."""
    if not isinstance(earlier, dict):
        return [f"its {REQUEST} cannot be read"]
    keys = [key for key in {**earlier, **request} if key not in UNIMPORTANT and earlier.get(key) != request.get(key)]
    texts = [
        f"{key} {word(earlier.get(key))} then, {word(request.get(key))} now" for key in keys if key != "fingerprint"
    ]
    return ["its images differ", *texts] if "fingerprint" in keys else texts


def _request_in(path: Path) -> object:
    """What was asked for in this folder; None where that cannot be read."""
    try:
        return read_json(path / REQUEST, LARGEST_REQUEST)
    except (OSError, UserError):
        return None
