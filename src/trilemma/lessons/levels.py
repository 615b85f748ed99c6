"""What each level of a hierarchy adds to the divergence of q(z|x) from p(z), E[log q(z_t|.) - log p(z_t|.)], on the
held-out images through the training. In a ladder, whose q and p of a level are given the same codes, it is the KL
divergence of the level, and a level where it is 0 is not used (Sonderby et al. 2016, "Ladder variational autoencoders",
section 3). In a chain it is not a divergence by itself and may be negative."""

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from trilemma.errors import UserError
from trilemma.pictures import plots
from trilemma.run.run import Run

if TYPE_CHECKING:
    from PIL import Image

LEVEL = re.compile(r"valid_kl(\d+)_nats")
TITLES = {"ladder": "KL divergence on held-out images", "chain": "E[log q - log p] on held-out images"}


def terms(log: Sequence[Mapping[str, Any]]) -> dict[int, tuple[list[int], list[float]]]:
    """Of each level, the lowest first: images seen, and nats per image then."""
    of_level: dict[int, tuple[list[int], list[float]]] = {}
    for row in log:
        for name, value in row.items():
            if level := LEVEL.fullmatch(name):
                images, nats = of_level.setdefault(int(level[1]), ([], []))
                images.append(row["images"])
                nats.append(value)
    return dict(sorted(of_level.items()))


def levels(run: Run) -> "Image.Image":
    """A line for each level through the training, and a bar for each at its end."""
    of_level = terms(run.log)
    if not of_level:
        raise UserError(f"the log of {run.path} has no terms of levels; take a run of vae-hierarchical")
    figure, (through, end) = plots.row_of_plots(2)
    for k, (level, (images, nats)) in enumerate(of_level.items()):
        through.plot(images, nats, label=f"level {level}", marker="o" if len(nats) == 1 else "", **plots.line_style(k))
        end.bar(str(level), nats[-1], color=plots.style(k)[0])
    through.set_ylim(bottom=min(0.0, *(value for _, nats in of_level.values() for value in nats)))
    through.legend(fontsize=8.5, frameon=False)
    plots.label_axes(through, TITLES[run.config["model_config"]["structure"]], "images seen", "nats per image")
    plots.label_axes(end, "at the end; level 1 is next to the image", "level", "nats per image")
    return plots.pixels(figure)
