"""How an image comes out of noise: the noisy image x_t and the estimate x0_hat of the clean one at each step of a
sampler, as a picture and an animation.

x_t is shown divided by sqrt(alpha^2 + sigma^2), the standard deviation that it would have for data of variance 1, so
that schedules which add noise without shrinking the image are seen, too.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import torch
from pydantic import Field
from torch import Tensor

from trilemma.errors import check_finite
from trilemma.explore.images import run_receipt
from trilemma.keys import Caption, Film, FilmFormat, Label, Picture, Seed
from trilemma.modes import own_modes
from trilemma.pictures.animation import animated, check_film, frame
from trilemma.pictures.table import table
from trilemma.results import Results, place, with_keys
from trilemma.run.compute import one_algorithm
from trilemma.run.run import RunLike, as_run, end_of
from trilemma.types import Denoises, draw
from trilemma.values import checked_call

if TYPE_CHECKING:
    from PIL import Image

DEFAULTS = {"n": 1, "seed": 0, "first": 0, "frames": 10}  # of the keys that are not None
LENGTH_MS, LEAST_MS, REST_MS = 3000, 40, 1500  # of the animation without its end, a step of it at least, and its end


@dataclass(frozen=True)
class Denoising:
    """The picture, the animation if there is one, and what they show.

    times: of the network's calls, from noise to 0; x_t, x0_hat: (len(times), n, C, H, W) in [0, 1]; at 0 both are the
    images that are drawn.
    """

    picture: Path
    animation: Path | None
    times: tuple[float, ...]
    x_t: Tensor
    x0_hat: Tensor


@checked_call
@own_modes()
def denoise(
    run: RunLike,
    *,
    n: Annotated[int, Field(ge=1, le=64, description="number of images")] = 1,
    seed: Seed = 0,
    first: Annotated[int, Field(ge=0, description="number of the first image, as for sample")] = 0,
    label: Label = None,
    caption: Caption = None,
    frames: Annotated[int, Field(ge=2, description="steps shown in a row, including both ends")] = 10,
    animate: Annotated[bool, Field(description="also write an animation of every step")] = True,
    film: FilmFormat = "gif",
    out: Picture = None,
    **settings: Any,
) -> Denoising:
    """Draw images as `sample` does, and show them step by step: the noisy image over the estimate of the clean one.

    Args:
        first: number of the first image; image k of a seed is the one that `sample` draws.
        frames: steps in a row of the picture, spread over all of them; the animation has every step.
        out: the picture to write; default: RUN/denoising.png, with the given keys in its name. The animation lies
            beside it, with the ending of its format.
        settings: of the model's sampler, see `Run.sample`.
    Raises:
        UserError: the model does not denoise, or does not take the label or a setting.
    """
    check_film(film, animate)
    run = as_run(run)
    model = run.require("denoise", Denoises)
    keys = run.sampling(settings, denoise)
    end_of(first, n)
    asked = {"n": n, "seed": seed, "first": first, "label": label, "frames": frames}
    asked |= {} if caption is None else {"caption": caption}
    picture, within = place(out, run.path, f"{with_keys('denoising', {**asked, **keys.given()}, DEFAULTS)}.png")
    picture = picture.with_suffix(".png") if picture.suffix.lower() == f".{film}" else picture
    animation = picture.with_suffix(f".{film}") if animate else None
    files = Results(picture, [animation] if animation else [], verb="denoise", within=within)
    states: dict[float, tuple[Tensor, Tensor]] = {}

    def watch(t: float, *images: Tensor) -> None:  # heun asks twice at a time, at last where it goes on from
        states[t] = images[0].float().cpu(), images[1].float().cpu()

    guides = run.guides(keys)
    condition = run.condition(label, n, classifier=guides.classifier, caption=caption, first=first)
    how = {"condition": condition.to(run.device), "guides": guides}
    with torch.no_grad(), one_algorithm():
        drawn = draw(model, n, seed=seed, first=first, keys=keys, watch=watch, **how).float().cpu()
    check_finite(drawn, "images", "train again with a lower lr=")
    times = (*states, 0.0)
    x_t, x0_hat = (torch.stack([*images, drawn]) for images in zip(*states.values(), strict=True))
    receipt = run_receipt(run, "denoise", **asked, settings=keys.given(), guide=run.guide_origin(keys))
    moving = {animation: _animated(x_t, x0_hat, film)} if animation else {}
    files.write(_page(x_t, x0_hat, times, first, frames), receipt, moving)
    return Denoising(picture, animation, times, x_t, x0_hat)


def _page(x_t: Tensor, x0_hat: Tensor, times: Sequence[float], first: int, frames: int) -> "Image.Image":
    """Two rows for each image, some of the steps in columns."""
    n = x_t.shape[1]
    steps = torch.linspace(0, len(times) - 1, min(frames, len(times))).round().long()
    rows = torch.stack([x_t[steps], x0_hat[steps]]).permute(2, 0, 1, 3, 4, 5)  # (n, 2, frames, C, H, W)
    names = [f"{f'{k}: ' if n > 1 else ''}{what}" for k in range(first, first + n) for what in ("x_t", "x0_hat")]
    return table(rows.flatten(0, 2), names, [f"t = {times[k]:.2f}" for k in steps.tolist()])


def _animated(x_t: Tensor, x0_hat: Tensor, film: Film) -> bytes:
    """Every step, the noisy images over the estimates, and a rest at the end."""
    pictures = [frame(torch.cat(pair), columns=len(pair[0])) for pair in zip(x_t, x0_hat, strict=True)]
    step = max(LEAST_MS, LENGTH_MS // len(pictures))
    return animated(pictures, [*[step] * (len(pictures) - 1), REST_MS], film)
