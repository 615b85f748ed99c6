"""What a network predicts, over the noise (diffusion/prediction.py): how much of x_t an estimate keeps, and how much of
the network's output it adds,

    x0_hat = c_skip x_t + c_out F(c_in x_t, log(sigma / alpha))                      (Karras et al. 2022, table 1)

An error of F counts |c_out| times in the image. It grows with sigma / alpha where F predicts the noise, and with it the
images of eps: near t = 1 a tenth of an error in F would be many times the image."""

from typing import TYPE_CHECKING

import torch
from pydantic import PositiveFloat

from trilemma.diffusion.prediction import PREDICTIONS, Coefficients, get_prediction
from trilemma.diffusion.schedule import get_schedule
from trilemma.keys import OneOrMore
from trilemma.pictures import plots

if TYPE_CHECKING:
    from PIL import Image

RANGE = 4.5  # of log(sigma / alpha), either way
POINTS = 201
MOST = 3.0  # of a coefficient that is drawn


def coefficients(prediction: str, schedule: str, levels: torch.Tensor, std: float) -> Coefficients:
    """c_skip, c_out and c_in of a prediction at noise levels log(sigma / alpha), each float64 (N,)."""
    levels_of = get_schedule(schedule)
    t = levels_of.t_of(-2 * levels)
    return get_prediction(prediction)(levels_of.alpha(t), levels_of.sigma(t), std)


def predictions(
    *,
    names: OneOrMore[str] = tuple(name for name in PREDICTIONS if name != "wiener"),
    schedule: str = "cosine",
    data_std: PositiveFloat = 0.5,
) -> "Image.Image":
    """c_skip and the size of c_out over the noise level, for each prediction.

    Args:
        names: of predictions; default: all but wiener, which is edm with a number for each frequency.
        data_std: standard deviation of the data in [-1, 1], which edm is told.
    """
    levels = torch.linspace(-RANGE, RANGE, POINTS, dtype=torch.float64)
    figure, (skips, outs) = plots.row_of_plots(2, width=9.6, height=3.5)
    for k, name in enumerate(names):
        skip, out, _ = coefficients(name, schedule, levels, data_std)
        skips.plot(levels, skip, label=name, **plots.line_style(k))
        outs.plot(levels, out.abs(), label=name, **plots.line_style(k))
    for ax in (skips, outs):
        ax.set_ylim(-0.1, MOST)
    skips.legend(fontsize=8, frameon=False)
    plots.label_axes(skips, "c_skip: what is kept of x_t", "log(sigma / alpha)")
    plots.label_axes(outs, "|c_out|: how an error of F counts in x0_hat", "log(sigma / alpha)")
    return plots.pixels(figure)
