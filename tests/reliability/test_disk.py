"""A disk that refuses: what can be missing costs a warning, a checkpoint that cannot be written leaves the old one."""

import errno
import json
import os
from collections.abc import Callable
from io import FileIO
from pathlib import Path
from typing import Any

import pytest

import trilemma
from trilemma.progress import Display
from trilemma.run import checkpoint, tensor_files
from trilemma.run.checkpoint import list_checkpoints, read_checkpoint, save_checkpoint
from trilemma.run.log import read_log
from trilemma.training import log, results, samples
from trilemma.training.log import LogFile

FULL = OSError(errno.ENOSPC, "No space left on device")


@pytest.fixture(autouse=True)
def in_tmp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    lines: list[str] = []
    monkeypatch.setattr(Display, "say", lambda display, text: lines.append(text))
    return lines


def train(out: str, steps: int = 6) -> trilemma.Run:
    keys = {"batch": 16, "save_every": 32, "sample_every": 32, "device": "cpu"}
    return trilemma.train("vae", "digits", steps=steps, out=out, **keys)


def weights(run: trilemma.Run) -> bytes:
    return (run.path / "weights.safetensors").read_bytes()


def refuse(*_: object, **__: object) -> None:
    raise FULL


def refuse_path(patch: pytest.MonkeyPatch, owner: Any, function: str, ending: str) -> None:
    """`function` fails for a path that ends so, and works for the others."""
    real: Callable[..., Any] = getattr(owner, function)
    picked = lambda args: any(str(arg).endswith(ending) for arg in args)  # noqa: E731
    patch.setattr(owner, function, lambda *args, **keys: refuse() if picked(args) else real(*args, **keys))


