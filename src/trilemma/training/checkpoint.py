"""The full state of a training, as a directory that is either whole or not there.

It is written beside its final name, every file is flushed to the disk, `manifest.json` with the size and SHA-256 of
each is written last, and then the directory is renamed. Loading takes the newest directory whose manifest holds; a
broken one is set aside as NAME.corrupt. Tensors are safetensors, everything else JSON: nothing is executed on loading.
"""

import json
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from trilemma.files import disk_errors, sha256_of, sync_folder, write_json

MANIFEST = "manifest.json"
FORMAT = 1
KEEP = 2

Tensors = dict[str, Tensor]


@dataclass
class Checkpoint:
    """Tensors by file ("model", "ema", "optimizer", ...) and the plain values of the state."""

    values: dict[str, Any]
    tensors: dict[str, Tensors] = field(default_factory=dict)


def save_checkpoint(folder: Path, images: int, checkpoint: Checkpoint) -> Path:
    """Write a checkpoint named by the images seen, then remove all but the newest KEEP.

    Raises:
        UserError: if the disk is full or cannot be written; what was there before is untouched.
    """
    final = folder / f"{images:012d}"
    if final.exists():
        return final
    scratch = folder / f".{final.name}.{os.getpid()}.tmp"
    try:
        with disk_errors(scratch):
            scratch.mkdir(parents=True)
            for name, tensors in checkpoint.tensors.items():
                write_tensors(scratch / f"{name}.safetensors", tensors)
            write_json(scratch / "state.json", checkpoint.values)
            write_json(scratch / MANIFEST, _manifest(scratch))
            sync_folder(scratch)
            scratch.rename(final)
            sync_folder(folder)
    except BaseException:
        shutil.rmtree(scratch, ignore_errors=True)
        raise
    if why_broken(final) is None:
        for old in list_checkpoints(folder)[:-KEEP]:
            shutil.rmtree(old, ignore_errors=True)
    return final


def load_checkpoint(folder: Path, notice: Callable[[str], None]) -> Checkpoint | None:
    """The newest valid checkpoint, or None. Broken ones are renamed, with a notice; leftovers are removed."""
    if not folder.is_dir():
        return None
    for leftover in folder.glob(".*.tmp"):
        shutil.rmtree(leftover, ignore_errors=True)
    for path in reversed(list_checkpoints(folder)):
        reason = why_broken(path)
        if reason is None:
            return _read(path)
        aside = path.with_name(f"{path.name}.corrupt")
        shutil.rmtree(aside, ignore_errors=True)
        path.rename(aside)
        notice(f"the checkpoint {path.name} is broken ({reason}); it is set aside as {aside.name}")
    return None


def list_checkpoints(folder: Path) -> list[Path]:
    """Finished checkpoint directories, oldest first."""
    return sorted(path for path in folder.iterdir() if path.is_dir() and path.name.isdigit())


def why_broken(path: Path) -> str | None:
    """The first reason why a checkpoint cannot be trusted, or None."""
    try:
        manifest = json.loads((path / MANIFEST).read_text("utf-8"))
        if manifest["format"] != FORMAT:
            return f"its format is {manifest['format']}, this version reads {FORMAT}"
        for name, entry in manifest["files"].items():
            file = path / name
            if file.stat().st_size != entry["bytes"]:
                return f"{name} has {file.stat().st_size} bytes, {entry['bytes']} were written"
            if sha256_of(file) != entry["sha256"]:
                return f"{name} does not have the content that was written"
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return f"{type(error).__name__}: {error}"
    return None


def write_tensors(path: Path, tensors: Tensors) -> None:
    """Tensors to one safetensors file, beside its final name first, flushed and renamed."""
    scratch = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with disk_errors(path, sum(tensor.nbytes for tensor in tensors.values())):
            _save(tensors, scratch)
            scratch.chmod(0o644)  # safetensors leaves it to the owner alone
            with scratch.open("rb") as file:
                os.fsync(file.fileno())
            scratch.replace(path)
    except BaseException:
        scratch.unlink(missing_ok=True)
        raise


def _save(tensors: Tensors, path: Path) -> None:
    try:
        save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, path)
    except SafetensorError as error:  # it hides the system's error in its text
        number = re.search(r"os error (\d+)", str(error))
        raise OSError(int(number[1]) if number else 0, str(error)) from error


def flatten_optimizer(optimizer: torch.optim.Optimizer) -> Tensors:
    """An optimiser's state as named tensors: "parameter number/key"; plain numbers become float64 tensors."""
    state = optimizer.state_dict()["state"]
    return {
        f"{number}/{key}": value if isinstance(value, Tensor) else torch.tensor(float(value), dtype=torch.float64)
        for number, entries in state.items()
        for key, value in entries.items()
    }


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: Tensors) -> None:
    """Put the named tensors of `flatten_optimizer` back, in the memory layout of their parameters."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    state: dict[int, dict[str, Any]] = {}
    for name, tensor in tensors.items():
        number, key = name.split("/")
        like = parameters[int(number)]
        same = tensor.shape == like.shape
        state.setdefault(int(number), {})[key] = torch.empty_like(like).copy_(tensor) if same else tensor
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def _manifest(folder: Path) -> dict[str, Any]:
    files = sorted(path for path in folder.iterdir() if path.is_file())
    entries = {path.name: {"bytes": path.stat().st_size, "sha256": sha256_of(path)} for path in files}
    return {"format": FORMAT, "files": entries}


def _read(path: Path) -> Checkpoint:
    values = json.loads((path / "state.json").read_text("utf-8"))
    return Checkpoint(values, {file.stem: load_file(file) for file in sorted(path.glob("*.safetensors"))})
