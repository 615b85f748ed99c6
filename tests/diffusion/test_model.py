"""The pixel model: its loss against the definition, labels that are dropped, and samples."""

import math
from collections.abc import Iterable
from typing import Any, Literal, get_args, get_origin

import pytest
import torch
from torch import Tensor, nn

from trilemma import rng as random
from trilemma.config import Config, make
from trilemma.diffusion.config import PixelDiffusionConfig
from trilemma.diffusion.grids import GRIDS, times_of
from trilemma.diffusion.model import PixelDiffusion
from trilemma.diffusion.prediction import PREDICTIONS
from trilemma.diffusion.samplers import SAMPLERS
from trilemma.diffusion.sampling import DiffusionSampling
from trilemma.diffusion.schedule import SCHEDULES, get_schedule
from trilemma.diffusion.weighting import DENSITIES, WEIGHTINGS
from trilemma.errors import UserError
from trilemma.tokeniser import BYTES, PADDING
from trilemma.types import NO_GUIDES, UNCONDITIONAL, Batch, Condition, Guides

SLOW = pytest.mark.slow
SMALL = {"shape": (1, 8, 8), "width": 8, "depth": 1}


def small(**settings) -> PixelDiffusion:
    torch.manual_seed(0)
    of_unet = {"multipliers": (1, 2)} if settings.get("network") != "dit" else {}
    return PixelDiffusion(make(PixelDiffusionConfig, SMALL | of_unet | settings))


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def images(n: int = 6, shape=(1, 8, 8)) -> Tensor:
    return torch.rand(n, *shape, generator=generator(1))


class Zero(nn.Module):
    """Predicts nothing."""

    def forward(self, x: Tensor, level: Tensor, embedded: Tensor | None) -> Tensor:
        return torch.zeros_like(x)


