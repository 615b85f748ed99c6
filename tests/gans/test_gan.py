"""GANs: the networks' sizes, the two turns, and sampling."""

import itertools
import re
from typing import Any, get_args

import pytest
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

import trilemma
from trilemma import rng
from trilemma.config import make
from trilemma.errors import UserError
from trilemma.gans import gan as gan_module
from trilemma.gans.config import NETWORKS, GANConfig, GANKeys
from trilemma.gans.gan import GAN
from trilemma.gans.losses import LOSSES
from trilemma.gans.style import StyleGANConfig
from trilemma.nets import dcgan
from trilemma.nets.critic import Critic, ProjectionCritic
from trilemma.registry import create
from trilemma.run.config import TrainConfig
from trilemma.training.players import Players
from trilemma.types import Batch, Condition, Finishes, Samples
from trilemma.vocabulary import check_sampling_keys

SHAPES = [(1, 8, 8), (3, 28, 28), (4, 32, 32), (1, 31, 45), (3, 64, 64), (1, 8, 128)]

PAIRS = [
    *((network, "non-saturating") for network in NETWORKS),
    *(("mlp", loss) for loss in LOSSES if loss != "non-saturating"),
]


def tiny(network: str = "dcgan", shape: tuple[int, int, int] = (1, 8, 8), **settings: Any) -> GAN:
    bound = {"weight_clip": 1.0} if settings.get("loss") == "wasserstein" else {}
    with rng.isolated(0):
        return GAN(make(GANConfig, {"shape": shape, "latent": 6, "width": 4, "network": network, **bound, **settings}))


def batch(shape: tuple[int, int, int] = (1, 8, 8), n: int = 8) -> Batch:
    return Batch(rng.uniform(torch.arange(n), shape, 0, "test"))


def with_random_weights(gan: GAN) -> GAN:
    """Without weights of 0, with which residual branches start, and before which nothing has a gradient."""
    with torch.no_grad(), rng.isolated(1):
        for p in gan.parameters():
            if not p.any() and p.ndim > 1:
                p.normal_(std=0.1)
    return gan


