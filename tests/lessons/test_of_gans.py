"""The figures of adversarial networks: distances, slopes and the best critics against their definitions."""

import math
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.nn.functional import logsigmoid
from torch.nn.utils import parameters_to_vector

import trilemma
from trilemma.config import Config
from trilemma.data import load_data
from trilemma.errors import UserError
from trilemma.gans.augmentation import adaptive, differentiable
from trilemma.gans.losses import LOSSES
from trilemma.lessons import adversarial_game as game
from trilemma.lessons import adversarial_losses, critic_augment, points, slope_bounds, styles
from trilemma.lessons import jensen_wasserstein as lines
from trilemma.lessons import mode_collapse as collapse
from trilemma.pictures.levels import to_float
from trilemma.rng import generator

THETA = torch.tensor([-0.9, -0.2, 0.05, 0.4], dtype=torch.float64)
X = torch.linspace(-4, 4, 8001, dtype=torch.float64)


def gaussian(mean, std):
    return torch.distributions.Normal(torch.as_tensor(mean, dtype=torch.float64), std).log_prob(X).exp()


def test_lines_without_a_common_point():
    theta = torch.tensor([-0.5, 0.0, 1e-9, 2.0], dtype=torch.float64)
    ln2 = math.log(2)
    torch.testing.assert_close(lines.jensen_shannon(theta, 0.0), torch.tensor([ln2, 0, ln2, ln2]).double())
    assert (lines.minimax_slope(theta, 0.0) == 0).all()


@pytest.mark.parametrize("noise", [0.15, 0.4])
def test_the_divergence_is_that_of_its_definition(noise):
    p = gaussian(0.0, noise)
    for theta in THETA:
        q = gaussian(theta, noise)
        half = [torch.trapezoid(torch.xlogy(f, 2 * f / (p + q).clamp(min=1e-300)), X) for f in (p, q)]
        result = lines.jensen_shannon(theta[None], noise)[0]
        torch.testing.assert_close(result, (half[0] + half[1]) / 2, rtol=1e-8, atol=1e-10)
    near = torch.tensor([1e-3 * noise], dtype=torch.float64)  # theta^2 / 8 of the Fisher information, 1 / noise^2
    torch.testing.assert_close(lines.jensen_shannon(near, noise), near.square() / (8 * noise**2), rtol=1e-5, atol=0)


@pytest.mark.parametrize("noise", [0.15, 0.4])
def test_the_slopes_are_those_of_the_losses_with_the_best_critic_held(noise):
    """The generator moves x = theta + noise n; D* of the true theta does not move with it."""
    n = torch.linspace(-12, 12, 8001, dtype=torch.float64)
    weight = torch.distributions.Normal(0.0, 1.0).log_prob(n).exp()
    for theta in THETA:
        moved = theta.clone().requires_grad_()
        logits = theta * (theta - 2 * (moved + noise * n)) / (2 * noise**2)
        minimax = torch.trapezoid(weight * logsigmoid(-logits), n)
        non_saturating = torch.trapezoid(-weight * logsigmoid(logits), n)
        slopes = [torch.autograd.grad(loss, moved, retain_graph=True)[0] for loss in (minimax, non_saturating)]
        torch.testing.assert_close(lines.minimax_slope(theta[None], noise)[0], slopes[0], rtol=1e-7, atol=1e-9)
        torch.testing.assert_close(lines.non_saturating_slope(theta[None], noise)[0], slopes[1], rtol=1e-7, atol=1e-9)


def test_the_wasserstein_distance_is_that_of_the_best_pairing():
    x = torch.randn(50, dtype=torch.float64).sort().values
    distances = torch.stack([(x - (x + theta)).abs().mean() for theta in THETA])
    torch.testing.assert_close(lines.wasserstein(THETA), distances)


P, Q = (torch.tensor(counts) for counts in ([1, 4, 0, 3, 8, 0, 4], [5, 2, 1, 3, 0, 2, 1]))  # of points on a grid


