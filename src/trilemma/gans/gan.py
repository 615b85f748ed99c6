"""Generative adversarial networks (Goodfellow et al. 2014): two players, two phases of training.

    min_G max_D  E_x log D(x) + E_z log(1 - D(G(z))),    z ~ N(0, I)

The critic learns to tell images from G(z); the generator learns to be taken for real. Each phase draws its own z.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from trilemma import rng as random
from trilemma.config import Config, ModelConfig
from trilemma.gans.losses import LOSSES
from trilemma.nets import dcgan, mlp
from trilemma.types import UNCONDITIONAL, Batch, Condition, Logs, Model, Phase, Player, check_condition

NETWORKS: dict[str, tuple[type[nn.Module], type[nn.Module]]] = {
    "mlp": (mlp.Generator, mlp.Critic),
    "dcgan": (dcgan.Generator, dcgan.Critic),
    "dcgan-28": (dcgan.Generator28, dcgan.Critic28),
}


class GANConfig(ModelConfig):
    """Settings of a GAN."""

    latent: int = Field(default=100, ge=1, description="numbers in z")
    width: int = Field(default=64, ge=2, description="channels of the stage next to the image; inner stages have more")
    network: Literal["mlp", "dcgan", "dcgan-28"] = Field(
        default="dcgan", description="networks of generator and critic"
    )
    loss: Literal["non-saturating", "hinge"] = Field(default="non-saturating", description="adversarial loss")


class GANKeys(Config):
    """Settings of a GAN's sampler."""

    truncation: float = Field(
        default=1.0, ge=0, description="factor on z; below 1 the images are nearer the average one and less varied"
    )


class GAN(Model):
    """Generator z (B, latent) -> image (B, C, H, W) in [0, 1], and critic image -> logits (B,)."""

    sampling_keys = GANKeys

    def __init__(self, config: GANConfig) -> None:
        super().__init__()
        self.config = config
        generator, critic = NETWORKS[config.network]
        self.generator = generator(config.shape, config.latent, config.width)
        self.critic = critic(config.shape, config.width)
        self.phases = [
            Phase("critic", Player("critic", list(self.critic.parameters())), self.critic_loss),
            Phase("generator", Player("generator", list(self.generator.parameters())), self.generator_loss),
        ]

    @property
    def sampling_network(self) -> nn.Module:
        """The generator: one call per batch of samples."""
        return self.generator

    def critic_loss(self, batch: Batch, rng: torch.Generator) -> tuple[Tensor, Logs]:
        """The critic's turn; parts: loss, and what each half is given on average: d_real and d_fake, the probability of
        being real, or, of a hinge critic, whose logits stand for no probability, logit_real and logit_fake."""
        with torch.no_grad():
            fake = self.generator(self._draw_z(batch, rng))
        logits_real, logits_fake = self.critic(batch.image), self.critic(fake)
        loss = LOSSES[self.config.loss][0](logits_real, logits_fake)
        halves = {"real": logits_real.detach(), "fake": logits_fake.detach()}
        if self.config.loss == "hinge":
            means = {f"logit_{name}": logits.mean() for name, logits in halves.items()}
        else:
            means = {f"d_{name}": logits.sigmoid().mean() for name, logits in halves.items()}
        return loss, {"loss": loss.detach(), **means}

    def generator_loss(self, batch: Batch, rng: torch.Generator) -> tuple[Tensor, Logs]:
        """The generator's turn; part: loss. Gradients pass through the critic and leave none in it."""
        fake = self.generator(self._draw_z(batch, rng))
        with _held(self.critic):
            logits_fake = self.critic(fake)
        loss = LOSSES[self.config.loss][1](logits_fake)
        return loss, {"loss": loss.detach()}

    @torch.no_grad()
    def sample(
        self, n: int, *, seed: int, first: int = 0, condition: Condition = UNCONDITIONAL, keys: GANKeys = GANKeys()
    ) -> Tensor:
        """Images numbered first ... first + n - 1 of `seed`, (n, C, H, W) in [0, 1].

        Raises:
            UserError: for a condition (the model takes none).
        """
        check_condition(condition, n)
        device = next(self.generator.parameters()).device
        z = random.normal(torch.arange(first, first + n), (self.config.latent,), seed, "latent").to(device)
        training = self.generator.training
        try:
            return self.generator.eval()(keys.truncation * z)
        finally:
            self.generator.train(training)

    def _draw_z(self, batch: Batch, rng: torch.Generator) -> Tensor:
        """z ~ N(0, I), (B, latent), on the images' device."""
        n_images = len(batch.image)
        z = torch.randn(n_images, self.config.latent, generator=rng, dtype=torch.float32, device=rng.device)
        return z.to(batch.image.device)


@contextmanager
def _held(network: nn.Module) -> Iterator[None]:
    """What is computed inside gives the network's parameters no gradient, which also saves computing it."""
    parameters = [p for p in network.parameters() if p.requires_grad]
    for p in parameters:
        p.requires_grad_(False)
    try:
        yield
    finally:
        for p in parameters:
            p.requires_grad_(True)
