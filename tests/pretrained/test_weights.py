"""What is known of weights before they are loaded: numbers, precision, memory."""

import shutil

import pytest
import torch
from safetensors.torch import load_file

from trilemma.errors import UserError
from trilemma.pretrained import weights
from trilemma.pretrained.fetch import locate
from trilemma.pretrained.pipeline import load_pipeline
from trilemma.pretrained.weights import numbers_in, precision_for, weight_files


def test_numbers_are_counted_from_the_files_that_are_loaded(tiny, tmp_path):
    copy = shutil.copytree(tiny, tmp_path / "copy")
    parts = dict.fromkeys(("unet", "vae", "text_encoder"))
    files = weight_files(tiny, parts)
    assert numbers_in(files) == sum(t.numel() for path in files for t in load_file(path).values())
    shutil.copy(copy / "vae/diffusion_pytorch_model.safetensors", copy / "vae/diffusion_pytorch_model.fp16.safetensors")
    assert [path.name for path in weight_files(copy, parts)] == [path.name for path in files]


def test_a_machine_without_the_memory_is_said_before_loading(tiny, monkeypatch):
    monkeypatch.setattr(weights, "memory_bytes", lambda: 1000)
    with pytest.raises(UserError, match="more than the 1 kB of this machine"):
        load_pipeline(locate(str(tiny)), "cpu")


def test_precision_by_device(monkeypatch):
    assert precision_for(torch.device("cpu")) == torch.float32
    for native, expected in ((True, torch.bfloat16), (False, torch.float16)):
        monkeypatch.setattr(weights, "supports_fast_bf16", lambda _, native=native: native)
        assert precision_for(torch.device("cuda")) == expected
