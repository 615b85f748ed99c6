"""The diffusion model: its loss, what its predictions mean, and sampling."""

from typing import Any, get_args

import pytest
import torch
from torch import Tensor, nn

from trilemma import rng
from trilemma.config import make
from trilemma.diffusion.denoiser import Diffusion, DiffusionConfig, DiffusionKeys
from trilemma.diffusion.schedule import TABLES
from trilemma.errors import UserError
from trilemma.types import Batch, Condition, Denoises, Samples, Validates

SHAPE = (1, 8, 8)
PREDICTIONS = ("eps", "x0", "v")


def tiny(shape: tuple[int, int, int] = SHAPE, **settings: Any) -> Diffusion:
    with rng.isolated(0):
        return Diffusion(DiffusionConfig(shape=shape, **{"T": 20, "embedding": 8, "widths": (4, 6, 8), **settings}))


def batch(shape: tuple[int, int, int] = SHAPE, n: int = 8) -> Batch:
    return Batch(rng.uniform(torch.arange(n), shape, 0, "test"))


class Oracle(nn.Module):
    """Knows the clean images x0 in [-1, 1], or the first of them, and says the exact prediction, plus `error`."""

    def __init__(self, model: Diffusion, x0: Tensor, error: float = 0.0) -> None:
        super().__init__()
        self.kind, self.schedule, self.x0, self.error = model.config.prediction, model.schedule, x0, error

    def forward(self, x_t: Tensor, t: Tensor) -> Tensor:
        alpha, sigma = (level(t)[:, None, None, None] for level in (self.schedule.alpha, self.schedule.sigma))
        x0 = self.x0[: len(x_t)]
        eps = (x_t.double() - alpha * x0) / sigma
        exact = {"eps": eps, "x0": x0, "v": alpha * eps - sigma * x0}[self.kind]
        return (exact + self.error).expand_as(x_t).to(x_t.dtype)


def test_the_config_names_the_schedules_there_are() -> None:
    assert set(get_args(DiffusionConfig.model_fields["schedule"].annotation)) == set(TABLES)
    with pytest.raises(UserError, match="widths"):
        make(DiffusionConfig, {"widths": (16,)})
    with pytest.raises(UserError, match="embedding"):
        make(DiffusionConfig, {"embedding": 7})


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_the_true_prediction_has_no_loss_and_gives_the_image_back(prediction: str) -> None:
    model = tiny(prediction=prediction)
    x0 = 2 * batch().image.double() - 1
    model.network = Oracle(model, x0)  # type: ignore[assignment]
    loss, parts = model.loss(batch(), rng.generator(0, "step"))
    assert loss.item() == pytest.approx(0, abs=1e-10)
    assert parts["eps_mse"].item() == pytest.approx(0, abs=1e-8)
    torch.testing.assert_close(
        model.validation(batch(), rng.generator(0, "step"))["noise_mse"], torch.zeros(8), atol=1e-8, rtol=0
    )
    for i in (1, 10, 20):
        t = torch.full((8,), i / 20)
        alpha, sigma = model.schedule.alpha(i / 20), model.schedule.sigma(i / 20)
        x_t = (alpha * x0 + sigma * torch.randn(x0.shape, dtype=torch.float64)).float()
        torch.testing.assert_close(model.denoise(x_t, t), x0.float(), atol=2e-4, rtol=0)


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_a_wrong_prediction_costs_what_the_formula_says(prediction: str) -> None:
    """Huber is d**2 / 2 below 1 and d - 1/2 above; the error of eps_hat follows from x_t = alpha x0 + sigma eps."""
    model = tiny(prediction=prediction)
    x0 = 2 * batch().image.double() - 1
    for error, huber in ((0.1, 0.005), (3.0, 2.5)):
        model.network = Oracle(model, x0, error)  # type: ignore[assignment]
        loss, parts = model.loss(batch(), rng.generator(0, "step"))
        assert loss.item() == pytest.approx(huber, rel=1e-4) and parts["huber"].item() == loss.item()
        start = torch.rand((), generator=rng.generator(0, "step"))
        i = ((start + torch.arange(8) / 8) % 1 * 20).floor() + 1
        alpha, sigma = model.schedule.alpha(i / 20), model.schedule.sigma(i / 20)
        factor = {"eps": torch.ones(8), "x0": alpha / sigma, "v": alpha}[prediction].double()
        expected = (error * factor).square()
        noise_mse = model.validation(batch(), rng.generator(0, "step"))["noise_mse"]
        torch.testing.assert_close(noise_mse.double(), expected, atol=0, rtol=1e-3)
        assert parts["eps_mse"].item() == pytest.approx(expected.mean().item(), rel=1e-3)


