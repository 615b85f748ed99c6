"""The figures drawn from runs: their figures on stand-in models and known values."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

import trilemma
from trilemma.errors import UserError
from trilemma.explore.images import pick_images
from trilemma.lessons import beside, beta, held_out, levels, pca, sparse


class Halves(nn.Module):
    """Reconstructs every value as its half; says an error of 1/4 and a divergence of 3 nats for each image."""

    def reconstruct(self, image, condition=None):
        return image / 2

    def sample(self, n, *, seed, first=0, condition=None):
        return torch.ones(n, 1, 8, 8)

    sampling_network = nn.Identity()

    def validation(self, batch, rng):
        like = batch.image[:, 0, 0, 0]
        return {"mse": torch.full_like(like, 0.25), "kl_nats": torch.full_like(like, 3.0)}


class Pixels(nn.Module):
    """Codes are pixels less a constant."""

    def __init__(self, less=0.0):
        super().__init__()
        self.less = less

    def encode(self, image, condition=None):
        return image.flatten(1) - self.less


@pytest.fixture
def halves(folders):
    run = trilemma.load(folders["vae"], device="cpu")
    run.model = Halves()
    return run


@pytest.fixture
def tables(monkeypatch):
    """What is laid out in tables: (images, names, heads, texts) of each."""
    seen = []
    for module in (beside, beta, sparse):

        def record(images, names, heads=(), texts=None, original=module.table):
            seen.append((images, list(names), list(heads), texts))
            return original(images, names, heads, texts)

        monkeypatch.setattr(module, "table", record)
    return seen


def test_favourites_are_above_the_ninetieth_percentile():
    activations = torch.arange(100).flip(0) / 100  # image k has 0.99 - k / 100; the percentile is 0.891
    assert sparse.favourites(activations, 10).tolist() == list(range(10))
    assert sparse.favourites(activations, 4).tolist() == [0, 3, 6, 9]
    assert sparse.favourites(activations, 50).tolist() == list(range(10))
    assert sparse.favourites(torch.ones(20), 3).tolist() == []  # it has none
    assert sparse.favourites(torch.tensor([0.0] * 19 + [1.0]), 3).tolist() == [19]  # and not one that it is silent on
    assert sparse.favourites(torch.tensor([0.0] * 10 + [1.0] * 10), 3).tolist() == [10, 11]  # a tenth, not all alike


def test_units_are_spread_from_the_liveliest_to_the_last_that_lives():
    spreads = torch.tensor([0.0, 3.0, 1.0, 0.0, 2.0])
    codes = torch.tensor([[-1.0], [1.0]]) * spreads
    assert sparse.spread(codes, 2) == [1, 2] and sparse.spread(codes, 9) == [1, 4, 2]
    assert sparse.spread(torch.zeros(4, 3), 2) == []


def test_rows_of_favourites(folders, tables):
    run = trilemma.load(folders["ae-sparse"], device="cpu")
    run.model = Pixels()
    sparse.sparse_units(run, units=3, images=5)
    images, names, _, _ = tables[0]
    pixels = run.data.held_out[1].images.float().flatten(1) / 255
    assert len(names) == 3 and images.shape == (15, 1, 8, 8)
    for name, row in zip(names, images.view(3, 5, 64), strict=True):
        unit = int(name.split()[1])
        assert f"(mean {pixels[:, unit].mean():.3f})" in name
        assert (row[:, unit] >= pixels[:, unit].quantile(0.9)).all()


def test_negative_codes_are_no_activations(folders):
    run = trilemma.load(folders["ae-sparse"], device="cpu")
    run.model = Pixels(less=0.5)
    with pytest.raises(UserError, match="negative"):
        sparse.sparse_units(run)


def test_disturbed_images_keep_their_mean_and_lose_their_share():
    images = torch.full((400, 1, 16, 16), 0.6)
    dropped = beside.disturbed(images, 0.0, 0.3)
    kept, n = (dropped > 0).double().mean(), images.numel()
    assert abs(float(kept) - 0.7) < 4 * math.sqrt(0.21 / n)
    torch.testing.assert_close(dropped[dropped > 0], torch.full_like(dropped[dropped > 0], 0.6 / 0.7))
    noise = beside.disturbed(images, 0.5, 0.0) - images
    assert abs(float(noise.mean())) < 4 * 0.5 / math.sqrt(n)
    assert abs(float(noise.std()) - 0.5) < 4 * 0.5 / math.sqrt(2 * n)
    assert torch.equal(beside.disturbed(images, 0.0, 0.0), images)


def test_rows_beside_each_other(halves, folders, tables):
    other = trilemma.load(folders["ae-stacked"], device="cpu")
    beside.beside(halves, other, n=4)
    images, names, _, texts = tables[0]
    rows = images.view(5, 4, 1, 8, 8)
    batch = pick_images(halves, None, beside.MEASURED, seed=0)
    torch.testing.assert_close(rows[0], batch.image[:4])
    torch.testing.assert_close(rows[1], batch.image[:4] / 2)
    torch.testing.assert_close(rows[2], other.model.reconstruct(batch.image[:4]).detach(), rtol=0, atol=1e-5)
    assert (rows[3] == 1).all() and names[3:] == ["vae: samples", "ae-stacked: samples"]
    expected = batch.image.double().square().mean().sqrt() / 2
    assert names[:2] == ["held out", f"vae: RMSE {expected:.4f}"]
    first = batch.image[0].double().square().mean().sqrt() / 2
    assert texts[4] == f"{first:.3f}" and texts[:4] == texts[-8:-4] == [""] * 4


def test_noise_is_given_and_the_clean_image_is_the_truth(halves, tables):
    beside.beside(halves, n=3, noise=0.2, samples=False, seed=5)
    images, names, _, _ = tables[0]
    batch = pick_images(halves, None, beside.MEASURED, seed=0)
    given = beside.disturbed(batch.image, 0.2, 0.0, 5)
    torch.testing.assert_close(images[3:6], given[:3])
    torch.testing.assert_close(images[6:], given[:3] / 2)
    error = (given.double() / 2 - batch.image).square().mean().sqrt()
    assert names == ["held out", "given", f"vae: RMSE {error:.4f}"]


def test_runs_on_different_images_need_data(halves, folders, tmp_path):
    other = trilemma.train("ae-stacked", "digits", steps=1, batch=8, valid=0.3, out=tmp_path / "run", quiet=True)
    with pytest.raises(UserError, match="different images"):
        beside.beside(halves, other)
    np.save(tmp_path / "images.npy", np.zeros((6, 8, 8), np.uint8))
    beside.beside(halves, other, data=str(tmp_path / "images.npy"), n=1, samples=False)
    points = trilemma.load(folders["ae-linear"])
    with pytest.raises(UserError, match="different shapes"):
        held_out.common_images([halves, points], None, 5)


def test_figures_over_beta(halves):
    batch = pick_images(halves, None, 50)
    assert beta.measure(halves, batch, 0) == beta.Point(1.0, 0.5, 3.0)


def test_beta_lays_out_rows_by_beta(halves, folders, tables):
    heavy = trilemma.load(folders["vae"], device="cpu")
    heavy.model, heavy.model_config = Halves(), heavy.model_config.with_(beta=4.0)
    beta.beta(heavy, halves, n=2)
    (results, names, heads, texts), (samples, other_names, other_heads, _) = tables
    assert names == other_names == ["held out", "beta 1", "beta 4"]
    assert heads + other_heads == ["reconstructions", "samples"]
    torch.testing.assert_close(results[2:4], results[:2] / 2)
    assert (samples[2:] == 1).all() and not torch.equal(samples[:2], results[:2])
    expected = [f"{image.double().square().mean().sqrt() / 2:.3f}" for image in results[:2]]
    assert texts == ["", "", *expected, *expected]


def test_runs_without_beta_are_refused(folders):
    with pytest.raises(UserError, match="has no beta"):
        beta.beta(trilemma.load(folders["ae-stacked"]))


@pytest.mark.slow
def test_beta_trains_what_is_asked_for(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for _ in range(2):  # the second time there is nothing to train
        trilemma.lessons.figure("beta", betas=(0.5, 0.1, 0.5), steps=2, n=2)
    assert [path.name for path in (tmp_path / "figures").iterdir() if path.is_dir()] == ["beta"]
    runs = [trilemma.load(path) for path in (tmp_path / "figures" / "beta").iterdir()]
    assert sorted(run.model_config.beta for run in runs) == [0.1, 0.5]
    assert not (tmp_path / "runs").exists()
    assert all(run.summary["steps"] == 2 for run in runs)


def test_terms_of_levels_by_image():
    log = [
        {"images": 10, "vae/kl1_nats": 9.0},
        {"images": 20, "valid_kl2_nats": 0.5, "valid_kl1_nats": 3.0, "valid_kl_nats": 3.5},
        {"images": 40, "valid_kl1_nats": 4.0, "valid_kl2_nats": 1.5},
    ]
    assert levels.terms(log) == {1: ([20, 40], [3.0, 4.0]), 2: ([20, 40], [0.5, 1.5])}
    with pytest.raises(UserError, match="no terms"):
        levels.levels(SimpleNamespace(log=log[:1], path="there"))


@pytest.mark.parametrize(("structure", "title"), [("chain", "E[log q - log p]"), ("ladder", "KL divergence")])
def test_a_term_of_a_chain_is_not_called_a_divergence(structure, title, monkeypatch):
    """It may be negative, and is drawn where it is."""
    monkeypatch.setattr(levels.plots, "pixels", lambda figure: figure)
    lowest = -2.0 if structure == "chain" else 0.5
    log = [{"images": k, "valid_kl1_nats": 3.0, "valid_kl2_nats": lowest} for k in (20, 40)]
    figure = levels.levels(SimpleNamespace(log=log, path="there", config={"model_config": {"structure": structure}}))
    through, _ = figure.axes
    assert through.get_title(loc="left") == f"{title} on held-out images"
    assert through.get_ylim()[0] == min(0.0, lowest)


def test_principal_axes_are_those_of_the_covariance():
    points = torch.randn(200, 4, generator=torch.Generator().manual_seed(0)).double() * torch.tensor(
        [3.0, 1.0, 2.0, 0.5]
    )
    mean, axes = pca.principal_axes(points)
    torch.testing.assert_close(mean, points.mean(0))
    covariance = torch.cov(points.T)
    variances = torch.linalg.eigvalsh(covariance).flip(0)
    torch.testing.assert_close(covariance @ axes.T, axes.T * variances, rtol=0, atol=1e-9)


def test_the_directions_of_a_decoder(halves):
    """Of d(z) = W z + c, the columns of W: a combination of them is at an angle of 0, what is not in them is not."""
    weight = torch.randn(64, 2, generator=torch.Generator().manual_seed(1)) / 100
    halves.model = Pixels()
    halves.model.encode = lambda image, condition=None: image.flatten(1)[:, :2]
    halves.model.decode = lambda z, condition=None: (0.5 + z @ weight.T).unflatten(1, (1, 8, 8))
    result = pca.decoded_directions(halves, torch.full((1, 1, 8, 8), 0.5))
    torch.testing.assert_close(result @ result.T, torch.eye(2, dtype=torch.float64))
    mixed = torch.linalg.qr(weight.double() @ torch.tensor([[1.0, 2.0], [0.5, -1.0]], dtype=torch.float64)).Q.T
    assert pca.largest_angle(mixed, result) < 1e-5
    assert pca.largest_angle(torch.eye(64, dtype=torch.float64)[:2], result) > 1


@pytest.mark.parametrize("angle", [0.0, 1e-8, 0.3, math.pi / 2])
def test_the_angle_of_two_planes(angle):
    plane = torch.eye(4, dtype=torch.float64)[:2]
    turned = plane.clone()
    turned[1, 1:3] = torch.tensor([math.cos(angle), math.sin(angle)], dtype=torch.float64)
    assert pca.largest_angle(plane, turned) == pytest.approx(angle, abs=1e-12)
