"""What critics have in common: features of an image, a linear layer on them, and one more for its class.

    D(x) = head(phi(x)),    D(x, y) = head(phi(x)) + <e_y, phi(x)>    (Miyato & Koyama 2018, eq. 3)

with phi(x) the F features before the last layer and e_y an embedding of the class, which begins as N(0, I / F). It is
stored as sqrt(F) e_y ~ N(0, I), which optimisers move as they move other embeddings; as e_y itself where all weights
have a bound, which would leave next to nothing of it.
"""

import math

from torch import Tensor, nn

from trilemma.nets.precision import full


class Critic(nn.Module):
    """Image (B, C, H, W) in [0, 1] -> logits (B,), high for real; `body` ends with a linear layer of one output."""

    whole_because: str | None = None

    def __init__(self, body: nn.Sequential) -> None:
        super().__init__()
        self.body = body

    @property
    def n_features(self) -> int:
        """Before the last layer."""
        last = self.body[-1]
        assert isinstance(last, nn.Linear)
        return last.in_features

    def forward(self, image: Tensor) -> Tensor:
        """(B, C, H, W) in [0, 1] -> logits (B,)."""
        return self.head(self.features(image))

    def features(self, image: Tensor) -> Tensor:
        """(B, C, H, W) in [0, 1] -> (B, n_features)."""
        return self.body[:-1](image)

    def head(self, features: Tensor) -> Tensor:
        """(B, n_features) -> logits (B,)."""
        return full(self.body[-1](features)).flatten()


class ProjectionCritic(nn.Module):
    """A critic that is told the class of each image.

    Args:
        bounded: whether the weights are to be clipped, or divided by their gain.
    """

    whole_because: str | None = None

    def __init__(self, critic: Critic, n_classes: int, *, bounded: bool = False) -> None:
        super().__init__()
        self.critic, self.embedding = critic, nn.Embedding(n_classes, critic.n_features)
        self.scale = 1 / math.sqrt(critic.n_features)
        if bounded:
            nn.init.normal_(self.embedding.weight, std=self.scale)
            self.scale = 1.0

    def forward(self, image: Tensor, label: Tensor | None = None) -> Tensor:
        """(B, C, H, W) in [0, 1], label (B,) -> logits (B,); without labels, their mean over the classes."""
        features = self.critic.features(image)
        embedded = self.embedding.weight.mean(0) if label is None else self.embedding(label)
        projected = self.scale * full(features * embedded).sum(1)
        return self.critic.head(features) + projected