def all_pairs(logits):
    """Logits of each real point with each generated one, as the losses take them."""
    real, fake = logits.repeat_interleave(P), logits.repeat_interleave(Q)
    return {"real": real.repeat_interleave(len(fake)), "fake": fake.repeat(len(real))}


@pytest.mark.parametrize("loss", LOSSES)
def test_no_critic_is_better_than_the_best(loss):
    x, spacing = game.grid()[: len(P)], 1 / game.GRID
    p, q = (counts.double() / counts.sum() / spacing for counts in (P, Q))
    best = game.OPTIMA[loss].logits(x, p, q)
    value = LOSSES[loss].critic(**all_pairs(best))
    if loss == "wasserstein":
        assert ((best.diff().abs() - spacing).abs() < 1e-12).all()
        distance = (p - q).cumsum(0).abs()[:-1].sum() * spacing**2
        torch.testing.assert_close(value, -distance)
        return
    for k in range(20):
        other = best + 0.1 * torch.randn(len(P), generator=torch.Generator().manual_seed(k), dtype=torch.float64)
        assert LOSSES[loss].critic(**all_pairs(other)) > value - 1e-6
    if game.OPTIMA[loss].shift:
        torch.testing.assert_close(LOSSES[loss].critic(**all_pairs(best + 3)), value)
    if game.OPTIMA[loss].probability:
        torch.testing.assert_close(best.sigmoid(), p / (p + q), rtol=0, atol=1e-6)


def test_the_value_of_the_game_is_the_divergence():
    """-ln 4 + 2 JS at the best critic (Goodfellow et al. 2014, theorem 1)."""
    p, q = P.double() / P.sum(), Q.double() / Q.sum()
    best = game.OPTIMA["minimax"].logits(game.grid()[: len(P)], p * game.GRID, q * game.GRID)
    divergence = sum(torch.xlogy(f, 2 * f / (p + q)).sum() for f in (p, q)) / 2
    value = -LOSSES["minimax"].critic(**all_pairs(best))
    assert float(value) == pytest.approx(float(2 * divergence) - math.log(4), abs=1e-6)


def test_a_density_of_points():
    x = game.grid()
    at = float(x[130])
    one = game.density(torch.full((7,), at), x)
    expected = torch.exp(-((x - at) / game.WINDOW).square() / 2) / (game.WINDOW * math.sqrt(2 * math.pi))
    torch.testing.assert_close(one, expected, rtol=1e-9, atol=1e-12)
    generator = torch.Generator().manual_seed(0)
    drawn = game.density(game.DATA.draw(20_000, generator).flatten(), x)
    assert float((drawn - game.data_density(x)).abs().mean()) < 0.15  # of a density whose mean is 1
    assert float(drawn.mean()) == pytest.approx(1, abs=1e-3) == float(game.data_density(x).mean())


@pytest.mark.parametrize("loss", LOSSES)
def test_a_critic_is_shown_up_to_what_its_loss_does_not_say(loss, monkeypatch):
    drawn = game.DATA.draw(500, torch.Generator().manual_seed(1)) * 0.5
    monkeypatch.setattr(game, "generated", lambda model, n, seed: drawn)
    x, optimum = game.grid(), game.OPTIMA[loss]
    best = optimum.logits(x, game.data_density(x), game.density(drawn.flatten(), x))
    monkeypatch.setattr(game, "logits", lambda model, at: best + 0.5)
    moment = game.moment(SimpleNamespace(config=SimpleNamespace(loss=loss)), 3, 0)
    torch.testing.assert_close(moment.best, best.sigmoid() if optimum.probability else best)
    assert torch.allclose(moment.learned, moment.best) == optimum.shift


AT = torch.tensor([-3.0, -0.5, 0.0, 2.0], dtype=torch.float64)  # margins, and logits


def log_sigmoid(logit):
    return -math.log1p(math.exp(-logit))


