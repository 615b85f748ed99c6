"""Drawn scenes: what is in the image is what the caption says, and what is kept for testing is in no training image."""

import math
from itertools import combinations as pairs

import numpy as np
import pytest
import torch
from scipy import ndimage

from trilemma import load_data
from trilemma.data.sources.scenes import FACTORS, PLACES, SIZES, combinations, draw_scenes, group_in_words
from trilemma.data.sources.shapes import BACKGROUND, COLOURS

# of a circle, a square of its area, and a triangle whose corners are at 1.2 radii, for a radius of 1
AREAS = (math.pi, math.pi, 3 * math.sqrt(3) / 4 * 1.2**2)


def rows_of(factors: dict[str, torch.Tensor], suffix: str = "") -> set[tuple[int, ...]]:
    rows = torch.stack([factors[f"{name}{suffix}"] for name in FACTORS], dim=1)
    return {tuple(row) for row in rows[rows[:, 0] >= 0].tolist()}


def test_a_fifth_of_the_combinations_is_in_the_test_split_alone():
    held_out, others = combinations(True), combinations(False)
    assert len(held_out) + len(others) == 3 * 6 * 2 * 3 * 4 and abs(len(held_out) / 432 - 1 / 5) < 0.01
    data = load_data("scenes:3000", size=8)
    kept = set(map(tuple, held_out.tolist()))
    for name, split in data.splits.items():
        assert split.factors is not None
        seen = rows_of(split.factors) | rows_of(split.factors, "2")
        assert seen <= kept if name == "test" else not seen & kept
    assert data.name == "scenes-3000" and data.train.captions is not None and len(data.train) == 3000


def test_each_pair_of_values_is_in_the_training():
    others = combinations(False)
    numbers = list(FACTORS.values())
    for i, j in pairs(range(len(numbers)), 2):
        assert len(torch.unique(others[:, [i, j]], dim=0)) == numbers[i] * numbers[j]


def test_the_image_shows_what_the_factors_say():
    split = draw_scenes(300, size=(96, 96), seed=3)
    factors = split.factors
    assert factors is not None and split.captions is not None
    for k in torch.nonzero(factors["groups"] == 1).flatten().tolist():
        count, colour, size, kind, place = (int(factors[name][k]) for name in FACTORS)
        image = split.images[k].numpy().astype(int)
        shown = np.abs(image - BACKGROUND).sum(0) > 0
        _, n = ndimage.label(shown)
        assert n == count + 1
        y, x = ndimage.center_of_mass(shown)
        where = {"top": y < 40, "bottom": y > 56, "left": x < 40, "right": x > 56}
        assert where[PLACES[place]]
        pure = torch.tensor(list(COLOURS.values())[colour])[:, None, None]
        assert (split.images[k] == pure).all(0).any()
        area, radius = shown.sum() / n, list(SIZES.values())[size] * 96
        expected = AREAS[kind] * radius**2
        assert 1 < area / expected < 1.65  # pixels at the edge count as a whole; the sizes differ by 2.7


def test_captions_name_both_groups():
    split = draw_scenes(400, size=(8, 8), seed=1)
    factors = split.factors
    assert factors is not None and split.captions is not None
    for k, caption in enumerate(split.captions):
        first = group_in_words([int(factors[name][k]) for name in list(FACTORS)[:4]])
        assert caption.startswith(first)
        if factors["groups"][k] == 2:
            second = group_in_words([int(factors[f"{name}2"][k]) for name in list(FACTORS)[:4]])
            word = "above" if factors["place"][k] == 0 else "left of"
            assert caption == f"{first} {word} {second}"
        else:
            assert caption == f"{first} at the {PLACES[int(factors['place'][k])]}"
    share = (factors["groups"] == 2).double().mean().item()
    assert 0.15 < share < 0.35  # half of those at the top and at the left


@pytest.mark.parametrize("channels", [1, 3])
def test_image_i_depends_on_seed_and_number_alone(channels: int):
    many, few = (draw_scenes(n, size=(8, 8), channels=channels, seed=5) for n in (700, 40))
    assert torch.equal(many.images[:40], few.images) and few.captions == (many.captions or ())[:40]
    assert not torch.equal(draw_scenes(40, size=(8, 8), channels=channels, seed=6).images, few.images)
    assert channels == 3 or not any(name in text for name in COLOURS for text in few.captions or ())
