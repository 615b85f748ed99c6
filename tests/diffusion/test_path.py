"""Codes and likelihoods of diffusion models and their runs."""

import math
from pathlib import Path

import pytest
import torch
from torch import nn

import trilemma
from trilemma.data import Data, Split
from trilemma.diffusion.config import PixelDiffusionConfig
from trilemma.diffusion.denoiser import Diffusion, DiffusionConfig
from trilemma.diffusion.model import PixelDiffusion
from trilemma.diffusion.path import VALID_CALLS, VALID_EVERY
from trilemma.errors import UserError
from trilemma.explore import interpolate, reconstruct
from trilemma.explore.codes import code_width
from trilemma.metrics.likelihood import has_posterior, likelihood_scores
from trilemma.run.run import Run
from trilemma.types import UNCONDITIONAL, Batch, Condition, Encodes, Inverts

TINY = {"width": 4, "multipliers": (1, 1), "depth": 1, "attention_px": 0}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    out = tmp_path_factory.mktemp("runs") / "run"
    return trilemma.train("diffusion", "digits", out=out, **TINY, steps=2, batch=16, quiet=True, classes=True)


def model(**settings: object) -> PixelDiffusion:
    torch.manual_seed(0)
    return PixelDiffusion(PixelDiffusionConfig(shape=(1, 8, 8), **TINY, **settings)).eval()


def images(n: int) -> torch.Tensor:
    return torch.rand(n, 1, 8, 8, generator=torch.Generator().manual_seed(0)).mul(255).round().div(255)


@pytest.mark.slow
def test_a_code_gives_the_image_back(run: Run) -> None:
    x, label = run.data.held_out[1].images[:3].float() / 255, torch.arange(3)
    codes = run.encode(x, label)
    assert codes.shape == (3, 64)
    torch.testing.assert_close(run.decode(codes, label), x, atol=0.03, rtol=0)
    torch.testing.assert_close(run.reconstruct(x, label), run.decode(codes, label), atol=1e-5, rtol=0)
    with pytest.raises(UserError, match="needs the class"):
        run.encode(x)


def test_how_long_a_code_is_needs_no_code(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run.model, "invert", None)
    assert code_width(run) == 64


@pytest.mark.slow
def test_verbs_that_use_codes_take_such_a_run(run: Run, tmp_path: Path) -> None:
    assert reconstruct(run, n=2, out=tmp_path / "a.png").rmse < 0.03
    assert interpolate(run, a=0, b=1, frames=3, animate=False, out=tmp_path / "b.png").picture.exists()


def test_noise_is_no_code_that_says_something_of_an_image() -> None:
    assert isinstance(model(), Inverts) and not isinstance(model(), Encodes) and not has_posterior(model())


@pytest.mark.parametrize("by", ["bound", "flow"])
@pytest.mark.parametrize("small", [False, True])
def test_bits_are_those_of_256_levels(by: str, small: bool) -> None:
    net = Diffusion(DiffusionConfig(shape=(1, 8, 8), widths=(4, 8), T=100)).eval() if small else model()
    splits = {"test": Split(images(20).mul(255).round().to(torch.uint8))}
    data = Data("noise", "noise", (1, 8, 8), (), splits, (), (), "fingerprint")
    keys = {"split_label": "test", "own": True, "samples": 12, "n": None, "seed": 0}
    scores, _ = likelihood_scores(net, data, "test", **keys, by=by)
    nats, bits = scores
    assert bits.value == pytest.approx(-nats.value / 64 / math.log(2)) and bits.interval is not None
    assert bits.protocol == f"bits12_{'flow-256-levels' if by == 'flow' else '256-levels'}_20_test"
    assert bits.value > 7.9  # no model has less for levels that are equally probable


@pytest.mark.parametrize("kind", ["pixels", "classes", "small"])
def test_a_validation_has_the_bound_of_some_images_in_bits(kind: str) -> None:
    classes = {"classes": True, "n_classes": 3} if kind == "classes" else {}
    small = Diffusion(DiffusionConfig(shape=(1, 8, 8), widths=(4, 8), T=100)).eval()
    net, label = small if kind == "small" else model(**classes), torch.arange(20) % 3
    with torch.no_grad():
        for parameter in net.parameters():  # some of which begin at zero
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    batch, some = Batch(images(20), Condition(label)), slice(None, None, VALID_EVERY)
    condition = Condition(label[some]) if classes else UNCONDITIONAL
    nats = net.bound(batch.image[some], torch.Generator().manual_seed(3), condition, calls=VALID_CALLS)
    bits = net.bits_per_dim(batch, torch.Generator().manual_seed(3))
    torch.testing.assert_close(bits, -nats / 64 / math.log(2))
    values = net.validation(batch, torch.Generator().manual_seed(3))
    assert {len(part) for name, part in values.items() if name != "bits_per_dim"} == {20}
    assert values["bits_per_dim"].shape == (3,) and values["bits_per_dim"].isfinite().all()


def test_the_log_of_a_training_has_the_bound(run: Run) -> None:
    logged = [row["valid_bits_per_dim"] for row in run.log if "valid_bits_per_dim" in row]
    assert logged == [run.summary["valid_bits_per_dim"]] and 0 < logged[0] < 20


def test_the_bound_asks_for_the_class() -> None:
    net = model(classes=True, n_classes=3)
    rng = torch.Generator().manual_seed(0)
    with pytest.raises(UserError, match="needs the class"):
        net.elbo(images(2), rng)
    assert net.elbo(images(2), rng, Condition(torch.tensor([0, 2]))).shape == (2,)


class Brightness(nn.Module):
    """Its bound is the sum of an image's pixels; more than 5 images at a time do not fit into memory."""

    def __init__(self) -> None:
        super().__init__()
        self.anything, self.sizes = nn.Parameter(torch.zeros(())), []

    def bound(self, image, rng, condition=UNCONDITIONAL, *, calls):
        self.sizes.append(len(image))
        if len(image) > 5:
            raise MemoryError
        return image.flatten(1).sum(1)

    elbo = flow_bound = bound


def test_a_bound_is_computed_in_smaller_parts_if_memory_runs_out() -> None:
    image = images(20).mul(255).round().to(torch.uint8)
    data = Data("noise", "noise", (1, 8, 8), (), {"test": Split(image)}, (), (), "fingerprint")
    net = Brightness()
    with pytest.warns(RuntimeWarning, match="out of memory: continuing with batches of (10|5)$"):
        (nats, _), _ = likelihood_scores(net, data, "test", split_label="test", own=True, samples=3, n=None, seed=0)
    assert net.sizes == [20, 10, 5, 5, 5, 5]
    assert nats.value == pytest.approx(float(image.double().div(255).flatten(1).sum(1).mean()))


def test_a_path_of_one_step_is_refused() -> None:
    with pytest.raises(UserError, match="steps=1: a path from an image to its noise needs at least 2"):
        model().invert(images(1), steps=1)
