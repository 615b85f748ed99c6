"""Black and white images: every pixel 255 with the probability of its grey level, drawn once or in every epoch."""

import math

import pytest
import torch

from trilemma import rng
from trilemma.data import Data, Loader, Split, list_sources, load_data
from trilemma.data.options import Options
from trilemma.data.places import find
from trilemma.data.sources import mnist
from trilemma.data.sources.idx import read_idx
from trilemma.data.transform import binarise, draws, draws_needed, transform

LEVELS = torch.arange(256, dtype=torch.uint8)
SIZE = 256
COLOUR = torch.randint(0, 256, (40, 3, 8, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_a_level_is_255_where_the_number_is_below_its_share():
    """v / 255 on either side: never at level 0, always at level 255, and at v for a number just below v / 255 alone."""
    assert binarise(LEVELS, torch.zeros(SIZE)).tolist() == [0] + [255] * 255
    assert binarise(LEVELS, torch.full((SIZE,), 1 - 2.0**-24)).tolist() == [0] * 255 + [255]
    assert binarise(LEVELS, (LEVELS - 0.01).clamp(min=0) / 255).tolist() == [0] + [255] * 255
    assert binarise(LEVELS, (LEVELS + 0.01) / 255)[:-1].tolist() == [0] * 255


def test_the_mean_over_epochs_is_the_grey_level():
    """Every level, within 5 standard deviations of a binomial share; the sum of squares as chi-squared says."""
    images, epochs = LEVELS.view(1, 1, 16, 16), 2_000
    loader = Loader(Split(images), batch=1, seed=3, augment=("binarise",))
    mean = torch.stack([loader.batch_at(epoch).image for epoch in range(epochs)]).double().mean(0).flatten()
    p = LEVELS.double() / 255
    error, deviation = mean - p, (p * (1 - p) / epochs).sqrt()
    assert (error.abs() <= 5 * deviation).all()  # with no error at all at levels 0 and 255
    chi_squared = (error[1:-1] / deviation[1:-1]).square().sum()
    assert abs(float(chi_squared) - 254) < 5 * math.sqrt(2 * 254)
    assert (5 * deviation < 0.06).all()


def test_pixels_are_drawn_apart_from_each_other():
    grey = torch.full((400, 1, 8, 8), 128, dtype=torch.uint8)
    x = Loader(Split(grey), batch=400, seed=0, augment=("binarise",)).batch_at(0).image.flatten(1)
    correlation = torch.corrcoef(x.T) - torch.eye(64)  # of pixels, over images; standard deviation 1 / sqrt(400)
    assert correlation.abs().max() < 6 / math.sqrt(400)
    assert torch.corrcoef(x[:64]).fill_diagonal_(0).abs().max() < 6 / math.sqrt(64)  # and of images


def test_it_depends_on_seed_image_and_epoch_alone():
    one = Loader(Split(COLOUR), batch=10, seed=1, augment=("binarise",)).batch_at(0, 120).image
    other = Loader(Split(COLOUR), batch=7, seed=1, augment=("binarise",))
    assert torch.equal(other.batch_at(35, 50).image, one[35:85])
    orders = [rng.permutation(40, 1, "order", epoch).argsort() for epoch in range(2)]
    first, second = one[:40][orders[0]], one[40:80][orders[1]]  # the same images in two epochs
    assert first.unique().tolist() == second.unique().tolist() == [0, 1]
    assert not torch.equal(first, second)
    sure = (COLOUR == 0) | (COLOUR == 255)
    assert torch.equal(first[sure], second[sure]) and sure.any()
    assert not torch.equal(Loader(Split(COLOUR), batch=40, seed=2, augment=("binarise",)).batch_at(0).image, one[:40])


@pytest.mark.parametrize("moves", [("flip",), ("shift",), ("flip", "shift")])
def test_it_follows_flip_and_shift_in_any_order(moves):
    u = draws(torch.arange(40), 0, 0, draws_needed((*moves, "binarise"), 3 * 8 * 16))
    moved = transform(COLOUR, moves, draws(torch.arange(40), 0, 0))  # the moves are those without binarisation
    expected = binarise(moved, u[:, 3:].view(COLOUR.shape))
    assert torch.equal(transform(COLOUR, (*moves, "binarise"), u), expected)
    assert torch.equal(transform(COLOUR, ("binarise", *moves), u), expected)
    assert not torch.equal(moved, COLOUR)


def test_nothing_more_is_drawn_where_nothing_is_binarised():
    assert draws_needed(("flip", "shift"), 1000) == draws(torch.arange(2), 0, 0).shape[1]
    assert draws_needed(("binarise",), 1000) == 1003


# -- the source


def made_up(options: Options) -> Data:
    images = torch.randint(0, 256, (50, 1, 7, 7), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    count = 5 if options.valid is None else round(50 * options.valid)
    parts = {"train": images[: 50 - count], "valid": images[50 - count :], "test": images[:10]}
    splits = {name: Split(part, torch.arange(len(part)) % 10) for name, part in parts.items()}
    return Data("mnist", "mnist", (1, 7, 7), mnist.NUMERALS, splits, ("summary", "a rule"), (), "grey")


def test_the_source_is_drawn_once(monkeypatch):
    monkeypatch.setattr(mnist, "load_mnist", made_up)
    data, grey = load_data("mnist-binary"), made_up(Options())
    assert (data.name, data.source, data.classes) == ("mnist-binary", "mnist-binary", mnist.NUMERALS)
    assert data.fingerprint != grey.fingerprint
    for name, split in data.splits.items():
        assert split.images.unique().tolist() == [0, 255]
        assert torch.equal(split.labels, grey.splits[name].labels)
    assert data.notes[1] == "a rule" and "probability of its grey level; not the file of Larochelle" in data.notes[2]
    assert torch.equal(load_data("mnist-binary", seed=5).train.images, data.train.images)  # whatever the seed
    other = load_data("mnist-binary", valid=0.3)  # and however many are set aside
    whole = torch.cat([data.train.images, data.valid.images])
    assert torch.equal(torch.cat([other.train.images, other.valid.images]), whole)
    assert torch.equal(other.splits["test"].images, data.splits["test"].images)
    same = data.train.images[:10] == data.splits["test"].images  # the same grey images, drawn apart
    assert not same.all()


def test_the_source_does_not_depend_on_the_size_of_the_pieces(monkeypatch):
    monkeypatch.setattr(mnist, "load_mnist", made_up)
    whole = load_data("mnist-binary")
    monkeypatch.setattr(mnist, "CHUNK", 7)
    assert torch.equal(load_data("mnist-binary").train.images, whole.train.images)


def test_its_files_are_those_of_mnist(tmp_path, monkeypatch):
    (tmp_path / "mnist").mkdir()
    for file in mnist.FILES:
        (tmp_path / "mnist" / file).touch()
    monkeypatch.setenv("TRILEMMA_DATA", str(tmp_path))
    places = {word: place for word, _, place in list_sources()}
    assert places["mnist-binary"] == places["mnist"] == f"in {tmp_path / 'mnist'}"


@pytest.mark.slow
def test_the_real_source():
    if not find("mnist", mnist.FILES[0]):
        pytest.skip("MNIST is not on this machine: set TRILEMMA_DATA to its folder")
    grey = read_idx(find("mnist", mnist.FILES[2]))[:, None]
    p, drawn = grey.double() / 255, load_data("mnist-binary").splits["test"].images.double() / 255
    assert drawn.unique().tolist() == [0, 1]
    deviation = (p * (1 - p)).sum().sqrt()  # of the number of white pixels
    assert abs(float(drawn.sum() - p.sum())) < 5 * float(deviation)
    assert torch.equal(drawn[p == 1], p[p == 1]) and torch.equal(drawn[p == 0], p[p == 0])
