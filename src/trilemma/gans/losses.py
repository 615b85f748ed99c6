"""Adversarial losses as functions of the critic's logits l = D(x), (B,); means over the images, in nats.

Goodfellow et al. (2014), with softplus(l) = -log(1 - sigmoid(l)):
    critic        E softplus(-l_real) + E softplus(l_fake)        2 ln 2 where the critic knows nothing (l = 0)
    generator     E softplus(-l_fake)                             "non-saturating": maximise log D(G(z))
Hinge, Lim & Ye (2017):
    critic        E max(0, 1 - l_real) + E max(0, 1 + l_fake)     2 at l = 0
    generator     -E l_fake
"""

from collections.abc import Callable

from torch import Tensor
from torch.nn import functional as F


def critic_non_saturating(logits_real: Tensor, logits_fake: Tensor) -> Tensor:
    """Binary cross-entropy of real against generated, summed over the two halves."""
    return F.softplus(-logits_real).mean() + F.softplus(logits_fake).mean()


def generator_non_saturating(logits_fake: Tensor) -> Tensor:
    """-log D(G(z))."""
    return F.softplus(-logits_fake).mean()


def critic_hinge(logits_real: Tensor, logits_fake: Tensor) -> Tensor:
    """Only images on the wrong side of their margin count."""
    return F.relu(1 - logits_real).mean() + F.relu(1 + logits_fake).mean()


def generator_hinge(logits_fake: Tensor) -> Tensor:
    """-D(G(z))."""
    return -logits_fake.mean()


CriticLoss = Callable[[Tensor, Tensor], Tensor]
GeneratorLoss = Callable[[Tensor], Tensor]

LOSSES: dict[str, tuple[CriticLoss, GeneratorLoss]] = {
    "non-saturating": (critic_non_saturating, generator_non_saturating),
    "hinge": (critic_hinge, generator_hinge),
}
