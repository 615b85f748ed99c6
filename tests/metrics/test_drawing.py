"""50,000 images are kept as levels, a quarter of the bytes: as floats there are a few batches at a time."""

import math
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from trilemma.classifiers.bundled import FeatureNetwork
from trilemma.metrics.cost import draw_timed
from trilemma.metrics.drawing import drawn_by
from trilemma.metrics.features import extract
from trilemma.metrics.resources import peak_bytes
from trilemma.run.compute import ImageBatch

N, BATCH, SHAPE = 50_000, 100, (1, 4, 4)
FLOATS = 4 * N * math.prod(SHAPE)  # bytes of all images as float32
CPU = torch.device("cpu")


class Noise:
    """A contestant whose images are noise."""

    name, count = "noise", None

    def draw(self, n, *, seed=0, first=0, batch=256, **settings):
        for start in range(first, first + n, batch):
            size = min(batch, first + n - start)
            yield ImageBatch(noise(start, size), start, (start, size))


class Brightness(nn.Module):
    """One number of an image."""

    def features(self, image: Tensor) -> Tensor:
        return image.mean((1, 2, 3))[:, None]


def noise(first: int, count: int) -> Tensor:
    return torch.rand(count, *SHAPE)


def peak(work) -> tuple[Any, float]:
    """What some work returns, and its memory over that of all images as floats."""
    results = []
    most = peak_bytes(lambda: results.append(work()), CPU)
    return results[0], most / FLOATS


def test_images_of_a_contestant_are_kept_as_levels() -> None:
    """A quarter; once more while the batches are joined."""
    setup: Any = SimpleNamespace(n=N, seed=0, settings={})
    drawn, share = peak(lambda: drawn_by(Noise(), setup, BATCH))
    assert drawn.images.shape == (N, *SHAPE) and drawn.images.dtype == torch.uint8
    assert 0.5 <= share < 0.6


def test_images_that_are_timed_are_kept_as_levels() -> None:
    (images, spent), share = peak(lambda: draw_timed(noise, N, batch=BATCH, device=CPU, networks=[], parameters=(0, 0)))
    assert images.shape == (N, *SHAPE) and images.dtype == torch.uint8 and spent.batch == BATCH
    assert 0.5 <= share < 0.6


def test_features_are_taken_of_a_batch_of_floats_at_a_time() -> None:
    """A number in float32 is 1/16 of an image; it is in float64 at last, so three times as much."""
    network = FeatureNetwork("brightness", Brightness(), SHAPE)
    images = torch.full((N, *SHAPE), 51, dtype=torch.uint8)
    features, share = peak(lambda: extract(network, images, batch=BATCH))
    assert features.shape == (N, 1) and torch.allclose(features, torch.tensor(0.2, dtype=torch.float64))
    assert 3 / 16 <= share < 0.3
