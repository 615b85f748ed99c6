"""The feature networks that the package carries: whole, small, and as accurate as their card says."""

import os

import pytest
import torch

from trilemma.classifiers.bundled import BUNDLED, WEIGHTS, load_network, read_card
from trilemma.classifiers.classifier import scores_of
from trilemma.classifiers.make_bundled import LARGEST_BYTES
from trilemma.data import Split, load_data
from trilemma.data.sources import cifar, mnist
from trilemma.files import sha256_of
from trilemma.metrics.features import feature_network
from trilemma.registry import get_recipe

BARS = {"digits": 0.94, "mnist": 0.99, "fashion-mnist": 0.91, "cifar10": 0.80}
CLASSES = {"digits": mnist.NUMERALS, "mnist": mnist.NUMERALS, "fashion-mnist": mnist.ARTICLES, "cifar10": cifar.CLASSES}
CASES = [(name, data) for data, name in BUNDLED.items()]
cases = pytest.mark.parametrize(("name", "data"), CASES)


@cases
def test_files(name, data):
    weights, card = WEIGHTS / f"{name}.safetensors", read_card(name)
    assert weights.stat().st_size == card["bytes"] < 2_000_000 == LARGEST_BYTES
    assert sha256_of(weights) == card["sha256"]
    assert (card["name"], card["data"], card["recipe"]) == (name, data, f"features-{data}")
    assert tuple(card["classes"]) == CLASSES[data]
    for key in ("origin", "make_again", "training", "versions", "data_fingerprint"):
        assert card[key]


@cases
def test_accuracy_in_the_card(name, data):
    test = read_card(name)["test"]
    assert test["accuracy"] >= BARS[data]
    assert 1 - BARS[data] == pytest.approx(get_recipe(f"features-{data}").targets["test_error"])
    assert test["interval"][0] <= test["accuracy"] <= test["interval"][1]
    assert test["n"] == (10_000 if data != "digits" else test["n"])


@cases
def test_loads(name, data):
    network = load_network(name)
    assert network.shape == tuple(get_recipe(f"features-{data}").config.shape)
    assert feature_network("auto", network.shape, data).name == name


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "data"),
    [pytest.param(*case, marks=[pytest.mark.slow] if case[1] == "cifar10" else []) for case in CASES],  # 60,000 JPEG
)
def test_accuracy_is_what_the_card_says(name, data):
    """On 2,000 of the held-out images: within 4 standard errors of the card's accuracy."""
    if data != "digits" and "TRILEMMA_DATA" not in os.environ:
        pytest.skip("TRILEMMA_DATA does not say where the images are")
    split = load_data(data).held_out[1]
    index = torch.arange(len(split))[:: max(1, len(split) // 2000)]
    accuracy, _ = scores_of(load_network(name).network, Split(split.images[index], split.labels[index]))
    stated = read_card(name)["test"]["accuracy"]
    error = (stated * (1 - stated) / len(index)) ** 0.5
    assert abs(accuracy - stated) <= max(4 * error, 2 / len(index))
