"""A folder that has the form of a pipeline, made without diffusers."""

import json

import torch
from safetensors.torch import save_file

NETWORKS = {"unet": "UNet2DConditionModel", "vae": "AutoencoderKL"}


def write_json(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), "utf-8")


def change_json(path, **changes):
    write_json(path, {**json.loads(path.read_text("utf-8")), **changes})


def make_folder(folder):
    """An index, two networks, a tokeniser and a scheduler."""
    parts = {name: ["diffusers", kind] for name, kind in NETWORKS.items()}
    parts |= {"tokenizer": ["transformers", "CLIPTokenizer"], "scheduler": ["diffusers", "DDIMScheduler"]}
    parts |= {"safety_checker": ["stable_diffusion", "StableDiffusionSafetyChecker"], "feature_extractor": [None, None]}
    write_json(folder / "model_index.json", {"_class_name": "StableDiffusionPipeline", "flag": True, **parts})
    for name, kind in NETWORKS.items():
        write_json(folder / name / "config.json", {"_class_name": kind})
        save_file({"weight": torch.ones(2, 3)}, folder / name / "diffusion_pytorch_model.safetensors")
    write_json(folder / "tokenizer" / "tokenizer_config.json", {"tokenizer_class": "CLIPTokenizer"})
    write_json(folder / "tokenizer" / "vocab.json", {"a</w>": 0})
    write_json(folder / "scheduler" / "scheduler_config.json", {"_class_name": "DDIMScheduler"})
    return folder
