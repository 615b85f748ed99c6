"""What real and generated images both go through before the critic sees them, so that few images last longer.

Both ways are differentiable, draw a transform for each image, and follow one law for real and for generated images.

differentiable   brightness, saturation, contrast; translation by up to 1/8; a cutout of half a side: always
(Zhao et al. 2020, "Differentiable augmentation for data-efficient GAN training")
adaptive         each of the transforms below with probability p, which follows the critic
(Karras et al. 2020, "Training generative adversarial networks with limited data", section 3, appendix B; there
rotations are by any angle, before and after the aspect, and translations by parts of pixels, too)

A transform that is skipped often enough does not leak into the samples: an operator (1 - p) 1 + p T on distributions
can be inverted as long as none of its eigenvalues is 0. So quarter turns chosen evenly out of four leave 1 - p of what
tells directions apart, and nothing at p = 1. Here p stays below MOST.

    geometry   flip in x; quarter turns where the image is square; translation by whole pixels, up to 1/8 of a side;
               scale s and aspect a, log-normal; rotation, normal
    colours    x in [-1, 1] -> M (x + b), with v = (1, 1, 1) / sqrt(3) (one grey value: v = 1)
               M = c ((1 - 2 f) v v^T + s (cos h (1 - v v^T) + sin h [v]x))
               of brightness b, contrast c, luma flip f, saturation s and hue h; h and s do nothing to a grey value

The transforms of the geometry are one affine map of each image, sampled once between pixels; outside, an image is
reflected. Colours are the first three of at least three channels, or the first of fewer: what remains is an alpha.

The critic overfits where it is sure of the images that it trains on: r = E sign(D(real)) is to be TARGET. Every
INTERVAL batches p moves by one step towards it, as long that the way from 0 to 1 takes IMAGES_TO_MOVE, or SHARE_TO_MOVE
of a training that is too short for that.
"""

import math

import torch
from torch import Tensor, nn

from trilemma.nets.affine import resample, rotation
from trilemma.rng import batch_normal, batch_uniform
from trilemma.whole_batch import batch_total

TARGET = 0.6  # of the mean sign of the logits of real images
INTERVAL = 4  # batches from one move of p to the next
IMAGES_TO_MOVE = 500_000  # in which p goes from 0 to 1
SHARE_TO_MOVE = 0.2  # of a short training, in which it does
MOST = 0.8  # p above which transforms begin to leak
SHIFT = 1 / 8  # of a side
SCALE = 0.2 * math.log(2)  # standard deviations: of the log of scale and aspect
ROTATION = math.pi / 16
BRIGHTNESS, CONTRAST, SATURATION = 0.2, 0.5 * math.log(2), math.log(2)  # of the shift and of the log of the factors


def differentiable(image: Tensor, rng: torch.Generator) -> Tensor:
    """Images (B, C, H, W) in [0, 1], each with its own colours, place and cutout; the range may grow.

    Zhao et al. (2020), section 4, of images in [-1, 1]: brightness + U(-1/2, 1/2), saturation times U(0, 2), contrast
    times U(1/2, 3/2); translation by whole pixels up to 1/8 of a side, with zeros outside; a square of half the sides
    set to zero: grey, and where there is an alpha, transparent.
    """
    u = batch_uniform(7, image, rng)
    colour, rest = _parts(image)
    colour = 2 * colour - 1 + _of_images(u[0] - 0.5)
    mean = colour.mean(1, keepdim=True)
    colour = mean + _of_images(2 * u[1]) * (colour - mean)
    mean = colour.mean((1, 2, 3), keepdim=True)
    colour = mean + _of_images(u[2] + 0.5) * (colour - mean)
    colour, rest = _parts(_cut_out(_translated(torch.cat([colour, rest], 1), u[3], u[4]), u[5], u[6]))
    return torch.cat([(colour + 1) / 2, rest], 1)


class Adaptive(nn.Module):
    """The adaptive transforms, their probability p, and what p follows: all of its state is in buffers."""

    sums_statistics = True  # of the signs, in the critic's loss

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("p", torch.zeros(()))
        self.register_buffer("sums", torch.zeros(3))  # since the last move: signs, images, batches
        self.register_buffer("moved", torch.zeros(()))  # share of the training at the last move
        self.p: Tensor
        self.sums: Tensor
        self.moved: Tensor

    def forward(self, image: Tensor, rng: torch.Generator) -> Tensor:
        """Images (B, C, H, W) in [0, 1], each with its own transforms; the range may grow."""
        return adaptive(image, self.p, rng)

    @torch.no_grad()
    def update(self, margins: Tensor, progress: float) -> None:
        """Count a batch, and after every INTERVAL batches move p.

        Args:
            margins: (B,), above 0 where the critic takes a training image for real; progress: share of the training.
        """
        signs, images = batch_total(
            torch.stack([margins.sign().sum().to(self.p), torch.full_like(self.p, len(margins))])
        )
        self.sums += torch.stack([signs, images, torch.ones_like(self.p)])
        signs, images, batches = self.sums
        due = (batches >= INTERVAL).float()
        step = torch.maximum(images / IMAGES_TO_MOVE, (progress - self.moved) / SHARE_TO_MOVE)
        self.p.add_(due * step * (signs / images - TARGET).sign()).clamp_(0, MOST)
        self.moved.lerp_(torch.full_like(self.moved, progress), due)
        self.sums.mul_(1 - due)


