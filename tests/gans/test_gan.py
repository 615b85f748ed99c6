"""GANs: the networks' sizes, the two turns, and sampling."""

import itertools
from typing import Any, get_args

import pytest
import torch
from torch import nn

from trilemma import rng
from trilemma.config import make
from trilemma.errors import UserError
from trilemma.gans.gan import GAN, NETWORKS, GANConfig, GANKeys
from trilemma.gans.losses import LOSSES
from trilemma.nets import dcgan
from trilemma.types import Batch, Condition, Samples

SHAPES = [(1, 8, 8), (3, 28, 28), (4, 32, 32), (1, 31, 45), (3, 64, 64), (1, 8, 128)]

PAIRS = [*((network, "non-saturating") for network in NETWORKS), *(("mlp", loss) for loss in LOSSES)]


def tiny(network: str = "dcgan", shape: tuple[int, int, int] = (1, 8, 8), **settings: Any) -> GAN:
    with rng.isolated(0):
        return GAN(make(GANConfig, {"shape": shape, "latent": 6, "width": 4, "network": network, **settings}))


def batch(shape: tuple[int, int, int] = (1, 8, 8), n: int = 8) -> Batch:
    return Batch(rng.uniform(torch.arange(n), shape, 0, "test"))


def count(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


def test_the_config_names_the_networks_and_losses_there_are() -> None:
    assert set(get_args(GANConfig.model_fields["network"].annotation)) == set(NETWORKS)
    assert set(get_args(GANConfig.model_fields["loss"].annotation)) == set(LOSSES)


@pytest.mark.parametrize(("network", "shape"), [*itertools.product(NETWORKS, SHAPES)])
def test_shapes_and_ranges(network: str, shape: tuple[int, int, int]) -> None:
    gan = tiny(network, shape)
    images = gan.generator(torch.randn(2, 6))
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


def test_dcgan_starts_from_narrow_weights() -> None:
    generator = dcgan.Generator((1, 32, 32), 100, 64)
    weights = torch.cat([p.flatten() for p in generator.parameters() if p.ndim > 1])
    assert weights.mean().item() == pytest.approx(0, abs=1e-4)
    assert weights.std().item() == pytest.approx(0.02, rel=0.01)


@pytest.mark.parametrize(("network", "loss"), PAIRS)
def test_each_parameter_gets_a_gradient_from_its_own_turn_only(network: str, loss: str) -> None:
    gan = tiny(network, loss=loss)
    for phase, other in itertools.permutations(gan.phases, 2):
        gan.zero_grad()
        phase.loss(batch(), rng.generator(0, "step"))[0].backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in phase.player.parameters)
        # both halves pull the critic's last bias equally where only differences count, and inside hinge's margins
        balanced = loss in ("hinge", "wasserstein", "relativistic")
        assert all(p.grad.any() for p in phase.player.parameters if not (balanced and p.shape == (1,)))
        assert all(p.grad is None and p.requires_grad for p in other.player.parameters)
    assert {id(p) for p in gan.parameters()} == {id(p) for player in gan.players for p in player.parameters}


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


def test_truncation_scales_the_latents() -> None:
    gan = tiny()
    z = rng.normal(torch.arange(3), (6,), 0, "latent")
    torch.testing.assert_close(gan.sample(3, seed=0, keys=GANKeys(truncation=0.5)), gan.generator.eval()(0.5 * z))
    assert gan.sample(3, seed=0, keys=GANKeys(truncation=0)).std(0).max() < 1e-6


def test_requests_it_cannot_meet_are_refused() -> None:
    with pytest.raises(UserError, match="without labels"):
        tiny().sample(1, seed=0, condition=Condition(torch.tensor([0])))
    with pytest.raises(UserError, match="truncation=-1: give a number of at least 0"):
        make(GANKeys, {"truncation": -1})
