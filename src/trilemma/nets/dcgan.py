"""Convolutional generators and critics. Generators: z (B, latent) -> image in [0, 1]; critics: image -> logits (B,).

`Generator` and `Critic` are those of Radford, Metz & Chintala (2016), "Unsupervised representation learning with deep
convolutional generative adversarial networks", for any size: S = max(2, round(log2(min(H, W) / 4))) stages, each
doubling the size from a base grid of ceil(H / 2**S) x ceil(W / 2**S), cropped at the end. At 32x32 and width 64:

    z -> 4x4x256 -> 8x8x128 -> 16x16x64 -> 32x32xC       k4 s2 p1, batch norm + ReLU, tanh
    32x32xC -> 16x16x64 -> 8x8x128 -> 4x4x256 -> 1       k4 s2 p1, LeakyReLU 0.2, batch norm but in the first

Their tanh and their input live in [-1, 1]; the change of range is inside. `Generator28` and `Critic28` are the smaller
pair for 28x28 (two stages, sigmoid). No bias stands right before a batch norm, which would remove it.
"""

import math
from itertools import pairwise

from torch import Tensor, nn

from trilemma.errors import UserError
from trilemma.nets import critic
from trilemma.nets.conv import centre_crop
from trilemma.nets.precision import full

MAX_CHANNELS = 512
INIT_STD = 0.02
SLOPE = 0.2  # of LeakyReLU below 0
SMALLEST = 4  # px: two halvings


def stage_widths(height: int, width_px: int, width: int) -> list[int]:
    """Channels of the stages from the image inwards: width, 2 width, 4 width, ... (at most MAX_CHANNELS).

    Raises:
        UserError: if the image is too small to be halved twice.
    """
    if min(height, width_px) < SMALLEST:
        raise UserError(
            f"images of {height}x{width_px} are too small for a network that halves them twice (dcgan, plain, r3 and "
            f"style do); give images of {SMALLEST} px and more, or train gan"
        )
    stages = max(2, round(math.log2(min(height, width_px) / 4)))
    return [min(width * 2**i, MAX_CHANNELS) for i in range(stages)]


class Generator(nn.Module):
    """DCGAN's generator: z (B, latent) -> image (B, C, H, W) in [0, 1].

    Args:
        batch_norm: as published. Without, there is none, every stage has a bias and LeakyReLU 0.2, and weights begin so
            wide that maps keep their mean square.
    """

    def __init__(self, shape: tuple[int, int, int], latent: int, width: int, *, batch_norm: bool = True) -> None:
        super().__init__()
        channels, self.size = shape[0], shape[1:]
        widths = stage_widths(*self.size, width)[::-1]
        self.project = _project(latent, widths[0], self.size, 2 ** len(widths))
        layers = _after(widths[0], batch_norm)
        for c_in, c_out in pairwise(widths):
            layers += [nn.ConvTranspose2d(c_in, c_out, 4, 2, 1, bias=not batch_norm), *_after(c_out, batch_norm)]
        self.body = nn.Sequential(*layers, nn.ConvTranspose2d(widths[-1], channels, 4, 2, 1))
        self.apply(_init if batch_norm else _init_by_inputs)

    def forward(self, z: Tensor) -> Tensor:
        """(B, latent) -> (B, C, H, W) in [0, 1]."""
        h = centre_crop(self.body(self.project(z)), *self.size)
        return (full(h).tanh() + 1) / 2


