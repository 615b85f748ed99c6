"""The power spectrum of images, and prediction=wiener."""

import math

import pytest
import torch
from torch import Tensor, nn

from trilemma import rng as random
from trilemma.diffusion.config import PixelDiffusionConfig
from trilemma.diffusion.grids import times_of
from trilemma.diffusion.model import PixelDiffusion
from trilemma.diffusion.sampling import DiffusionSampling
from trilemma.diffusion.spectrum import ROUNDING, Spectrum, cosines
from trilemma.diffusion.steps import of_images
from trilemma.diffusion.weighting import DENSITIES, WEIGHTINGS
from trilemma.types import Batch

SHAPE = (3, 6, 10)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def small(prediction: str, **settings: object) -> PixelDiffusion:
    torch.manual_seed(0)
    defaults = {"shape": SHAPE, "width": 4, "multipliers": (1, 2), "attention_px": 0, "data_std": 0.5}
    return PixelDiffusion(PixelDiffusionConfig(prediction=prediction, **{**defaults, **settings})).double()


def with_weights(model: PixelDiffusion) -> PixelDiffusion:
    """Outputs that are not zero."""
    with torch.no_grad():
        for parameter in model.network.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator(3), dtype=torch.float64))
    return model


class Zero(nn.Module):
    """Predicts nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros((), dtype=torch.float64))

    def forward(self, x: Tensor, level: Tensor, given: object) -> Tensor:
        return torch.zeros_like(x)


def spectrum(seed: int = 0) -> Spectrum:
    """Of colours that depend on each other, with less power at higher frequencies."""
    result = Spectrum(SHAPE, 1.0).double()
    fall = 1 / (1 + torch.arange(SHAPE[1])[:, None] + torch.arange(SHAPE[2])) ** 2
    result.power.copy_(torch.rand(SHAPE, generator=generator(seed), dtype=torch.float64) * fall + 0.01)
    result.channels.copy_(torch.linalg.qr(torch.randn(3, 3, generator=generator(seed), dtype=torch.float64))[0])
    return result


@pytest.mark.parametrize("n", [1, 2, 7, 64])
def test_the_cosines_are_orthonormal_and_begin_with_the_mean(n: int) -> None:
    torch.testing.assert_close(cosines(n) @ cosines(n).T, torch.eye(n, dtype=torch.float64), atol=1e-12, rtol=0)
    torch.testing.assert_close(cosines(n)[0], torch.full((n,), n**-0.5, dtype=torch.float64))


def test_frequencies_and_pixels_are_the_same_image() -> None:
    x = torch.randn(4, *SHAPE, generator=generator(), dtype=torch.float64)
    y = spectrum().to_frequencies(x)
    torch.testing.assert_close(spectrum().to_pixels(y), x, atol=1e-12, rtol=0)
    torch.testing.assert_close(y.square().flatten(1).sum(1), x.square().flatten(1).sum(1))  # Parseval
    assert not torch.allclose(x, y)


def test_the_spectrum_is_measured() -> None:
    """Gaussian images of a known one: a mean square of n numbers scatters by sqrt(2 / n) of itself."""
    known, n = spectrum(), 20_000
    noise = torch.randn(n, *SHAPE, generator=generator(), dtype=torch.float64)
    images = known.to_pixels(known.std * noise)
    measured = Spectrum(SHAPE, 1.0).double()
    measured.measure(images.split(1500))
    totals = known.power.sum((1, 2))
    order = totals.argsort()
    shares = (measured.channels * known.channels[order]).sum(1).abs()  # up to a sign
    assert float(shares.min()) > 0.999
    near = (measured.power.sum((1, 2)) / totals[order] - 1).abs()
    assert float(near.max()) < 0.02
    known.power.copy_(known.power[order])
    assert float((measured.power / known.power - 1).abs().median()) < 3 * math.sqrt(2 / n)


def test_no_frequency_has_less_than_the_rounding_of_levels() -> None:
    measured = Spectrum(SHAPE, 1.0)
    measured.measure([torch.full((5, *SHAPE), 0.25)])
    kept = measured.power > 1.01 * ROUNDING
    assert int(kept.sum()) == 1 and bool(kept[2, 0, 0])  # the mean, in the axis of the equal channels
    assert float(measured.power[2, 0, 0]) == pytest.approx(3 * 60 / 16)


@pytest.mark.parametrize("weighting", WEIGHTINGS)
@pytest.mark.parametrize("schedule", ["cosine", "edm", "flow"])
def test_white_images_make_it_edm(schedule: str, weighting: str) -> None:
    settings = {"schedule": schedule, "weighting": weighting, "density": "logit-normal"}
    edm, wiener = (with_weights(small(name, **settings)) for name in ("edm", "wiener"))
    assert wiener.spectrum is not None
    wiener.spectrum.channels.copy_(spectrum().channels)  # any rotation of white noise is white
    batch = Batch(torch.rand(9, *SHAPE, generator=generator(1), dtype=torch.float64))
    torch.testing.assert_close(wiener.loss(batch, generator())[0], edm.loss(batch, generator())[0], rtol=1e-6, atol=0)
    x_t, t = torch.randn(9, *SHAPE, dtype=torch.float64), torch.linspace(0.05, 0.95, 9, dtype=torch.float64)
    torch.testing.assert_close(wiener.denoise(x_t, t), edm.denoise(x_t, t), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("schedule", ["cosine", "edm", "flow"])
def test_gaussian_images_need_no_network(schedule: str) -> None:
    """Each frequency goes along the exact path of a Gaussian: in proportion to its standard deviation."""
    model = small("wiener", schedule=schedule, clip_x0=False)
    assert model.spectrum is not None
    model.spectrum = spectrum()
    model.network = Zero()
    keys = DiffusionSampling(steps=200, sampler="unipc", grid="log-snr")
    drawn = 2 * model.sample(8, seed=0, keys=keys).double() - 1
    first = times_of(keys.grid, model.schedule, keys.steps)[0]
    alpha, sigma = model.schedule.alpha(first), model.schedule.sigma(first)
    x_T = sigma * random.normal(torch.arange(8), SHAPE, 0, "x_T").double()
    s = model.spectrum.std
    exact = model.spectrum.to_pixels(s * model.spectrum.to_frequencies(x_T) / (alpha**2 * s**2 + sigma**2).sqrt())
    torch.testing.assert_close(drawn, exact.clamp(-1, 1), atol=2e-3, rtol=0)
    assert float(exact.std()) > 0.05


def test_the_loss_of_the_exact_output_is_zero() -> None:
    model = small("wiener", density="log-normal")
    assert model.spectrum is not None
    model.spectrum = spectrum()
    x0 = 2 * torch.rand(1, *SHAPE, generator=generator(1), dtype=torch.float64) - 1

    class Exact(nn.Module):
        def forward(self, x: Tensor, level: Tensor, given: object) -> Tensor:
            t = model.schedule.t_of(-2 * level.double())
            alpha, sigma = of_images(model.schedule.alpha(t)), of_images(model.schedule.sigma(t))
            unit = (alpha**2 * model.data_std**2 + sigma**2).rsqrt()
            c_out = sigma * model.data_std * unit
            assert model.spectrum is not None
            return (x0 - model.spectrum.wiener_filter(x / unit, alpha, sigma)) / c_out

    model.network = Exact()
    batch = Batch(((x0 + 1) / 2).expand(12, -1, -1, -1))
    assert float(model.loss(batch, generator())[0]) < 1e-10


def test_the_loss_of_gaussian_images_without_a_network() -> None:
    """The mean over frequencies of what the filter misses, in closed form: at every noise level no more than of edm,
    where it is 1."""
    model, n = small("wiener", density="log-normal"), 4000
    model.spectrum = known = spectrum()
    model.data_std = float(known.power.mean().sqrt())
    model.network = Zero()
    x0 = known.to_pixels(known.std * torch.randn(n, *SHAPE, generator=generator(2), dtype=torch.float64))
    _, logs = model.loss(Batch((x0 + 1) / 2), generator())
    u = (torch.arange(n, dtype=torch.float64) + 0.5) / n
    t = DENSITIES["log-normal"](u, model.schedule, model.density_mean, 1.0)
    alpha, sigma = of_images(model.schedule.alpha(t)), of_images(model.schedule.sigma(t))
    missed = (known.power * sigma**2 / (alpha**2 * known.power + sigma**2)).flatten(1).mean(1)
    of_edm = model.data_std**2 * sigma**2 / (alpha**2 * model.data_std**2 + sigma**2)
    share = missed / of_edm.flatten()
    assert float(share.max()) <= 1 and float(share.min()) < 0.8
    for third, expected in zip(("clean", "middle", "noisy"), share.chunk(3), strict=True):
        total, count = logs[f"loss_{third}"]
        assert float(total / count) == pytest.approx(float(expected.mean()), rel=0.02)  # 240,000 numbers: 0.3%


def test_the_loss_is_that_of_float32_under_autocast() -> None:
    """bfloat16 would leak the mean into frequencies of little power, and their targets are divided by it."""
    model = small("wiener", density="log-normal").float()
    assert model.spectrum is not None
    model.spectrum = spectrum().float()
    model.spectrum.power.clamp_(max=1e-4)
    model.network = Zero().float()
    batch = Batch(torch.rand(6, *SHAPE, generator=generator(1)))
    exact = model.loss(batch, generator())[0]
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(model.loss(batch, generator())[0], exact, rtol=1e-4, atol=0)


def test_it_is_measured_before_the_first_step() -> None:
    model = small("wiener")
    phase = model.phases[0]
    assert phase.start is not None and small("edm").phases[0].start is None
    batches = [Batch(torch.rand(8, *SHAPE, generator=generator(k), dtype=torch.float64)) for k in range(3)]
    assert phase.start(iter(batches), 0) == {}
    assert model.spectrum is not None
    alone = Spectrum(SHAPE, 1.0).double()
    alone.measure([2 * batch.image - 1 for batch in batches])
    assert torch.equal(model.spectrum.power, alone.power) and torch.equal(model.spectrum.channels, alone.channels)
    assert {"spectrum.power", "spectrum.channels"} <= set(model.state_dict())