def count(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


def test_the_config_names_the_networks_and_losses_there_are() -> None:
    assert set(get_args(GANConfig.model_fields["network"].annotation)) == set(NETWORKS)
    assert set(get_args(GANConfig.model_fields["loss"].annotation)) == set(LOSSES)


@pytest.mark.parametrize(("network", "shape"), [*itertools.product(NETWORKS, SHAPES)])
def test_shapes_and_ranges(network: str, shape: tuple[int, int, int]) -> None:
    gan = tiny(network, shape)
    images = gan.generator.eval()(torch.randn(2, 6))
    assert images.shape == (2, *shape)
    assert images.min() >= 0 and images.max() <= 1
    assert gan.critic(images).shape == (2,)


def test_dcgan_at_32_pixels_has_the_widths_of_the_paper() -> None:
    batch_norm = lambda c: 2 * c  # noqa: E731
    project = 100 * 4 * 4 * 256 + batch_norm(256)
    grow = 256 * 128 * 16 + batch_norm(128) + 128 * 64 * 16 + batch_norm(64) + (64 * 3 * 16 + 3)
    assert count(dcgan.Generator((3, 32, 32), 100, 64)) == project + grow
    shrink = (3 * 64 * 16 + 64) + 64 * 128 * 16 + batch_norm(128) + 128 * 256 * 16 + batch_norm(256)
    assert count(dcgan.Critic((3, 32, 32), 64)) == shrink + (4 * 4 * 256 + 1)


def test_dcgan_28_has_the_layers_it_names() -> None:
    generator = 100 * 7 * 7 * 128 + 2 * 128 + (128 * 64 * 9 + 64) + 2 * 64 + (64 * 9 + 1)
    critic = (32 * 25 + 32) + (32 * 64 * 25 + 64) + (64 * 7 * 7 + 1)
    assert count(dcgan.Generator28((1, 28, 28), 100, 64)) == generator
    assert count(dcgan.Critic28((1, 28, 28), 64)) == critic


def test_stages_follow_the_size_and_stop_widening() -> None:
    assert dcgan.stage_widths(8, 8, 64) == [64, 128]
    assert dcgan.stage_widths(28, 28, 64) == dcgan.stage_widths(32, 32, 64) == [64, 128, 256]
    assert dcgan.stage_widths(128, 128, 64) == [64, 128, 256, 512, 512]


def test_a_critic_without_batch_norm_keeps_the_size_of_its_maps() -> None:
    """Mean squares of noise after each stage, without the borders: 1 to within the noise of 64 channels or more."""
    with rng.isolated(0):
        critic = dcgan.Critic((3, 64, 64), 64, batch_norm=False)
    h = torch.randn(8, 3, 64, 64, generator=rng.generator(0, "x"))
    for layer in critic.body:
        h = layer(h)
        if isinstance(layer, nn.LeakyReLU):
            assert h.detach()[..., 1:-1, 1:-1].square().mean().item() == pytest.approx(1, abs=0.35)


def test_a_generator_without_batch_norm_keeps_the_size_of_its_maps() -> None:
    """As the critic's, from z on; every number of an image has the variance 2 / 1.04 before its tanh."""
    generator = dcgan.Generator((3, 64, 64), 100, 64, batch_norm=False)
    assert not any(isinstance(layer, nn.BatchNorm2d) for layer in generator.modules())
    h = generator.project(torch.randn(64, 100, generator=rng.generator(0, "z")))
    for layer in generator.body:
        h = layer(h)
        if isinstance(layer, nn.LeakyReLU):
            assert h.detach()[..., 1:-1, 1:-1].square().mean().item() == pytest.approx(1, abs=0.35)
    assert h.detach()[..., 2:-2, 2:-2].square().mean().item() == pytest.approx(2 / 1.04, rel=0.4)


def test_plain_networks_have_no_norm_whatever_the_loss() -> None:
    for loss in ({}, {"loss": "relativistic", "penalty": "r1r2"}):
        gan = tiny("plain", **loss)
        assert not any(isinstance(layer, nn.BatchNorm2d) for layer in gan.modules())


def test_dcgan_starts_from_narrow_weights() -> None:
    generator = dcgan.Generator((1, 32, 32), 100, 64)
    weights = torch.cat([p.flatten() for p in generator.parameters() if p.ndim > 1])
    assert weights.mean().item() == pytest.approx(0, abs=1e-4)
    assert weights.std().item() == pytest.approx(0.02, rel=0.01)


@pytest.mark.parametrize(("network", "loss"), PAIRS)
def test_each_parameter_gets_a_gradient_from_its_own_turn_only(network: str, loss: str) -> None:
    gan = with_random_weights(tiny(network, loss=loss))
    for phase, other in itertools.permutations(gan.phases, 2):
        gan.zero_grad()
        phase.loss(batch(), rng.generator(0, "step"))[0].backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in phase.player.parameters)
        # both halves pull the critic's last bias equally where only differences count, and inside hinge's margins
        balanced = loss in ("hinge", "wasserstein", "relativistic")
        assert all(
            p.grad is not None and p.grad.any() for p in phase.player.parameters if not (balanced and p.shape == (1,))
        )
        assert all(p.grad is None and p.requires_grad for p in other.player.parameters)
    assert {id(p) for p in gan.parameters()} == {id(p) for player in gan.players for p in player.parameters}


@pytest.mark.slow
@pytest.mark.parametrize("turn", [0, 1])
@pytest.mark.parametrize(("network", "loss"), PAIRS)
def test_each_loss_falls_while_the_other_network_stands_still(network: str, loss: str, turn: int) -> None:
    gan = tiny(network, loss=loss)
    phase, still = gan.phases[turn], gan.phases[1 - turn]
    before = [p.clone() for p in still.player.parameters]
    optimizer = torch.optim.Adam(phase.player.parameters, 0.01)
    losses = []
    for _ in range(60):
        with rng.isolated(0):  # the same dropout in each step
            value, parts = phase.loss(batch(), rng.generator(0, "step"))
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        losses.append(parts["loss"].item())
    assert max(losses[-5:]) < losses[0] - 0.04
    assert all(torch.equal(a, b) for a, b in zip(before, still.player.parameters, strict=True))


