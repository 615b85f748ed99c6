"""Bounds on a likelihood that is known: x = z + noise, with a posterior that is wrong by a known amount."""

import json
import math
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Normal, kl_divergence

from trilemma.autoencoders.discrete import DiscreteConfig, DiscreteVAE
from trilemma.autoencoders.vae import VAE, VAEConfig
from trilemma.comparison.document import protocol_difference
from trilemma.comparison.rows import scores_of
from trilemma.data import Data, Split
from trilemma.errors import UserError
from trilemma.metrics import evaluate
from trilemma.metrics.likelihood import bounds, importance_weighted_bound, likelihood_scores
from trilemma.pictures.png import save_png
from trilemma.types import UNCONDITIONAL, Condition

NOISE = 0.3  # variance of x given z
SHIFT, WIDER = 0.3, 2.0  # what is wrong with q: its mean, and its variance by this factor


def normal(mean: float | Tensor, variance: float) -> Normal:
    return Normal(torch.as_tensor(mean, dtype=torch.float64), math.sqrt(variance))


class Toy(nn.Module):
    """z ~ N(0, 1), x ~ N(z, NOISE), so that p(x) = N(0, 1 + NOISE); an image is one number. Counts its rows."""

    def __init__(self, shift: float = SHIFT, wider: float = WIDER) -> None:
        super().__init__()
        self.shift, self.wider, self.rows = shift, wider, []
        self.anything = nn.Parameter(torch.zeros(()))

    def posterior(self, x: Tensor) -> Normal:
        return normal(x / (1 + NOISE), NOISE / (1 + NOISE))

    def q(self, x: Tensor) -> Normal:
        exact = self.posterior(x)
        return Normal(exact.loc + self.shift, exact.scale * math.sqrt(self.wider))

    def log_weight(self, image: Tensor, rng: torch.Generator, condition: Condition = UNCONDITIONAL) -> Tensor:
        self.rows.append(len(image))
        x = image.flatten()
        q = self.q(x)
        z = q.loc + q.scale * torch.randn(len(x), dtype=torch.float64, generator=rng)
        return normal(0, 1).log_prob(z) + normal(z, NOISE).log_prob(x) - q.log_prob(z)

    def elbo(self, image: Tensor, rng: torch.Generator, condition: Condition = UNCONDITIONAL) -> Tensor:
        return self.log_weight(image, rng, condition)


X = torch.tensor([-1.5, 0.0, 0.4, 2.0], dtype=torch.float64)
LOG_P = normal(0, 1 + NOISE).log_prob(X)
N = 20_000  # copies of each image


def means(values: Tensor) -> tuple[Tensor, Tensor]:
    """Mean over the copies, and five standard errors of it, (4,) each."""
    values = values.view(N, 4)
    return values.mean(0), 5 * values.std(0) / math.sqrt(N)


def copies() -> Tensor:
    return X.repeat(N).view(-1, 1, 1, 1)


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("k", [1, 3, 50])
def test_with_the_exact_posterior_every_bound_is_log_p(k) -> None:
    elbo, bound = bounds(Toy(0, 1), X.view(4, 1, 1, 1), k, rng())
    assert elbo.sub(LOG_P).abs().max() < 1e-12
    assert bound.sub(LOG_P).abs().max() < 1e-12


def test_the_gap_of_the_elbo_is_the_divergence_of_q() -> None:
    """ELBO = log p(x) - KL(q || p(z|x)), the same for every k."""
    model = Toy()
    gap = kl_divergence(model.q(X), model.posterior(X))
    for k in (1, 7):
        value, tolerance = means(bounds(model, copies(), k, rng(k))[0])
        assert ((value - (LOG_P - gap)).abs() < tolerance).all()
        assert (tolerance < gap).all()


def test_the_bound_rises_with_k_towards_log_p() -> None:
    result, tolerance = zip(
        *(means(importance_weighted_bound(Toy(), copies(), k, rng(k))) for k in (1, 5, 50)), strict=True
    )
    assert ((result[0] + tolerance[0]) < (result[1] - tolerance[1])).all()
    assert ((result[1] + tolerance[1]) < (result[2] - tolerance[2])).all()
    assert (result[2] < LOG_P + tolerance[2]).all()
    assert (LOG_P - result[2] < 0.02).all()


def test_the_gap_of_the_bound_falls_as_the_variance_of_the_weights_over_2_k() -> None:
    """log p - L_k -> Var(w / p(x)) / (2k). For Gaussians E_q[(p(z|x) / q)^2] is in closed form: with variances s and
    r s and means d apart, r / sqrt(2r - 1) exp(d^2 / (s (2r - 1)))."""
    k, model = 40, Toy()
    variance = model.posterior(X).scale ** 2
    second = WIDER / math.sqrt(2 * WIDER - 1) * (SHIFT**2 / (variance * (2 * WIDER - 1))).exp()
    value, tolerance = means(importance_weighted_bound(model, copies(), k, rng()))
    gap = (second - 1) / (2 * k)
    assert ((LOG_P - value - gap).abs() < tolerance + 0.1 * gap).all()  # and a share of order 1 / k
    assert (tolerance < gap).all()


