"""StyleGAN2: its phases, its styles and its sampler."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from trilemma import rng
from trilemma.config import make
from trilemma.errors import UserError
from trilemma.gans import style
from trilemma.gans.style import (
    StyleGAN,
    StyleGANConfig,
    StyleKeys,
    mix_styles,
    path_lengths,
    random_layers,
    within_range,
)
from trilemma.run.config import TrainConfig
from trilemma.training import train
from trilemma.training.players import Players
from trilemma.types import Batch, Condition, HasStyles

TINY = {"shape": (1, 8, 8), "latent": 6, "styles": 5, "width": 2}
OF_ONE: dict[str, Any] = {"penalty": "gradient", "deviation_group": 1}  # a penalty on the slope at each image by itself


def tiny(**settings: Any) -> StyleGAN:
    with rng.isolated(0):
        return StyleGAN(make(StyleGANConfig, TINY | settings))


@pytest.fixture(scope="module")
def noisy() -> StyleGAN:
    """With noise inputs that have an effect, and an average style. Not to be changed."""
    gan = tiny()
    for name, parameter in gan.generator.named_parameters():
        if name.endswith("noise_strength"):
            torch.nn.init.constant_(parameter, 0.3)
    gan.start_average([], 0)
    return gan


def batch(n: int = 8, labels: int = 0) -> Batch:
    condition = Condition(torch.arange(n) % labels) if labels else Condition()
    return Batch(rng.uniform(torch.arange(n), (1, 8, 8), 0, "test"), condition)


def draw(gan: StyleGAN, n: int = 3, **keys: Any) -> Tensor:
    return gan.sample(n, seed=3, keys=make(StyleKeys, keys))


# --- phases ---


def test_the_phases_and_who_moves() -> None:
    gan = tiny()
    assert [(phase.name, phase.player.name, phase.every) for phase in gan.phases] == [
        ("critic", "critic", 1),
        ("penalty", "critic", 16),
        ("generator", "generator", 1),
        ("path", "generator", 4),
    ]
    assert [phase.name for phase in tiny(path_weight=0.0, penalty="none").phases] == ["critic", "generator"]
    assert gan.penalty_weight(0.5) == 0.0025 and tiny(**OF_ONE).penalty_weight(0.5) == 10
    assert tiny(penalty_weight=0.7).penalty_weight(0.5) == 0.7


def summed_gradient(gan: StyleGAN, player: str, steps: int) -> list[Tensor]:
    """Of a player over some steps, as the loop adds them up, on one batch with one noise; nobody moves."""
    players = Players(gan, TrainConfig(steps=1), bf16=False)
    who = next(p for p in players.all if p.name == player)
    sums = [torch.zeros_like(p) for p in who.parameters]
    for step in range(steps):
        gan.path_mean.fill_(0.3)
        own = [phase for phase in players.due(step, 0.5) if phase.player is who]
        players.noise.manual_seed(5)
        players.differentiate(who, own, batch())
        for total, parameter in zip(sums, who.parameters, strict=True):
            total += 0 if parameter.grad is None else parameter.grad
    return sums


def test_lazy_r1_has_the_expected_gradient_of_one_in_every_step() -> None:
    every, lazy = (
        summed_gradient(tiny(penalty_every=k, penalty_weight=0.1, path_weight=0.0), "critic", 4) for k in (1, 4)
    )
    for one, other in zip(every, lazy, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)
    without = summed_gradient(tiny(penalty="none", path_weight=0.0), "critic", 4)
    assert max(float((a - b).abs().max()) for a, b in zip(every, without, strict=True)) > 1e-3


def test_lazy_path_lengths_have_the_expected_gradient_of_one_in_every_step() -> None:
    """The phase draws anew: alone in its step or behind the generator's, the same noise would not be the same draw."""
    gans = [tiny(path_every=k) for k in (1, 2)]
    sums = []
    for gan in gans:
        gan.phases = [phase for phase in gan.phases if phase.name == "path"]
        sums.append(summed_gradient(gan, "generator", 2))
    for one, other in zip(*sums, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)
    assert max(float(g.abs().max()) for g in sums[0]) > 1e-3


