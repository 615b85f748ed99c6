"""Pictures of a report as text: vector plots that follow the page's colours, and images as data URIs.

Plots are drawn by matplotlib (Agg figures, no global state) and inlined as SVG. Four stand-in colours become CSS
variables, so that one plot serves a light page, a dark page and print. The colours of the models are those of
Okabe & Ito (2008), which stay apart for colour-blind readers; markers and dashes tell them apart in grey.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from trilemma.comparison.content import Model
from trilemma.comparison.triangle import TICK
from trilemma.language import translated
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
    ax.set_xticks([axis.place(p) for p in places], [text for _, text in axis.ticks], fontsize=TICK, color=MUTED)
    ax.set_yticks(range(len(models)), [""] * len(models))
    ax.tick_params(length=0)
    ax.grid(axis="x", color=FAINT, linewidth=0.7)
    for side in ax.spines.values():
        side.set_visible(False)
    ax.text(0, 1 + 0.06 / (height - 0.62), _heading(axis), transform=ax.transAxes,
            color=INK, fontsize=9.5, fontweight="bold", va="bottom")  # fmt: skip
    for k, model in enumerate(models):
        _row(ax, k, model, axis)
    return figure


def learning(models: Sequence[Model]) -> "Figure":
    """The kernel distance of every model over its training, with intervals, and what a longer one is expected to
    reach."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 3.3))
    ax = figure.add_axes((0.11, 0.15, 0.6, 0.74))
    for k, model in enumerate(models):
        points = [p for p in model.learning if p.value > 0 and p.seconds > 0]
        if not points:
            continue
        colour, marker, dashes = style(k)
        x, y = [p.seconds for p in points], [p.value for p in points]
        ax.plot(x, y, color=colour, marker=marker, markersize=4, linestyle=dashes, linewidth=1.2, label=_label(model))
        least = min(y) / 10
        ends = [(max(low, least), high) for low, high in (p.interval for p in points)]
        ax.vlines(x, *zip(*ends, strict=True), color=colour, linewidth=1.6, alpha=0.5)
        if ahead := model.forecast:
            ax.plot([x[-1], ahead.seconds], [y[-1], ahead.value], color=colour, linestyle=":", linewidth=1)
            low, high = (max(end, least) for end in ahead.interval)
            ax.vlines([ahead.seconds], [low], [high], color=colour, linewidth=1.6, alpha=0.35)
            ax.plot([ahead.seconds], [ahead.value], color=colour, marker=marker, markersize=5, markerfacecolor=PAPER)
    ax.set_xscale("log")
    ax.set_yscale("log")
    _plain(ax, translated("training seconds"), translated("Kernel distance over the training"))
    _legend(ax)
    return figure


def samplers(models: Sequence[Model], real: float) -> "Figure":
    """Every model under settings of its sampler: coverage and density over images per second. Points of the frontier
    are full; `real` is the density of real images."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.6, 3.2))
    for k, (name, title) in enumerate((("coverage", "Diversity: coverage"), ("density", "Fidelity: density"))):
        ax = figure.add_axes((0.07 + 0.41 * k, 0.16, 0.34, 0.72))
        for number_, model in enumerate(models):
            if model.samplers:
                _setting_line(ax, number_, model, name)
        if name == "density" and real < 1e6:
            ax.axhline(real, color=MUTED, linewidth=0.8, linestyle=":")
        ax.set_xscale("log")
        _plain(ax, translated("images per second"), translated(title))
    _legend(ax)
    return figure


def _setting_line(ax: "Axes", k: int, model: Model, name: str) -> None:
    """The points of a model, joined in the order of their speed."""
    colour, marker, dashes = style(k)
    points = sorted(model.samplers, key=lambda p: p.ms_per_image)
    x, y = [1000 / max(p.ms_per_image, 1e-6) for p in points], [getattr(p, name) for p in points]
    ax.plot(x, y, color=colour, linestyle=dashes, linewidth=0.9, alpha=0.7)
    for full in (True, False):
        own = [(u, v) for u, v, p in zip(x, y, points, strict=True) if p.frontier == full]
        if own:
            label = _label(model) if full or not any(p.frontier for p in points) else None
            face = colour if full else PAPER
            ax.plot(
                *zip(*own, strict=True), color=colour, marker=marker, markersize=5, markerfacecolor=face, linestyle="",
                label=label,
            )  # fmt: skip


def _label(model: Model) -> str:
    """A name in a legend, which would leave out one that begins with an underscore."""
    return f" {short(model.name)}"


def _legend(ax: "Axes") -> None:
    """Names beside a plot, as they are."""
    legend = ax.legend(loc="upper left", bbox_to_anchor=(1.02, 1), fontsize=8, frameon=False, labelcolor=INK)
    for text in legend.get_texts():
        text.set_parse_math(False)


def _plain(ax: "Axes", x: str, title: str) -> None:
    """The frame and the letters of a plot of the report."""
    ax.set_title(title, fontsize=9.5, color=INK, loc="left")
    ax.set_xlabel(x, fontsize=8, color=MUTED)
    ax.tick_params(which="both", length=2, labelsize=7.5, color=FAINT, labelcolor=MUTED)
    ax.grid(color=FAINT, linewidth=0.6)
    for side in ax.spines.values():
        side.set_color(FAINT)


def _heading(axis: "Axis") -> str:
    return f"{translated(axis.name.capitalize())}: {translated(axis.short)}"


def _row(ax: "Axes", k: int, model: Model, axis: "Axis") -> None:
    (colour, marker, _), place = style(k), model.place.get(axis.name)
    side = ax.get_yaxis_transform()
    ax.text(
        -0.03, k, short(model.name), transform=side, ha="right", va="center", fontsize=9, color=INK, parse_math=False
    )
    if place is None:
        why = "failed" if model.error else "refused" if axis.metric in model.scores else "not measured"
        ax.text(1.03, k, translated(why), transform=side, va="center", fontsize=8.5, color=MUTED)
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
    ax.set_xlabel(translated("training seconds"), fontsize=7.5, color=MUTED, labelpad=1)
    lines_across(ax, 7.5)
    return figure