class Exact(nn.Module):
    """The output that gives a constant image back, for a prediction over a schedule."""

    def __init__(self, model: PixelDiffusion, image: Tensor) -> None:
        super().__init__()
        self.model, self.image, self.weight = model, image, nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor, level: Tensor, embedded: Tensor | None) -> Tensor:
        t = self.model.schedule.t_of(-2 * level.double().cpu())
        alpha, sigma = self.model.schedule.alpha(t), self.model.schedule.sigma(t)
        rows = (alpha, sigma, *PREDICTIONS[self.model.prediction](alpha, sigma, self.model.data_std))
        alpha, sigma, skip, out, inside = (row[:, None, None, None].float() for row in rows)
        x_t = x / inside
        return (self.x0_hat(x_t, alpha, sigma) - skip * x_t) / out

    def x0_hat(self, x_t: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """What the output amounts to."""
        return self.image


class Linear(Exact):
    """The output that gives the best estimate of white images: their mean given x_t, if they are Gaussian."""

    def x0_hat(self, x_t: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        return alpha * self.model.data_std**2 / ((alpha * self.model.data_std) ** 2 + sigma**2) * x_t


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_the_loss_of_the_exact_output_is_zero(prediction: str, schedule: str) -> None:
    model = small(prediction=prediction, schedule=schedule, density="logit-normal")
    image = images(1)
    model.network = Exact(model, 2 * image - 1)
    loss, logs = model.loss(Batch(image.expand(12, -1, -1, -1)), generator())
    assert float(loss) < 1e-4
    assert set(logs) == {"loss", "loss_clean", "loss_middle", "loss_noisy"}


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("weighting", ["uniform", "min-snr"])
def test_the_error_of_a_linear_estimate_stands_beside_that_of_the_network(prediction: str, weighting: str) -> None:
    """Of a network that says what the linear estimate says it is the same; of edm and wiener, one that says nothing."""
    model = small(prediction=prediction, weighting=weighting, density="logit-normal", data_std=0.6)
    model.network, batch = Linear(model, torch.zeros(())), Batch(images(12))
    values = model.validation(batch, generator())
    torch.testing.assert_close(values["denoising_mse"], values["linear_denoising_mse"], rtol=2e-3, atol=1e-6)
    model.network = Zero()
    values = model.validation(batch, generator())
    close = torch.allclose(values["denoising_mse"], values["linear_denoising_mse"], rtol=1e-4)
    assert close == (prediction in ("edm", "wiener"))


@pytest.mark.parametrize("prediction", ["edm", "v"])
def test_the_affine_estimate_of_white_images_has_the_best_error_whatever_their_mean(prediction: str) -> None:
    """E|x0 - x0_hat|^2 = sigma^2 s^2 / (alpha^2 s^2 + sigma^2) for a mean that is known; the output of edm is in units
    of its root, so that it is 1 at every time. About 0 it would be (sigma^2 (m^2 + s^2) / s^2 + alpha^2 s^2) /
    (alpha^2 s^2 + sigma^2), up to 50 for these images."""
    mean, std, n = -0.7, 0.1, 4000
    model = small(prediction=prediction, density="logit-normal", data_mean=mean, data_std=std)
    model.network = Zero()
    x0 = mean + std * torch.randn(n, 1, 8, 8, generator=generator(2))
    linear = model.validation(Batch((x0 + 1) / 2), generator())["linear_denoising_mse"]
    t = DENSITIES["logit-normal"]((torch.arange(n, dtype=torch.float64) + 0.5) / n, get_schedule("cosine"), 0.0, 1.0)
    alpha, sigma = model.schedule.alpha(t), model.schedule.sigma(t)
    least = sigma**2 * std**2 / (alpha**2 * std**2 + sigma**2)
    expected = (least / PREDICTIONS[prediction](alpha, sigma, std).out ** 2).mean()
    assert float(linear.mean()) == pytest.approx(float(expected), rel=0.03)
    assert float(expected) == pytest.approx(1) or prediction == "v"


def test_the_thirds_of_the_loss_are_by_noise() -> None:
    """An output that is off by 1 where sigma > alpha, t > 1/2 on this schedule: in none, half and all of the thirds."""
    model = small(density="uniform", schedule="cosine")
    image = images(1)
    exact = Exact(model, 2 * image - 1)
    model.network.forward = lambda x, level, given: exact(x, level, None) + (level > 0).to(x)[:, None, None, None]
    _, logs = model.loss(Batch(image.expand(999, -1, -1, -1)), generator())
    thirds = [float(logs[f"loss_{name}"][0] / logs[f"loss_{name}"][1]) for name in ("clean", "middle", "noisy")]
    assert thirds == pytest.approx([0, 0.5, 1], abs=0.01)


@pytest.mark.parametrize("weighting", WEIGHTINGS)
def test_the_loss_is_the_weighted_error_of_the_image(weighting: str) -> None:
    """A network that gives 0 has x0_hat = c_skip x_t; the mean over many draws of w |x0_hat - x0|**2 in closed form."""
    model = small(weighting=weighting, prediction="v", density="logit-normal", density_std=0.5)
    n = 20_000
    image = torch.full((n, 1, 1, 1), 0.8)
    model.network = Zero()
    loss = float(model.loss(Batch(image), generator())[0])
    u = (torch.arange(n, dtype=torch.float64) + 0.5) / n
    t = DENSITIES["logit-normal"](u, model.schedule, 0.0, 0.5)
    alpha, sigma = model.schedule.alpha(t), model.schedule.sigma(t)
    skip, out, _ = PREDICTIONS["v"](alpha, sigma, 0.5)
    error = (skip * alpha - 1) ** 2 * 0.6**2 + skip**2 * sigma**2
    weight = WEIGHTINGS[weighting](2 * (alpha / sigma).log(), out, 0.5)
    assert loss == pytest.approx(float((weight * error).mean()), rel=0.05)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        pytest.param({"network": "dit", "width": 32, "patch": 2, "depth": 2}, marks=SLOW),
        pytest.param(
            {"schedule": "edm", "density": "log-normal", "density_mean": -1.2, "density_std": 1.2, "weighting": "edm"},
            marks=SLOW,
        ),
        pytest.param({"schedule": "flow", "prediction": "flow", "density": "logit-normal"}, marks=SLOW),
        pytest.param({"classes": True, "n_classes": 3}, marks=SLOW),
    ],
)
def test_the_loss_falls_and_each_parameter_gets_a_gradient(settings) -> None:
    model = small(**settings)
    batch = Batch(images(1).expand(16, -1, -1, -1), Condition(torch.arange(16) % 3))
    optimizer, losses = torch.optim.Adam(model.parameters(), 3e-3), []
    for step in range(25):
        loss, _ = model.loss(batch, generator(step))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert sum(losses[-5:]) < 0.9 * sum(losses[:5])
    gradients = [p.grad for p in model.parameters()]
    assert all(g is not None and g.isfinite().all() for g in gradients)
    assert all(g.abs().sum() > 0 for g in gradients)