def test_a_player_with_a_lazy_term_moves_once_a_step_and_needs_no_other_rate_or_betas() -> None:
    """A term in every k-th step counts k times in the one gradient of that step: by moves of its own, as published
    code has them, the optimiser would see k + 1 gradients in k steps, and its rate and betas would have to follow."""
    gan, steps = tiny(penalty_every=2, path_every=2), 4
    players = Players(gan, TrainConfig(steps=steps, optimizer="adam", lr=0.002, betas=(0.0, 0.99)), bf16=False)
    for step in range(steps):
        due = players.due(step, step / steps)
        for player in players.all:
            own = [phase for phase in due if phase.player is player]
            assert len(own) == (2 if step % 2 == 0 else 1)
            players.step(player, players.differentiate(player, own, batch())[1])
    for optimizer in players.optimizers.values():
        assert all(group["betas"] == (0.0, 0.99) for group in optimizer.param_groups)
        assert {int(entry["step"]) for entry in optimizer.state.values()} == {steps}


def test_path_lengths_of_a_linear_generator() -> None:
    """g(w) = sum_l A_l w_l has J_l = A_l: E |A_l^T y|**2 is the squared norm of A_l; for A_l with equal singular values
    s and few of them beside the pixels, |A_l^T y| is about s sqrt(W)."""
    pixels, size = 3 * 20 * 30, 8
    orthogonal = torch.linalg.qr(torch.randn(pixels, size, dtype=torch.float64, generator=rng.generator(0, "a")))[0]
    scales = torch.tensor([2.5, 0.5], dtype=torch.float64)  # of two layers
    styles = torch.zeros(400, 2, size, dtype=torch.float64, requires_grad=True)
    image = (torch.einsum("blw,l->bw", styles, scales) @ orthogonal.T).view(400, 3, 20, 30)
    y = torch.randn(image.shape, dtype=torch.float64, generator=rng.generator(0, "y"))
    lengths, squared = path_lengths(image, styles, y), scales.square().mean()
    exact = (y.flatten(1) @ orthogonal).norm(dim=1) * squared.sqrt() / math.sqrt(600)
    torch.testing.assert_close(lengths, exact)
    assert lengths.square().mean().item() == pytest.approx(squared.item() * size / 600, rel=0.1)


def test_a_generator_that_ignores_its_styles_has_path_lengths_with_finite_gradients() -> None:
    """A root has none at 0."""
    styles = torch.randn(3, 2, 4, dtype=torch.float64, requires_grad=True)
    scale = torch.zeros((), dtype=torch.float64, requires_grad=True)
    image = (scale * styles.sum((1, 2)))[:, None, None, None].expand(3, 1, 4, 4)
    lengths = path_lengths(image, styles, torch.ones_like(image))
    (gradient,) = torch.autograd.grad(lengths.sum(), scale)
    assert not lengths.any() and gradient.isfinite()


def test_path_lengths_are_float32_under_autocast() -> None:
    losses = []
    for bf16 in (False, True):
        gan = tiny()
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            loss, parts = gan.path_loss(batch(8), rng.generator(0, "step"))
        assert loss.dtype == torch.float32
        losses.append(parts["length"].item())
    assert losses[0] == losses[1] > 0


def test_the_path_loss_is_about_the_running_mean_and_on_half_a_batch() -> None:
    gan = tiny()
    sizes = []
    gan.generator.register_forward_pre_hook(lambda _, given: sizes.append(len(given[0])))
    gan.path_mean.fill_(2.0)
    loss, parts = gan.path_loss(batch(8), rng.generator(0, "step"))
    assert sizes == [4]
    assert gan.path_mean.item() == pytest.approx(0.99 * 2 + 0.01 * parts["length"].item(), rel=1e-6)
    assert loss.item() == pytest.approx(2 * parts["loss"].item()) and parts["loss"] > 0
    assert not gan.path_mean.requires_grad and "path_mean" in gan.state_dict()