@pytest.mark.parametrize(("n", "k", "rows"), [(4, 50, 64), (4, 50, 3), (4, 5000, 1000), (9, 1, 4), (2, 10, 1)])
def test_memory_is_bounded_and_every_weight_is_drawn(n, k, rows) -> None:
    model = Toy()
    bounds(model, torch.zeros(n, 1, 1, 1, dtype=torch.float64), k, rng(), rows=rows)
    assert max(model.rows) <= rows
    assert sum(model.rows) == n * k


def test_images_are_not_mixed_up() -> None:
    """Weights that name their image, in parts of every kind."""

    class Named(Toy):
        def log_weight(self, image, rng, condition=UNCONDITIONAL):
            return image.flatten() + 0 * super().log_weight(image, rng) + 100 * condition.label

    image, condition = torch.arange(7.0, dtype=torch.float64).view(7, 1, 1, 1), Condition(torch.arange(7).flip(0))
    for rows in (1, 5, 14, 1000):
        for result in bounds(Named(), image, 6, rng(), condition=condition, rows=rows):
            assert result.tolist() == pytest.approx([i + 100 * (6 - i) for i in range(7)])


def test_weights_of_any_size_do_not_overflow() -> None:
    class Far(Toy):
        def log_weight(self, image, rng, condition=None):
            return super().log_weight(image, rng) - 5000

    elbo, bound = bounds(Far(0, 1), X.view(4, 1, 1, 1), 20, rng())
    assert bound.sub(LOG_P - 5000).abs().max() < 1e-9
    assert elbo.sub(LOG_P - 5000).abs().max() < 1e-9


def test_no_samples_are_refused() -> None:
    with pytest.raises(UserError, match="at least 1"):
        bounds(Toy(), X.view(4, 1, 1, 1), 0, rng())


# -- scores


def data_of(binary: bool = False, n: int = 60, classes: int = 0) -> Data:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (n, 1, 4, 4), generator=generator, dtype=torch.uint8)
    images = (images > 127).to(torch.uint8) * 255 if binary else images
    labels = torch.arange(n) % classes if classes else None
    splits = {name: Split(images, labels) for name in ("train", "valid", "test")}
    return Data("made-up", "made-up", (1, 4, 4), tuple("abc"[:classes]), splits, (), (), "fingerprint")


def vae(**settings) -> VAE:
    torch.manual_seed(0)
    return VAE(VAEConfig(shape=(1, 4, 4), hidden=(8,), latent=3, **settings)).eval()


KEYS = {"split_label": "test", "own": True, "samples": 5, "n": 1000, "seed": 0}


def measure(model, data, **changes):
    scores, notes = likelihood_scores(model, data, "test", **(KEYS | changes))
    return {score.name: score for score in scores}, " ".join(notes)


def test_bits_of_black_and_white_pixels() -> None:
    scores, notes = measure(vae(reconstruction="bce"), data_of(binary=True))
    bound, bits = scores["bound_nats"], scores["bits_per_dim"]
    assert bits.value == pytest.approx(-bound.value / (16 * math.log(2)))
    assert bits.interval[0] == pytest.approx(-bound.interval[1] / (16 * math.log(2)))
    assert bound.protocol == "bound5_bernoulli-binary_60_test"
    assert scores["elbo_nats"].protocol == "elbo_bernoulli-binary_60_test"
    assert scores["elbo_nats"].value < bound.value
    assert (bound.better, bits.better, bound.n_real) == ("higher", "lower", 60)
    assert "likelihood" not in notes + bound.interval_is


def test_bits_of_a_density_are_those_of_256_levels() -> None:
    """The levels are k / 255. A Gaussian that is wide beside them has at each the probability density / 255, and these
    add up to 1; the bits are the mean of -log2 of that."""
    levels = torch.arange(-1000, 1256, dtype=torch.float64) / 255
    wide = normal(0.4, 0.1).log_prob(levels)
    assert (wide.exp() / 255).sum().item() == pytest.approx(1, abs=1e-9)
    scores, _ = measure(vae(reconstruction="gaussian", variance=0.1), data_of())
    nats_per_pixel = scores["bound_nats"].value / 16
    assert scores["bits_per_dim"].value == pytest.approx(-math.log2(math.exp(nats_per_pixel) / 255), rel=1e-9)
    assert scores["bound_nats"].protocol == "bound5_gaussian-0.1-continuous_60_test"


def test_a_bernoulli_of_grey_pixels_has_no_bits_and_says_why() -> None:
    scores, notes = measure(vae(reconstruction="bce"), data_of())
    assert scores["bits_per_dim"].value is None
    for text in (scores["bits_per_dim"].refused, scores["bound_nats"].interval_is, notes):
        assert "not a likelihood" in text
    assert scores["elbo_nats"].protocol == "elbo_bernoulli-continuous_60_test"


