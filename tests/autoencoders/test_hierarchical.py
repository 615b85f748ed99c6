"""Hierarchies of codes against linear Gaussians, where the joint density, the posterior and log p(x) are known."""

import math
import os
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.distributions import MultivariateNormal, kl_divergence
from torch.distributions import Normal as TorchNormal

from trilemma import rng as random
from trilemma.autoencoders.hierarchical import HierarchicalConfig, HierarchicalVAE
from trilemma.autoencoders.levels import Normal, combine, free_bits, shifted, warm_up
from trilemma.autoencoders.likelihoods import Gaussian
from trilemma.autoencoders.losses import kl_between_normals
from trilemma.autoencoders.priors import PriorKeys
from trilemma.config import make
from trilemma.errors import UserError
from trilemma.metrics.likelihood import active_units
from trilemma.training import train
from trilemma.types import Batch, Condition

D = 6  # pixels
NOISE = 0.3  # variance of a pixel
SHAPES = [(1, 8, 8), (3, 12, 9), (2, 5, 7), (1, 1, 1)]
KINDS = {
    "chain": {"levels": (5, 4, 3), "hidden": 16},
    "ladder": {"structure": "ladder", "levels": (5, 4, 3), "hidden": 16},
    "residual": {
        "structure": "ladder",
        "network": "residual",
        "levels": (2, 3, 4),
        "hidden": (4, 6, 8),
        "depth": (1, 2, 1),
    },
}


