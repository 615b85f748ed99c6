"""What works on this machine, checked without the network: `trilemma doctor`; `doctor metrics` checks the metrics."""

import os
import platform
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from trilemma import hardware
from trilemma.extras import EXTRAS, install_line, pip, reinstall_line
from trilemma.values import checked_call

PYTHON_FLOOR = (3, 11)
FLOORS = {"torch": "2.11", "numpy": "2", "pillow": "12.3"}
MEMORY_FLOOR = 2 << 30  # bytes, below which even the small models may not fit next to torch
DISK_FLOOR = 1 << 30  # bytes, a few runs with their checkpoints

# Releases that were published with foreign code in them: name -> (releases, what to do).
BAD_RELEASES = {
    "lightning": (("2.6.2", "2.6.3"), "malicious (GHSA-w37p-236h-pfx3): remove it and change the passwords used here"),
    "ultralytics": (("8.3.41", "8.3.42"), "it carries a coin miner: remove it or upgrade"),
}
SAFE_FROM = {"pyarrow": "23.0.1"}  # optional packages, below which a hole is known

Status = Literal["ok", "note", "problem"]


@dataclass(frozen=True)
class Check:
    """One line of the report. A note is worth knowing, a problem stops something; `advice` says what to do."""

    name: str
    status: Status
    value: str
    advice: str = ""


@checked_call
def doctor(
    part: Annotated[
        Literal["machine", "metrics"],
        Field(description="machine and installation, or whether each metric moves as it must on known faults"),
    ] = "machine",
) -> tuple[Check, ...]:
    """Check the machine and the installation, or the metrics. Nothing is changed, and the network is not used."""
    if part == "metrics":
        return tuple(_run(check_metrics))
    steps: list[Callable[[], Iterable[Check]]] = [
        check_python, check_packages, check_device, check_memory, check_disk, check_data, check_extras, check_releases,
    ]  # fmt: skip
    return tuple(check for step in steps for check in _run(step))


def _run(step: Callable[[], Iterable[Check]]) -> list[Check]:
    """The checks of one step; a step that breaks is a problem of its own, and does not stop the others."""
    try:
        return list(step())
    except Exception as error:
        name = step.__name__.removeprefix("check_")
        return [Check(name, "problem", f"{type(error).__name__}: {error}", f"install again: {reinstall_line()}")]


def check_metrics() -> Iterable[Check]:
    """Every metric on images whose faults are known (metrics/self_test.py)."""
    from trilemma.metrics.self_test import verdicts

    advice = f"the metric does not show this fault; install again: {reinstall_line()}"
    for verdict in verdicts():
        yield _check(f"{verdict.metric}, {verdict.fault}", verdict.right, verdict.values, advice)


def check_python() -> Iterable[Check]:
    """The interpreter."""
    fits = sys.version_info >= PYTHON_FLOOR
    yield _check("python", fits, platform.python_version(), f"Python {_dotted(PYTHON_FLOOR)} or newer is needed")


def check_packages() -> Iterable[Check]:
    """The packages with a lowest safe version."""
    for name, floor in FLOORS.items():
        release = installed(name)
        advice = f'{pip()} install "{name}>={floor}"'
        yield _check(name, release is not None and at_least(release, floor), release or "not installed", advice)


def check_device() -> Iterable[Check]:
    """Where models run."""
    about = hardware.describe()
    yield Check("device", "ok", f"{about['device']} ({about['device_name']})")
    fast = bool(about["fast_bf16"])
    yield Check("fast bf16", "ok", "yes" if fast else "no: models train in float32")
    yield Check("cores", "ok", str(about["cores"]))


def check_memory() -> Iterable[Check]:
    """Main memory."""
    size = hardware.memory_bytes()
    if not size:
        yield Check("memory", "note", "unknown: the system does not report it")
    else:
        small = "close other programs, or use a smaller batch="
        yield _check("memory", size >= MEMORY_FLOOR, _gib(size), small, otherwise="note")


def check_disk(folder: Path | None = None) -> Iterable[Check]:
    """Whether runs can be written to the working folder."""
    folder = folder or Path.cwd()
    free = shutil.disk_usage(folder).free
    yield _check("free disk", free >= DISK_FLOOR, _gib(free), "free some space: a run takes up to a few hundred MB")
    try:
        with tempfile.NamedTemporaryFile(dir=folder) as file:
            file.write(b"trilemma")
        yield Check("write", "ok", str(folder))
    except OSError as error:
        yield Check(
            "write", "problem", f"{folder}: {error.strerror}", "change to a folder you may write to, or give out="
        )


def check_data() -> Iterable[Check]:
    """The data sets, and where they are."""
    from trilemma.data import list_sources

    place = os.environ.get("TRILEMMA_DATA")
    if place and not Path(place).is_dir():
        yield Check(
            "TRILEMMA_DATA", "problem", f"{place} is not a folder", "set it to a folder that exists, or unset it"
        )
    for row in list_sources():
        word, _, where = row
        yield Check(f"data {word}", "ok", str(where))


def check_extras() -> Iterable[Check]:
    """The optional parts; each is wanted or not, so none is a problem."""
    for extra, packages in EXTRAS.items():
        names = [package.partition(">=")[0] for package in packages]
        absent = [name for name in names if installed(name) is None]
        value = f"not installed: {', '.join(absent)}" if absent else "installed"
        yield Check(f"extra {extra}", "note" if absent else "ok", value, install_line(extra) if absent else "")


def check_releases() -> Iterable[Check]:
    """Installed releases that are known to be bad."""
    for name, (bad, advice) in BAD_RELEASES.items():
        if installed(name) in bad:
            yield Check(name, "problem", f"{installed(name)}", advice)
    for name, floor in SAFE_FROM.items():
        release = installed(name)
        if release and not at_least(release, floor):
            yield Check(name, "problem", release, f'it has known security holes: {pip()} install "{name}>={floor}"')


def installed(name: str) -> str | None:
    """The version of an installed package, or None."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def at_least(release: str, floor: str) -> bool:
    """Compare versions by their leading numbers; what follows them (rc1, +cpu) does not count.

    >>> at_least("2.13.0+cpu", "2.10"), at_least("2.9.1", "2.10"), at_least("12.3.0", "12.3")
    (True, False, True)
    """
    return _numbers(release) >= _numbers(floor)


def _numbers(text: str) -> list[int]:
    return [int(digits) for digits in re.findall(r"\d+", text.partition("+")[0])]


def _check(name: str, fits: bool, value: str, advice: str, *, otherwise: Status = "problem") -> Check:
    return Check(name, "ok", value) if fits else Check(name, otherwise, value, advice)


def _gib(size: int) -> str:
    return f"{size / 2**30:.1f} GiB"


def _dotted(numbers: tuple[int, ...]) -> str:
    return ".".join(map(str, numbers))
