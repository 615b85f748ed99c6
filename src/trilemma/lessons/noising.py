"""One image at several noise levels, x_t = alpha x0 + sigma eps, and the image again from x_t and a noise:

    x0 = (x_t - sigma eps) / alpha                                    (Ho, Jain & Abbeel 2020, section 3.2)

The true noise gives the image back exactly at every t below 1. A noise that is off by d gives an image that is off by
d sigma / alpha: little where there is little noise, everything near t = 1."""

from typing import TYPE_CHECKING, Annotated, NamedTuple

import torch
from pydantic import Field, NonNegativeFloat, NonNegativeInt
from torch import Tensor

from trilemma import rng
from trilemma.data import load_data
from trilemma.diffusion.schedule import Schedule, get_schedule, log_snr
from trilemma.diffusion.steps import of_images
from trilemma.errors import UserError
from trilemma.keys import OneOrMore
from trilemma.pictures.levels import to_float
from trilemma.pictures.table import table

if TYPE_CHECKING:
    from PIL import Image

Inside = Annotated[float, Field(gt=0, lt=1)]


class Noised(NamedTuple):
    """At each of T times, float64 (T, C, H, W): the noisy image, and the clean one from the true and from a wrong
    noise."""

    x_t: Tensor
    exact: Tensor
    off: Tensor


def noised(x0: Tensor, schedule: Schedule, times: Tensor, off: float, seed: int) -> Noised:
    """An image (C, H, W) in [-1, 1] with one noise at several times (T,).

    Args:
        off: standard deviation of what is wrong with the wrong noise.
    """
    alpha, sigma = (of_images(level(times)) for level in (schedule.alpha, schedule.sigma))
    eps, error = (rng.normal(torch.zeros(1).long(), tuple(x0.shape), seed, what).double() for what in ("eps", "off"))
    x_t = alpha * x0.double() + sigma * eps
    return Noised(x_t, (x_t - sigma * eps) / alpha, (x_t - sigma * (eps + off * error)) / alpha)


def noising(
    *,
    data: str = "digits",
    image: NonNegativeInt = 0,
    schedule: str = "cosine",
    times: OneOrMore[Inside] = (0.05, 0.2, 0.35, 0.5, 0.65, 0.8, 0.9, 0.97),
    off: NonNegativeFloat = 0.05,
    seed: int = 0,
) -> "Image.Image":
    """A row of the noisy image, one of the image from the true noise, and one from a noise that is slightly wrong.

    Args:
        data, image: which image: its number in the held-out split.
        off: standard deviation of the error in the last row's noise, whose own is 1.
    """
    levels_of, at = get_schedule(schedule), torch.tensor(times, dtype=torch.float64)
    x0 = 2 * _image(data, image) - 1
    result = noised(x0, levels_of, at, off, seed)
    size = of_images((levels_of.alpha(at).square() + levels_of.sigma(at).square()).sqrt())
    rows = {
        "x_t, and its log-SNR": (
            result.x_t / size,
            [f"{round(level, 1) + 0.0:g}" for level in log_snr(levels_of, at).tolist()],
        ),
        "x0 from the true noise: largest error": (result.exact, _texts((result.exact - x0).abs().amax((1, 2, 3)))),
        f"from a noise off by {off:g}: RMSE": (result.off, _texts((result.off - x0).square().mean((1, 2, 3)).sqrt())),
    }
    pictures = torch.cat([images for images, _ in rows.values()])
    texts = [text for _, row in rows.values() for text in row]
    return table(pictures.add(1).div(2).clamp(0, 1), list(rows), [f"t = {t:g}" for t in times], texts)


def _image(data: str, number: int) -> Tensor:
    """A held-out image (C, H, W) in [0, 1]."""
    split, part = load_data(data).held_out
    if number >= len(part):
        raise UserError(f"image {number} not found in the {split} split of {data}: choose from 0 to {len(part) - 1}")
    return to_float(part.images[number])


def _texts(errors: Tensor) -> list[str]:
    return [f"{error:.1g}" if error < 0.001 else f"{error:.3f}" for error in errors.tolist()]