def test_labels_are_dropped_image_by_image() -> None:
    model = small(classes=True, n_classes=3, label_dropout=0.3)
    labels = torch.arange(30_000) % 3
    messages: list[Tensor] = []
    model.embedding.register_forward_pre_hook(lambda module, given: messages.append(given[0]))
    model.network = Zero()
    model.loss(Batch(torch.zeros(30_000, 1, 1, 1), Condition(labels)), generator())
    dropped = messages[0] == 3
    assert (messages[0][~dropped] == labels[~dropped]).all()
    bound = 4 * math.sqrt(0.3 * 0.7 / 30_000)
    assert float(dropped.float().mean()) == pytest.approx(0.3, abs=bound)
    assert 0.4 < float((dropped[1:] != dropped[:-1]).float().mean()) < 0.44  # 2 x 0.3 x 0.7: no runs


WITH_NOISE = [("ddim", 1.0), ("ddim", 0.5), ("dpm++2m", 1.0)]


@pytest.mark.parametrize(
    ("sampler", "eta"),
    [
        (name, eta) if name == "unipc" else pytest.param(name, eta, marks=SLOW)
        for name, eta in [*((name, None) for name in SAMPLERS), *WITH_NOISE]
    ],
)
@pytest.mark.parametrize("network", ["unet", pytest.param("dit", marks=SLOW)])
def test_an_image_does_not_depend_on_its_batch(sampler: str, eta: float | None, network: str) -> None:
    more = {"network": "dit", "width": 16, "patch": 4, "depth": 1, "heads": 2} if network == "dit" else {}
    model = small(**more, classes=True, n_classes=3)
    keys = DiffusionSampling(steps=4, sampler=sampler, guidance=2.0, **({} if eta is None else {"eta": eta}))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator(5)))
    whole = model.sample(5, seed=3, keys=keys)
    parts = torch.cat([model.sample(2, seed=3, keys=keys), model.sample(3, seed=3, first=2, keys=keys)])
    torch.testing.assert_close(whole, parts, atol=1e-4, rtol=0)
    assert whole.min() >= 0 and whole.max() <= 1 and whole.flatten(1).std(1).min() > 0


@pytest.mark.parametrize("sampling", SCHEDULES)
@pytest.mark.parametrize(
    ("training", "prediction"), [("cosine", "edm"), ("edm", "edm"), ("flow", "flow"), ("linear", "v")]
)
@pytest.mark.parametrize("shift", [pytest.param(1.0, marks=pytest.mark.slow), 2.0])
def test_schedules_can_be_swapped_after_training(training: str, prediction: str, sampling: str, shift: float) -> None:
    """A network that knows the posterior mean of N(0, s**2) draws along the exact path of any schedule, on which x_t is
    in proportion to its standard deviation. It is told the ratio of sigma and alpha, whatever they are."""
    s, n = 0.2, 64
    model = small(schedule=training, prediction=prediction, shift=shift, clip_x0=False).double()

    def network(x: Tensor, level: Tensor, embedded: Tensor | None) -> Tensor:
        alpha, sigma = model.schedule.alpha(at := model.schedule.t_of(-2 * level)), model.schedule.sigma(at)
        rows = PREDICTIONS[prediction](alpha, sigma, model.data_std)
        skip, out, inside = (part[:, None, None, None] for part in rows)
        x_t, gain = x / inside, (alpha * s**2 / (alpha**2 * s**2 + sigma**2))[:, None, None, None]
        return (gain - skip) / out * x_t

    model.network.forward = network
    keys = DiffusionSampling(steps=80, schedule=sampling, sampler="dpm++2m")
    schedule = get_schedule(sampling, shift)
    alpha, sigma = (float(level(times_of("auto", schedule, 80)[0])) for level in (schedule.alpha, schedule.sigma))
    x_T = sigma * random.normal(torch.arange(n), (1, 8, 8), 0, "x_T")
    exact = x_T * s / math.sqrt(alpha**2 * s**2 + sigma**2)
    x0 = 2 * model.sample(n, seed=0, keys=keys) - 1
    torch.testing.assert_close(x0.float(), exact.clamp(-1, 1), atol=2e-3, rtol=0)


@pytest.mark.parametrize(
    ("kind", "key", "names"),
    [
        (PixelDiffusionConfig, "schedule", SCHEDULES),
        (PixelDiffusionConfig, "prediction", PREDICTIONS),
        (PixelDiffusionConfig, "weighting", WEIGHTINGS),
        (PixelDiffusionConfig, "density", DENSITIES),
        (DiffusionSampling, "sampler", ["auto", *SAMPLERS]),
        (DiffusionSampling, "grid", [*GRIDS, "optimised"]),
    ],
)
def test_a_key_takes_every_name_that_there_is(kind: type[Config], key: str, names: Iterable[str]) -> None:
    annotation = kind.model_fields[key].annotation
    literals = [one for one in get_args(annotation) if get_origin(one) is Literal] or [annotation]  # or None
    assert {name for literal in literals for name in get_args(literal)} == set(names)


