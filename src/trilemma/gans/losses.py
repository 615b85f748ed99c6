"""Adversarial losses as functions of the critic's logits l = D(x), (B,); means over the images, in nats.

With softplus(l) = -log(1 - sigmoid(l)); each critic's loss where it knows nothing (l = 0) is on the right:

    minimax           critic      E softplus(-l_real) + E softplus(l_fake)              2 ln 2
    (Goodfellow 2014) generator   -E softplus(l_fake)                                   min E log(1 - D(G(z)))
    non-saturating    critic      as minimax
    (the same)        generator   E softplus(-l_fake)                                   max E log D(G(z))
    least-squares     critic      1/2 E (l_real - 1)**2 + 1/2 E l_fake**2               1/2
    (Mao 2017)        generator   1/2 E (l_fake - 1)**2
    hinge             critic      E max(0, 1 - l_real) + E max(0, 1 + l_fake)           2
    (Lim & Ye 2017)   generator   -E l_fake
    wasserstein       critic      E l_fake - E l_real                                   0
    (Arjovsky 2017)   generator   -E l_fake
    relativistic      critic      E softplus(-(l_real - l_fake))                        ln 2
    (Jolicoeur-       generator   E softplus(-(l_fake - l_real))
    Martineau 2018)               real and generated images in pairs
"""

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor
from torch.nn import functional as F


class Loss(Protocol):
    """The logits of real and of generated images, each (B,) -> scalar."""

    def __call__(self, *, real: Tensor, fake: Tensor) -> Tensor:
        """See the class."""
        ...


@dataclass(frozen=True)
class AdversarialLoss:
    """What each player lowers.

    pairs: whether the generator's loss depends on the logits of real images, too; if not, it is given the generated
    ones twice. probabilities: whether sigmoid(l) is the probability that an image is real. slopes: whether the critic
    needs a bound on its slope, so that batch norm, which ties images together, has no place in it. middle: the logit
    of an image that the critic takes neither for real nor for generated; None where only differences count.
    """

    critic: Loss
    generator: Loss
    pairs: bool = False
    probabilities: bool = False
    slopes: bool = False
    middle: float | None = 0.0


def margins(loss: AdversarialLoss, *, real: Tensor, fake: Tensor) -> Tensor:
    """By how much the critic takes each real image for real: against the middle, or the generated image of its pair."""
    return real - (fake if loss.middle is None else loss.middle)


def cross_entropy(*, real: Tensor, fake: Tensor) -> Tensor:
    """Binary cross-entropy of real against generated, summed over the two halves."""
    return F.softplus(-real).mean() + F.softplus(fake).mean()


def least_squares(*, real: Tensor, fake: Tensor) -> Tensor:
    """Real images are to have 1, generated ones 0."""
    return ((real - 1).square().mean() + fake.square().mean()) / 2


def hinge(*, real: Tensor, fake: Tensor) -> Tensor:
    """Only images on the wrong side of their margin count."""
    return F.relu(1 - real).mean() + F.relu(1 + fake).mean()


def wasserstein(*, real: Tensor, fake: Tensor) -> Tensor:
    """Minus the critic's estimate of the distance."""
    return fake.mean() - real.mean()


def relativistic(*, real: Tensor, fake: Tensor) -> Tensor:
    """The real image of a pair is to have more than the generated one."""
    return F.softplus(fake - real).mean()


def minus_logit(*, real: Tensor, fake: Tensor) -> Tensor:
    """-D(G(z)), of the generators that lower what the critic raises."""
    return -fake.mean()


def minimax_generator(*, real: Tensor, fake: Tensor) -> Tensor:
    """log(1 - D(G(z)))."""
    return -F.softplus(fake).mean()


def non_saturating_generator(*, real: Tensor, fake: Tensor) -> Tensor:
    """-log D(G(z))."""
    return F.softplus(-fake).mean()


def least_squares_generator(*, real: Tensor, fake: Tensor) -> Tensor:
    """Generated images are to have 1."""
    return (fake - 1).square().mean() / 2


def relativistic_generator(*, real: Tensor, fake: Tensor) -> Tensor:
    """The generated image of a pair is to have more than the real one."""
    return relativistic(real=fake, fake=real)


LOSSES: dict[str, AdversarialLoss] = {
    "minimax": AdversarialLoss(cross_entropy, minimax_generator, probabilities=True),
    "non-saturating": AdversarialLoss(cross_entropy, non_saturating_generator, probabilities=True),
    "least-squares": AdversarialLoss(least_squares, least_squares_generator, middle=0.5),
    "hinge": AdversarialLoss(hinge, minus_logit),
    "wasserstein": AdversarialLoss(wasserstein, minus_logit, slopes=True, middle=None),
    "relativistic": AdversarialLoss(relativistic, relativistic_generator, pairs=True, middle=None),
}
