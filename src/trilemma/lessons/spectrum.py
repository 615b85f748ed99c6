"""What a diffusion model draws before its network has learned anything: x0_hat = c_skip x_t all the way, which is

    x0 = s eps                of edm: white noise of the standard deviation s of the data
    x0 = D^-1 S D eps         of wiener: noise of their spectrum, S the root mean square of each frequency

The path of a Gaussian is straight in its standard deviation, frequency by frequency (diffusion/spectrum.py), so that
the images of the second row are where a sampler ends, whatever its schedule."""

from typing import TYPE_CHECKING, Annotated

import torch
from pydantic import Field
from torch import Tensor

from trilemma import rng
from trilemma.data import load_data
from trilemma.diffusion.spectrum import Spectrum
from trilemma.pictures.levels import to_float
from trilemma.pictures.table import table
from trilemma.training.prepare import mean_and_spread

if TYPE_CHECKING:
    from PIL import Image

MEASURED = 10_000  # training images behind a spectrum, at most


def spectrum_of(images: Tensor) -> Spectrum:
    """That of uint8 images (N, C, H, W), of MEASURED of them."""
    measured = Spectrum((images.shape[1], images.shape[2], images.shape[3]), 1.0)
    index = torch.linspace(0, len(images) - 1, min(len(images), MEASURED)).long()
    measured.measure(2 * to_float(images[part]) - 1 for part in index.split(256))
    return measured


def coloured_noise(measured: Spectrum, eps: Tensor) -> Tensor:
    """Gaussian images of a spectrum, from white noise (N, C, H, W)."""
    return measured.to_pixels(measured.std * measured.to_frequencies(eps))


def spectrum(
    *, data: str = "digits", size: int | None = None, n: Annotated[int, Field(ge=1)] = 8, seed: int = 0
) -> "Image.Image":
    """A row of held-out images, one of what edm draws without a network, and one of what wiener draws.

    Args:
        data, size: the images; n: how many in a row.
    """
    loaded = load_data(data, size=size)
    images = to_float(loaded.held_out[1].images[:n])
    eps = rng.normal(torch.arange(len(images)), loaded.shape, seed, "spectrum")
    white = mean_and_spread(loaded.train.images)["data_std"] * eps
    rows = {
        "images": images,
        "edm, no network": white.add(1).div(2),
        "wiener, no network": coloured_noise(spectrum_of(loaded.train.images), eps).add(1).div(2),
    }
    pictures = torch.cat(list(rows.values())).clamp(0, 1)
    return table(pictures, list(rows))