def test_squared_error_is_there_too() -> None:
    model = tiny(loss="mse")
    model.network = Oracle(model, 2 * batch().image.double() - 1, 0.5)  # type: ignore[assignment]
    loss, parts = model.loss(batch(), rng.generator(0, "step"))
    assert loss.item() == pytest.approx(0.25, rel=1e-4) and set(parts) == {"mse", "eps_mse"}


def test_training_noise_has_the_levels_of_the_schedule() -> None:
    """Every i in 1 ... T is as likely; x_t - alpha x0 is sigma eps with eps standard normal."""
    model, n = tiny(T=5), 4000
    images = Batch(batch().image[:1].expand(n, -1, -1, -1))
    x0, x_t, t, eps = model.add_noise(images.image, rng.generator(0, "step"))
    index = (t * 5).round().int()
    counts = index.bincount(minlength=6)
    assert counts[0] == 0 and (counts[1:] - n / 5).abs().max() < 5 * (n * 0.2 * 0.8) ** 0.5
    assert eps.mean().item() == pytest.approx(0, abs=0.01) and eps.std().item() == pytest.approx(1, abs=0.01)
    alpha, sigma = (level(t)[:, None, None, None] for level in (model.schedule.alpha, model.schedule.sigma))
    torch.testing.assert_close(x_t.double(), alpha * x0 + sigma * eps, atol=1e-5, rtol=0)


@pytest.mark.slow
@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_the_loss_falls_and_each_parameter_gets_a_gradient(prediction: str) -> None:
    model = tiny(prediction=prediction)
    (phase,) = model.phases
    optimizer = torch.optim.NAdam(phase.player.parameters, 0.01)
    losses = []
    for _ in range(30):
        loss, parts = phase.loss(batch(), rng.generator(0, "step"))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert all(p.grad is not None and p.grad.isfinite().all() and p.grad.any() for p in model.parameters())
    assert max(losses[-5:]) < 0.6 * losses[0]
    assert not any(part.requires_grad for part in parts.values())


@pytest.mark.parametrize(
    "settings",
    [
        pytest.param({}, marks=pytest.mark.slow),
        {"eta": 0.85, "steps": 5},
        pytest.param({"sampler": "ddpm", "steps": 20}, marks=pytest.mark.slow),
    ],
)
def test_an_image_does_not_depend_on_its_batch(settings: dict[str, Any]) -> None:
    model = tiny((3, 12, 9), T=50)
    together = model.sample(7, seed=3, first=2, keys=DiffusionKeys(**settings))
    alone = torch.cat([model.sample(1, seed=3, first=k, keys=DiffusionKeys(**settings)) for k in range(2, 9)])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)
    assert together.shape == (7, 3, 12, 9) and together.min() >= 0 and together.max() <= 1
    assert (together - model.sample(7, seed=4, first=2, keys=DiffusionKeys(**settings))).abs().max() > 1e-2
    assert model.network.training and not together.requires_grad
    assert isinstance(model, Samples) and isinstance(model, Denoises) and isinstance(model, Validates)


