"""Features of real images are computed once, and never taken from an entry that is not theirs."""

import os
import time
from dataclasses import replace

import pytest
import torch
from torch import nn

from trilemma.classifiers.bundled import FeatureNetwork
from trilemma.metrics import feature_cache
from trilemma.metrics.feature_cache import KEEP_DAYS, real_features
from trilemma.metrics.features import extract


class Counting(nn.Module):
    """Three numbers of an image; counts the images."""

    seen = 0

    def features(self, image):
        self.seen += len(image)
        return torch.stack([image.mean((1, 2, 3)), image.amax((1, 2, 3)), image[:, 0, 0, 0] / 3], 1)


@pytest.fixture
def network():
    return FeatureNetwork("counting", Counting(), (1, 4, 4), sha256="a" * 64)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TRILEMMA_CACHE", str(tmp_path))
    monkeypatch.setattr(feature_cache, "LEAST", 10)
    return tmp_path / "features"


def images(n=50, seed=0):
    return torch.randint(0, 256, (n, 1, 4, 4), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


def test_the_second_time_nothing_is_computed(network, cache):
    first = real_features(network, images())
    assert first.dtype == torch.float64 and torch.equal(first, extract(network, images()))
    before = network.network.seen
    assert torch.equal(real_features(network, images()), first) and network.network.seen == before
    assert torch.equal(real_features(network, images().float() / 255), first)  # the same levels
    assert [path.name.split("-")[0] for path in cache.iterdir()] == ["counting"]


def test_other_images_weights_or_sizes_have_entries_of_their_own(network, cache):
    real_features(network, images())
    other = images()
    other[7, 0, 2, 2] ^= 1
    for of_network, of_images in (
        (network, other),
        (network, images().flip(0)),
        (network, images().view(50, 1, 2, 8)),
        (replace(network, sha256="b" * 64), images()),
        (replace(network, shape=(1, 8, 8)), images()),
    ):
        assert torch.equal(real_features(of_network, of_images), extract(of_network, of_images))
    assert len(list(cache.iterdir())) == 6


@pytest.mark.parametrize("damage", ["flip", "short", "empty", "head"])
def test_a_damaged_entry_is_computed_again(network, cache, damage):
    first = real_features(network, images())
    (path,) = cache.iterdir()
    content = bytearray(path.read_bytes())
    if damage == "flip":
        content[100] ^= 4
    path.write_bytes(bytes({"short": content[:-4], "empty": b"", "head": b"x" * 64}.get(damage, content)))
    before = network.network.seen
    assert torch.equal(real_features(network, images()), first) and network.network.seen == before + 50
    assert torch.equal(real_features(network, images()), first) and network.network.seen == before + 50


def test_networks_without_published_weights_and_few_images_are_not_kept(network, cache):
    real_features(replace(network, sha256=""), images())
    real_features(network, images(9))
    assert not cache.exists()


def test_a_cache_that_cannot_be_written_costs_nothing_but_time(network, cache):
    cache.write_text("a file where the folder would be")
    assert torch.equal(real_features(network, images()), extract(network, images()))


def test_what_was_not_read_for_long_is_removed(network, cache):
    real_features(network, images())
    real_features(network, images(seed=1))
    for path in cache.iterdir():
        past = time.time() - (KEEP_DAYS + 1) * 24 * 3600
        os.utime(path, (past, past))
    real_features(network, images())  # read: it stays
    real_features(network, images(seed=2))
    assert len(list(cache.iterdir())) == 2
