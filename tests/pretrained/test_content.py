"""What names the content of a folder: the same for the same files, and weights are read once."""

import os

import pytest
import torch
from pretrained.folders import change_json, make_folder
from safetensors.torch import save_file

from trilemma.files import sha256_of
from trilemma.pretrained import content
from trilemma.pretrained.content import content_id

UNET = "unet/diffusion_pytorch_model.safetensors"


@pytest.fixture
def folder(tmp_path):
    """A pipeline whose files are an hour old."""
    folder = make_folder(tmp_path / "tiny")
    for path in folder.rglob("*"):
        then = path.stat().st_mtime - 3600
        os.utime(path, (then, then))
    return folder


@pytest.fixture
def read(monkeypatch):
    """The names of the files that are read."""
    names = []

    def noted(path):
        names.append(path.name)
        return sha256_of(path)

    monkeypatch.setattr(content, "sha256_of", noted)
    return names


def test_the_content_of_a_folder_has_a_name(folder, tmp_path):
    name = content_id(folder)
    assert content_id(make_folder(tmp_path / "copy")) == name
    (folder / "notes.md").write_text("nothing that is loaded")
    assert content_id(folder) == name
    change_json(folder / "scheduler/scheduler_config.json", beta_end=0.013)
    assert content_id(folder) != name


def test_weights_are_read_once(folder, read):
    first = content_id(folder)
    assert read.count("diffusion_pytorch_model.safetensors") == 2
    read.clear()
    assert content_id(folder) == first
    assert read and not [name for name in read if name.endswith(".safetensors")]


def test_weights_that_changed_are_read_again(folder, read):
    first, size = content_id(folder), (folder / UNET).stat().st_size
    read.clear()
    save_file({"weight": torch.zeros(2, 3)}, folder / UNET)
    assert (folder / UNET).stat().st_size == size
    assert content_id(folder) != first and read.count("diffusion_pytorch_model.safetensors") == 1


def test_weights_that_have_just_changed_are_not_remembered(folder, read):
    """A later change may leave them with the same time."""
    os.utime(folder / UNET)
    assert content_id(folder) == content_id(folder)
    assert read.count("diffusion_pytorch_model.safetensors") == 3


@pytest.mark.parametrize("text", ["", "[]", '{"unet/diffusion_pytorch_model.safetensors": 3}'])
def test_a_broken_memory_is_made_again(folder, read, tmp_path, text):
    first = content_id(folder)
    (memory,) = (tmp_path / "cache" / "sums").iterdir()
    whole = memory.read_text("utf-8")
    memory.write_text(text, "utf-8")
    assert content_id(folder) == first and memory.read_text("utf-8") == whole
