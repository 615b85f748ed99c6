"""Features and statistics of images are computed once, and never taken from an entry that is not theirs."""

import os
import time
from dataclasses import replace

import pytest
import torch
from torch import nn

from trilemma.classifiers.bundled import FeatureNetwork
from trilemma.metrics import evaluate, feature_cache, frechet, kernel, neighbours
from trilemma.metrics.feature_cache import KEEP_DAYS, cached_features
from trilemma.metrics.features import extract
from trilemma.metrics.quality import quality, real_of


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
    first = cached_features(network, images())
    assert first.dtype == torch.float64 and torch.equal(first, extract(network, images()))
    before = network.network.seen
    assert torch.equal(cached_features(network, images()), first) and network.network.seen == before
    assert torch.equal(cached_features(network, images().float() / 255), first)  # the same levels
    assert [path.name.split("-")[0] for path in cache.iterdir()] == ["counting"]


def test_other_images_weights_or_sizes_have_entries_of_their_own(network, cache):
    cached_features(network, images())
    other = images()
    other[7, 0, 2, 2] ^= 1
    for of_network, of_images in (
        (network, other),
        (network, images().flip(0)),
        (network, images().view(50, 1, 2, 8)),
        (replace(network, sha256="b" * 64), images()),
        (replace(network, shape=(1, 8, 8)), images()),
    ):
        assert torch.equal(cached_features(of_network, of_images), extract(of_network, of_images))
    assert len(list(cache.iterdir())) == 6


def test_devices_of_one_kind_share_an_entry(network):
    """The receipt names the kind: features that a GPU computed do not pass for those of a CPU."""
    networks = [replace(network, device=name) for name in ("cpu", "cuda:0", "cuda:1")]
    of_cpu, of_first, of_second = (feature_cache._key_of_images(one, images()) for one in networks)
    assert of_cpu != of_first == of_second
    assert networks[2].receipt == {"feature_weights_sha256": "a" * 64, "feature_device": "cuda"}


@pytest.mark.parametrize("damage", ["flip", "short", "empty", "head"])
def test_a_damaged_entry_is_computed_again(network, cache, damage):
    first = cached_features(network, images())
    (path,) = cache.iterdir()
    content = bytearray(path.read_bytes())
    if damage == "flip":
        content[100] ^= 4
    path.write_bytes(bytes({"short": content[:-4], "empty": b"", "head": b"x" * 64}.get(damage, content)))
    before = network.network.seen
    assert torch.equal(cached_features(network, images()), first) and network.network.seen == before + 50
    assert torch.equal(cached_features(network, images()), first) and network.network.seen == before + 50


def test_networks_without_published_weights_and_few_images_are_not_kept(network, cache):
    cached_features(replace(network, sha256=""), images())
    cached_features(network, images(9))
    assert not cache.exists()


def test_a_cache_that_cannot_be_written_costs_nothing_but_time(network, cache):
    cache.write_text("a file where the folder would be")
    assert torch.equal(cached_features(network, images()), extract(network, images()))


def test_statistics_of_real_images_are_computed_once(cache, monkeypatch):
    """Row sums of the kernel, radii of balls and, of enough images, the root of the covariance."""
    monkeypatch.setattr(frechet, "MINIMUM", 30)
    generator = torch.Generator().manual_seed(0)
    real, fake = (torch.randn(n, 5, generator=generator).double() for n in (40, 25))
    first, root = real_of(real), real_of(real).gaussian.root
    with monkeypatch.context() as patch:
        for module, name in ((kernel, "_within"), (neighbours, "_among"), (frechet, "_sqrt")):
            patch.setattr(module, name, lambda *_: pytest.fail("computed again"))
        again = real_of(real)
        assert torch.equal(again.gaussian.root, root) and torch.allclose(root @ root, real.T.cov())
    assert torch.equal(again.similarity.sums, first.similarity.sums)
    for one, other in zip(again.balls, first.balls, strict=True):
        assert torch.equal(one, other)
    assert quality(real=again, fake=fake) == quality(real=first, fake=fake)
    (entry,) = cache.iterdir()
    assert entry.name.startswith("statistics-")
    changed = real.index_fill(0, torch.tensor([3]), 0.0)
    assert torch.equal(real_of(changed).similarity.sums, kernel.similarity(changed).sums)
    assert len([*cache.iterdir()]) == 2


@pytest.mark.slow
def test_a_set_of_images_and_the_controls_go_through_the_network_once(network):
    fakes, reals = images(20), images(60, seed=1)
    first = evaluate(fakes, against=reals, features=network)
    before = network.network.seen
    again = evaluate(fakes, against=reals, features=network)
    assert network.network.seen == before + 2  # the mean image and one image, each alone
    assert [score.value for score in again.scores] == [score.value for score in first.scores]


def test_what_was_not_read_for_long_is_removed(network, cache):
    cached_features(network, images())
    cached_features(network, images(seed=1))
    for path in cache.iterdir():
        past = time.time() - (KEEP_DAYS + 1) * 24 * 3600
        os.utime(path, (past, past))
    cached_features(network, images())  # read: it stays
    cached_features(network, images(seed=2))
    assert len(list(cache.iterdir())) == 2
