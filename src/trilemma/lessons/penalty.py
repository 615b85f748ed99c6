"""The penalties of autoencoders/penalties.py as curves: how far a mean activation q is from its target p, and the slope
that the descent feels."""

from typing import TYPE_CHECKING, Annotated

import torch
from pydantic import Field
from torch import Tensor

from trilemma.autoencoders.penalties import kl_penalty, l1_penalty, l2_penalty
from trilemma.pictures import plots

if TYPE_CHECKING:
    from PIL import Image

PENALTIES = {"KL(p || q)": kl_penalty, "|q - p|  (L1)": l1_penalty, "(q - p)²  (L2)": l2_penalty}
POINTS = 999  # between 0 and 1


def curves(p: float, points: int = POINTS) -> tuple[Tensor, dict[str, tuple[Tensor, Tensor]]]:
    """q, evenly inside (0, 1), and of each penalty the value and the slope d/dq there; all float64 (points,)."""
    q = torch.linspace(0, 1, points + 2, dtype=torch.float64)[1:-1].requires_grad_()
    by_name = {}
    for name, penalty in PENALTIES.items():
        value = penalty(q, p)
        by_name[name] = value.detach(), torch.autograd.grad(value.sum(), q)[0]
    return q.detach(), by_name


def kl_penalty_figure(*, target: Annotated[float, Field(gt=0, lt=1)] = 0.1) -> "Image.Image":
    """Values and slopes of the penalties over q."""
    q, by_name = curves(target)
    figure, (values, slopes) = plots.row_of_plots(2)
    for k, (name, (value, slope)) in enumerate(by_name.items()):
        values.plot(q, value, label=name, **plots.line_style(k))
        slopes.plot(q, slope, **plots.line_style(k))
    for ax, limits in ((values, (0, 2)), (slopes, (-6, 6))):
        ax.axvline(target, color=plots.GREY, linewidth=0.8)
        ax.set_ylim(*limits)
    slopes.axhline(0, color=plots.GREY, linewidth=0.8)
    loc, at = ("upper left", 0.53) if target <= 0.5 else ("upper right", 0.47)  # clear of the target's line
    values.legend(fontsize=8.5, frameon=False, loc=loc, bbox_to_anchor=(at, 1))
    plots.label_axes(values, f"penalty for a target of p = {target:g}", "mean activation q")
    plots.label_axes(slopes, "its slope", "mean activation q")
    return plots.pixels(figure)