def no_samples(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(samples, "save_png", refuse)


def no_first_batch(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(results, "save_png", refuse)


def no_log(patch: pytest.MonkeyPatch) -> None:
    refuse_path(patch, Path, "open", "log.jsonl")


def no_log_cut(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(log, "write_atomic", refuse)


def no_curves(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(results, "draw_curves", refuse)


def no_card(patch: pytest.MonkeyPatch) -> None:
    refuse_path(patch, results, "write_atomic", "README.md")


@pytest.mark.slow
@pytest.mark.parametrize("harm", [no_samples, no_first_batch, no_log, no_log_cut, no_curves, no_card])
def test_what_can_be_missing_costs_a_warning_and_not_the_training(
    harm: Callable[[pytest.MonkeyPatch], None], said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = train("whole")
    said.clear()
    harm(monkeypatch)
    assert weights(train("harmed")) == weights(whole)
    assert [line for line in said if line.startswith("warning") and "No space left on device" in line]


CALLS = [(tensor_files, "save_file"), (os, "fsync"), (os, "replace"), (os, "rename"), (os, "mkdir")]


@pytest.mark.parametrize(("owner", "call"), CALLS, ids=lambda x: x if isinstance(x, str) else "")
@pytest.mark.parametrize(
    "number",
    [errno.ENOSPC, *(pytest.param(other, marks=pytest.mark.slow) for other in (errno.EDQUOT, errno.EROFS, errno.EIO))],
)
def test_a_checkpoint_that_cannot_be_written_leaves_the_old_one_and_says_why(
    owner: Any, call: str, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = train("whole")

    def save(folder: Path, images: int, *rest: Any) -> Path:
        with monkeypatch.context() as patch:
            if images == 64:
                patch.setattr(owner, call, lambda *_, **__: (_ for _ in ()).throw(OSError(number, os.strerror(number))))
            return save_checkpoint(folder, images, *rest)

    from trilemma.training import saving

    with monkeypatch.context() as patch:
        patch.setattr(saving, "save_checkpoint", save)
        with pytest.raises(
            trilemma.UserError, match=r"cannot write run/checkpoints/.* bytes needed, [\d,]+ bytes free"
        ):
            train("run")
    assert [path.name for path in Path("run/checkpoints").iterdir()] == [f"{32:012d}"]
    assert read_checkpoint(Path("run/checkpoints") / f"{32:012d}").values["step"] == 2
    assert weights(train("run")) == weights(whole)


def test_a_checkpoint_that_does_not_read_back_is_said_and_the_training_goes_on_with_the_older_ones(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole, manifest, there = train("whole", steps=8), checkpoint.manifest_of, []

    def harmed(folder: Path) -> dict[str, Any]:
        """The right sums, of a file that the disk then loses a byte of: the second and the third time."""
        content = manifest(folder)
        there.append([path.name for path in list_checkpoints(folder.parent)])
        if len(there) in (2, 3):
            path = folder / "model.safetensors"
            path.write_bytes(path.read_bytes()[:-1])
        return content

    monkeypatch.setattr(checkpoint, "manifest_of", harmed)
    run = train("run", steps=8)
    names = [f"{images:012d}" for images in (32, 64, 96, 128)]
    assert there == [names[:0], names[:1], names[:2], names[:3]]  # none goes before there is a new one that is whole
    warnings = [row["warning"] for row in run.log if "checkpoint" in row.get("warning", "")]
    assert [text.split()[2] for text in warnings] == names[1:3]
    assert all("cannot be read back" in text and "model.safetensors has" in text for text in warnings)
    assert weights(run) == weights(whole)


def test_the_bytes_needed_are_those_of_the_tensors(monkeypatch: pytest.MonkeyPatch) -> None:
    path = train("run").path
    files = [file for file in list_checkpoints(path / "checkpoints")[-1].iterdir() if file.suffix == ".safetensors"]
    monkeypatch.setattr(tensor_files, "save_file", refuse)
    with pytest.raises(trilemma.UserError) as error:
        train("run", steps=7)
    needed = int(str(error.value).split(" bytes needed")[0].split()[-1].replace(",", ""))
    assert needed == pytest.approx(sum(file.stat().st_size for file in files), rel=0.1)


def row(step: int) -> dict[str, float]:
    return {"step": step, "images": 16 * step, "seconds": 0.5}


def line(step: int) -> bytes:
    return json.dumps(row(step)).encode() + b"\n"


def test_a_log_with_foreign_bytes_is_read_past_them(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_bytes(b"".join([line(1), b"\xff\xfe\0\0\nnull\n", line(2), line(3)[:10]]))
    assert [row["step"] for row in read_log(path)] == [1, 2]
    journal = LogFile(path, print)
    journal.cut(step=1)
    journal.write(row(2))
    assert path.read_bytes() == line(1) + line(2)


@pytest.mark.parametrize("fails", ["write_atomic", "read_log"])
def test_a_log_that_cannot_be_cut_loses_no_row_at_the_next_start(
    fails: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rows counted go into the checkpoint, and the next start keeps so many."""
    path, said = tmp_path / "log.jsonl", []
    path.write_bytes(b"".join(map(line, (1, 2, 3))))
    journal = LogFile(path, said.append)
    with monkeypatch.context() as patch:
        patch.setattr(log, fails, refuse)
        journal.cut(rows=3)
    assert "No space left" in said[0]
    journal.write(row(4))
    LogFile(path, print).cut(rows=journal.rows)
    assert [row["step"] for row in read_log(path)] == [1, 2, 3, 4]


class FullForAMoment:
    """A file on a disk that takes a part of the first line it is given, and no more."""

    def __init__(self, file: FileIO, part: int) -> None:
        self.file, self.part, self.left = file, part, 2

    def write(self, line: bytes) -> int:
        self.left -= 1
        if not self.left:
            raise FULL
        return self.file.write(line[: self.part])

    def __enter__(self) -> "FullForAMoment":
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)


@pytest.mark.parametrize("part", [0, 1, 7])
def test_a_log_on_a_disk_that_was_full_for_a_moment_has_whole_rows_and_counts_them(
    part: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    journal = LogFile(tmp_path / "log.jsonl", said.append)
    journal.write(row(1))
    with monkeypatch.context() as patch:
        real = Path.open
        patch.setattr(Path, "open", lambda path, *args, **keys: FullForAMoment(real(path, *args, **keys), part))
        journal.write(row(2))
    assert journal.rows == 1 and "No space left" in said[0]
    journal.write(row(3))
    assert (tmp_path / "log.jsonl").read_bytes() == line(1) + line(3)
    assert journal.rows == len(read_log(tmp_path / "log.jsonl")) == 2


def test_a_run_reads_its_log_past_a_line_that_was_cut_off() -> None:
    run = train("run")
    rows = run.log
    with (run.path / "log.jsonl").open("a") as file:
        file.write('{"step": 9, "vae": {"loss": 1}\n')  # ends with a bracket and is none the less cut off
    assert run.log == rows != []