@pytest.mark.parametrize(
    ("loss", "critic", "generator_loss", "slope"),
    [
        ("minimax", lambda m: -2 * log_sigmoid(m), lambda x: log_sigmoid(-x), lambda x: -1 / (1 + math.exp(-x))),
        ("non-saturating", lambda m: -2 * log_sigmoid(m), lambda x: -log_sigmoid(x), lambda x: -1 / (1 + math.exp(x))),
        ("least-squares", lambda m: (m - 0.5) ** 2, lambda x: (x - 1) ** 2 / 2, lambda x: x - 1),
        ("hinge", lambda m: 2 * max(0, 1 - m), lambda x: -x, lambda x: -1.0),
        ("wasserstein", lambda m: -2 * m, lambda x: -x, lambda x: -1.0),
        ("relativistic", lambda m: -log_sigmoid(2 * m), lambda x: -log_sigmoid(x), lambda x: -1 / (1 + math.exp(x))),
    ],
)
def test_curves_are_those_of_the_losses(loss, critic, generator_loss, slope):
    drawn = adversarial_losses.curves(loss, AT)
    for values, expected in zip(drawn, (critic, generator_loss, slope), strict=True):
        torch.testing.assert_close(values, torch.tensor([expected(x) for x in AT.tolist()], dtype=torch.float64))


def test_a_saturating_generator_gets_no_slope_where_the_critic_is_sure():
    """What the page says: nearly 0 and nearly -1 at a logit of -3."""
    slopes = {name: float(adversarial_losses.curves(name, AT).slope[0]) for name in ("minimax", "non-saturating")}
    assert -0.05 < slopes["minimax"] < 0 and -1 < slopes["non-saturating"] < -0.95


def test_points_of_bounded_critics_stay_where_they_are():
    model = slope_bounds.critic_alone("hinge+clip", 0.4, 0)
    z = torch.randn(4000, 2, generator=torch.Generator().manual_seed(0))
    drawn = model.from_z(z, None).flatten(1)
    error = 5 * slope_bounds.STD / math.sqrt(4000)
    torch.testing.assert_close(drawn.mean(0), torch.tensor([0.7, 0.5]), rtol=0, atol=error)
    torch.testing.assert_close(drawn.std(0), torch.full((2,), slope_bounds.STD), rtol=0.06, atol=0)
    data = collapse.Mixture(slope_bounds.means(0.4)[:1], (slope_bounds.STD,))
    assert list(points.play(model, data.draw, 2, 0, {"critic": 0.5})) == [0, 1, 2]
    assert max(float(p.detach().abs().max()) for p in model.critic.parameters()) == pytest.approx(0.01)
    assert torch.equal(model.from_z(z, None).flatten(1), drawn)


def test_the_slope_of_a_critic_is_that_along_the_line():
    model = slope_bounds.critic_alone("hinge", 0.4, 0)
    model.critic.forward = lambda image: 7 + 3 * image[:, 0, 0, 0] - 2 * image[:, 0, 0, 1]
    x, values, slopes = slope_bounds.curve(model)
    torch.testing.assert_close(values, 3 * (x - 0.5), rtol=0, atol=1e-5)
    torch.testing.assert_close(slopes, torch.full_like(x, 3.0), rtol=0, atol=1e-3)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("hing", 'did you mean "hinge"'),
        ("hinge+gradent", 'unknown bound "gradent".*did you mean "gradient"'),
        ("wasserstein", "needs a bound on the critic's slope"),
    ],
)
def test_critics_that_there_are_not_are_refused(name, message):
    with pytest.raises(UserError, match=message):
        slope_bounds.critic_alone(name, 0.4, 0)


