"""EfficientNet-Lite0 with its published weights: names of photographs, and features that fall apart as images do."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_sample_images
from torch import Tensor

from trilemma.classifiers import imagenet
from trilemma.classifiers.imagenet import SIDE, class_names, likeliest_classes, load_efficientnet
from trilemma.errors import UserError
from trilemma.metrics.features import extract, feature_network


@pytest.fixture(scope="module")
def network():
    return load_efficientnet()


def squared(pixels: np.ndarray) -> Tensor:
    """The largest square in the middle of an image, (1, C, H, W)."""
    height, width = pixels.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    image = torch.from_numpy(pixels[top : top + side, left : left + side].copy())
    return (image[:, :, None] if image.ndim == 2 else image).permute(2, 0, 1)[None]


def test_a_thousand_different_names() -> None:
    names = class_names()
    assert len(names) == len({*names}) == 1000
    assert (names[0], names[134], names[517], names[999]) == (
        "tench",
        "crane (bird)",
        "crane (machine)",
        "toilet tissue",
    )


def test_a_photograph_of_a_palace_is_one_of_a_building(network) -> None:
    china = squared(load_sample_images().images[0])
    ((*best,),) = likeliest_classes(extract(network, china), network, k=5)
    assert {"palace", "monastery"} <= {name for name, _ in best}
    assert [p for _, p in best] == sorted((p for _, p in best), reverse=True) and 0 < sum(p for _, p in best) <= 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("photograph", "names"),
    [
        ("chelsea", {"Egyptian cat", "tabby", "tiger cat"}),
        ("coffee", {"espresso", "cup", "coffee mug"}),
        ("stereo_motorcycle", {"moped", "motor scooter"}),
        ("camera", {"tripod"}),
    ],
)
def test_photographs_are_named_rightly(network, photograph: str, names: set[str]) -> None:
    data = pytest.importorskip("skimage.data", reason="needs scikit-image")
    pixels = getattr(data, photograph)()
    image = squared(pixels[0] if isinstance(pixels, tuple) else pixels)
    (((name, p),),) = likeliest_classes(extract(network, image), network)
    assert name in names and p > 0.4


def test_it_is_a_feature_network_by_name(network) -> None:
    by_name = feature_network("efficientnet-lite0", (3, 64, 64), "photos")
    assert (by_name.name, by_name.sha256, by_name.shape) == ("efficientnet-lite0", imagenet.SHA256, (3, SIDE, SIDE))
    images = torch.randint(0, 256, (2, 3, 20, 30), dtype=torch.uint8)
    features = extract(by_name, images)
    assert features.shape == (2, 1280) and features.dtype == torch.float64
    torch.testing.assert_close(features, extract(network, images))
    assert not by_name.network.training and not any(p.requires_grad for p in by_name.network.parameters())


def test_other_weights_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "w.pth").write_bytes(b"other")
    monkeypatch.setattr(imagenet, "weights_file", lambda: tmp_path / "w.pth")
    with pytest.raises(UserError, match=r"is not the published file .*SHA-256 .*install"):
        load_efficientnet()


@pytest.mark.parametrize("found", [None, "elsewhere"])
def test_weights_that_are_not_installed(found, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = None if found is None else type("Spec", (), {"origin": str(tmp_path / "__init__.py")})
    monkeypatch.setattr(imagenet, "find_spec", lambda name: spec)
    with pytest.raises(UserError, match=r"the weights of efficientnet-lite0 are not installed; .*install"):
        load_efficientnet()


def patches(n: int = 30) -> Tensor:
    """Squares of 48 px from the two photographs of scikit-learn, uint8 (2 n, 3, 48, 48)."""
    rng = np.random.default_rng(0)
    parts = []
    for image in load_sample_images().images:
        for _ in range(n):
            y, x = (int(rng.integers(0, size - 48)) for size in image.shape[:2])
            parts.append(torch.from_numpy(image[y : y + 48, x : x + 48].copy()).permute(2, 0, 1))
    return torch.stack(parts)


@pytest.mark.slow
def test_distances_grow_with_blur_noise_jpeg_and_a_dropped_class(network) -> None:
    from io import BytesIO

    from trilemma.metrics.kernel import kernel_distance, similarity

    images = patches()
    real, other = images[::2], images[1::2]  # as many of either photograph in both halves

    def blurred(factor: int) -> Tensor:
        small = torch.nn.functional.avg_pool2d(other.float(), factor)
        return torch.nn.functional.interpolate(small, size=48, mode="bilinear").round().to(torch.uint8)

    def noisy(std: float) -> Tensor:
        noise = torch.randn(other.shape, generator=torch.Generator().manual_seed(0))
        return (other + std * noise).clamp(0, 255).round().to(torch.uint8)

    def compressed(quality: int) -> Tensor:
        results = []
        for image in other:
            buffer = BytesIO()
            Image.fromarray(image.permute(1, 2, 0).numpy()).save(buffer, "JPEG", quality=quality)
            results.append(torch.from_numpy(np.array(Image.open(buffer))).permute(2, 0, 1))
        return torch.stack(results)

    of_real = similarity(extract(network, real))

    def distance(fake: Tensor) -> float:
        estimate = kernel_distance(real=of_real, fake=extract(network, fake)).estimate()
        return estimate.value

    same = distance(other)
    for worse in (
        [blurred(2), blurred(4), blurred(8)],
        [noisy(8), noisy(24), noisy(64)],
        [compressed(40), compressed(10), compressed(3)],
        [torch.cat([other[:15], other[:7], other[15:23]]), other[:15].repeat(2, 1, 1, 1)],
    ):
        distances = [same, *map(distance, worse)]
        assert distances == sorted(distances) and distances[-1] > same + 3 * abs(same)
