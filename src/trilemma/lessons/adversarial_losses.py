"""The losses of gans/losses.py as curves: the critic's over the margin m by which it is right, and the generator's over
the logit of its image, with the slope that it gets.

The margin: a real image has the logit middle + m, a generated one middle - m, with the middle of the loss (0 where only
differences count). The generator's loss is that of one generated image of logit l, beside a real one at the middle.
"""

from typing import TYPE_CHECKING, NamedTuple

import torch
from pydantic import PositiveFloat
from torch import Tensor

from trilemma.errors import unknown
from trilemma.gans.losses import LOSSES
from trilemma.keys import OneOrMore
from trilemma.pictures import plots

if TYPE_CHECKING:
    from PIL import Image

POINTS = 401
HIGHEST = 4.0  # loss that is drawn


class Curves(NamedTuple):
    """Of one loss, float64 (N,): the critic's over the margin; the generator's over the logit, and its slope."""

    critic: Tensor
    generator: Tensor
    slope: Tensor


def curves(name: str, at: Tensor) -> Curves:
    """The losses at margins, or logits, `at` (N,).

    Raises:
        UserError: for an unknown loss.
    """
    if name not in LOSSES:
        raise unknown("loss", name, LOSSES)
    loss = LOSSES[name]
    middle = at.new_tensor([loss.middle or 0.0])
    logits = at.detach().clone().requires_grad_()
    critic = torch.stack([loss.critic(real=middle + m, fake=middle - m) for m in at])
    generator = torch.stack([loss.generator(real=middle, fake=logit[None]) for logit in logits])
    return Curves(critic, generator.detach(), torch.autograd.grad(generator.sum(), logits)[0])


def adversarial_losses(*, losses: OneOrMore[str] = tuple(LOSSES), reach: PositiveFloat = 5.0) -> "Image.Image":
    """What critic and generator lower, and the slope that the generator gets.

    Args:
        reach: margins and logits are between minus this and this.
    """
    at = torch.linspace(-reach, reach, POINTS, dtype=torch.float64)
    figure, (critics, generators, slopes) = plots.row_of_plots(3, width=11.0)
    for k, name in enumerate(losses):
        for ax, values in zip((critics, generators, slopes), curves(name, at), strict=True):
            ax.plot(at, values, label=name, alpha=0.8, **plots.line_style(k))
    critics.set_ylim(-1, HIGHEST)
    generators.set_ylim(-HIGHEST, HIGHEST)
    slopes.set_ylim(-1.5, 0.25)
    slopes.axhline(0, color=plots.GREY, linewidth=0.8)
    critics.legend(fontsize=7, frameon=False)
    plots.label_axes(critics, "the critic's loss", "margin by which it is right")
    plots.label_axes(generators, "the generator's loss", "logit of its image")
    plots.label_axes(slopes, "slope that the generator gets", "logit of its image")
    return plots.pixels(figure)
