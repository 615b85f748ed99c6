"""A critic of patches (Isola et al. 2017, "Image-to-image translation with conditional adversarial networks", section
3.2): it says of each place of an image how real what it sees there looks."""

from torch import Tensor, nn

from trilemma.nets.precision import full

SLOPE = 0.2  # of the leaky ReLU


class PatchCritic(nn.Module):
    """Image (B, C, H, W) in [0, 1] -> logits (B, h, w), high for real, each of a patch of 18 px."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, width, 4, 2, 1),
            nn.LeakyReLU(SLOPE),
            nn.Conv2d(width, 2 * width, 4, 2, 1),
            nn.GroupNorm(1, 2 * width),
            nn.LeakyReLU(SLOPE),
            nn.Conv2d(2 * width, 1, 3, 1, 1),
        )

    def forward(self, image: Tensor) -> Tensor:
        """Logits of the patches."""
        return full(self.body(2 * image - 1)).squeeze(1)
