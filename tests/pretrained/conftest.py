"""Tiny pipelines with random weights, built without the network and saved as folders; `tiny` draws 64x64 images."""

import pytest
import torch
from pretrained.films import FILMS
from pretrained.pipelines import KINDS, save, tiny_pipeline
from pretrained.solids import SOLIDS

from trilemma.pretrained.libraries import load_diffusers, silence


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """A working folder and a cache of the test's own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TRILEMMA_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """The folder of the pipeline."""
    pytest.importorskip("diffusers")
    return save(tiny_pipeline, tmp_path_factory.mktemp("pipelines") / "tiny")


@pytest.fixture(scope="session")
def folder_of(tmp_path_factory):
    """The folder of a tiny pipeline of a kind, built when it is first asked for."""
    pytest.importorskip("diffusers")
    place, folders = tmp_path_factory.mktemp("kinds"), {}

    def folder(kind):
        if kind not in folders:
            folders[kind] = save({**KINDS, **FILMS, **SOLIDS}[kind], place / kind)
        return folders[kind]

    return folder


@pytest.fixture(scope="session")
def lora(tiny, tmp_path_factory):
    """Weights of a LoRA for its U-Net."""
    peft = pytest.importorskip("peft")
    diffusers, folder = load_diffusers(), tmp_path_factory.mktemp("lora")
    with torch.random.fork_rng(), silence():
        torch.manual_seed(1)
        unet = diffusers.UNet2DConditionModel.from_pretrained(tiny / "unet")
        unet.add_adapter(peft.LoraConfig(r=2, target_modules=["to_q", "to_v"], init_lora_weights=False))
        layers = peft.get_peft_model_state_dict(unet)
        diffusers.StableDiffusionPipeline.save_lora_weights(folder, unet_lora_layers=layers)
    return folder / "pytorch_lora_weights.safetensors"