def double(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def rotation(n: int, m: int, seed: int) -> Tensor:
    """m orthonormal columns in n dimensions."""
    return torch.linalg.qr(random.normal(torch.arange(n), (m,), seed, "test").double()).Q


class Linear:
    """z3 ~ N(0, I);  z2 = A z3 + a + N(0, diag);  z1 = B z2 + b + N(0, diag);  x = C z1 + c + N(0, NOISE I).

    A is aligned with the axes and z2 has covariance 1.5 I; B and C are scaled rotations. The covariance of each
    variable given any other is then diagonal, as is the precision of p(x|z) as a function of each z.
    """

    maps = (
        torch.diag(double(1.1, 0.6, 0.0))[:, :2],
        0.8 * rotation(3, 3, 1),
        1.2 * rotation(D, 3, 2),
    )
    noises = (1.5 - double(1.1, 0.6, 0.0) ** 2, double(*[0.7] * 3), double(*[NOISE] * D))
    biases = (double(0.3, -0.2, 0.1), double(-0.5, 0.4, 0.2), torch.linspace(0, 1, D, dtype=torch.float64))

    def __init__(self) -> None:
        """Mean and covariance of all variables, z3 first."""
        mean, covariance = torch.zeros(2, dtype=torch.float64), torch.eye(2, dtype=torch.float64)
        self.places = [slice(0, 2)]
        for weight, noise, bias in zip(self.maps, self.noises, self.biases, strict=True):
            above = self.places[-1]
            cross = weight @ covariance[above]  # of the new variable with all before it
            own = weight @ covariance[above, above] @ weight.T + torch.diag(noise.double())
            mean = torch.cat([mean, weight @ mean[above] + bias])
            covariance = torch.cat([torch.cat([covariance, cross.T], 1), torch.cat([cross, own], 1)])
            self.places.append(slice(above.stop, above.stop + len(bias)))
        self.mean, self.covariance = mean, covariance

    def evidence(self) -> MultivariateNormal:
        x = self.places[-1]
        return MultivariateNormal(self.mean[x], self.covariance[x, x])

    def given(self, what: int, known: int) -> tuple[Tensor, Tensor, Tensor]:
        """p(variable `what` | variable `known`): gain, offset, and the variances; a covariance must be diagonal."""
        w, k = self.places[what], self.places[known]
        gain = torch.linalg.solve(self.covariance[k, k], self.covariance[k, w]).T
        left = self.covariance[w, w] - gain @ self.covariance[k, w]
        assert torch.allclose(left, torch.diag(left.diagonal()), atol=1e-12)
        return gain, self.mean[w] - gain @ self.mean[k], left.diagonal()


def set_map(layer: torch.nn.Linear, weight: Tensor, bias: Tensor, variance: Tensor | None = None) -> None:
    """Make the layer give weight h + bias, and below it the constant log variance if there is one."""
    with torch.no_grad():
        layer.weight.zero_()
        layer.weight[: len(weight)] = weight
        layer.bias[: len(bias)] = bias
        if variance is not None:
            layer.bias[len(bias) :] = variance.log()


def linear_model(structure: str) -> HierarchicalVAE:
    """The generative direction of `Linear`; the posterior is still to be set."""
    depth = 0 if structure == "chain" else 1
    config = HierarchicalConfig(shape=(1, 2, 3), structure=structure, levels=(3, 3, 2), hidden=(2 * D,), depth=(depth,))
    model = HierarchicalVAE(config).double()
    model.likelihood = Gaussian(NOISE, "none")
    truth = Linear()
    nets = [model.down.layers[1].net, model.down.layers[2].net, model.down.out]
    for net, weight, bias, noise in zip(nets, truth.maps, truth.biases, [*truth.noises[:2], None], strict=True):
        through_relu(net, weight, bias, noise) if depth else set_map(net[0], weight, bias, noise)
    return model


def through_relu(net: torch.nn.Sequential, weight: Tensor, bias: Tensor, noise: Tensor | None) -> None:
    """A linear map past a hidden layer: h = relu(h) - relu(-h)."""
    n = weight.shape[1]
    both = torch.zeros(net[0].out_features, n, dtype=torch.float64)
    both[:n], both[n : 2 * n] = torch.eye(n), -torch.eye(n)
    set_map(net[0], both, torch.zeros(len(both), dtype=torch.float64))
    wide = torch.zeros(len(weight), len(both), dtype=torch.float64)
    wide[:, :n], wide[:, n : 2 * n] = weight, -weight
    set_map(net[2], wide, bias, noise)


def exact_chain() -> HierarchicalVAE:
    model, truth = linear_model("chain"), Linear()
    for level, (what, known) in enumerate([(2, 3), (1, 2), (0, 1)]):
        set_map(model.up.levels[level][0], *truth.given(what, known))
    return model


def exact_ladder() -> HierarchicalVAE:
    """Features pass the image on; each head gives p(x | z_t) as a function of z_t, a Gaussian."""
    model, truth = linear_model("ladder"), Linear()
    eye = torch.eye(D, dtype=torch.float64)
    zero = torch.zeros(2 * D, dtype=torch.float64)
    set_map(model.up.levels[0][0], torch.cat([eye, -eye]), zero)  # d_1 = relu(x), relu(-x)
    for level in (1, 2):
        set_map(model.up.levels[level][0], torch.eye(2 * D, dtype=torch.float64), zero)
    for i in range(3):  # from the top: variable i of `Linear`
        gain, offset, covariance = image_given(truth, i)
        inverse = torch.linalg.inv(covariance)
        precision = gain.T @ inverse @ gain
        assert torch.allclose(precision, torch.diag(precision.diagonal()), atol=1e-9)
        back = torch.linalg.solve(precision, gain.T @ inverse)
        set_map(model.up.heads[i][0], torch.cat([back, -back], 1), -back @ offset, 1 / precision.diagonal())
    return model


def image_given(truth: Linear, i: int) -> tuple[Tensor, Tensor, Tensor]:
    """x = gain z + offset + N(0, covariance), for variable i counted from the top."""
    w, k = truth.places[3], truth.places[i]
    gain = torch.linalg.solve(truth.covariance[k, k], truth.covariance[k, w]).T
    return gain, truth.mean[w] - gain @ truth.mean[k], truth.covariance[w, w] - gain @ truth.covariance[k, w]


def images(n: int) -> Tensor:
    return random.normal(torch.arange(n), (1, 2, 3), 0, "images").double()


@pytest.mark.parametrize("make_model", [exact_chain, exact_ladder])
def test_every_weight_is_log_p_at_the_exact_posterior(make_model) -> None:
    model, image = make_model(), images(5)
    expected = Linear().evidence().log_prob(image.flatten(1))
    rng = torch.Generator().manual_seed(0)
    for _ in range(3):
        assert torch.allclose(model.log_weight(image, rng), expected, rtol=0, atol=1e-9)
    assert not torch.allclose(model.log_weight(image + 0.01, rng), expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("make_model", [exact_chain, exact_ladder])
def test_elbo_is_log_p_at_the_exact_posterior(make_model) -> None:
    model, image, n = make_model(), images(3), 4000
    expected = Linear().evidence().log_prob(image.flatten(1))
    rng = torch.Generator().manual_seed(1)
    with torch.no_grad():
        elbo = model.elbo(image.repeat(n, 1, 1, 1), rng).unflatten(0, (n, 3))
    error = (elbo.mean(0) - expected).abs()
    tolerance = 5 * elbo.std(0) / math.sqrt(n) + 1e-9
    assert (error < tolerance).all() and (tolerance < 0.5).all()


def test_the_gap_of_a_chain_is_the_divergence_from_the_posterior() -> None:
    """q(z1|x) moved by delta: KL = |delta|^2 / (2 variance), the other conditionals being exact."""
    model, image, n = exact_chain(), images(3), 20_000
    variance = Linear().given(2, 3)[2]
    delta = double(0.2, -0.1, 0.3)
    with torch.no_grad():
        model.up.levels[0][0].bias[:3] += delta
        elbo = model.elbo(image.repeat(n, 1, 1, 1), torch.Generator().manual_seed(2)).unflatten(0, (n, 3))
    gap = Linear().evidence().log_prob(image.flatten(1)) - elbo.mean(0)
    expected = (delta.square() / variance).sum() / 2
    tolerance = 5 * elbo.std(0) / math.sqrt(n)
    assert ((gap - expected).abs() < tolerance).all() and (tolerance < expected / 3).all()


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_samples_have_the_mean_and_covariance_of_the_chain(temperature: float) -> None:
    """The mean image C z1 + c: covariance C S1 C^T with S1 that of z1; a temperature multiplies it by its square."""
    model, truth, n = linear_model("chain"), Linear(), 20_000
    drawn = model.sample(n, seed=3, keys=PriorKeys(temperature=temperature)).flatten(1)
    z1, (weight, bias) = truth.places[2], (truth.maps[2], truth.biases[2])
    covariance = temperature**2 * weight @ truth.covariance[z1, z1] @ weight.T
    spread = covariance.diagonal()
    error = drawn.mean(0) - (weight @ truth.mean[z1] + bias)
    assert (error.abs() < 5 * (spread / n).sqrt()).all()
    tolerance = 5 * ((spread[:, None] * spread + covariance.square()) / n).sqrt()  # 5 standard errors of a covariance
    assert ((drawn.T.cov() - covariance).abs() < tolerance).all()
    assert (tolerance.diagonal() < 0.06 * spread).all()


def random_normal(seed: int) -> Normal:
    mu, logvar = random.normal(torch.arange(4), (2, 3, 2, 5), seed, "normal").double().unbind(1)
    return Normal(mu, logvar)


def test_divergence_equals_that_of_torch() -> None:
    q, p = random_normal(1), random_normal(2)
    ours = kl_between_normals(*q, *p)
    theirs = kl_divergence(TorchNormal(q.mu, (q.logvar / 2).exp()), TorchNormal(p.mu, (p.logvar / 2).exp()))
    assert torch.allclose(ours, theirs.flatten(1).sum(1), rtol=1e-12, atol=0)
    assert torch.equal(kl_between_normals(*q, *q), torch.zeros(4, dtype=torch.float64))
    assert (ours - kl_between_normals(*p, *q)).abs().min() > 1e-3  # not symmetric


def test_log_density_equals_that_of_torch() -> None:
    q, z = random_normal(1), random_normal(3).mu
    theirs = TorchNormal(q.mu, (q.logvar / 2).exp()).log_prob(z).flatten(1).sum(1)
    assert torch.allclose(q.log_prob(z), theirs, rtol=1e-12, atol=0)


def test_combination_is_the_normalised_product() -> None:
    one, other = random_normal(1), random_normal(2)
    both = combine(one, other)
    precision = (-one.logvar).exp() + (-other.logvar).exp()
    mean = (one.mu * (-one.logvar).exp() + other.mu * (-other.logvar).exp()) / precision
    assert torch.allclose(both.logvar, -precision.log(), rtol=0, atol=1e-12)
    assert torch.allclose(both.mu, mean, rtol=0, atol=1e-12)
    ratios = [one.log_prob(z) + other.log_prob(z) - both.log_prob(z) for z in (one.mu, random_normal(3).mu)]
    assert torch.allclose(*ratios, rtol=0, atol=1e-9)  # a constant in z


def test_combination_with_a_far_wider_gaussian_is_the_narrow_one() -> None:
    one = Normal(double(2.0), double(-200.0))
    both = combine(one, Normal(double(-3.0), double(200.0)))
    assert both.mu == one.mu and both.logvar == one.logvar


def test_a_shifted_prior_is_measured_in_its_own_units() -> None:
    by, prior = random_normal(1), random_normal(2)
    q = shifted(by, prior)
    expected = 0.5 * (by.logvar.exp() + by.mu.square() - 1 - by.logvar).flatten(1).sum(1)
    assert torch.allclose(kl_between_normals(*q, *prior), expected, rtol=1e-9, atol=0)
    none = Normal(torch.zeros_like(by.mu), torch.zeros_like(by.mu))
    assert torch.equal(shifted(none, prior).mu, prior.mu) and torch.equal(shifted(none, prior).logvar, prior.logvar)


def test_warm_up_is_linear() -> None:
    assert [warm_up(p, 0.2) for p in (0.0, 0.05, 0.1, 0.2, 1.0)] == [0.0, 0.25, 0.5, 1.0, 1.0]
    assert warm_up(0.0, 0.0) == 1.0


@pytest.mark.parametrize("kind", KINDS)
def test_warm_up_weighs_the_divergence_in_the_loss(kind: str) -> None:
    model = disturbed(kind, (1, 8, 8), warmup=0.2)
    image, losses = torch.rand(4, 1, 8, 8, dtype=torch.float64), {}
    for progress in (0.0, 0.05, 1.0):
        loss, parts = model.loss(Batch(image, progress=progress), torch.Generator().manual_seed(0))
        losses[progress] = float(loss.detach())
    assert math.isclose(losses[0.0], float(parts["bce_nats"]), rel_tol=1e-12)
    assert math.isclose(losses[1.0] - losses[0.0], float(parts["kl_nats"]), rel_tol=1e-9)
    assert math.isclose(losses[0.05] - losses[0.0], 0.25 * float(parts["kl_nats"]), rel_tol=1e-9)
    assert math.isclose(sum(float(parts[f"kl{t}_nats"]) for t in (1, 2, 3)), float(parts["kl_nats"]), rel_tol=1e-9)


def test_free_bits_leave_a_level_below_them_alone() -> None:
    kl = torch.tensor([[0.5, 0.1], [3.0, 5.0]], requires_grad=True)
    total = free_bits(kl, 2.0)
    total.backward()
    assert float(total.detach()) == 6.0  # 2 instead of 0.3, and 4
    assert torch.equal(kl.grad, torch.tensor([[0.0, 0.0], [0.5, 0.5]]))
    assert math.isclose(float(free_bits(kl.detach(), 0.0)), 4.3, rel_tol=1e-6)


def disturbed(kind: str, shape: tuple[int, int, int], **settings: object) -> HierarchicalVAE:
    """A model whose layers are not at their neutral start, in float64."""
    with random.isolated(0):
        model = HierarchicalVAE(HierarchicalConfig(shape=shape).with_(**KINDS[kind], **settings)).double()
        for p in model.parameters():
            p.data += 0.05 * torch.randn_like(p)
    return model


def test_a_term_of_a_chain_may_be_negative_and_their_sum_is_the_divergence() -> None:
    """q(z1|x) = N(0, 1) and q(z2|z1) = N(z1, s), but p(z1|z2) = N(z2, s) for a small s: given z2, p knows z1 better
    than q does given x. In closed form, with E log N(z; mu, v) = -(log(2 pi v) + r / v) / 2, r the mean square:

        term 1 = E[log q(z1|x) - log p(z1|z2)] = (-1 + 1 + log s) / 2 = log(s) / 2
        term 2 = E[log q(z2|z1) - log p(z2)]   = (-log s - 1 + 1 + s) / 2 = (s - log s) / 2

    as r = s for q(z2|z1) and p(z1|z2), and 1 + s for p(z2) = N(0, 1). Their sum, s / 2, is a divergence.
    """
    s = 0.01
    config = HierarchicalConfig(shape=(1, 2, 3), levels=(1, 1), hidden=(4,), depth=(0,))
    model = HierarchicalVAE(config).double()
    zero, one = double(0), torch.ones(1, 1, dtype=torch.float64)
    set_map(model.up.levels[0][0], torch.zeros(1, D, dtype=torch.float64), zero, double(1))
    set_map(model.up.levels[1][0], one, zero, double(s))
    set_map(model.down.layers[1].net[0], one, zero, double(s))
    n = 20_000
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        result = model.validation(Batch(torch.rand(n, 1, 2, 3, dtype=torch.float64)), generator)
    low, high, both = result["kl1_nats"], result["kl2_nats"], result["kl1_nats"] + result["kl2_nats"]
    for values, expected in ((low, math.log(s) / 2), (high, (s - math.log(s)) / 2), (both, s / 2)):
        assert abs(float(values.mean()) - expected) < 4.5 * float(values.std()) / math.sqrt(n)
    assert low.mean() < -2 and free_bits(torch.stack([low, high]), 0.5) == 0.5 + high.mean()


@pytest.mark.parametrize("kind", KINDS)
def test_elbo_is_the_mean_weight(kind: str) -> None:
    model, n = disturbed(kind, (1, 8, 8)), 4000
    image = random.uniform(torch.arange(2), (1, 8, 8), 0, "image").double().round()
    with torch.no_grad():
        many = image.repeat(n, 1, 1, 1)
        values = [
            f(many, torch.Generator().manual_seed(s)).unflatten(0, (n, 2))
            for s, f in enumerate((model.elbo, model.log_weight))
        ]
    means = [v.mean(0) for v in values]
    error = sum(v.var(0) / n for v in values).sqrt()
    assert ((means[0] - means[1]).abs() < 5 * error).all()
    assert (error < 0.3).all()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_any_size_and_number_of_channels(kind: str, shape: tuple[int, int, int]) -> None:
    model = disturbed(kind, shape, reconstruction="gaussian", variance="learned").float()
    batch = Batch(random.uniform(torch.arange(3), shape, 0, "image"))
    loss, _ = model.loss(batch, torch.Generator().manual_seed(0))
    loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    assert model.reconstruct(batch.image).shape == model.sample(3, seed=0).shape == batch.image.shape


@pytest.mark.parametrize("kind", KINDS)
def test_a_code_holds_all_that_its_image_depends_on(kind: str) -> None:
    """Decoded, it gives the image of the posterior means; and each level's part of it matters, the highest too."""
    model = disturbed(kind, (1, 8, 8))
    image = random.uniform(torch.arange(3), (1, 8, 8), 0, "image").double()
    outputs, steps = model._descend(image, lambda q: q.mu)
    z, sizes = model.encode(image), [step.z[0].numel() for step in steps]
    assert z.shape == (3, sum(sizes))
    assert torch.allclose(model.decode(z), outputs.sigmoid(), rtol=0, atol=1e-9)
    for place in (0, sum(sizes) - 1, *torch.tensor(sizes).cumsum(0)[:-1].tolist()):
        moved = z.clone()
        moved[:, place] += 1
        assert (model.decode(moved) - model.decode(z)).abs().max() > 1e-6


@pytest.mark.parametrize("kind", KINDS)
def test_codes_of_the_prior_are_standard_normal(kind: str) -> None:
    """A sample is the decoded standard normal code."""
    model, ids = disturbed(kind, (1, 8, 8)), torch.arange(2, 5)
    parts = [random.normal(ids, shape, 7, "latent", i).flatten(1) for i, shape in enumerate(model.down.code_shapes)]
    assert torch.equal(model.sample(3, seed=7, first=2), model.decode(torch.cat(parts, dim=1).double()))


def test_dropout_is_off_outside_training() -> None:
    model = disturbed("residual", (1, 8, 8), dropout=0.5)
    image = torch.rand(2, 1, 8, 8, dtype=torch.float64)
    assert not torch.equal(model.encode(image), model.encode(image))
    model.eval()
    assert torch.equal(model.encode(image), model.encode(image))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"network": "residual"}, "structure=ladder"),
        ({"hidden": (64, 32)}, "hidden has 2 numbers for 3 levels"),
        ({"depth": (1, 1)}, "depth has 2 numbers for 3 levels"),
        ({"levels": ()}, "levels needs at least one"),
        ({"structure": "ladder", "depth": 0}, "at least 1 at every level"),
        ({"dropout": 0.1}, "dropout=0.1 is for network=residual"),
        ({"variance": 0.5}, "variance=0.5 is for reconstruction=gaussian"),
        ({"variance": "optimal"}, "variance=optimal is for reconstruction=gaussian"),
        ({"structure": "tree"}, "structure=tree: give one of chain, ladder"),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        make(HierarchicalConfig, settings)