def test_the_interval_is_that_of_a_mean_over_images() -> None:
    model, data = vae(reconstruction="gaussian", variance=0.1), data_of()
    score = measure(model, data, n=40)[0]["bound_nats"]
    assert score.n_real == 40
    wide, narrow = (measure(model, data_of(n=n))[0]["bound_nats"].interval for n in (250, 4000))
    ratio = (wide[1] - wide[0]) / (narrow[1] - narrow[0])
    assert ratio == pytest.approx(math.sqrt(1000 / 250), rel=0.3)  # at most 1000 are taken
    assert score.interval[0] < score.value < score.interval[1]
    assert measure(model, data, n=40)[0]["bound_nats"] == score
    assert measure(model, data, n=40, seed=1)[0]["bound_nats"].value != score.value


def test_active_units() -> None:
    model = vae()
    layer = model.encoder.net[0][-2]  # the last linear layer: mu of 3 units, then logvar
    with torch.no_grad():
        layer.weight[1].zero_()  # the second unit says nothing of the image
        layer.weight[0] *= 50
        layer.weight[2] *= 50
    scores, notes = measure(model, data_of())
    assert (scores["active_units"].value, scores["active_units"].protocol) == (2, "active-units_3_60_test")
    assert "2 of the 3 units" in notes


def test_choices_have_no_means_to_be_active() -> None:
    config = DiscreteConfig(shape=(1, 4, 4), hidden=(8,), variables=2, categories=3)
    scores, notes = measure(DiscreteVAE(config).eval(), data_of())
    assert set(scores) == {"elbo_nats", "bound_nats", "bits_per_dim"} and "active" not in notes


def test_a_conditional_model_is_given_the_labels() -> None:
    model, data = vae(conditional=True, n_classes=3, reconstruction="bce"), data_of(binary=True, classes=3)
    scores, _ = measure(model, data, n=60)
    part = data.splits["test"]
    image = part.images / 255
    expected = bounds(model, image, 2_000, rng(), condition=Condition(part.labels))[0].mean()
    assert scores["elbo_nats"].value == pytest.approx(float(expected), abs=0.2)
    assert measure(model, data, own=False)[0] == {}
    assert "takes labels" in measure(model, data, own=False)[1]


def test_all_splits_are_measured_with_their_labels() -> None:
    model, data = vae(conditional=True, n_classes=3), data_of(classes=3)
    scores, _ = likelihood_scores(model, data, "all", **KEYS)
    assert {score.n_real for score in scores} == {180}
    unlabelled = {**data.splits, "valid": Split(data.train.images)}
    _, notes = likelihood_scores(model, replace(data, splits=unlabelled), "all", **KEYS)
    assert "the all images have no class" in " ".join(notes)


def test_nothing_where_there_is_no_bound_and_refusals() -> None:
    assert measure(nn.Linear(1, 1), data_of()) == ({}, "")
    assert measure(vae(), data_of(), samples=0) == ({}, "")
    for wrong in ({"samples": -1}, {"n": 1}):
        with pytest.raises(UserError, match="0 samples or more, and at least 2 images"):
            measure(vae(), data_of(), **wrong)
    broken = vae()
    with torch.no_grad():
        next(broken.decoder.parameters()).fill_(math.nan)
    with pytest.raises(UserError, match=r"60 of 60 bounds hold NaN or infinite .*; bound_samples=0 leaves them out"):
        measure(broken, data_of())


def test_evaluate_writes_the_bounds_of_a_run(tmp_path) -> None:
    from trilemma.training import train

    run = train("vae-mnist", "digits", steps=5, out=tmp_path / "run", quiet=True)
    evaluation = evaluate(run, n=50, bound_samples=3, bound_images=30)
    assert evaluation["bound_nats"].protocol == "bound3_bernoulli-continuous_30_test"
    assert any("not a likelihood" in note for note in evaluation.notes)
    file = tmp_path / "run" / "metrics" / "bound3_bernoulli-continuous_30_test.json"
    assert json.loads(file.read_text("utf-8"))["value"] == evaluation["bound_nats"].value
    for k, image in enumerate(torch.rand(12, 1, 8, 8).mul(255).to(torch.uint8)):
        save_png(image, tmp_path / "reals" / f"{k}.png")
    other = evaluate(run, against=tmp_path / "reals", bound_samples=1)  # without a test split: all of them
    assert other["elbo_nats"].protocol == "elbo_bernoulli-continuous_12_reals-all"
    asked = "vae-mnist does not take likelihood=flow: it has no path from images to noise; models that do: diffusion"
    with pytest.raises(UserError, match=asked):
        evaluate(run, n=50, likelihood="flow")


def test_bounds_of_other_likelihoods_do_not_share_a_column_of_a_report() -> None:
    def scores(**settings):
        result, _ = likelihood_scores(vae(**settings), data_of(), "test", **KEYS)
        return scores_of(SimpleNamespace(scores=result))

    bernoulli, gaussian, other = scores(reconstruction="bce"), scores(), scores(beta=2)
    assert protocol_difference(bernoulli, gaussian) is None
    assert set(bernoulli) & set(gaussian) == {"active-units_3_60_test"}
    assert set(gaussian) == set(other)
