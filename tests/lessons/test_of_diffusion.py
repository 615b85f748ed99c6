"""The figures of diffusion: curves, paths and orders against closed forms."""

import math

import oracles
import pytest
import torch

import trilemma
from trilemma.diffusion.grids import times_of
from trilemma.diffusion.samplers import SAMPLERS, calls_of
from trilemma.diffusion.schedule import SCHEDULES, get_schedule, log_snr
from trilemma.diffusion.solvers import unipc
from trilemma.errors import UserError
from trilemma.lessons import (
    augmented,
    bits,
    calls,
    few_calls,
    guidance,
    noising,
    predictions,
    schedules,
    score_field,
    solver_order,
    spectrum,
)
from trilemma.lessons.mixture import Mixture, levels
from trilemma.metrics.classification import class_agreement, classifier_of
from trilemma.metrics.evaluate import setup_of
from trilemma.metrics.features import extract
from trilemma.metrics.neighbours import neighbour_scores
from trilemma.metrics.reals import real_images

MODES = Mixture(((-0.7,), (0.5,)), (0.3, 0.2))
T = torch.linspace(0.05, 0.95, 7, dtype=torch.float64)


@pytest.mark.parametrize("name", SCHEDULES)
def test_the_betas_take_the_image_away(name):
    curves = schedules.curves(get_schedule(name, 2.0), 50)
    left = (1 - curves.beta).cumprod(0)  # of what there is at t = 0
    torch.testing.assert_close(left * curves.alpha_bar[0], curves.alpha_bar[1:], rtol=1e-9, atol=1e-15)
    assert ((curves.beta > 0) & (curves.beta <= 1)).all()
    torch.testing.assert_close(curves.alpha_bar, curves.log_snr.sigmoid(), rtol=1e-9, atol=0)


def test_curves_of_known_schedules():
    cosine = schedules.curves(get_schedule("cosine"), 100)
    torch.testing.assert_close(cosine.alpha_bar, (cosine.t * math.pi / 2).cos().square(), rtol=0, atol=1e-3)
    linear = schedules.curves(get_schedule("linear"), 1000)  # of Ho et al. (2020), up to the size of a step
    torch.testing.assert_close(linear.beta, torch.linspace(1e-4, 0.02, 1000).double(), rtol=0.02, atol=2e-5)
    flow = schedules.curves(get_schedule("flow"), 10)
    torch.testing.assert_close(flow.alpha_bar, (1 - flow.t) ** 2 / ((1 - flow.t) ** 2 + flow.t**2))


@pytest.mark.parametrize("name", SCHEDULES)
def test_the_true_noise_gives_the_image_back_and_a_wrong_one_is_off_by_the_noise_level(name):
    x0, schedule = 2 * torch.rand(1, 9, 7, dtype=torch.float64) - 1, get_schedule(name)
    result = noising.noised(x0, schedule, T, 0.1, seed=3)
    torch.testing.assert_close(result.exact, x0.expand_as(result.exact), rtol=0, atol=1e-9)
    ratio = (schedule.sigma(T) / schedule.alpha(T))[:, None, None, None]
    errors = (result.off - x0) / ratio
    torch.testing.assert_close(errors, errors[:1].expand_as(errors), rtol=1e-6, atol=1e-9)
    assert float(errors[0].std()) == pytest.approx(0.1, rel=4 / math.sqrt(2 * 63))
    noise = (result.x_t - schedule.alpha(T)[:, None, None, None] * x0) / schedule.sigma(T)[:, None, None, None]
    torch.testing.assert_close(noise, noise[:1].expand_as(noise), rtol=1e-6, atol=1e-9)
    assert float(noise[0].std()) == pytest.approx(1, rel=4 / math.sqrt(2 * 63))


def test_an_image_that_is_not_there_is_refused():
    with pytest.raises(UserError, match="image 99999 not found in the"):
        noising.noising(image=99999)


