"""Images that a denoiser is given beside a noisy one, as channels of their own.

upscale   a smaller image, enlarged by bilinear interpolation          (Saharia et al. 2021, "Image super-resolution via
          iterative refinement", section 2). In training each image is shrunk by the mean over factor x factor pixels
inpaint   the mask, and the image where the mask is 0                  (Rombach et al. 2022, section 4.5). In training
          the mask is a rectangle, each side of it uniform over the image, or in a share OUTSIDE of the images all
          but that, or in a share WHOLE all of the image

Larger images than those of the training are enlarged tile by tile: at each step x0_hat is the mean over all tiles that
hold a pixel, with weights that fall to the edge of a tile, so that all parts are drawn in the light of their neighbours
(Bar-Tal et al. 2023, "MultiDiffusion: fusing diffusion paths for controlled image generation", eq. 5).
"""

import math
from collections.abc import Callable, Sequence
from itertools import product

import torch
import torch.nn.functional as F
from torch import Tensor

from trilemma.diffusion.steps import Denoise

WHOLE = 0.1  # share of training images of which nothing is known
OUTSIDE = 0.25  # share of the other images of which a rectangle is known
OVERLAP = 0.5  # share of a tile that the next one covers, at least
MOST_NUMBERS = 2**18  # in the tiles that are denoised together: 334 of 28 px in grey, 21 of 64 px in colour


def shrink(image: Tensor, factor: int) -> Tensor:
    """The mean over factor x factor pixels: (B, C, H, W) -> (B, C, H / factor, W / factor)."""
    return F.avg_pool2d(image, factor)


def enlarge(image: Tensor, factor: int) -> Tensor:
    """Bilinear: (B, C, h, w) -> (B, C, factor h, factor w)."""
    return F.interpolate(image, scale_factor=factor, mode="bilinear")


def mask_planes(image: Tensor, mask: Tensor) -> Tensor:
    """x (B, C, H, W) and a mask (B, 1, H, W) -> (B, 1 + C, H, W): the mask, and x where that is 0."""
    return torch.cat([mask, image * (1 - mask)], dim=1)


def draw_masks(n: int, size: tuple[int, int], rng: torch.Generator) -> Tensor:
    """Rectangles, 1 where pixels are to be drawn: float32 (n, 1, *size) on the generator's device."""
    u = torch.rand(n, 6, generator=rng, dtype=torch.float32, device=rng.device)
    sides = []
    for low, high, side in ((u[:, 0], u[:, 1], size[0]), (u[:, 2], u[:, 3], size[1])):
        first, last = (torch.minimum(low, high) * side).floor(), (torch.maximum(low, high) * side).ceil()
        place = torch.arange(side, device=rng.device)
        sides.append((place >= first[:, None]) & (place < last[:, None]))
    inside = (sides[0][:, :, None] & sides[1][:, None, :]) ^ (u[:, 5] < OUTSIDE)[:, None, None]
    return (inside | (u[:, 4] < WHOLE)[:, None, None]).float()[:, None]


def places_of(side: int, tile: int, step: int) -> list[int]:
    """Where tiles begin along a side, multiples of `step`, the last one at its end; neighbours overlap by OVERLAP.

    >>> places_of(64, 28, 4), places_of(28, 28, 4)
    ([0, 12, 24, 36], [0])
    """
    apart = max(step, int(tile * (1 - OVERLAP)) // step * step)
    n = math.ceil((side - tile) / apart)
    return [round(k * (side - tile) / (max(n, 1) * step)) * step for k in range(n + 1)]


def window(tile: tuple[int, int]) -> Tensor:
    """Weights of the pixels of a tile, float32 (1, 1, *tile): 1 in the middle, least at the corners, never 0."""
    rows, columns = (1 - (2 * (torch.arange(n) + 0.5) / n - 1).abs() * (1 - 1 / n) for n in tile)
    return (rows[:, None] * columns[None, :]).float()[None, None]


def tile_denoiser(
    denoise_at: Callable[[Sequence[tuple[int, int]]], Denoise],
    size: tuple[int, int],
    tile: tuple[int, int],
    step: int,
    together: int,
) -> Denoise:
    """The denoiser of whole images, of those of tiles.

    Args:
        denoise_at: the denoiser of the tiles whose corners are at some (top, left): of B images at the first, then of B
            at the second, and so on.
        size, tile: (height, width), px; step: px, of which all corners are multiples.
        together: tiles that are denoised in one call, at most.
    """
    tops, lefts = (places_of(whole, part, step) for whole, part in zip(size, tile, strict=True))
    corners = list(product(tops, lefts))
    groups = [corners[k : k + together] for k in range(0, len(corners), together)]
    denoisers, weight = [(group, denoise_at(group)) for group in groups], window(tile)

    def denoise(x_t: Tensor, t: Tensor) -> Tensor:
        total, weights = torch.zeros_like(x_t), torch.zeros_like(x_t[:1, :1])
        w = weight.to(x_t)
        for group, denoise_group in denoisers:
            areas = [(..., slice(top, top + tile[0]), slice(left, left + tile[1])) for top, left in group]
            x0_hat = denoise_group(torch.cat([x_t[area] for area in areas]), t.repeat(len(group)))
            for area, part in zip(areas, x0_hat.split(len(x_t)), strict=True):
                total[area] += w * part
                weights[area] += w
        return total / weights

    return denoise