def test_parts_are_what_their_names_say() -> None:
    gan = tiny()
    gan.eval()  # the same statistics in both halves
    gan.critic.forward = lambda image: 2 * image.mean(dim=(1, 2, 3))  # type: ignore[method-assign]
    z = torch.randn(8, 6, generator=rng.generator(0, "step"))
    loss, parts = gan.critic_loss(batch(), rng.generator(0, "step"))
    real, fake = (gan.critic(image) for image in (batch().image, gan.generator(z)))
    assert parts["d_real"].item() == pytest.approx(real.sigmoid().mean().item(), abs=1e-6)
    assert parts["d_fake"].item() == pytest.approx(fake.sigmoid().mean().item(), abs=1e-6)
    assert parts["loss"].item() == loss.item() and not parts["loss"].requires_grad
    gan.config = gan.config.with_(loss="hinge")
    parts = gan.critic_loss(batch(), rng.generator(0, "step"))[1]
    assert set(parts) == {"loss", "logit_real", "logit_fake", "auroc"}  # no probabilities
    assert parts["logit_real"].item() == pytest.approx(real.mean().item(), abs=1e-6)
    assert parts["logit_fake"].item() == pytest.approx(fake.mean().item(), abs=1e-6)


@pytest.mark.parametrize("network", NETWORKS)
def test_an_image_does_not_depend_on_its_batch(network: str) -> None:
    gan = tiny(network, (3, 12, 9))
    for step in range(30):  # so that the running statistics are those of the data
        gan.generator(torch.randn(32, 6, generator=rng.generator(0, "z", step)))
    together = gan.sample(7, seed=3, first=2)
    alone = torch.cat([gan.sample(1, seed=3, first=k) for k in range(2, 9)])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)
    assert (together - gan.sample(7, seed=4, first=2)).abs().max() > 1e-3
    assert together.dtype == torch.float32 and not together.requires_grad
    assert gan.generator.training and isinstance(gan, Samples)


def test_temperature_scales_the_latents() -> None:
    gan = tiny()
    z = rng.normal(torch.arange(3), (6,), 0, "latent")
    torch.testing.assert_close(gan.sample(3, seed=0, keys=GANKeys(temperature=0.5)), gan.generator.eval()(0.5 * z))
    assert gan.sample(3, seed=0, keys=GANKeys(temperature=0)).std(0).max() < 1e-6


def test_requests_it_cannot_meet_are_refused() -> None:
    with pytest.raises(UserError, match="without labels"):
        tiny().sample(1, seed=0, condition=Condition(torch.tensor([0])))
    with pytest.raises(UserError, match="temperature=-1: give a number of at least 0"):
        make(GANKeys, {"temperature": -1})


def labelled(n: int = 8) -> Batch:
    return Batch(batch(n=n).image, Condition(torch.arange(n) % 3))


@pytest.mark.parametrize("network", ["dcgan", "plain", "r3"])
def test_an_image_that_cannot_be_halved_twice_is_refused(network: str) -> None:
    with pytest.raises(UserError, match=r"images of 3x8 are too small .*\(dcgan, plain, r3 and style do\).*train gan"):
        GAN(GANConfig(network=network, shape=(1, 3, 8)))


@pytest.mark.parametrize(("network", "fits"), [("dcgan", False), ("dcgan-28", False), ("plain", True), ("r3", True)])
def test_batch_norm_needs_more_than_one_image(network: str, fits: bool) -> None:
    gan = GAN(GANConfig(network=network, width=4, shape=(1, 8, 8)))
    gan.check_batch(2)
    if fits:
        gan.check_batch(1)
    else:
        with pytest.raises(UserError, match="batch=1: batch norm compares the images of a batch"):
            gan.check_batch(1)


