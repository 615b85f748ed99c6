"""What is known of weights before they are loaded: parameters, precision, memory."""

import shutil

import pytest
import torch
from safetensors.torch import load_file

from trilemma.errors import UserError
from trilemma.pretrained import weights
from trilemma.pretrained.fetch import locate
from trilemma.pretrained.pipeline import load_pipeline
from trilemma.pretrained.weights import ROOM, check_memory, parameters_in, precision_for, weight_files
from trilemma.words import size_in_words


def test_parameters_are_counted_from_the_files_that_are_loaded(tiny, tmp_path):
    copy = shutil.copytree(tiny, tmp_path / "copy")
    parts = dict.fromkeys(("unet", "vae", "text_encoder"))
    files = weight_files(tiny, parts)
    assert parameters_in(files) == sum(t.numel() for path in files for t in load_file(path).values())
    shutil.copy(copy / "vae/diffusion_pytorch_model.safetensors", copy / "vae/diffusion_pytorch_model.fp16.safetensors")
    assert [path.name for path in weight_files(copy, parts)] == [path.name for path in files]


def test_a_machine_without_the_memory_is_said_before_loading(tiny, monkeypatch):
    monkeypatch.setattr(weights, "available_bytes", lambda: 1000)
    with pytest.raises(UserError, match="this machine has 1 kB free; close other programs"):
        load_pipeline(locate(str(tiny)), "cpu")


@pytest.mark.parametrize(("free", "total", "fits"), [(10**6, 0, True), (999_999, 10**9, False), (0, 999_999, False)])
def test_memory_is_what_is_free_or_else_what_there_is(monkeypatch, capsys, free, total, fits):
    monkeypatch.setattr(weights, "available_bytes", lambda: free)
    monkeypatch.setattr(weights, "memory_bytes", lambda: total)
    asked = ("tiny", 10**6, torch.device("cpu"), torch.float32)
    if fits:
        assert not check_memory(*asked)
    else:
        has = size_in_words(free or total)
        with pytest.raises(UserError, match=f"tiny needs 1 MB of memory, and this machine has {has} free"):
            check_memory(*asked)
    assert "1 MB of weights in float32 on cpu, with" in capsys.readouterr().err


@pytest.mark.parametrize(("spare", "offloads"), [(1, False), (-1, True)])
def test_parts_are_moved_one_after_another_where_a_gpu_has_not_the_room(monkeypatch, capsys, spare, offloads):
    needed = 10**9
    monkeypatch.setattr(weights, "available_bytes", lambda: 2 * needed)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (int(ROOM * needed) + spare, 10**12))
    assert check_memory("tiny", needed, torch.device("cuda"), torch.float16) is offloads
    said = capsys.readouterr().err
    assert "1 GB of weights in float16 on cuda, with" in said
    assert ("its parts are moved to cuda one after another" in said) is offloads


def test_precision_by_device(monkeypatch):
    assert precision_for(torch.device("cpu")) == precision_for(torch.device("mps")) == torch.float32
    for native, expected in ((True, torch.bfloat16), (False, torch.float16)):
        monkeypatch.setattr(weights, "supports_fast_bf16", lambda _, native=native: native)
        assert precision_for(torch.device("cuda")) == expected