def test_the_denoiser_of_a_mixture_is_the_integral_and_its_score_the_slope():
    x0 = torch.linspace(-6, 6, 40_001, dtype=torch.float64)
    means, stds = (torch.tensor(part, dtype=torch.float64).view(2, 1) for part in (MODES.means, MODES.stds))
    prior = torch.distributions.Normal(means, stds).log_prob(x0).exp().mean(0)
    x = torch.tensor([[-1.3], [0.1], [0.8]], dtype=torch.float64)
    for alpha, sigma in ((0.9, 0.4), (0.3, 1.1)):
        joint = prior * torch.distributions.Normal(alpha * x0, sigma).log_prob(x).exp()  # (3, N)
        total = torch.trapezoid(joint, x0)
        mean = torch.trapezoid(joint * x0, x0) / total
        torch.testing.assert_close(MODES.x0_hat(x, alpha, sigma)[:, 0], mean, rtol=1e-7, atol=1e-9)
        torch.testing.assert_close(MODES.log_density(x, alpha, sigma), total.log(), rtol=1e-7, atol=1e-9)
    plane, points = score_field.DATA, torch.randn(5, 2, dtype=torch.float64).requires_grad_()
    (slope,) = torch.autograd.grad(plane.log_density(points, 0.8, 0.5).sum(), points)
    torch.testing.assert_close(slope, (0.8 * plane.x0_hat(points, 0.8, 0.5) - points) / 0.25)


@pytest.mark.parametrize("name", ["linear", "flow"])
def test_the_paths_of_a_mixture(name):
    """Of one mode in closed form; of two as a fine solver has them."""
    schedule, (start, end) = get_schedule(name), (0.8, 0.05)
    x = torch.linspace(-1.5, 1.5, 7, dtype=torch.float64)[:, None]
    at = levels(schedule, start), levels(schedule, end)
    one = Mixture(((0.3,),), (0.4,)).path_end(x, *at)
    flow = oracles.gaussian_flow(schedule, 0.3, 0.4, x, torch.tensor(start), torch.tensor(end))
    torch.testing.assert_close(one, flow)
    grid = schedule.t_of(torch.linspace(float(log_snr(schedule, start)), float(log_snr(schedule, end)), 600).double())
    fine = unipc(MODES.denoiser(schedule), schedule, grid, x[:, :, None, None], lambda step: x, order=3)
    torch.testing.assert_close(MODES.path_end(x, *at), fine.flatten(1), rtol=0, atol=1e-7)


@pytest.mark.parametrize("name", SAMPLERS)
def test_paths_begin_on_the_ring_and_take_the_calls_of_the_sampler(name):
    schedule, starts = get_schedule("edm"), score_field.on_ring(5)
    drawn = score_field.paths(name, schedule, times_of("karras", schedule, 12), starts)
    assert drawn.calls == calls_of(name, 12) and drawn.states.shape == (13, 5, 2)
    torch.testing.assert_close(drawn.states[0], starts)
    torch.testing.assert_close(starts.norm(dim=1), torch.full((5,), score_field.RING).double())
    assert (drawn.states[-1].norm(dim=1) < 2).all()  # where the data are


@pytest.mark.parametrize(("solver", "order"), [("ddim = euler", 1), ("heun", 2), ("dpm++3m", 2), ("unipc, order=2", 3)])
def test_measured_orders(solver, order):
    counts = (40, 80, 160)
    result = solver_order.measure(
        solver_order.SOLVERS[solver], solver_order.DATA["a Gaussian"], get_schedule("flow"), counts, 16
    )
    assert result.calls == [2 * n if solver == "heun" else n for n in counts]
    assert result.order == pytest.approx(order, abs=0.15)


def test_a_slope_is_that_of_the_last_points_above_rounding():
    points = solver_order.Convergence([1, 10, 100, 1000, 10_000], [5.0, 1e-3, 1e-6, 1e-9, 1e-15])
    assert points.order == pytest.approx(3)
    assert solver_order.Convergence([10, 20], [1e-3, 1e-14]).order is None
    with pytest.raises(UserError, match="counts=40: a slope needs two different"):
        solver_order.solver_order(counts=(40,))


