"""How well a critic tells real images from generated ones, on a scale that all losses share.

    AUROC = P(D(x) > D(G(z))) + P(D(x) = D(G(z))) / 2

over all pairs of a real and a generated image: 1/2 for a critic that knows nothing, 1 for one that is always right.
Logits have a scale and an origin of their own in each loss; their order has neither.
"""

from torch import Tensor


def auroc(*, real: Tensor, fake: Tensor) -> Tensor:
    """Share of the pairs in which the real image has the higher logit: (N,) and (M,) -> scalar; ties count half."""
    return (1 + (real[:, None] - fake).sign().mean()) / 2