def test_the_noise_levels_follow_the_contrast_of_the_data() -> None:
    settings = {
        "density": "log-normal",
        "density_mean": -1.0,
        "density_std": 0.7,
        "schedule": "edm",
        "prediction": "x0",
    }
    for std in (0.5, 0.25, None):
        model = small(**settings, data_std=std)
        levels: list[Tensor] = []
        model.network.forward = lambda x, level, embedded, levels=levels: (levels.append(level), x)[1]
        model.loss(Batch(torch.rand(4000, 1, 1, 1)), generator())
        expected = -1.0 + math.log((std or 0.5) / 0.5)
        assert [float(levels[0].mean()), float(levels[0].std())] == pytest.approx([expected, 0.7], abs=0.01)
    assert small(density="logit-normal", density_mean=-1.0, data_std=0.1).density_mean == -1


def test_guided_images_stay_in_range() -> None:
    """Strong and weak are far apart: what leads away from the weak one would end far outside of [-1, 1]."""
    model = small(classes=True, n_classes=2, prediction="x0")
    with torch.no_grad():
        model.embedding.weight.normal_(generator=generator())
    model.network.forward = lambda x, level, given: 0 * x + given.vector.mean(1)[:, None, None, None].sign()
    seen: list[Tensor] = []
    keys = DiffusionSampling(guidance=5.0, steps=2)
    model.sample(4, seed=0, keys=keys, watch=lambda at, x_t, x0_hat: seen.append(x0_hat))
    schedule = model.schedule
    asked = Condition(torch.tensor([0, 1]))
    denoise = model._guided_denoiser(asked, 2, schedule, keys, NO_GUIDES)
    x0_hat = denoise(torch.zeros(2, 1, 8, 8), torch.full((2,), 0.5))
    assert x0_hat.abs().max() == 1 and seen
    free = small(classes=True, n_classes=2, prediction="x0", clip_x0=False)
    free.load_state_dict(model.state_dict())
    free.network.forward = model.network.forward
    with torch.no_grad():  # the null label at -1, the classes at 1: -1 + 5 x 2
        for of_model in (model, free):
            of_model.embedding.weight.fill_(1.0)[2] = -1
    for of_model, value in ((model, 1), (free, 9)):
        denoise = of_model._guided_denoiser(asked, 2, schedule, keys, NO_GUIDES)
        assert denoise(torch.zeros(2, 1, 8, 8), torch.full((2,), 0.5)).unique().tolist() == [value]


def test_a_classifier_leads_where_the_estimate_is_outside_the_range() -> None:
    """A clipped estimate has no gradient: nothing would be led away from black."""

    class Bright(nn.Module):
        n_classes = 2

        def forward(self, image: Tensor) -> Tensor:
            total = image.flatten(1).sum(1)
            return torch.stack([-total, total], 1)

    model = small(prediction="x0")
    model.network.forward = lambda x, level, given: 0.1 * x - 1.5
    keys = DiffusionSampling(classifier="auto", classifier_scale=10.0)
    label, x_t = torch.tensor([1]), torch.zeros(1, 1, 8, 8)
    at = torch.full((1,), 0.7)
    alone = model.denoiser(model.schedule, UNCONDITIONAL, 1)(x_t, at)
    led = model._guided_denoiser(Condition(label), 1, model.schedule, keys, Guides(classifier=Bright()))(x_t, at)
    assert (alone == -1).all() and (led > -1).all()


def test_what_cannot_be_asked_for() -> None:
    with pytest.raises(UserError, match="trained with label_dropout=0; give guide=RUN"):
        model = small(classes=True, n_classes=3, label_dropout=0.0)
        model.sample(1, seed=0, keys=DiffusionSampling(guidance=2.0))
    with pytest.raises(UserError, match=r"dropout=0.1 is for network=unet"):
        small(network="dit", width=16, dropout=0.1)
    with pytest.raises(UserError, match="guidance=2 needs a model trained with classes=true"):
        small().sample(1, seed=0, keys=DiffusionSampling(guidance=2.0))
    with pytest.raises(UserError, match=r"sampler=huen: give one of auto, ddim, .*heun"):
        make(DiffusionSampling, {"sampler": "huen"})
    with pytest.raises(UserError, match="sampler heun takes no eta="):
        make(DiffusionSampling, {"sampler": "heun", "eta": 0.5})
    with pytest.raises(UserError, match="patch=3 does not divide images of 8x8"):
        small(network="dit", patch=3, width=16)
    with pytest.raises(UserError, match=r"spelling_p=0.1 is for captions=true"):
        small(spelling_p=0.1)