@pytest.mark.parametrize("sampler", ["ddim", "ddpm"])
@pytest.mark.parametrize("steps", [1, 3, 20])
def test_an_oracle_of_one_image_samples_that_image(sampler: str, steps: int) -> None:
    model = tiny()
    image = batch(n=1).image
    model.network = Oracle(model, 2 * image.double() - 1)  # type: ignore[assignment]
    samples = model.sample(3, seed=0, keys=DiffusionKeys(steps=steps, sampler=sampler))
    torch.testing.assert_close(samples, image.expand(3, -1, -1, -1), atol=1e-3, rtol=0)


def test_eta_is_obeyed_and_ddpm_is_its_end() -> None:
    model = tiny()
    plain, noisy = (model.sample(2, seed=0, keys=DiffusionKeys(steps=4, **settings)) for settings in ({}, {"eta": 1.0}))
    assert torch.equal(plain, model.sample(2, seed=0, keys=DiffusionKeys(steps=4, eta=0.0)))
    assert (plain - noisy).abs().max() > 1e-3
    torch.testing.assert_close(
        noisy, model.sample(2, seed=0, keys=DiffusionKeys(steps=4, sampler="ddpm")), atol=1e-3, rtol=0
    )


def test_each_step_has_noise_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn, normal = [], rng.normal

    def watched(ids: Tensor, shape: tuple[int, ...], *key: Any) -> Tensor:
        drawn.append((ids.tolist(), *key))
        return normal(ids, shape, *key)

    monkeypatch.setattr(rng, "normal", watched)
    tiny().sample(2, seed=5, first=3, keys=DiffusionKeys(steps=4, sampler="ddpm"))  # the last step adds none
    assert drawn == [([3, 4], 5, "x_T"), *(([3, 4], 5, "step", i) for i in range(3))]


class BestForGaussians(nn.Module):
    """The best eps_hat for x0 ~ N(0, s^2), sigma x_t / (alpha^2 s^2 + sigma^2), off by a fixed small pattern."""

    def __init__(self, model: Diffusion, s: float, error: float) -> None:
        super().__init__()
        self.schedule, self.s = model.schedule, s
        self.error = error * torch.randn(model.config.shape, generator=torch.Generator().manual_seed(0))

    def forward(self, x_t: Tensor, t: Tensor) -> Tensor:
        alpha, sigma = (level(t)[:, None, None, None].float() for level in (self.schedule.alpha, self.schedule.sigma))
        return sigma * x_t / (alpha**2 * self.s**2 + sigma**2) + self.error


@pytest.mark.parametrize("schedule", ["cosine", "linear"])
def test_a_small_error_stays_small_without_clipping(schedule: str) -> None:
    """At t = 1 of the cosine schedule 1 / alpha is 80,000: an error of 0.01 would become one of 800."""
    model, s = tiny(schedule=schedule, T=4000, clip_x0=False), 0.3
    samples = {}
    for error in (0.0, 0.01):
        model.network = BestForGaussians(model, s, error)  # type: ignore[assignment]
        samples[error] = 2 * model.sample(64, seed=0, keys=DiffusionKeys(steps=300)) - 1  # Euler steps: order 1
    assert samples[0.0].std().item() == pytest.approx(s, rel=0.03)
    assert (samples[0.01] - samples[0.0]).abs().max() < 0.1


def test_clipping_is_an_option() -> None:
    x_t, t = 3 * torch.randn(2, *SHAPE), torch.ones(2)
    assert tiny().denoise(x_t, t).abs().max() <= 1
    assert tiny(clip_x0=False).denoise(x_t, t).abs().max() > 1


def test_requests_it_cannot_meet_are_refused() -> None:
    model = tiny()
    with pytest.raises(UserError, match="without labels"):
        model.sample(1, seed=0, condition=Condition(torch.tensor([0])))
    with pytest.raises(UserError, match="1 to 20"):
        model.sample(1, seed=0, keys=DiffusionKeys(steps=21))
    with pytest.raises(UserError, match='did you mean "ddim"'):
        make(DiffusionKeys, {"sampler": "dim"})
    with pytest.raises(UserError, match="sampler ddpm takes no eta="):
        model.sample(1, seed=0, keys=DiffusionKeys(steps=2, sampler="ddpm", eta=0.5))