def test_the_running_mean_of_path_lengths_begins_at_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """So the first loss is the variance of the lengths; about 0 it would be their mean square."""
    gan, seen = tiny(), []
    monkeypatch.setattr(style, "path_lengths", lambda *given: (seen.append(path_lengths(*given)), seen[-1])[1])
    _, parts = gan.path_loss(batch(8), rng.generator(0, "step"))
    lengths = seen[0].detach()
    assert parts["loss"].item() == pytest.approx(lengths.var(correction=0).item(), rel=1e-4)
    assert parts["loss"] < lengths.square().mean() / 2
    assert gan.path_mean.item() == pytest.approx(lengths.mean().item(), rel=1e-6)


def test_path_lengths_are_of_images_from_minus_one_to_one() -> None:
    """The noise is drawn as the loss draws it; by finite differences of the generator's own image."""
    gan = tiny().double()
    layers = gan.generator.n_layers
    styles, noise = (torch.randn(1, *k, dtype=torch.float64) for k in ((layers, 5), (gan.generator.n_noise,)))
    y = torch.randn(1, 1, 8, 8, dtype=torch.float64)

    def projected(styles: Tensor) -> Tensor:
        return ((2 * gan.generator(styles, noise) - 1) * y).sum() / 8

    steps = 1e-6 * torch.eye(5 * layers, dtype=torch.float64).view(-1, layers, 5)
    slopes = torch.stack([(projected(styles + d) - projected(styles - d)) / 2e-6 for d in steps])
    leaf = styles.clone().requires_grad_()
    ours = path_lengths(2 * gan.generator(leaf, noise), leaf, y)
    torch.testing.assert_close(ours[0], slopes.norm() / math.sqrt(layers), rtol=1e-5, atol=0)


def test_a_critic_ties_the_images_of_a_group_and_no_others() -> None:
    """So R1 is of the slope in an image and in those of its group, as published."""
    image = batch(8).image.requires_grad_()
    (slope,) = torch.autograd.grad(tiny(deviation_group=4).critic(image)[0], image)
    assert all(part.any() for part in slope[:4]) and not slope[4:].any()
    (slope,) = torch.autograd.grad(tiny(deviation_group=1).critic(image)[0], image)
    assert slope[0].any() and not slope[1:].any()


# --- styles ---


def test_the_average_style_follows_the_styles_drawn_in_training() -> None:
    gan = tiny(mixing=0.0)
    gan.w_mean.fill_(1.0)
    z = torch.randn(8, 6, generator=rng.generator(0, "step"))
    gan.fake(batch(), None, rng.generator(0, "step"))
    expected = 0.995 + 0.005 * gan.to_w(z).mean(0)
    torch.testing.assert_close(gan.w_mean[0], expected)
    assert not gan.w_mean.requires_grad and "w_mean" in gan.state_dict()
    gan.eval()
    gan.fake(batch(), None, rng.generator(0, "step"))
    torch.testing.assert_close(gan.w_mean[0], expected)


def test_each_class_has_an_average_style_of_its_own() -> None:
    gan = tiny(mixing=0.0, classes=True, n_classes=4)
    label, z = torch.tensor([0, 0, 1, 1, 1, 1, 3, 3]), torch.randn(8, 6, generator=rng.generator(0, "step"))
    gan.fake(batch(), label, rng.generator(0, "step"))
    w = gan.to_w(z, label).detach()
    expected = torch.stack([0.005 * w[:2].mean(0), 0.005 * w[2:6].mean(0), torch.zeros(5), 0.005 * w[6:].mean(0)])
    torch.testing.assert_close(gan.w_mean, expected)
    gan.w_mean.copy_(torch.randn(4, 5))
    images = gan.eval().sample(4, seed=0, keys=StyleKeys(truncation=0.0))  # image k has class k
    torch.testing.assert_close(images, gan.from_w(gan.w_mean, torch.arange(4)).detach())