def test_captions_are_dropped_image_by_image() -> None:
    model = small(captions=True, words=("a", "red", "circle"), label_dropout=0.3)
    n = 20_000
    condition = model.drop_condition(Condition(caption=["a red circle"] * n), generator(), 0.3)
    assert condition.caption is not None
    dropped = torch.tensor([text == "" for text in condition.caption])
    assert set(condition.caption) == {"", "a red circle"}
    assert float(dropped.float().mean()) == pytest.approx(0.3, abs=4 * math.sqrt(0.3 * 0.7 / n))
    assert 0.39 < float((dropped[1:] != dropped[:-1]).float().mean()) < 0.45


def tokens_read(model: PixelDiffusion, monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """The tokens of captions, as they are read from now on."""
    seen, forward = list[Tensor](), model.text.forward

    def watched(tokens: Tensor, absent: Tensor) -> Any:
        seen.append(tokens)
        return forward(tokens, absent)

    monkeypatch.setattr(model.text, "forward", watched)
    return seen


@pytest.mark.slow
def test_words_are_spelled_each_by_itself_in_training_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Words that keep their token are binomial in each caption: 3 with probability 0.7, of variance 3 * 0.7 * 0.3."""
    model = small(captions=True, words=("a", "red", "circle"), spelling_p=0.3, label_dropout=0.0)
    model.network, n, caption = Zero(), 1000, "a red circle"
    seen = tokens_read(model, monkeypatch)
    batch = Batch(torch.zeros(n, 1, 8, 8), Condition(caption=[caption] * n))
    model.loss(batch, generator(5))
    kept = (seen[0] > BYTES).sum(1).double()
    assert float(kept.mean()) == pytest.approx(3 * 0.7, abs=4 * math.sqrt(3 * 0.21 / n))
    assert float(kept.var()) == pytest.approx(3 * 0.21, rel=0.18)  # 4 standard deviations are 4 sqrt(2 / n)
    assert {model.tokeniser.decode(row.tolist()) for row in seen[0]} == {caption}
    model.loss(batch, generator(5))
    assert torch.equal(seen[0], seen[1])
    model.eval().validation(batch, generator(5))
    model.sample(2, seed=0, condition=Condition(caption=[caption] * 2), keys=DiffusionSampling(steps=1))
    assert all(((tokens > BYTES).sum(1) == 3).all() for tokens in seen[2:]) and len(seen) == 5


def test_bytes_are_learned_where_words_are_spelled() -> None:
    """Words that are all in the vocabulary give the bytes no gradient, unless some are spelled."""
    for spelling_p in (0.0, 0.5):
        model = small(captions=True, words=("red", "circle"), spelling_p=spelling_p)
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.2, generator=generator())
        model.loss(Batch(images(), Condition(caption=["red circle"] * 6)), generator())[0].backward()
        moved = model.text.tokens.weight.grad.abs().sum(1) > 0
        letters = {1 + byte for byte in b"redcil"} | {1 + ord(" ")}
        taught = set(moved[: BYTES + 1].nonzero()[:, 0].tolist()) - {PADDING}
        assert taught <= letters and moved[BYTES + 1 :].all()
        assert len(taught) > 3 if spelling_p else not taught


def test_noise_is_as_before_where_nothing_is_spelled() -> None:
    rng = generator()
    assert small().spell(4, rng, 0.0) is None and torch.equal(rng.get_state(), generator().get_state())


@pytest.mark.parametrize("network", [{}, {"network": "dit", "width": 32, "patch": 4, "depth": 1, "heads": 2}])
def test_a_caption_is_looked_at(network: dict[str, Any]) -> None:
    """Both ways into the network: the vector, and the tokens alone."""
    model = small(captions=True, words=("a", "red", "blue", "circle"), **network).double()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2, generator=generator())
    x, t = torch.zeros(2, *model.config.shape).double(), torch.tensor([0.5, 0.5])

    def drawn(*captions: str) -> Tensor:
        return model.denoise(x, t, Condition(caption=list(captions)))

    one, other = drawn("a red circle", "a blue circle")
    assert (one - other).abs().max() > 1e-4
    torch.nn.init.zeros_(model.text_vector.weight)
    one, other = drawn("a red circle", "a blue circle")
    assert (one - other).abs().max() > 1e-6
    assert torch.allclose(drawn("a red circle", "")[0], one)