def test_a_wrong_estimate_pays_the_divergence():
    """And levels that are fine have the entropy of the density, and log2(127.5) more."""
    std, levels_of = 0.25, torch.linspace(*bits.range_of(bits.COSINE), bits.POINTS, dtype=torch.float64)
    differential = math.log2(std * math.sqrt(2 * math.pi * math.e))
    assert bits.entropy(std) == pytest.approx(differential + math.log2(127.5), abs=1e-3)
    best = torch.trapezoid(bits.rate(levels_of, std, std), levels_of)
    for assumed_std in (0.1, 1.0):
        divergence = (math.log(assumed_std / std) + std**2 / (2 * assumed_std**2) - 0.5) / math.log(2)
        paid = torch.trapezoid(bits.rate(levels_of, std, assumed_std), levels_of) - best
        assert float(paid) == pytest.approx(divergence, abs=0.01)  # little of it is beyond the levels


@pytest.mark.slow
@pytest.mark.parametrize("assumed_std", [0.25, 0.1, 1.0])
def test_the_parts_of_the_bound_are_the_bound_that_is_measured(assumed_std):
    """Which scatters as the mean square of n values does, by sqrt(2 / n); the noise scatters less."""
    parts, n = bits.bits_of(0.25, assumed_std), math.prod(bits.SHAPE)
    scatter = 4 * math.sqrt(2 / n) * 0.25**2 / (2 * assumed_std**2) / math.log(2) + 0.03
    assert sum(parts[:3]) == pytest.approx(parts.measured, abs=scatter)
    divergence = (math.log(assumed_std / 0.25) + 0.25**2 / (2 * assumed_std**2) - 0.5) / math.log(2)
    assert parts.measured == pytest.approx(bits.entropy(0.25) + divergence, abs=scatter)


ONE = Mixture(((0.3, -0.2),), (0.4,))
MEAN = torch.tensor([0.3, -0.2], dtype=torch.float64)


def test_a_jump_ends_where_the_path_does():
    x = MEAN + 3 * torch.randn(5, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    ends = MEAN + (x - MEAN) * 0.4 / math.hypot(0.4, 1.7)
    torch.testing.assert_close(few_calls.jump(x, 1.7, ONE), ends, rtol=0, atol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 3])