def test_the_average_style_begins_as_that_of_the_first_weights() -> None:
    gan = tiny()
    phase = next(phase for phase in gan.phases if phase.name == "generator")
    assert phase.start is not None
    phase.start([], 0)
    z = torch.randn(4000, 6, generator=rng.generator(1, "z"))
    with torch.no_grad():
        w = gan.to_w(z)
    error = w.std(0) * math.sqrt(1 / 1000 + 1 / 4000)
    assert ((gan.w_mean - w.mean(0)).abs() < 5 * error).all() and gan.w_mean.abs().max() > 10 * error.max()


def test_random_layers_are_of_a_share_of_the_images() -> None:
    first = random_layers(4000, 6, 0.9, rng.generator(0, "layers"))
    counts = torch.bincount(first, minlength=7)
    assert counts[0] == 0 and counts[6].item() == pytest.approx(400, abs=5 * math.sqrt(4000 * 0.09))
    assert all(count == pytest.approx(720, abs=5 * math.sqrt(4000 * 0.18 * 0.82)) for count in counts[1:6].tolist())
    assert (random_layers(50, 6, 0.0, rng.generator(0, "layers")) == 6).all()


def test_mixed_styles_change_at_the_layer() -> None:
    styles, other = torch.zeros(3, 4, 2), torch.ones(3, 4, 2)
    layers = mix_styles(styles, other, torch.tensor([1, 4, 0]))[:, :, 0]
    assert layers.tolist() == [[0, 1, 1, 1], [0, 0, 0, 0], [1, 1, 1, 1]]


def test_a_pixel_beyond_the_range_can_come_back() -> None:
    image = torch.tensor([-0.5, 0.25, 1.5], requires_grad=True)
    inside = within_range(image)
    torch.testing.assert_close(inside, torch.tensor([0.0, 0.25, 1.0]))
    assert torch.autograd.grad(inside.sum(), image)[0].tolist() == [1, 1, 1]


# --- sampler ---


def test_images_are_those_of_their_styles(noisy: StyleGAN) -> None:
    ids = torch.arange(3)
    z = rng.normal(ids, (6,), 3, "latent")
    assert isinstance(noisy, HasStyles) and noisy.mean_w().shape == (5,)
    torch.testing.assert_close(noisy.from_w(noisy.to_w(z), ids, seed=3), draw(noisy))
    w = noisy.to_w(z[:1]).detach().expand(2, -1).requires_grad_()
    images = noisy.from_w(w)
    torch.testing.assert_close(images[0], images[1])  # the same noise
    assert torch.equal(images, noisy.from_w(w))
    assert images.min() >= 0 and images.max() <= 1
    assert torch.autograd.grad(images.sum(), w)[0].abs().max() > 0


def test_noise_inputs_are_of_the_seed_and_the_number(noisy: StyleGAN) -> None:
    w = noisy.mean_w().expand(3, -1)
    images = noisy.from_w(w, torch.tensor([4, 5, 4]))
    torch.testing.assert_close(images[0], images[2])
    assert (images[0] - images[1]).abs().max() > 1e-3
    assert (noisy.from_w(w, torch.tensor([4, 5, 4]), seed=1) - images).abs().max() > 1e-3


def test_truncation_moves_styles_towards_their_average(noisy: StyleGAN) -> None:
    ids = torch.arange(3)
    torch.testing.assert_close(draw(noisy, truncation=0), noisy.from_w(noisy.mean_w().expand(3, -1), ids, seed=3))
    w = noisy.to_w(rng.normal(ids, (6,), 3, "latent"))
    half = noisy.from_w((w + noisy.mean_w()) / 2, ids, seed=3)
    torch.testing.assert_close(draw(noisy, truncation=0.5), half, atol=1e-5, rtol=0)
    assert torch.equal(draw(noisy), draw(noisy, truncation=1.0))