def test_labels_are_refused() -> None:
    model = HierarchicalVAE(HierarchicalConfig(shape=(1, 4, 4)))
    condition, image = Condition(torch.zeros(2, dtype=torch.int64)), torch.zeros(2, 1, 4, 4)
    rng = torch.Generator()
    for call in (
        lambda: model.sample(2, seed=0, condition=condition),
        lambda: model.encode(image, condition),
        lambda: model.elbo(image, rng, condition),
        lambda: model.log_weight(image, rng, condition),
        lambda: model.reconstruct(image, condition),
    ):
        with pytest.raises(UserError, match="without labels"):
            call()


@pytest.mark.slow
@pytest.mark.parametrize("structure", ["chain", "ladder"])
def test_three_levels_bound_the_likelihood_better_than_one_of_equal_size(structure: str, tmp_path: Path) -> None:
    if not os.environ.get("TRILEMMA_DATA"):
        pytest.skip("needs MNIST: set TRILEMMA_DATA to the folder it lies in")
    keys = {"images": 150_000, "quiet": True}
    one = train("vae-hierarchical", "mnist-binary", levels=32, hidden=590, out=tmp_path / "one", **keys)
    three = train("vae-hierarchical", "mnist-binary", structure=structure, out=tmp_path / "three", **keys)
    sizes = [sum(p.numel() for p in run.model.parameters()) for run in (one, three)]
    assert abs(sizes[0] / sizes[1] - 1) < 0.1
    values = [run.summary["best"] for run in (one, three)]
    assert values[1]["valid_neg_elbo_nats"] < values[0]["valid_neg_elbo_nats"] - 1
    assert all(values[1][f"valid_kl{t}_nats"] > 0.3 for t in (1, 2, 3))
    codes = three.model.encode(three.data.held_out[1].images[:500].float() / 255)
    assert all(active_units(part) > 0 for part in codes.split([8, 16, 32], dim=1))  # levels from the top