@pytest.mark.parametrize(("preset", "all_of_it"), [("gan-wgan", True), ("gan-r3", True), ("gan-wgan-gp", False)])
@pytest.mark.parametrize("network", ["mlp", "dcgan", "dcgan-28", "plain", None])
def test_presets_with_a_bounded_critic_have_no_batch_norm_in_it(preset: str, all_of_it: bool, network: Any) -> None:
    model = create(preset, shape=(1, 16, 16), width=8, **({} if network is None else {"network": network}))
    assert not any(isinstance(module, _BatchNorm) for module in model.critic.modules())
    if network is None and all_of_it:
        assert not any(isinstance(module, _BatchNorm) for module in model.modules())


def test_classes_change_the_image_and_are_obeyed_in_sampling() -> None:
    gan = tiny("mlp", classes=True, n_classes=3)
    first, second = (gan.sample(2, seed=0, condition=Condition(torch.full((2,), k))) for k in (0, 1))
    assert (first - second).abs().amax((1, 2, 3)).min() > 1e-3  # the same z
    assert (first[0] - first[1]).abs().max() > 1e-3
    torch.testing.assert_close(gan.sample(2, seed=0), torch.stack([first[0], second[1]]))  # image k has class k


@pytest.mark.parametrize("network", NETWORKS)
def test_classes_are_projected_on_the_last_features(network: str) -> None:
    """head(phi) + <e_y, phi> / sqrt(F)."""
    gan = tiny(network, classes=True, n_classes=3).eval()
    image, label = batch().image, torch.arange(8) % 3
    critic = gan.critic
    assert isinstance(critic, ProjectionCritic)
    phi = critic.critic.features(image)
    expected = critic.critic.head(phi) + (phi * critic.embedding.weight[label]).sum(1) / critic.critic.n_features**0.5
    torch.testing.assert_close(critic(image, label), expected)
    assert not torch.allclose(critic(image, label), critic(image, label.roll(1)))


def test_a_batch_without_labels_is_refused_where_they_are_needed() -> None:
    gan = tiny("mlp", classes=True, n_classes=3)
    for phase in gan.phases:
        phase.loss(labelled(), rng.generator(0, "step"))
        with pytest.raises(UserError, match="needs the class of each image"):
            phase.loss(batch(), rng.generator(0, "step"))
    with pytest.raises(UserError, match="label 3 is not a class"):
        gan.sample(1, seed=0, condition=Condition(torch.tensor([3])))
    with pytest.raises(UserError, match="classes=true is for images with classes"):
        tiny("mlp", classes=True)


def neighbours(batch: Batch, label: Tensor | None, rng: torch.Generator) -> Tensor:
    """In place of generated images."""
    return batch.image.roll(1, 0)


def players_of(gan: GAN, **settings: Any) -> Players:
    return Players(gan, TrainConfig(steps=1, **settings), bf16=False)


def test_weights_are_clipped_after_each_of_the_critics_steps() -> None:
    gan = tiny("mlp", loss="wasserstein", weight_clip=0.01, critic_steps=5)
    assert [phase.repeats for phase in gan.phases] == [5, 1]
    players = players_of(gan, optimizer="rmsprop", lr=0.1)
    for phase in gan.phases:
        players.step(phase.player, players.differentiate(phase.player, [phase], batch())[1])
    bounds = [p.abs().max().item() for p in gan.critic.parameters()]
    assert max(bounds) == pytest.approx(0.01)
    assert max(p.abs().max().item() for p in gan.generator.parameters()) > 0.01


def linear_critic() -> Critic:
    """The slope is the norm of its weight."""
    critic = Critic(nn.Sequential(nn.Flatten(), nn.Linear(64, 1)))
    with torch.no_grad():
        critic.body[-1].weight.mul_(7)
    return critic


