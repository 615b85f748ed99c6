"""Pictures of a report as text: vector plots that follow the page's colours, and images as data URIs.

Plots are drawn by matplotlib (Agg figures, no global state) and inlined as SVG. Four stand-in colours become CSS
variables, so that one plot serves a light page, a dark page and print. The colours of the models are those of
Okabe & Ito (2008), which stay apart for colour-blind readers; markers and dashes tell them apart in grey.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from trilemma.comparison.content import Model
from trilemma.pictures.plots import FAINT, INK, MUTED, PAPER, lines_across, short, style
from trilemma.words import number, span

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from trilemma.comparison.triangle import Axis


def dots(models: Sequence[Model], axis: "Axis") -> "Figure":
    """One axis of the triangle alone: every model's value with its interval, on a full scale."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.9, 0.62 + 0.27 * len(models)))
    height = figure.get_figheight()
    ax = figure.add_axes((0.28, 0.3 / height, 0.33, 1 - 0.62 / height))
    places = [tick for tick, _ in axis.ticks]
    ax.set_xlim(-0.03, 1.03)
    ax.set_ylim(len(models) - 0.5, -0.5)
    ax.set_xticks([axis.place(p) for p in places], [text for _, text in axis.ticks], fontsize=7.5, color=MUTED)
    ax.set_yticks(range(len(models)), [""] * len(models))
    ax.tick_params(length=0)
    ax.grid(axis="x", color=FAINT, linewidth=0.7)
    for side in ax.spines.values():
        side.set_visible(False)
    ax.text(0, 1 + 0.06 / (height - 0.62), f"{axis.name.capitalize()}: {axis.short}", transform=ax.transAxes,
            color=INK, fontsize=9.5, fontweight="bold", va="bottom")  # fmt: skip
    for k, model in enumerate(models):
        _row(ax, k, model, axis)
    return figure


def _row(ax: "Axes", k: int, model: Model, axis: "Axis") -> None:
    (colour, marker, _), place = style(k), model.place.get(axis.name)
    side = ax.get_yaxis_transform()
    ax.text(
        -0.03, k, short(model.name), transform=side, ha="right", va="center", fontsize=9, color=INK, parse_math=False
    )
    if place is None:
        why = "failed" if model.error else "refused" if axis.metric in model.scores else "not measured"
        ax.text(1.03, k, why, transform=side, va="center", fontsize=8.5, color=MUTED)
        return
    if place.reach:
        ax.plot(place.reach, [k, k], color=colour, linewidth=3, solid_capstyle="butt", alpha=0.75)
        ax.plot(place.reach, [k, k], color=colour, linestyle="", marker="|", markersize=10)
    ax.scatter([place.place], [k], s=34, marker=marker, color=colour, edgecolors=PAPER, linewidths=0.8, zorder=3)
    value, interval = place.value, place.interval
    text = f"{number(value, interval)}  ({span(value, interval)})" if interval else number(value)
    ax.text(1.03, k, text, transform=side, va="center", fontsize=8.5, color=INK)


def curve(title: str, seconds: Sequence[float], values: Sequence[float]) -> "Figure":
    """One line of a training over its seconds."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(2.5, 1.55))
    ax = figure.add_axes((0.2, 0.24, 0.76, 0.6))
    ax.plot(seconds, values, color=INK, linewidth=1.1, marker="" if len(values) > 1 else "o", markersize=3)
    size = min(8.5, 8.5 * 36 / max(len(title), 1))  # points: about 36 letters of 8.5 fill the width
    ax.set_title(title, fontsize=size, color=INK, x=-0.26, ha="left", loc="left", pad=4, parse_math=False)
    ax.xaxis.set_major_locator(MaxNLocator(5))
    ax.yaxis.set_major_locator(MaxNLocator(4))
    ax.set_xlabel("training seconds", fontsize=7.5, color=MUTED, labelpad=1)
    lines_across(ax, 7.5)
    return figure
