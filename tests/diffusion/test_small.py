"""What `diffusion-small` does beside drawing images: it draws them again, and gives their codes. By the exact denoiser
of Gaussian pixels."""

from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn

from trilemma import rng
from trilemma.config import make
from trilemma.diffusion.denoiser import Diffusion, DiffusionConfig, DiffusionKeys
from trilemma.diffusion.editing import times_from
from trilemma.errors import UserError
from trilemma.types import Condition, Encodes, Inverts, Redraw, Redraws

SHAPE = (1, 8, 8)
MEAN, STD = 0.1, 0.2  # in [-1, 1], so that hardly any pixel is cut


class OfGaussian(nn.Module):
    """E[x0 | x_t] of pixels from N(MEAN, STD**2), and how often it was called."""

    def __init__(self, model: Diffusion) -> None:
        super().__init__()
        self.schedule, self.calls = model.schedule, 0

    def forward(self, x_t: Tensor, t: Tensor) -> Tensor:
        self.calls += 1
        alpha, sigma = (level(t)[:, None, None, None] for level in (self.schedule.alpha, self.schedule.sigma))
        k = alpha * STD**2 / (alpha**2 * STD**2 + sigma**2)
        return (MEAN + k * (x_t.double() - alpha * MEAN)).to(x_t.dtype)


class Knowing(nn.Module):
    """x0_hat of a data set of one image."""

    def __init__(self, x0: Tensor) -> None:
        super().__init__()
        self.x0 = x0

    def forward(self, x_t: Tensor, t: Tensor) -> Tensor:
        return self.x0.expand_as(x_t)


def exact(T: int = 4000) -> Diffusion:
    config = DiffusionConfig(shape=SHAPE, T=T, prediction="x0", clip_x0=False, embedding=4, widths=(4, 6))
    model = Diffusion(config).eval()
    model.network = OfGaussian(model)  # type: ignore[assignment]
    return model


def images(n: int) -> Tensor:
    """In [0, 1]."""
    return (MEAN + STD * rng.normal(torch.arange(n), SHAPE, 0, "images") + 1) / 2


def levels(model: Diffusion, t: float) -> tuple[float, float, float]:
    """alpha, sigma, and the standard deviation of x_t."""
    alpha, sigma = float(model.schedule.alpha(t)), float(model.schedule.sigma(t))
    return alpha, sigma, (alpha**2 * STD**2 + sigma**2) ** 0.5


def test_it_can_do_both() -> None:
    assert isinstance(exact(), Inverts) and isinstance(exact(), Redraws) and not isinstance(exact(), Encodes)
    assert exact().code_length == 64


def test_a_code_is_the_end_of_the_path_of_its_image() -> None:
    """x - alpha MEAN grows along the path as the standard deviation of x_t does."""
    model, image = exact(), images(5)
    alpha, sigma, spread = levels(model, float(model.code_times(200)[0]))
    expected = (alpha * MEAN + spread / STD * (2 * image - 1 - MEAN)) / sigma
    codes = model.invert(image, steps=200)
    torch.testing.assert_close(codes, expected.flatten(1), rtol=0, atol=2e-3)
    assert codes.std().item() == pytest.approx(1, abs=0.2)  # of 320 numbers


@pytest.mark.parametrize(("T", "most"), [(4000, 0.003), (20, 0.05)])
def test_an_image_comes_back_from_its_code_also_where_the_schedule_has_few_steps(T: int, most: float) -> None:
    model, image = exact(T), images(5)
    times = model.code_times(50)
    assert times[-1] == 0 and len(times) <= T + 1 and all(t > s for t, s in pairwise(times.tolist()))
    assert torch.equal((times * T).round() / T, times)
    assert (model.generate(model.invert(image)) - image).abs().max() < most


def test_the_shortest_schedule_has_codes() -> None:
    model = exact(T=2)
    assert model.code_times(50).tolist() == [1.0, 0.5, 0.0]
    assert model.generate(model.invert(images(2))).isfinite().all()


