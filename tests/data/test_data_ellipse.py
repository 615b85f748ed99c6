"""The ellipse: points with the law they are said to have, as images that every part of the project takes."""

import math
from pathlib import Path

import pytest
import torch

from trilemma.data import load_data
from trilemma.data.sources.ellipse import AXES, LOWEST, NOISE, SPAN, UNEVEN, draw_ellipse, points, rotation
from trilemma.explore.reconstruct import reconstruct
from trilemma.training import train

N = 40_000


def test_a_rotation_keeps_lengths_and_handedness() -> None:
    turn = rotation().double()
    assert (turn @ turn.T - torch.eye(3)).abs().max() < 1e-6
    assert float(torch.linalg.det(turn)) == pytest.approx(1)


def test_points_lie_near_a_tilted_ellipse() -> None:
    flat = points(torch.arange(N), 0, "train").double() @ rotation().double()  # back into the ellipse's own axes
    across = flat[:, 2]
    assert abs(float(across.mean())) < 5 * NOISE / math.sqrt(N)
    assert abs(float(across.std()) - NOISE) < 5 * NOISE / math.sqrt(2 * N)
    angle = 2 * math.pi * ((torch.arange(100_000, dtype=torch.float64) + 0.5) / 100_000) ** UNEVEN
    on = torch.stack([AXES[0] * angle.cos(), AXES[1] * angle.sin()], dim=1)  # by the midpoint rule
    assert (flat[:, :2].mean(0) - on.mean(0)).abs().max() < 0.02
    expected = on.T.cov() + NOISE**2 * torch.eye(2, dtype=torch.float64)
    assert (flat[:, :2].T.cov() - expected).abs().max() < 0.02
    eigenvalues = torch.linalg.eigvalsh(expected)
    assert eigenvalues[0] > 1.5 * NOISE**2  # the plane is the best one, and told apart from others


def test_a_point_depends_on_seed_and_number_alone() -> None:
    few = points(torch.arange(10), 3, "train")
    assert torch.equal(points(torch.arange(5, 10), 3, "train"), few[5:])
    assert not torch.equal(points(torch.arange(10), 4, "train"), few)
    assert not torch.equal(points(torch.arange(10), 3, "valid"), few)


def test_levels_give_the_coordinates_back() -> None:
    x, levels = points(torch.arange(500), 0, "valid"), draw_ellipse(500, purpose="valid").images.flatten(1)
    inside = (x - LOWEST).abs().sub(SPAN / 2).abs() < SPAN / 2
    error = (levels.float() / 255 * SPAN + LOWEST - x).abs()
    assert inside.float().mean() > 0.99
    assert SPAN / 255 / 8 < error[inside].max() <= SPAN / 255 / 2 + 1e-6


def test_the_source_says_its_scale_and_goes_through_the_verbs(tmp_path: Path) -> None:
    data = load_data("ellipse")
    assert data.shape == (3, 1, 1) and [len(split) for split in data.splits.values()] == [60, 500]
    assert any("level / 255 = (x + 2) / 4" in note for note in data.notes)
    assert len(load_data("ellipse", valid=0.5).valid) == 30
    run = train("ae-linear", "ellipse", steps=3, out=tmp_path / "run", quiet=True)
    assert run.sample(5, seed=0).shape == (5, 3, 1, 1)
    assert reconstruct(run, n=4).errors.shape == (4,)
