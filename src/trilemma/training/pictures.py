"""The pictures a training leaves: its curves."""

from collections import defaultdict
from io import BytesIO
from pathlib import Path
from typing import Any

from trilemma import __version__
from trilemma.pictures import save_png

SKIP = ("step", "images", "seconds", "lr")


def made_by_training(command: str, shows: str) -> dict[str, str]:
    """What a picture in a run folder says of how it was made."""
    return {"trilemma": __version__, "verb": "train", "command": command, "shows": shows}


def draw_curves(log: list[dict[str, Any]], path: Path, command: str = "") -> None:
    """One panel per kind of figure (loss parts by name, validation figures), against images seen.

    Args:
        command: that made the run, for the picture's metadata.
    """
    from matplotlib.figure import Figure

    series: dict[str, list[tuple[int, float]]] = defaultdict(list)
    for row in log:
        for name, value in row.items():
            if name not in SKIP and isinstance(value, int | float):
                series[name].append((row["images"], value))
    panels: dict[str, list[str]] = defaultdict(list)
    for name in series:
        panels[name.split("/")[-1].removeprefix("valid_")].append(name)
    if not panels:
        return
    columns = min(3, len(panels))
    rows = -(-len(panels) // columns)
    width, height = 4.2 * columns, 3.0 * rows  # inches
    figure = Figure(figsize=(width, height))
    edges = {"left": 0.65 / width, "right": 1 - 0.15 / width, "bottom": 0.5 / height, "top": 1 - 0.35 / height}
    places = {**edges, "wspace": 0.25, "hspace": 0.45}  # a layout that matplotlib finds takes as long as the drawing
    axes = figure.subplots(rows, columns, squeeze=False, gridspec_kw=places).flatten()
    for axis, (panel, names) in zip(axes, panels.items(), strict=False):
        for name in names:
            images, values = zip(*series[name], strict=True)
            axis.plot(images, values, label=name, marker="o" if len(values) == 1 else None)
        axis.set_title(panel)
        axis.set_xlabel("images seen")
        axis.legend(fontsize="small")
    for axis in axes[len(panels) :]:
        axis.set_axis_off()
    content = BytesIO()
    figure.savefig(content, dpi=100, format="png")
    save_png(content.getvalue(), path, made_by_training(command, "curves"), replace=True)
