"""Noise schedules (diffusion/schedule.py) over t: the noise that a step adds, the share of the image, and log-SNR.

For any schedule, alpha_bar = alpha**2 / (alpha**2 + sigma**2) is the share of the image in the variance of x_t. With T
equal steps, step i replaces a share of it by noise (Ho, Jain & Abbeel 2020, section 2):

    beta_i = 1 - alpha_bar(i / T) / alpha_bar((i - 1) / T)

A shift lowers the log-SNR by 2 log(shift) at every t (Hoogeboom et al. 2023, section 3.1)."""

from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import torch
from pydantic import Field, PositiveFloat
from torch import Tensor
from torch.nn.functional import logsigmoid

from trilemma.diffusion.schedule import SCHEDULES, Schedule, get_schedule, log_snr
from trilemma.keys import OneOrMore
from trilemma.pictures import plots

if TYPE_CHECKING:
    from PIL import Image

LEVELS = (-16.0, 16.0)  # of the log-SNR that are drawn
LEAST_BETA = 1e-6


class Curves(NamedTuple):
    """Of a schedule at t = 0, 1 / T ... 1: alpha_bar and log-SNR, float64 (T + 1,), and the beta of each step (T,)."""

    t: Tensor
    alpha_bar: Tensor
    log_snr: Tensor
    beta: Tensor


def curves(schedule: Schedule, steps: int) -> Curves:
    """What a schedule does in so many equal steps."""
    t = torch.linspace(0, 1, steps + 1, dtype=torch.float64)
    level = log_snr(schedule, t)
    log_share = logsigmoid(level)
    return Curves(t, log_share.exp(), level, -log_share.diff().expm1())


def schedules(
    *,
    names: OneOrMore[str] = tuple(SCHEDULES),
    shift: PositiveFloat = 2.0,
    steps: Annotated[int, Field(ge=2)] = 1000,
) -> "Image.Image":
    """beta, alpha_bar and log-SNR over t, with the shift dotted.

    Args:
        shift: 1 for none.
        steps: of beta, T.
    """
    figure, (betas, shares, levels) = plots.row_of_plots(3, width=11.0, height=3.5)
    for k, name in enumerate(names):
        for factor in dict.fromkeys((1.0, shift)):
            drawn = curves(get_schedule(name, factor), steps)
            own: dict[str, Any] = {"label": name} if factor == 1 else {"linestyle": ":", "linewidth": 1.2}
            look = {"color": plots.style(k)[0], **own}
            betas.plot(drawn.t[1:], drawn.beta, **look)
            shares.plot(drawn.t, drawn.alpha_bar, **look)
            levels.plot(drawn.t, drawn.log_snr, **look)
    if shift != 1:
        levels.plot([], [], ":", color=plots.GREY, linewidth=1.2, label=f"shift = {shift:g}")
    levels.axhline(0, color=plots.GREY, linewidth=0.8)
    levels.set_ylim(*LEVELS)
    betas.set_yscale("log")
    betas.set_ylim(bottom=LEAST_BETA)
    levels.legend(fontsize=8, frameon=False)
    plots.label_axes(betas, f"beta: share replaced in one of {steps:,} steps", "t")
    plots.label_axes(shares, "alpha_bar: share of the image", "t")
    plots.label_axes(levels, "log-SNR = log(alpha² / sigma²)", "t")
    return plots.pixels(figure)
