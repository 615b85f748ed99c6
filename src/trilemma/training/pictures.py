"""The pictures a training leaves: its curves."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trilemma.pictures.plots import png
from trilemma.pictures.png import receipt_for, save_png
from trilemma.titles import square_of, title
from trilemma.training.log import APART
from trilemma.words import capital

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Points = list[tuple[int, float]]  # (images seen, value)

HELD_OUT = "valid_"
LOG_RANGE = 20.0  # largest to smallest value, both above 0, from which the axis is logarithmic
LEVEL = 0.01  # of their size: values that differ by less say nothing
LINES = {  # that share a panel with lines of other names: the panel, and what tells them apart
    "d_real": ("critic_output", "real images"),
    "d_fake": ("critic_output", "generated images"),
    "logit_real": ("critic_logit", "real images"),
    "logit_fake": ("critic_logit", "generated images"),
    "loss_clean": ("loss_by_noise", "little noise"),
    "loss_middle": ("loss_by_noise", "medium noise"),
    "loss_noisy": ("loss_by_noise", "much noise"),
    "linear_denoising_mse": ("loss", "linear estimate, held out"),
}
SAME = {"denoising_mse": "loss"}  # on held-out images: of training images


def made_by_training(command: str, shows: str) -> dict[str, str]:
    """The receipt of a picture in a run folder."""
    return receipt_for("train", command=command, shows=shows)


def panels_of(log: list[dict[str, Any]]) -> dict[str, dict[str, Points]]:
    """By panel, the lines to draw by name: one panel per kind of value, training and held out together.

    Left out are a line that is drawn already, a root of a mean square that is drawn itself, and panels that are level.
    """
    series: dict[str, Points] = {}
    for row in log:
        for name, value in row.items():
            if name not in APART and isinstance(value, int | float):
                series.setdefault(name, []).append((row["images"], value))
    panels: dict[str, dict[str, Points]] = {}
    drawn: list[Points] = []
    for name, points in sorted(series.items(), key=lambda item: item[0].endswith("loss")):  # the parts say more
        if points not in drawn and square_of(name) not in series:
            drawn.append(points)
            panels.setdefault(_panel(name), {})[name] = points
    return {panel: lines for panel, lines in panels.items() if not _is_level(lines)} or panels


def draw_curves(log: list[dict[str, Any]], path: Path, command: str = "", baseline: float | None = None) -> None:
    """The panels of a log, against images seen.

    Args:
        command: that made the run, for the picture's metadata.
        baseline: RMSE of the mean training image, drawn beside that of reconstructions.
    """
    from matplotlib.figure import Figure

    panels = panels_of(log)
    if not panels:
        return
    columns = min(3, len(panels))
    rows = -(-len(panels) // columns)
    width, height = 4.2 * columns, 3.0 * rows  # inches
    figure = Figure(figsize=(width, height))
    edges = {"left": 0.65 / width, "right": 1 - 0.2 / width, "bottom": 0.5 / height, "top": 1 - 0.35 / height}
    places = {**edges, "wspace": 0.25, "hspace": 0.45}  # a layout that matplotlib finds takes as long as the drawing
    axes = figure.subplots(rows, columns, squeeze=False, gridspec_kw=places).flatten()
    for axis, (panel, lines) in zip(axes, panels.items(), strict=False):
        draw_panel(axis, panel, lines, baseline**2 if panel == "mse" and baseline else None)
    for axis in axes[len(panels) :]:
        axis.set_axis_off()
    save_png(png(figure, dpi=100), path, made_by_training(command, "curves"), replace=True)


def draw_panel(axis: "Axes", panel: str, lines: dict[str, Points], level: float | None) -> None:
    """The lines of a panel by name, and where given a level, the squared error of the mean image."""
    from matplotlib.ticker import EngFormatter, MaxNLocator, NullFormatter

    values = [value for points in lines.values() for _, value in points]
    for name, points in lines.items():
        axis.plot(*zip(*points, strict=True), label=_label(name, lines), marker="o" if len(points) == 1 else None)
    if level is not None:
        axis.axhline(level, color="grey", linestyle=":", label="mean image")
    axis.xaxis.set_major_locator(MaxNLocator(4))
    axis.xaxis.set_major_formatter(EngFormatter(sep=""))  # 12k
    if min(values) > 0 and max(values) > LOG_RANGE * min(values):
        axis.set_yscale("log")
        axis.yaxis.set_minor_formatter(NullFormatter())
    else:
        axis.yaxis.set_major_locator(MaxNLocator(5))
    axis.set_title(capital(title(panel)), fontsize=10, loc="left")
    axis.set_xlabel("images seen", fontsize=9)
    axis.tick_params(labelsize=8)
    axis.spines[["top", "right"]].set_visible(False)
    if len(axis.lines) > 1:
        axis.legend(fontsize=8, frameon=False)


def _panel(name: str) -> str:
    """The panel of a line: its name without who says it, or that of the lines it is drawn with."""
    name = name.split("/")[-1].removeprefix(HELD_OUT)
    if name in LINES:
        return LINES[name][0]
    return "kl_by_level_nats" if re.fullmatch(r"kl\d+_nats", name) else SAME.get(name, name)


def _label(name: str, lines: Iterable[str]) -> str:
    """What tells a line from the others of its panel.

    >>> _label("vae/mse", ["vae/mse", "valid_mse"]), _label("valid_mse", ["vae/mse", "valid_mse"])
    ('training', 'held out')
    >>> _label("critic/loss", ["critic/loss", "generator/loss"]), _label("critic/d_real", []), _label("kl2_nats", [])
    ('critic', 'real images', 'level 2, held out')
    """
    who, _, what = name.rpartition("/")
    level = re.fullmatch(r"kl(\d+)_nats", what.removeprefix(HELD_OUT))
    if level:
        return f"level {level[1]}" + ("" if who else ", held out")
    if (line := what.removeprefix(HELD_OUT)) in LINES:
        return LINES[line][1]
    return "held out" if not who else who if sum("/" in other for other in lines) > 1 else "training"


def _is_level(lines: dict[str, Points]) -> bool:
    """Whether nothing moves in a panel."""
    spans = [(min(v for _, v in points), max(v for _, v in points)) for points in lines.values()]
    return all(high - low <= LEVEL * max(abs(low), abs(high)) for low, high in spans)
