"""A plot as a PNG has the colours of the light page, and no others change."""

import io

import numpy as np
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from PIL import Image

from trilemma.pictures.plots import INK, LIGHT, MUTED, pixels, png


def test_stand_ins_become_the_colours_of_the_light_page_and_other_colours_stay():
    """Three bars over the whole picture: a stand-in, the same at a quarter over white, and a colour of its own."""
    figure = Figure(figsize=(0.3, 0.3))
    ax = figure.add_axes((0, 0, 1, 1))
    ax.axis("off")
    ax.set(xlim=(0, 3), ylim=(0, 1))
    for k, (colour, alpha) in enumerate(((INK, 1), (MUTED, 0.25), ("#336699", 0.5))):
        ax.bar(k + 0.5, 1, width=1, color=colour, alpha=alpha)
    image = np.asarray(Image.open(io.BytesIO(png(figure))).convert("RGB"))
    assert image.shape == (45, 45, 3)
    assert np.array_equal(image, np.asarray(pixels(figure, dpi=150)))  # a second time nothing is left to replace
    for k, (colour, alpha) in enumerate(((LIGHT[INK], 1), (LIGHT[MUTED], 0.25), ("#336699", 0.5))):
        expected = 255 * (alpha * np.array(to_rgb(colour)) + 1 - alpha)
        assert np.abs(image[:, 15 * k : 15 * k + 15] - expected).max() < 2  # no edge of another colour either
