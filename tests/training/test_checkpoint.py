"""A checkpoint is whole or it is not used."""

import errno
import json
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from trilemma.errors import UserError
from trilemma.run import tensor_files
from trilemma.run.checkpoint import list_checkpoints, load_checkpoint, save_checkpoint
from trilemma.run.state import Checkpoint
from trilemma.run.tensor_files import write_tensors
from trilemma.training.state import flatten_optimizer, restore_optimizer


def state(value: float) -> Checkpoint:
    return Checkpoint({"step": int(value)}, {"model": {"w": torch.full((50,), value)}})


def step_of(folder: Path) -> int | None:
    checkpoint = load_checkpoint(folder, lambda text: None)
    return None if checkpoint is None else checkpoint.values["step"]


def test_round_trip(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, 128, state(3))
    checkpoint = load_checkpoint(tmp_path, print)
    assert checkpoint is not None
    assert checkpoint.values == {"step": 3}
    assert torch.equal(checkpoint.tensors["model"]["w"], torch.full((50,), 3.0))


def test_the_newest_is_taken_and_two_are_kept(tmp_path: Path) -> None:
    for number in (1, 2, 10):
        save_checkpoint(tmp_path, number * 100, state(number))
    assert [int(path.name) for path in list_checkpoints(tmp_path)] == [200, 1000]
    assert step_of(tmp_path) == 10


def flip_a_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-2])  # the last byte of a JSON file is only its newline


@pytest.mark.parametrize("name", ["model.safetensors", "state.json", "manifest.json"])
@pytest.mark.parametrize("harm", [flip_a_byte, cut, Path.unlink, lambda path: path.write_bytes(b"")])
def test_a_broken_one_is_set_aside_for_the_one_before(tmp_path: Path, name: str, harm) -> None:
    save_checkpoint(tmp_path, 100, state(1))
    newest, notices = save_checkpoint(tmp_path, 200, state(2)), []
    harm(newest / name)
    checkpoint = load_checkpoint(tmp_path, notices.append)
    assert checkpoint is not None and checkpoint.values["step"] == 1
    assert (tmp_path / f"{newest.name}.corrupt").is_dir() and not newest.exists()
    assert len(notices) == 1 and "is broken" in notices[0]


def test_a_full_disk_leaves_the_old_one_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_checkpoint(tmp_path, 100, state(1))
    before = sorted(tmp_path.rglob("*"))

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(tensor_files, "save_file", full)
    with pytest.raises(UserError, match=r"the disk is full.*bytes free"):
        save_checkpoint(tmp_path, 200, state(2))
    assert sorted(tmp_path.rglob("*")) == before
    assert step_of(tmp_path) == 1


def test_leftovers_of_a_killed_save_are_removed(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, 100, state(1))
    (tmp_path / ".000000000200.77.tmp").mkdir()
    assert step_of(tmp_path) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["000000000100"]


def test_the_manifest_names_every_file(tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path, 100, state(1))
    manifest = json.loads((path / "manifest.json").read_text())
    assert set(manifest["files"]) == {"model.safetensors", "state.json"}


@pytest.mark.parametrize("kind", [torch.optim.NAdam, torch.optim.AdamW, torch.optim.RMSprop])
def test_optimizer_state_round_trip(kind: type[torch.optim.Optimizer]) -> None:
    def steps(model: torch.nn.Module, optimizer: torch.optim.Optimizer, n: int) -> None:
        for _ in range(n):
            optimizer.zero_grad()
            model(torch.ones(4, 3)).square().sum().backward()
            optimizer.step()

    torch.manual_seed(0)
    whole = torch.nn.Linear(3, 2)
    half = torch.nn.Linear(3, 2)
    half.load_state_dict(whole.state_dict())
    first, second, third = kind(whole.parameters(), 0.01), kind(half.parameters(), 0.01), kind(half.parameters(), 0.01)
    steps(whole, first, 6)
    steps(half, second, 3)
    restore_optimizer(third, flatten_optimizer(second))
    steps(half, third, 3)
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), half.parameters(), strict=True))


def test_all_that_a_checkpoint_holds_is_on_the_disk_before_it_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a power cut may take is what was written since a file's last flush: nothing when the folder is renamed, and
    the rename itself is flushed too."""
    fsync, rename = os.fsync, Path.rename
    flushed: dict[int, int] = {}  # by inode: the size of a file, the number of entries of a folder
    lost: list[str] = []

    def extent(path: Path) -> int:
        return len(list(path.iterdir())) if path.is_dir() else path.stat().st_size

    def noted_fsync(descriptor: int) -> None:
        fsync(descriptor)
        inode = os.fstat(descriptor).st_ino
        flushed[inode] = next(extent(p) for p in (tmp_path, *tmp_path.rglob("*")) if p.stat().st_ino == inode)

    def noted_rename(path: Path, to: Path) -> Path:
        lost.extend(str(p) for p in (path, *path.iterdir()) if flushed.get(p.stat().st_ino) != extent(p))
        flushed.pop(to.parent.stat().st_ino, None)  # its newest entry is not on the disk yet
        return rename(path, to)

    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(Path, "rename", noted_rename)
    final = save_checkpoint(tmp_path, 100, state(1))
    assert {path.name for path in final.iterdir()} == {"model.safetensors", "state.json", "manifest.json"}
    assert lost == [] and flushed[tmp_path.stat().st_ino] == 1


def test_weights_are_written_over_the_file_they_were_read_from(tmp_path: Path) -> None:
    """Tensors that were read lie in the file itself; written to the same name they keep their values."""
    path = tmp_path / "weights.safetensors"
    write_tensors(path, {"w": torch.arange(100_000.0)})
    before = path.read_bytes()
    write_tensors(path, load_file(path))
    assert path.read_bytes() == before and torch.equal(load_file(path)["w"], torch.arange(100_000.0))