@pytest.mark.slow
def test_bounds_hold_a_critic_at_the_slopes_of_the_page():
    """Of logits -s (x - 1/2), means +-d/2 apart: R1 and R2 lower 2 softplus(-s d / 2) + s^2, which is least where
    2 s = d sigmoid(-s d / 2); the gradient penalty and spectral norm hold a slope of 1; clipping, with 64 and 32 hidden
    units, at most 0.01^3 * 64 * 32."""
    distance, s = 0.5, 0.0
    for _ in range(50):
        s = distance / 2 / (1 + math.exp(s * distance / 2))
    data = collapse.Mixture(slope_bounds.means(distance)[:1], (slope_bounds.STD,))

    def middle(name):
        model = slope_bounds.critic_alone(name, distance, 0)
        list(points.play(model, data.draw, 300, 0, {"critic": slope_bounds.RATE}))
        curve = slope_bounds.curve(model)
        assert curve.logits[100] > curve.logits[300], name
        return float(curve.slopes[150:250].mean())

    assert middle("non-saturating+r1r2") == pytest.approx(s, rel=0.1)
    assert middle("wasserstein+gradient") == pytest.approx(1, rel=0.1)
    assert middle("hinge+spectral") == pytest.approx(1, rel=0.1)
    assert 0 < middle("wasserstein+clip") <= 0.01**3 * 64 * 32
    assert middle("non-saturating") > 10


def test_images_are_shown_as_the_critic_sees_them(monkeypatch):
    seen = []
    monkeypatch.setattr(critic_augment, "table", lambda images, names: seen.append((images, names)))
    critic_augment.critic_augment(data="digits", n=3, probabilities=(0.0, 0.7), seed=2)
    ((images, names),) = seen
    image = to_float(load_data("digits").train.take(torch.arange(3)).images)
    rows = images.unflatten(0, (4, 3))
    assert names == ["as they are", "differentiable", "adaptive, p = 0", "adaptive, p = 0.7"]
    torch.testing.assert_close(rows[0], image)
    torch.testing.assert_close(rows[1], differentiable(image, generator(2, "differentiable")).clamp(0, 1))
    torch.testing.assert_close(rows[2], image)
    torch.testing.assert_close(rows[3], adaptive(image, 0.7, generator(2, "adaptive")).clamp(0, 1))
    assert (rows[3] != image).any()


def small_game(**settings):
    return points.gan_of_points(
        2, **{"loss": "hinge", "penalty": "none", "seed": 0, "latent": 2, "width": 4} | settings
    )


def test_a_game_is_played_by_the_phases_of_the_model():
    data, calls, results = collapse.ring(3), [], []

    def draw(n, rng):
        calls.append(n)
        return data.draw(n, rng)

    for _ in range(2):
        calls.clear()
        model = small_game(critic_steps=2, weight_clip=0.02)
        before = [parameters_to_vector(network.parameters()) for network in (model.critic, model.generator)]
        assert list(points.play(model, draw, 2, 1, {"critic": 0.01, "generator": 0.01})) == [0, 1, 2]
        assert calls == [points.BATCH] * 6  # 2 for the critic and 1 for the generator in each step
        after = [parameters_to_vector(network.parameters()) for network in (model.critic, model.generator)]
        assert all((one != other).any() for one, other in zip(before, after, strict=True))
        assert float(before[0].detach().abs().max()) > 0.02 >= float(after[0].detach().abs().max())
        results.append(points.generated(model, 4, seed=0))
    assert results[0].shape == (4, 2) and torch.equal(*results)


def test_penalties_of_a_game():
    assert small_game(loss="wasserstein", penalty=None).config.penalty == "gradient"
    assert small_game(penalty=None).config.penalty == "none"
    assert small_game(penalty="r1r2").penalty_weight(0.0) == points.WEIGHTS["r1r2"]
    with pytest.raises(UserError, match='did you mean "hinge"'):
        small_game(loss="hing")
    with pytest.raises(UserError, match="unknown penalty"):
        small_game(penalty="slope")