class Critic(critic.Critic):
    """DCGAN's discriminator: image (B, C, H, W) in [0, 1] -> logits (B,), high for real.

    Args:
        batch_norm: as published. Without, images do not change each other's logits, weights begin so wide that maps
            keep their mean square, and every stage has a bias.
    """

    def __init__(self, shape: tuple[int, int, int], width: int, *, batch_norm: bool = True) -> None:
        widths = stage_widths(*shape[1:], width)
        layers: list[nn.Module] = [nn.Conv2d(shape[0], widths[0], 4, 2, 1), nn.LeakyReLU(0.2, inplace=True)]
        for c_in, c_out in pairwise(widths):
            layers += [nn.Conv2d(c_in, c_out, 4, 2, 1, bias=not batch_norm)]
            layers += [*([nn.BatchNorm2d(c_out)] if batch_norm else []), nn.LeakyReLU(0.2, inplace=True)]
        height, width_px = (n // 2 ** len(widths) for n in shape[1:])
        super().__init__(nn.Sequential(*layers, nn.Flatten(), nn.Linear(widths[-1] * height * width_px, 1)))
        self.apply(_init if batch_norm else _init_by_inputs)

    def features(self, image: Tensor) -> Tensor:
        """(B, C, H, W) in [0, 1] -> the last map, (B, n_features)."""
        return super().features(2 * image - 1)


class Generator28(nn.Module):
    """Linear to H/4 x W/4, two transposed convolutions (k3 s2 p1 op1), sigmoid: z -> image (B, C, H, W)."""

    def __init__(self, shape: tuple[int, int, int], latent: int, width: int) -> None:
        super().__init__()
        channels, self.size = shape[0], shape[1:]
        self.project = _project(latent, 2 * width, self.size, 4)
        self.body = nn.Sequential(
            nn.BatchNorm2d(2 * width),
            nn.ConvTranspose2d(2 * width, width, 3, 2, 1, output_padding=1),
            nn.ReLU(),
            nn.BatchNorm2d(width),
            nn.ConvTranspose2d(width, channels, 3, 2, 1, output_padding=1),
        )

    def forward(self, z: Tensor) -> Tensor:
        """(B, latent) -> (B, C, H, W) in [0, 1]."""
        return centre_crop(self.body(self.project(z)), *self.size).float().sigmoid()


class Critic28(critic.Critic):
    """Two convolutions (k5 s2 p2), each with ReLU and dropout 0.4, and a linear layer: image -> logits (B,)."""

    def __init__(self, shape: tuple[int, int, int], width: int) -> None:
        height, width_px = (math.ceil(n / 4) for n in shape[1:])
        super().__init__(
            nn.Sequential(
                nn.Conv2d(shape[0], width // 2, 5, 2, 2),
                nn.ReLU(inplace=True),
                nn.Dropout(0.4),
                nn.Conv2d(width // 2, width, 5, 2, 2),
                nn.ReLU(inplace=True),
                nn.Dropout(0.4),
                nn.Flatten(),
                nn.Linear(width * height * width_px, 1),
            )
        )


def _project(latent: int, channels: int, size: tuple[int, int], factor: int) -> nn.Sequential:
    """z (B, latent) -> (B, channels, ceil(H / factor), ceil(W / factor))."""
    height, width_px = (math.ceil(n / factor) for n in size)
    linear = nn.Linear(latent, channels * height * width_px, bias=False)
    return nn.Sequential(linear, nn.Unflatten(1, (channels, height, width_px)))


def _after(channels: int, batch_norm: bool) -> list[nn.Module]:
    """What follows a stage of the generator."""
    if batch_norm:
        return [nn.BatchNorm2d(channels), nn.ReLU(inplace=True)]
    return [nn.LeakyReLU(SLOPE, inplace=True)]


def _init_by_inputs(layer: nn.Module) -> None:
    """Weights under which maps keep their mean square through LeakyReLU 0.2 (He et al. 2015, eq. 15); biases at 0.

    A transposed convolution of stride s has 1 / s**2 of its kernel's numbers behind a pixel of each of its inputs.
    """
    if isinstance(layer, nn.Conv2d | nn.Linear):
        nn.init.kaiming_normal_(layer.weight, a=SLOPE)
    elif isinstance(layer, nn.ConvTranspose2d):
        inputs = layer.weight[:, 0].numel() / math.prod(layer.stride)
        nn.init.normal_(layer.weight, std=math.sqrt(2 / (1 + SLOPE**2) / inputs))
    if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d | nn.Linear) and layer.bias is not None:
        nn.init.zeros_(layer.bias)


def _init(layer: nn.Module) -> None:
    """Weights from N(0, 0.02**2) as in the paper; biases start at 0."""
    if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
        nn.init.normal_(layer.weight, std=INIT_STD)
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)
