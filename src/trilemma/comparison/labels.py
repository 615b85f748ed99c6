"""Places for the texts of a plot: none covers a mark or another text, and few cover a line.

Texts are placed one after the other. Each takes, of the places offered, the one of least cost: far more for a mark or a
text under it or for leaving the picture than for a line under it, then the one nearest to what it names.
"""

import itertools
import math
from collections.abc import Sequence

import numpy as np

Point = tuple[float, float]
COVERED, CROSSED = 100.0, 0.2  # cost of a mark or a text under a text, and of a line; that of a distance of 1 is 1
STEP = 0.03  # between the points that stand for a line
DIRECTIONS, RADII = 16, (0.06, 0.1, 0.16, 0.24, 0.34, 0.46)  # of places around a mark


class Layout:
    """What is drawn so far, in the coordinates of the plot, whose corners are `low` and `high`."""

    def __init__(self, low: Point, high: Point) -> None:
        self.low, self.high = np.array(low), np.array(high)
        self.boxes: list[np.ndarray] = []  # [lower left, upper right] of marks and texts
        self.points: list[np.ndarray] = []  # along lines

    def block(self, centre: Point, width: float, height: float) -> None:
        """Keep later texts off a box."""
        half = np.array((width, height)) / 2
        self.boxes.append(np.array((centre - half, centre + half)))

    def line(self, ends: Sequence[Point], width: float = 0.0) -> None:
        """Keep later texts off a line where that can be; with a `width`, off it altogether."""
        for start, end in itertools.pairwise(ends):
            count = max(2, math.ceil(math.dist(start, end) / STEP))
            between = np.linspace(start, end, count)
            self.points += list(between)
            for x, y in between if width else ():
                self.block((x, y), width, width)

    def best(self, size: Point, marks: np.ndarray, centres: np.ndarray) -> tuple[int, float]:
        """Of the centres (N, 2) offered for a box of this size, each beside its mark (N, 2), the best; and its cost."""
        low, high = centres - np.array(size) / 2, centres + np.array(size) / 2
        outside = ((low < self.low) | (high > self.high)).any(axis=1)
        leaders = marks[:, None] + np.linspace(0.3, 1, 8)[:, None] * (centres - marks)[:, None]  # (N, 8, 2)
        struck = self._covered(leaders, leaders).sum(axis=1) + self._crossed(low, high)
        cost = COVERED * (outside + self._covered(low, high)) + CROSSED * struck
        cost = cost + np.linalg.norm(centres - marks, axis=1)
        k = int(np.argmin(cost))
        return k, float(cost[k])

    def _covered(self, low: np.ndarray, high: np.ndarray) -> np.ndarray:
        """How many of the boxes lie under each box from `low` to `high` (..., 2)."""
        boxes = np.array(self.boxes).reshape(-1, 2, 2)
        return ((boxes[:, 0] < high[..., None, :]) & (boxes[:, 1] > low[..., None, :])).all(axis=-1).sum(axis=-1)

    def _crossed(self, low: np.ndarray, high: np.ndarray) -> np.ndarray:
        """Whether a line passes under each box."""
        points = np.array(self.points).reshape(-1, 2)
        return np.asarray(((points < high[..., None, :]) & (points > low[..., None, :])).all(axis=-1).any(axis=-1))


def around(marks: Sequence[Point], size: Point) -> tuple[np.ndarray, np.ndarray]:
    """Centres (N, 2) for a text of this size in all directions around marks, at several distances; and the marks."""
    turns = 2 * math.pi * np.arange(DIRECTIONS) / DIRECTIONS
    way = np.stack((np.cos(turns), np.sin(turns)), axis=1)  # (D, 2)
    offsets = np.concatenate([radius * way + way * np.array(size) / 2 for radius in RADII])
    centres = np.array(marks)[:, None] + offsets  # (M, N, 2)
    return np.broadcast_to(np.array(marks)[:, None], centres.shape).reshape(-1, 2), centres.reshape(-1, 2)


def text_size(text: str, points: float, unit: float) -> Point:
    """Width and height of a line of text with some room around it; `unit` is how many points a unit of the plot has."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import text_to_path

    width, _, _ = text_to_path.get_text_width_height_descent(text, FontProperties(size=points), ismath=False)
    return (width + 0.5 * points) / unit, 1.25 * points / unit
