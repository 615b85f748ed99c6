"""DINOv2 and CLIP as feature networks, offline: tiny random ones, in folders."""

import builtins
from pathlib import Path
from typing import Any

import pytest
import torch

from trilemma.classifiers.hub import KINDS, load_hub_network
from trilemma.errors import UserError
from trilemma.metrics.features import extract, feature_network


@pytest.fixture
def folders(tmp_path: Path) -> dict[str, Path]:
    """A tiny random network of each kind, as transformers writes it."""
    transformers = pytest.importorskip("transformers", reason="needs the extra hub")
    small = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 28, "patch_size": 14}
    configs = {
        "dinov2": transformers.Dinov2Config(**small, mlp_ratio=2),
        "clip": transformers.CLIPVisionConfig(**small, intermediate_size=32, projection_dim=8),
    }
    torch.manual_seed(0)
    for word, config in configs.items():
        getattr(transformers, KINDS[word].model)(config).save_pretrained(tmp_path / f"tiny-{word}")
    return {word: tmp_path / f"tiny-{word}" for word in configs}


@pytest.mark.parametrize(("word", "width"), [("dinov2", 16), ("clip", 8)])
def test_features_are_those_of_the_network(folders: dict[str, Path], word: str, width: int) -> None:
    network = feature_network(f"{word}:{folders[word]}", (3, 28, 28), "photos")
    images = torch.rand(3, 3, 28, 28)
    features = extract(network, images)
    kind, levels = KINDS[word], (255 * images).round() / 255
    inputs = (levels - torch.tensor(kind.mean).view(3, 1, 1)) / torch.tensor(kind.deviation).view(3, 1, 1)
    with torch.no_grad():
        expected = network.network.model(pixel_values=inputs)[kind.output]
    assert features.shape == (3, width)
    torch.testing.assert_close(features.float(), expected, rtol=1e-4, atol=1e-5)
    assert network.name == f"{word}-tiny-{word}" and str(folders[word]) in network.note and len(network.sha256) == 64
    assert network.resize_rule((3, 64, 64)) == "bicubic-antialias to 28x28"


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