def test_modes_that_are_reached():
    data = collapse.ring(4)
    means = torch.tensor(data.means)
    radius = (means - 0.5).norm(dim=1)
    torch.testing.assert_close(radius, torch.full_like(radius, collapse.RADIUS))
    spread = torch.tensor([[0.9 * collapse.NEAR * collapse.STD, 0.0]])
    far = means[3] + spread / 0.8
    drawn = torch.cat([means[:1].expand(48, 2), means[1:2] + spread, means[2] + spread.expand(5, 2), far.expand(46, 2)])
    assert collapse.reached(drawn, data) == (2, pytest.approx(0.54))  # 5 of 100 points are a fifth of a quarter
    everywhere = data.draw(4000, torch.Generator().manual_seed(0))
    modes, near = collapse.reached(everywhere, data)
    assert modes == 4 and near == pytest.approx(1 - math.exp(-4.5), abs=0.008)  # of a Gaussian in the plane


@pytest.mark.slow
def test_collapse_is_seen_and_cured():
    data = collapse.ring(8)
    for name, critic_rate, collapses in (
        ("non-saturating", 0.001, True),
        ("non-saturating", 0.004, False),
        ("non-saturating+r1r2", 0.001, False),
    ):
        (drawn,) = collapse.drawn_by(name, data, [1500], critic_rate, 0)
        assert (collapse.reached(drawn, data).modes <= 4) == collapses, name


class StyleKeys(Config):
    truncation: float = 1.0
    mix: int | None = None
    mix_from: int = 2


class Styled(nn.Module):
    """Image 0 of a seed: rows of the seed, or of the mixed one from row `mix_from` on, times the truncation."""

    sampling_keys = StyleKeys
    sampling_network = nn.Identity()

    def sample(self, n, *, seed, first=0, condition=None, keys=StyleKeys()):
        image = torch.full((n, 1, 8, 8), seed / 10)
        if keys.mix is not None:
            image[:, :, keys.mix_from :] = keys.mix / 10
        return keys.truncation * image


@pytest.fixture
def styled(folders):
    run = trilemma.load(folders["vae"], device="cpu")
    run.model = Styled()
    return run


@pytest.mark.slow
def test_a_crossing_of_styles(styled):
    images = styles.crossing(styled, [1, 2], [3, 4, 5], mix_from=6).unflatten(0, (3, 4))
    assert (images[0, 0] == 1).all()  # the corner is white
    torch.testing.assert_close(images[0, 1:, 0, 0, 0], torch.tensor([0.3, 0.4, 0.5]))
    torch.testing.assert_close(images[1:, 0, 0, 7, 0], torch.tensor([0.1, 0.2]))
    assert (images[1, 1:, 0, :6] == images[1, 0, 0, :6]).all()
    assert (images[1:, 1:, 0, 6:] == images[0, 1:, 0, 6:]).all()


@pytest.mark.slow
def test_styles_are_crossed_and_truncated(styled, monkeypatch):
    seen = []
    monkeypatch.setattr(styles, "table", lambda images, names, heads: seen.append((images, names, heads)))
    monkeypatch.setattr(styles, "below", list)
    styles.styles(styled, rows=2, columns=1, truncations=(0.0, 0.5), seed=4)
    (crossed, rows, columns), (truncated, names, heads) = seen
    assert (rows, columns) == (["columns", "seed 4", "seed 5"], ["rows", "seed 6"])
    torch.testing.assert_close(crossed[:, 0, 7, 0], torch.tensor([1.0, 0.6, 0.4, 0.6, 0.5, 0.6]))
    assert (names, heads) == (["seed 4, truncated to", "seed 5, truncated to"], ["0", "0.5"])
    torch.testing.assert_close(truncated[:, 0, 0, 0], torch.tensor([0.0, 0.2, 0.0, 0.25]))


def test_a_run_without_styles_is_refused(folders):
    with pytest.raises(UserError, match="vae has no styles; take a run of gan-style"):
        styles.styles(trilemma.load(folders["vae"], device="cpu"))