@pytest.mark.parametrize("layer", [0, 2, 5])
def test_mixing_has_the_styles_of_the_second_seed_from_a_layer_on(noisy: StyleGAN, layer: int) -> None:
    ids = torch.arange(3)
    one, other = (noisy.to_w(rng.normal(ids, (6,), seed, "latent")) for seed in (3, 9))
    styles = torch.stack([other if k >= layer else one for k in range(noisy.generator.n_layers)], dim=1)
    images = noisy.generator(styles, rng.normal(ids, (noisy.generator.n_noise,), 3, "noise")).clamp(0, 1)
    torch.testing.assert_close(draw(noisy, mix=9, mix_from=layer), images)
    assert torch.equal(draw(noisy, mix=9), draw(noisy, mix=9, mix_from=3))
    torch.testing.assert_close(draw(noisy, mix=3), draw(noisy))


def test_classes_pass_through_the_mapping() -> None:
    gan = tiny(classes=True, n_classes=3)
    z = torch.randn(1, 6).expand(3, -1)
    w = gan.to_w(z, torch.arange(3))
    assert w.shape == (3, 5) and (w[0] - w[1]).abs().max() > 1e-3
    gan.start_average([], 0)
    images = gan.sample(4, seed=0)
    torch.testing.assert_close(images, gan.sample(4, seed=0, condition=Condition(torch.tensor([0, 1, 2, 0]))))
    for phase in gan.phases:
        assert phase.loss(batch(labels=3), rng.generator(0, "step"))[0].isfinite()


# --- errors ---


def test_batches_with_which_it_cannot_be_trained_are_refused() -> None:
    with pytest.raises(UserError, match="a batch of 6 cannot be divided into groups of 4 images"):
        tiny().check_batch(6)
    with pytest.raises(UserError, match="path length regularisation takes half a batch"):
        tiny(deviation_group=1).check_batch(1)
    tiny(deviation_group=1, path_weight=0.0).check_batch(1)
    tiny().check_batch(8)


def test_a_training_with_such_a_batch_ends_before_it_begins(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="a batch of 6 cannot be divided"):
        train("gan-style", "digits", out=tmp_path / "run", steps=1, batch=6, quiet=True)
    assert not (tmp_path / "run" / "config.json").exists()


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"mix": 1, "mix_from": 6}, "mix_from=6: the layers of this model are 0 to 5"),
        ({"mix_from": 2}, "mix_from=2 is for a second seed"),
        ({"truncation": -0.5}, "truncation=-0.5"),
    ],
)
def test_keys_of_the_sampler_that_do_not_fit_are_refused(noisy: StyleGAN, keys: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        draw(noisy, **keys)


def test_settings_without_an_effect_are_refused() -> None:
    with pytest.raises(UserError, match="path_every=2 is for a path_weight above 0"):
        tiny(path_weight=0.0, path_every=2)


def test_a_slope_of_1_is_asked_of_critics_that_judge_each_image_by_itself() -> None:
    with pytest.raises(UserError, match="penalty=gradient is for deviation_group=1, as images of a group change"):
        tiny(penalty="gradient")
    with pytest.raises(UserError, match=r"add penalty=gradient and deviation_group=1$"):
        tiny(loss="wasserstein", penalty="none")
    assert tiny(loss="wasserstein", **OF_ONE).config.bounds_slope


@pytest.mark.parametrize("keys", [{}, {"truncation": 0.5}, {"mix": 9, "mix_from": 2}, {"truncation": 0.7, "mix": 9}])
def test_given_styles_are_truncated_and_mixed_as_drawn_ones(noisy: StyleGAN, keys: dict[str, Any]) -> None:
    """Image 0 of seed 0, by its style."""
    w = noisy.to_w(rng.normal(torch.arange(1), (6,), 0, "latent")).detach()
    expected = noisy.sample(1, seed=0, keys=make(StyleKeys, keys)).expand(2, -1, -1, -1)
    torch.testing.assert_close(noisy.from_styles(w.expand(2, -1), make(StyleKeys, keys)), expected)
    with pytest.raises(UserError, match=r"takes floats \(B, 5\)"):
        noisy.from_styles(w[:, :3], StyleKeys())
    with pytest.raises(UserError, match="mix_from=99: the layers of this model are 0 to"):
        noisy.from_styles(w, StyleKeys(mix=1, mix_from=99))