def test_spectral_norm_gives_a_linear_critic_the_slope_1(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(NETWORKS, "mlp", (NETWORKS["mlp"][0], lambda shape, width: linear_critic()))
    critic = tiny("mlp", spectral_norm=True).critic
    image = batch().image
    for _ in range(10):  # of power iteration
        critic(image)
    x = image.requires_grad_()
    (slope,) = torch.autograd.grad(critic(x).sum(), x)
    torch.testing.assert_close(slope.flatten(1).norm(dim=1), torch.ones(8))


@pytest.mark.parametrize("bound", [{"spectral_norm": True}, {"weight_clip": 0.01}])
def test_a_class_counts_beside_bounded_weights_as_the_head_does(bound: dict[str, Any]) -> None:
    """Divided by sqrt(F), here 16, an embedding of at most gain 1, or of numbers up to the bound, would be next to
    nothing."""
    gan = tiny("mlp", width=256, classes=True, n_classes=3, **bound)
    if gan.config.weight_clip:
        players_of(gan, lr=1e-9).step(gan.phases[0].player, torch.ones(()))
    critic = gan.critic
    assert isinstance(critic, ProjectionCritic)
    phi = torch.randn(2_000, critic.critic.n_features, generator=rng.generator(0, "phi"))
    by_class = critic.scale * phi @ critic.embedding.weight.T
    by_head = phi @ critic.critic.body[-1].weight.T
    assert critic.critic.n_features == 256
    assert 0.2 < (by_class.std() / by_head.std()).item() < 5


def test_statistics_of_batch_norms_are_those_of_the_weights_that_are_kept() -> None:
    gan = tiny("dcgan")
    for step in range(3):
        gan.generator(torch.randn(32, 6, generator=rng.generator(0, "z", step)))
    with torch.no_grad():  # other weights than those that the statistics are of
        for p in gan.generator.parameters():
            p.add_(0.3 * torch.randn(p.shape, generator=rng.generator(0, "p", p.numel())))
    z = torch.randn(4_000, 6, generator=rng.generator(1, "z"))
    with torch.no_grad():
        by_batch, before = gan.generator(z), gan.sample(50, seed=0)
    gan.eval()
    assert gan.finish([], seed=0) == {}
    assert not gan.generator.training and gan.generator.body[0].momentum == 0.1
    with torch.no_grad():
        torch.testing.assert_close(gan.generator(z), by_batch, rtol=0, atol=0.1)
        assert (gan.generator(z) - by_batch).abs().mean() < 0.01
    assert (gan.sample(50, seed=0) - before).abs().max() > 0.05
    assert isinstance(gan, Finishes)


@pytest.mark.parametrize("network", ["r3", "dcgan"])
def test_no_image_is_looked_at_at_the_end(network: str) -> None:
    def none():
        raise AssertionError("looked")
        yield

    assert tiny(network, classes=True, n_classes=3).finish(none(), seed=0) == {}


def test_the_penalty_of_both_kinds_is_the_sum_of_both() -> None:
    """Of D(x) = |x|**2 / 2 the slope is x: half of its square is |x|**2 / 2, at real and at generated images."""
    gan = tiny("mlp", penalty="r1r2")
    gan.critic.forward = lambda image: image.flatten(1).square().sum(1) / 2  # type: ignore[method-assign]
    fake = gan.fake(batch(), None, rng.generator(0, "step")).detach()
    squares = [image.flatten(1).square().sum(1).mean().item() / 2 for image in (batch().image, fake)]
    penalty = gan.critic_loss(batch(), rng.generator(0, "step"))[1]["penalty"].item()
    assert penalty == pytest.approx(sum(squares), rel=1e-4) and min(squares) > 1
    only = tiny("mlp", penalty="r1")
    only.critic.forward = gan.critic.forward  # type: ignore[method-assign]
    assert only.critic_loss(batch(), rng.generator(0, "step"))[1]["penalty"].item() == pytest.approx(
        squares[0], rel=1e-4
    )


def test_blocks_that_begin_at_zero_have_no_gain_to_divide_by() -> None:
    with pytest.raises(UserError, match="spectral_norm=true is for networks without layers that begin at zero"):
        tiny("r3", spectral_norm=True)
    with pytest.raises(UserError, match=r"needs a bound .*; add penalty=gradient or weight_clip=0\.01$"):
        make(GANConfig, {"shape": (1, 8, 8), "network": "r3", "loss": "wasserstein"})


BOUNDED = [*({"penalty": name} for name in ("gradient", "r1", "r1r2")), {"weight_clip": 0.01}, {"spectral_norm": True}]


@pytest.mark.parametrize("settings", BOUNDED, ids=str)
def test_images_do_not_share_a_logit_where_slopes_are_bounded(settings: dict[str, Any]) -> None:
    """The gradient of D(x)_i in x_j is 0; batch norm, as published, has one."""
    assert shared_slope(tiny(**settings)) == 0 < shared_slope(tiny())


@pytest.mark.parametrize("preset", ["gan-wgan", "gan-wgan-gp", "gan-r3"])
@pytest.mark.parametrize("augment", ["none", "differentiable"])
def test_images_do_not_share_a_logit_in_any_preset_with_a_bound(preset: str, augment: str) -> None:
    """Nor through what the critic sees them through."""
    gan = create(preset, shape=(1, 8, 8), width=4, latent=4, critic_augment=augment)
    assert isinstance(gan, GAN)
    image = batch().image.requires_grad_()
    (slope,) = torch.autograd.grad(gan.judge(image, None, rng.generator(0, "step"))[0], image)
    assert slope[0].any() and not slope[1:].any()


def shared_slope(gan: GAN) -> float:
    image = batch().image.requires_grad_()
    (slope,) = torch.autograd.grad(gan.critic(image)[0], image)
    assert slope[0].any()
    return slope[1:].abs().max().item()


@pytest.mark.parametrize("penalty", ["r1", "r1r2"])
def test_a_lazy_penalty_is_on_average_the_penalty_of_every_step(penalty: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Gradients of the critic, added up over two steps with the same batch and generated images."""
    totals = []
    for every in (1, 2):
        gan = tiny("mlp", loss="hinge", penalty=penalty, penalty_every=every)
        monkeypatch.setattr(gan, "fake", neighbours)
        players, critic = players_of(gan), gan.players[0]
        steps = []
        for step in range(2):
            due = [phase for phase in players.due(step, 0.0) if phase.player is critic]
            players.differentiate(critic, due, batch())
            steps.append(torch.cat([p.grad.flatten().clone() for p in critic.parameters if p.grad is not None]))
        assert torch.allclose(*steps) == (every == 1)
        totals.append(sum(steps))
    torch.testing.assert_close(*totals)


def test_the_gradient_penalty_is_taken_at_a_place_of_its_own_for_each_image(monkeypatch: pytest.MonkeyPatch) -> None:
    places: list[Tensor] = []
    original = gan_module.gradient_penalty
    monkeypatch.setattr(
        gan_module, "gradient_penalty", lambda critic, u, **images: [places.append(u), original(critic, u, **images)][1]
    )
    tiny("mlp", penalty="gradient").critic_loss(batch(n=32), rng.generator(0, "step"))
    (u,) = places
    assert u.shape == (32,) and len(u.unique()) == 32 and 0 <= u.min() < 0.2 and 0.8 < u.max() < 1


@pytest.mark.parametrize(("penalty", "times"), [("r1", 1), ("r1r2", 2), ("gradient", 1)])
def test_a_lazy_penalty_shows_the_critic_what_it_penalises_and_nothing_else(penalty: str, times: int) -> None:
    """Of D(x) = 3 x_1, whose slope is 3: 9 / 2 for each kind of image, or (3 - 1)**2 between them."""
    gan, shown = tiny("mlp", penalty=penalty, penalty_every=2), list[Tensor]()
    gan.critic.forward = lambda x: [shown.append(x), 3 * x.flatten(1)[:, 0]][1]  # type: ignore[method-assign]
    parts = gan.penalty_loss(batch(), rng.generator(0, "step"))[1]
    assert len(shown) == times
    assert parts["loss"].item() == pytest.approx({"r1": 4.5, "r1r2": 9.0, "gradient": 4.0}[penalty])


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"penalty_weight": 2.0}, "penalty_weight=2 is for penalty=gradient, r1 or r1r2"),
        ({"penalty_every": 4}, "penalty_every=4 is for penalty=gradient, r1 or r1r2"),
        ({"group": 8}, "group=8 is for network=r3"),
        ({"classes": True}, "classes=true is for images with classes; the data has none"),
        ({"loss": "wasserstein", "weight_clip": None}, "loss=wasserstein needs a bound on the critic's slope; add "
         "penalty=gradient, weight_clip=0.01 or spectral_norm=true"),
    ],
)  # fmt: skip
def test_what_has_no_effect_is_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=re.escape(words)):
        tiny("mlp", **settings)


@pytest.mark.parametrize("key", ["spectral_norm", "weight_clip"])
def test_style_networks_take_no_bound_on_their_weights(key: str) -> None:
    with pytest.raises(UserError, match=f"{key}=.* is for networks whose weights are used as they are"):
        make(StyleGANConfig, {"shape": (1, 8, 8), key: {"spectral_norm": True, "weight_clip": 0.01}[key]})


def test_the_weight_of_a_penalty_falls_along_a_cosine() -> None:
    gan = tiny("mlp", penalty="r1", penalty_weight=2.0, penalty_end=0.1)
    assert [gan.penalty_weight(t) for t in (0.0, 0.5, 1.0)] == pytest.approx([2.0, 1.1, 0.2])
    assert tiny("mlp", penalty="r1").penalty_weight(0.7) == 1
    losses = []
    for progress in (0.0, 1.0):
        loss, parts = gan.critic_loss(Batch(batch().image, progress=progress), rng.generator(0, "step"))
        losses.append((loss - parts["loss"]).item() / parts["penalty"].item())
    assert losses == pytest.approx([2.0, 0.2], rel=1e-3)
    with pytest.raises(UserError, match=r"penalty_end=0\.5 is for penalty="):
        tiny(penalty_end=0.5)


@pytest.mark.parametrize(
    "settings", [{"penalty": "r1r2"}, {"penalty": "gradient"}, {"penalty": "r1", "penalty_every": 2}]
)
def test_penalties_are_float32_under_autocast(settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """The same to the bit, of the same images: those of the generator may be drawn in bfloat16."""
    gan = tiny("dcgan", **settings)
    monkeypatch.setattr(gan, "fake", neighbours)
    values = []
    for bf16 in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            phase = gan.phases[1 if "penalty_every" in settings else 0]
            loss, parts = phase.loss(batch(), rng.generator(0, "step"))
        assert loss.dtype == torch.float32
        values.append(parts["loss" if "penalty_every" in settings else "penalty"].item())
    assert values[0] == values[1] > 0


def test_the_average_of_the_weights_is_the_generators_alone() -> None:
    players = players_of(tiny("mlp"), ema_halflife_images=100)
    assert players.ema is not None
    assert players.ema.average and all(name.startswith("generator.") for name in players.ema.average)


def test_what_only_styles_take_is_refused_with_the_models_that_have_them(tmp_path) -> None:
    run = trilemma.train("gan", "digits", steps=1, batch=32, out=tmp_path / "run", quiet=True)
    for key in ("truncation", "mix", "mix_from"):
        with pytest.raises(UserError, match=rf'"{key}", which is for gan-style; .*drawing from gan takes temperature$'):
            run.sample(1, **{key: 1})
        with pytest.raises(UserError, match=rf'"{key}", which is for gan-style; .*drawing from gan takes temperature$'):
            check_sampling_keys("gan", "sample", ["seed"], [key])
    with pytest.raises(UserError, match=r'"truncaton" \(did you mean "truncation"\?\)'):
        check_sampling_keys("gan-style", "sample", ["seed"], ["truncaton"])
