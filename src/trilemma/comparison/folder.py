"""The folder of a comparison: request.json says what was asked, report.json that it is done.

The same request takes the newest folder of its kind: an interrupted comparison is resumed, and a finished one is
measured again without training again. How many seeds were asked for makes no other request: more of them add trainings.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from glob import escape
from itertools import count
from pathlib import Path
from typing import Any

from trilemma.comparison.plain import clean
from trilemma.errors import UserError
from trilemma.files import disk_errors, write_json
from trilemma.training.folder import LOCK, RUNS, Busy, hold, is_free

REQUEST, REPORT = "request.json", "report.json"


@contextmanager
def claim_folder(name: str, request: dict[str, Any], out: str | Path | None) -> Iterator[Path]:
    """A folder for this request, held by this process inside: `out`, the newest with this request, or a new one.

    Args:
        name: of the data; new folders are runs/compare-NAME, runs/compare-NAME-2, ...
        request: plain values.
    Raises:
        UserError: if `out` holds another comparison, or another process is writing to it.
    """
    request = clean(request)
    path, lock = _named(Path(out).expanduser(), request) if out is not None else _chosen(f"compare-{name}", request)
    try:
        with disk_errors(path):
            write_json(path / REQUEST, request)
        yield path
    finally:
        lock.close()


def _named(path: Path, request: dict[str, Any]) -> tuple[Path, Any]:
    if not _same(_request_in(path), request):
        if any((path / name).exists() for name in (REQUEST, REPORT)):
            raise UserError(
                f"{path} holds another comparison (see {path / REQUEST}); choose another out=, or remove it"
            )
        if not is_free(path):
            raise UserError(f"{path} holds files that are not a comparison; choose another out=")
    with disk_errors(path):
        path.mkdir(parents=True, exist_ok=True)
        return path, hold(path / LOCK)


def _chosen(name: str, request: dict[str, Any]) -> tuple[Path, Any]:
    begun = RUNS.glob(f"{escape(name)}*/{REQUEST}")
    for file in sorted(begun, key=lambda file: file.stat().st_mtime, reverse=True):
        if not _same(_request_in(file.parent), request):
            continue
        try:
            return file.parent, hold(file.parent / LOCK)
        except Busy:  # the same comparison is running in another process: this one is another
            continue
    with disk_errors(RUNS):
        RUNS.mkdir(exist_ok=True)
        for number in count(1):
            path = RUNS / (name if number == 1 else f"{name}-{number}")
            try:
                path.mkdir()  # of two processes only one succeeds
            except FileExistsError:
                continue
            return path, hold(path / LOCK)
    raise AssertionError  # count never ends


def _same(found: Any, request: dict[str, Any]) -> bool:
    """Whether a folder holds this comparison, with however many seeds."""
    return isinstance(found, dict) and {**found, "seeds": None} == {**request, "seeds": None}


def _request_in(path: Path) -> Any:
    """What was asked for in this folder; None where that cannot be read."""
    try:
        return json.loads((path / REQUEST).read_text("utf-8"))
    except (OSError, ValueError):
        return None