def test_points_of_any_number_of_jumps_are_those_of_the_data(count):
    n = 4000
    starts = torch.randn(n, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    drawn = few_calls.jumps(count, starts, data=ONE)
    assert drawn.calls == count and drawn.states.shape == (2 * count, n, 2)
    torch.testing.assert_close(drawn.states[0], starts, rtol=1e-3, atol=1e-3)
    assert float((drawn.states[-1].mean(0) - MEAN).abs().max()) < 4 * 0.4 / math.sqrt(n)
    assert float((drawn.states[-1].std(0) - 0.4).abs().max()) < 4 * 0.4 / math.sqrt(2 * n)


def test_a_single_step_of_a_sampler_ends_at_the_mean_and_a_single_jump_does_not():
    starts = torch.randn(500, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    spread = few_calls.spread_of(few_calls.DATA)
    points = few_calls.DATA.draw(100_000, torch.Generator().manual_seed(0))
    assert float(points.var(0).mean().sqrt()) == pytest.approx(spread, rel=0.01)
    step = score_field.paths("ddim", few_calls.EDM, times_of("auto", few_calls.EDM, 1), starts).states[-1]
    jump = few_calls.jumps(1, starts).states[-1]
    assert float(step.var(0).mean().sqrt()) < 0.05 * spread
    assert float(jump.var(0).mean().sqrt()) == pytest.approx(spread, rel=0.1)


def test_noise_of_a_spectrum_has_it():
    """The root mean square of each frequency of 4,000 images scatters by 1 / sqrt(2 x 4,000) = 1.1% of itself."""
    eps = torch.randn(4000, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    measured = spectrum.spectrum_of(trilemma.load_data("digits").train.images)
    fakes = spectrum.coloured_noise(measured, eps)
    again = measured.to_frequencies(fakes).square().mean(0).sqrt()
    assert float((again / measured.std - 1).abs().max()) < 0.06
    assert float(measured.std.max() / measured.std.min()) > 10  # digits are far from white


@pytest.mark.slow
def test_points_of_a_run(folders):
    run = trilemma.load(folders["diffusion"], device="cpu")
    setup = setup_of(run.data, "test", 60)
    by = calls.distance_of(setup)
    assert by.name == "kernel distance"  # 60 images are too few for the other
    exact = calls.draw(run, "ddim", 9, 8, seed=0)
    same, other, noisy = (calls.measure(run, *how, setup, by, exact) for how in (("ddim", 9), ("ddim", 2), ("ddpm", 9)))
    assert (
        same.error == pytest.approx(0, abs=1e-6)
        and other.error is not None
        and other.error > 1e-4
        and noisy.error is None
    )
    assert [point.calls for point in (same, other, noisy)] == [9, 2, 9]
    low, high = same.distance.interval
    assert low < same.distance.value < high
    fake = extract(setup.network, run.sample(60, seed=0, sampler="ddim", steps=9))
    assert same.recall == neighbour_scores(real=by.real, fake=fake)["recall"].estimate()
    assert calls.measure(run, "ddim", 2, setup_of(run.data, "test", 11), by, exact).recall is None


@pytest.mark.slow
def test_samplers_that_a_model_lacks_are_left_out(folders, monkeypatch):
    pages = []
    monkeypatch.setattr(calls, "_page", lambda lines, *texts: pages.append(list(lines)))
    for name in ("diffusion", "diffusion-small"):
        calls.calls(trilemma.load(folders[name], device="cpu"), numbers=(1, 2), n=60, reference=2)
    assert pages == [list(calls.SAMPLERS), ["ddpm", "ddim"]]
    with pytest.raises(UserError, match="vae does not denoise"):
        calls.calls(trilemma.load(folders["vae"], device="cpu"))


def test_predictions_at_equal_parts_of_image_and_noise():
    """Where alpha = sigma = 1 / sqrt(2), each row in closed form; the data of edm have a variance of a quarter."""
    root, level = math.sqrt(0.5), torch.zeros(1, dtype=torch.float64)
    expected = {
        "eps": (1 / root, -1),
        "x0": (0, 1),
        "v": (root, -root),
        "flow": (1 / (2 * root), -0.5),
        "edm": (root * 0.25 / 0.625, root * 0.5 / math.sqrt(0.625)),
    }
    for name, values in expected.items():
        skip, out, _ = predictions.coefficients(name, "cosine", level, 0.5)
        assert (float(skip), float(out)) == pytest.approx(values, abs=1e-9)


def test_an_image_that_is_left_as_it_is_is_told_so(monkeypatch):
    rows = []
    monkeypatch.setattr(augmented, "grid", lambda images, columns, texts: rows.append((images, texts)))
    augmented.augmented(data="digits", image=3, augment_p=0.0, n=40)
    ((images, texts),) = rows
    image = trilemma.load_data("digits").train.take(torch.tensor([3])).images[0].float() / 255
    flipped = [text == "flip x 1" for text in texts]
    assert set(texts) == {"as it is", "flip x 1"}
    for one, is_flipped in zip(images, flipped, strict=True):
        torch.testing.assert_close(one, image.flip(-1) if is_flipped else image, atol=1e-6, rtol=0)


def test_guidance_of_1_is_none(folders, monkeypatch):
    """A point at 1 is of the images that are drawn without, and scores are of both sides, real and drawn."""
    run, pages = trilemma.load(folders["classes"], device="cpu"), []
    monkeypatch.setattr(guidance, "_page", lambda points, *texts: pages.append(points))
    guidance.guidance(run, scales=(2.0, 1.0), n=40, steps=2)
    ((one, two),) = pages
    assert (one.scale, two.scale) == (1, 2)
    setup = setup_of(run.data, "test", 40)
    real = extract(setup.network, real_images(setup.data, "test", 40, setup.seed))
    fake = extract(setup.network, run.sample(40, seed=0, steps=2))
    near = neighbour_scores(real=real, fake=fake)
    assert one.precision == near["precision"].estimate() and one.recall == near["recall"].estimate()
    assert one.distance == calls.distance_of(setup).distance(fake=fake).estimate() != two.distance
    agreement = class_agreement(classifier_of(run.data), run.sample(40, seed=0, steps=2), torch.arange(40) % 10)
    assert one.as_asked == agreement