def adaptive(image: Tensor, p: Tensor | float, rng: torch.Generator) -> Tensor:
    """Images (B, C, H, W) in [0, 1], each through every transform with probability p; the range may grow."""
    with torch.autocast(image.device.type, enabled=False):  # bfloat16 has not the bits for a place in an image
        colour, rest = _parts(resample(image, *geometry(image, p, rng)))
        matrix, brightness = colours(colour, p, rng)
        colour = torch.einsum("bij,bjhw->bihw", matrix, 2 * colour - 1 + _of_images(brightness))
        return torch.cat([(colour + 1) / 2, rest], 1)


def geometry(image: Tensor, p: Tensor | float, rng: torch.Generator) -> tuple[Tensor, Tensor]:
    """From where each image is taken: x = A y + b, of pixels (x, y) seen from the centre; (B, 2, 2) and (B, 2)."""
    height, width = image.shape[2:]
    on, u, e = batch_uniform(6, image, rng) < p, batch_uniform(4, image, rng), batch_normal(3, image, rng)
    on[1] &= height == width
    flip = torch.where(on[0] & (u[0] < 0.5), -1.0, 1.0)
    angle = on[1] * (4 * u[1]).floor() * math.pi / 2 + on[2] * ROTATION * e[0]
    scale, aspect = (on[3] * SCALE * e[1]).exp(), (on[4] * SCALE * e[2]).exp()
    shift = on[5] * torch.stack(
        [(SHIFT * n * (2 * v - 1)).round() for n, v in zip((width, height), u[2:], strict=True)]
    )
    sized = torch.stack([flip * scale * aspect, scale / aspect], 1)
    return rotation(angle) * sized[:, None], shift.T


def colours(colour: Tensor, p: Tensor | float, rng: torch.Generator) -> tuple[Tensor, Tensor]:
    """M (B, C, C) and b (B,) of images with C = 1 or 3 colours."""
    n = colour.shape[1]
    on, u, e = batch_uniform(5, colour, rng) < p, batch_uniform(2, colour, rng), batch_normal(3, colour, rng)
    contrast, saturation = (on[1] * CONTRAST * e[1]).exp(), (on[4] * SATURATION * e[2]).exp()
    flip, hue = on[2] & (u[0] < 0.5), on[3] * 2 * math.pi * u[1]
    unit = torch.eye(n, dtype=colour.dtype, device=colour.device)
    luma, after = torch.full_like(unit, 1 / n), unit.roll(1, 0)
    chroma, turn = unit - luma, (after - after.T) / math.sqrt(3)  # 1 - v v^T and [v]x
    matrix = _matrices(saturation * hue.cos()) * chroma + _matrices(saturation * hue.sin()) * turn
    matrix = matrix + _matrices(torch.where(flip, -1.0, 1.0)) * luma
    return _matrices(contrast) * matrix, on[0] * BRIGHTNESS * e[0]


def _translated(image: Tensor, u: Tensor, v: Tensor) -> Tensor:
    """Moved by whole pixels, up to SHIFT of each side, by numbers in [0, 1) for each image; zeros outside."""
    for side, share in ((2, u), (3, v)):
        n = image.shape[side]
        reach = round(SHIFT * n)
        by = ((2 * reach + 1) * share).floor().long() - reach
        index = torch.arange(n, device=image.device) + by[:, None]  # (B, n)
        shape = [len(image), 1, 1, 1]
        shape[side] = n
        inside = ((index >= 0) & (index < n)).view(shape)
        image = image.gather(side, index.clamp(0, n - 1).view(shape).expand_as(image)) * inside
    return image


def _cut_out(image: Tensor, u: Tensor, v: Tensor) -> Tensor:
    """A rectangle of half of each side is zero, around a pixel given by numbers in [0, 1) for each image."""
    rows, columns = (_inside((n * share).floor(), n, image) for n, share in zip(image.shape[2:], (u, v), strict=True))
    return image * ~(rows[:, None, :, None] & columns[:, None, None, :])


def _inside(centre: Tensor, n: int, like: Tensor) -> Tensor:
    """Which of n places are in the half of them around a centre: (B,) -> (B, n)."""
    start = centre[:, None] - n // 2 // 2
    place = torch.arange(n, device=like.device)
    return (place >= start) & (place < start + n // 2)


def _parts(image: Tensor) -> tuple[Tensor, Tensor]:
    """Colours and the other channels."""
    n = 3 if image.shape[1] >= 3 else 1
    return image[:, :n], image[:, n:]


def _of_images(numbers: Tensor) -> Tensor:
    return numbers[:, None, None, None]


def _matrices(numbers: Tensor) -> Tensor:
    return numbers[:, None, None]