def test_an_image_drawn_again_follows_the_steps_of_ddim_from_the_strength_on() -> None:
    """Of Gaussian data each is affine: with u = x - alpha MEAN and x0_hat - MEAN = k u,
    u_s = (alpha_s k + sigma_s (1 - alpha_t k) / sigma_t) u."""
    model, image = exact(T=100), images(3)
    result = model.redraw(image, Redraw(0.404), seed=2, first=7, keys=DiffusionKeys(steps=20))
    alpha, sigma, _ = levels(model, 0.4)
    eps = rng.normal(torch.arange(7, 10), SHAPE, 2, "x_T").double()
    u = alpha * (2 * image.double() - 1) + sigma * eps - alpha * MEAN
    times = times_from(model.table.times(20), 0.4)
    for t, s in pairwise(times.tolist()):
        (alpha, sigma, spread), (alpha_s, sigma_s, _) = levels(model, t), levels(model, s)
        k = alpha * STD**2 / spread**2
        u = (alpha_s * k + (sigma_s if s > 0 else 0.0) * (1 - alpha * k) / sigma) * u
    torch.testing.assert_close(result.double(), (u + MEAN + 1) / 2, rtol=0, atol=1e-4)
    assert model.network.calls == len(times) - 1 == 8


@pytest.mark.parametrize("strength", [0.0, 0.01, 0.04, 0.06, 0.5, 0.96, 1.0])
def test_a_strength_is_that_of_the_nearest_step(strength: float) -> None:
    model, image = exact(T=10), images(2)
    result = model.redraw(image, Redraw(strength), seed=0, keys=DiffusionKeys(steps=10))
    assert result.isfinite().all() and torch.equal(result, image) == (strength < 0.05)
    rounded = model.redraw(image, Redraw(round(10 * strength) / 10), seed=0, keys=DiffusionKeys(steps=10))
    assert torch.equal(result, rounded)


def test_what_is_outside_a_mask_stays_and_steps_are_taken_several_times() -> None:
    model, image, mask = exact(T=100), images(3), torch.zeros(3, *SHAPE)
    mask[..., :4] = 1
    result = model.redraw(image, Redraw(mask=mask, rounds=3), seed=0, keys=DiffusionKeys(steps=4))
    torch.testing.assert_close(result[..., 4:], image[..., 4:], rtol=0, atol=1e-6)
    assert (result[..., :4] - image[..., :4]).abs().min() > 1e-5
    assert model.network.calls == 3 * 3 + 1  # the last step, to no noise, is taken once


def test_nothing_under_a_mask_is_seen() -> None:
    """Another image there gives the same."""
    model, image, mask = exact(T=100), images(3), torch.zeros(3, *SHAPE)
    mask[..., :4] = 1
    other = torch.where(mask > 0, 1 - image, image)
    results = [model.redraw(x, Redraw(mask=mask), seed=0, keys=DiffusionKeys(steps=4)) for x in (image, other)]
    assert torch.equal(*results)


@pytest.mark.parametrize("sampler", ["ddim", "ddpm"])
def test_an_image_is_drawn_out_of_its_own_noise(sampler: str) -> None:
    model, image = exact(), images(2)
    model.network = Knowing(2 * image - 1)  # type: ignore[assignment]
    noisy = image + 0.1 * rng.normal(torch.arange(2), SHAPE, 3, "noise")
    result = model.redraw(noisy, Redraw(noise=0.1), seed=0, keys=DiffusionKeys(sampler=sampler, steps=10))
    torch.testing.assert_close(result, image, rtol=0, atol=1e-6)
    assert DiffusionKeys(sampler=sampler).adds_noise == (sampler == "ddpm") and DiffusionKeys(eta=0.5).adds_noise


def test_what_is_refused() -> None:
    model, image, mask = exact(), images(2), torch.ones(2, *SHAPE)
    for keys, text in (
        ({"sampler": "ddim"}, "sampler=ddim: with mask= the steps are those of ddpm"),
        ({"eta": 0.5}, r"eta=0\.5: with mask= the steps are those of ddpm"),
        ({"sampler": "ddpm", "variance": "beta"}, "variance=beta: with mask= the steps are those of ddpm"),
    ):
        with pytest.raises(UserError, match=text):
            model.redraw(image, Redraw(mask=mask), seed=0, keys=make(DiffusionKeys, keys))
    said = DiffusionKeys(sampler="ddpm", variance="posterior", steps=2)
    assert model.redraw(image, Redraw(mask=mask, rounds=1), seed=0, keys=said).isfinite().all()
    with pytest.raises(UserError, match="was trained without labels"):
        model.redraw(image, Redraw(0.5), seed=0, condition=Condition(torch.zeros(2, dtype=torch.int64)))
    with pytest.raises(UserError, match=r"images were given as .*takes \(B, 1, 8, 8\)"):
        model.redraw(images(2)[..., 1:], Redraw(0.5), seed=0)
    with pytest.raises(UserError, match="steps=1: a path from an image to its noise needs at least 2"):
        model.invert(image, steps=1)
