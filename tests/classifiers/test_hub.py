"""DINOv2 and CLIP as feature networks, offline: tiny random ones, in folders."""

import builtins
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from trilemma.classifiers.hub import KINDS, load_hub_network
from trilemma.errors import UserError
from trilemma.metrics.features import extract, feature_network

SIDE = 28  # px, of the inputs
SMALL = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "patch_size": 14}


def saved(word: str, folder: Path, side: int = SIDE) -> Path:
    """A tiny random network of a kind, as transformers writes it; its inputs have `side` px."""
    transformers = pytest.importorskip("transformers", reason="needs the extra hub")
    config = {
        "dinov2": lambda: transformers.Dinov2Config(**SMALL, image_size=side, mlp_ratio=2),
        "clip": lambda: transformers.CLIPVisionConfig(**SMALL, image_size=side, intermediate_size=32, projection_dim=8),
    }[word]()
    torch.manual_seed(0)
    getattr(transformers, KINDS[word].model)(config).save_pretrained(folder / f"tiny-{word}")
    return folder / f"tiny-{word}"


@pytest.fixture
def folders(tmp_path: Path) -> dict[str, Path]:
    """A network of each kind."""
    return {word: saved(word, tmp_path) for word in KINDS}


def as_published(word: str, images: Tensor) -> Tensor:
    """Levels (B, 3, H, W) as the published models take them: enlarged or shrunk by the bicubic filter of Pillow, which
    averages where an image shrinks, and brought to the mean and the deviation that transformers declares."""
    from transformers import image_utils

    mean, deviation = {
        "dinov2": (image_utils.IMAGENET_DEFAULT_MEAN, image_utils.IMAGENET_DEFAULT_STD),
        "clip": (image_utils.OPENAI_CLIP_MEAN, image_utils.OPENAI_CLIP_STD),
    }[word]
    planes = [Image.fromarray(plane.float().numpy() / 255) for plane in images.flatten(0, 1)]
    resized = [np.asarray(plane.resize((SIDE, SIDE), Image.Resampling.BICUBIC)) for plane in planes]
    x = torch.from_numpy(np.stack(resized)).view(len(images), 3, SIDE, SIDE).clamp(0, 1)
    return (x - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(deviation).view(3, 1, 1)


@torch.no_grad()
def vector(word: str, model: Any, inputs: Tensor) -> Tensor:
    """What stands for an image: the normalised class token of DINOv2, the projection of CLIP's; from the tokens."""
    tokens = model(pixel_values=inputs).last_hidden_state  # (B, 1 + patches, 16), the class token first
    if word == "dinov2":
        return tokens[:, 0]  # normalised already
    return model.visual_projection(model.vision_model.post_layernorm(tokens[:, 0]))


@pytest.mark.slow
@pytest.mark.parametrize("size", [(SIDE, SIDE), (45, 60), (16, 20)], ids=["as it is", "shrunk", "enlarged"])
@pytest.mark.parametrize("word", ["dinov2", "clip"])
def test_features_are_the_vector_of_the_published_inputs(folders: dict[str, Path], word: str, size: Any) -> None:
    """To 1e-4; with the other's mean and deviation, or by another interpolation, they are farther than 1e-2 away."""
    network = feature_network(f"{word}:{folders[word]}", (3, *size), "photos")
    images = torch.randint(0, 256, (3, 3, *size), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    features, model = extract(network, images).float(), network.network.model
    inputs = as_published(word, images)
    torch.testing.assert_close(features, vector(word, model, inputs), rtol=0, atol=1e-4)
    other = as_published({"dinov2": "clip", "clip": "dinov2"}[word], images)
    assert (features - vector(word, model, other)).abs().max() > 1e-2
    coarse = torch.nn.functional.interpolate(images.float() / 255, size=[SIDE, SIDE], mode="bilinear")
    mean, deviation = (getattr(network.network, name) for name in ("mean", "deviation"))
    assert size == (SIDE, SIDE) or (features - vector(word, model, (coarse - mean) / deviation)).abs().max() > 1e-2


@pytest.mark.parametrize(("word", "width"), [("dinov2", 16), ("clip", 8)])
def test_a_network_says_what_it_is(folders: dict[str, Path], word: str, width: int) -> None:
    network = feature_network(f"{word}:{folders[word]}", (3, SIDE, SIDE), "photos")
    assert extract(network, torch.rand(2, 1, SIDE, SIDE)).shape == (2, width)
    assert network.name == f"{word}-tiny-{word}" and str(folders[word]) in network.note and len(network.sha256) == 64
    assert network.resize_rule((3, 64, 64)) == "bicubic-antialias to 28x28"


@pytest.mark.parametrize(("word", "side", "taken"), [("dinov2", 518, 224), ("clip", 336, 336)])
def test_dinov2_takes_features_at_224_px_whatever_it_was_trained_with_last(
    tmp_path: Path, word: str, side: int, taken: int
) -> None:
    network = load_hub_network(f"{word}:{saved(word, tmp_path, side)}")
    assert network.shape == (3, taken, taken) and network.is_slow


def test_a_folder_without_a_network_is_refused(folders: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"features=clip:.*empty cannot be read as a network of this kind"):
        load_hub_network(f"clip:{tmp_path / 'empty'}")


def test_without_transformers_the_line_that_installs_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    original = builtins.__import__

    def without(name: str, *args: Any, **kwargs: Any) -> Any:
        if name == "transformers":
            raise ImportError("No module named transformers")
        return original(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(UserError, match=r"features=dinov2 needs the package transformers .*install .*hub"):
        feature_network("dinov2", (3, 32, 32), "photos")
