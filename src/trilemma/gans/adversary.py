"""A critic that compares what a model of another family draws with real images, beside the loss of that model.

    critic   E softplus(-(D(x) - D(x'))) + PENALTY_WEIGHT (r1 + r2),    x real and x' drawn, in pairs
    model    E softplus(-(D(x') - D(x)))

The relativistic loss with a penalty on the slope at either kind of image is that of Huang et al. (2024, "The GAN is
dead; long live the GAN!"), which has one equilibrium and needs no tricks. D is that of `gan-dcgan` with network=plain;
with classes it is told that of each image.
"""

import torch
from torch import Tensor, nn

from trilemma.gans.losses import LOSSES
from trilemma.gans.penalties import TWICE, zero_centred
from trilemma.gans.separation import auroc
from trilemma.modes import without_gradients
from trilemma.nets import dcgan
from trilemma.nets.critic import ProjectionCritic
from trilemma.types import Logs

LOSS = LOSSES["relativistic"]
PENALTY_WEIGHT = 0.05


class Adversary(nn.Module):
    """A critic with its own loss, and the loss that it gives a model.

    Args:
        shape: of images, (C, H, W); width: channels of the critic's largest map; n_classes: 0 for none.
    """

    whole_because = TWICE

    def __init__(self, shape: tuple[int, int, int], width: int, n_classes: int = 0) -> None:
        super().__init__()
        critic = dcgan.Critic(shape, width, batch_norm=False)
        self.critic = ProjectionCritic(critic, n_classes) if n_classes else critic

    def critic_loss(self, label: Tensor | None, *, real: Tensor, fake: Tensor) -> tuple[Tensor, Logs]:
        """The critic's turn, in float32: the penalty squares gradients.

        Args:
            label: (B,), of both kinds of images; None without classes.
            real, fake: images (B, C, H, W) in [0, 1], which drawn ones may leave.
        Returns:
            The loss; parts: loss without the penalty, auroc (of real against drawn images), penalty before its weight.
        """
        real, fake = (image.detach().requires_grad_() for image in (real, fake))
        with torch.autocast(real.device.type, enabled=False):
            of_real, of_fake = self._judge(real, label), self._judge(fake, label)
            loss = LOSS.critic(real=of_real, fake=of_fake)
            penalty = zero_centred(of_real, real) + zero_centred(of_fake, fake)
        separation = auroc(real=of_real.detach(), fake=of_fake.detach())
        parts = {"loss": loss.detach(), "auroc": separation, "penalty": penalty.detach()}
        return loss + PENALTY_WEIGHT * penalty, parts

    def model_loss(self, label: Tensor | None, *, real: Tensor, fake: Tensor) -> Tensor:
        """The model's turn; arguments as `critic_loss`. Gradients pass through the critic and leave none in it."""
        with without_gradients(self):
            return LOSS.generator(real=self._judge(real, label), fake=self._judge(fake, label))

    def _judge(self, image: Tensor, label: Tensor | None) -> Tensor:
        """Logits (B,) of images (B, C, H, W)."""
        return self.critic(image) if label is None else self.critic(image, label)
