"""The pages of the studio, what they are called, and the verbs that each has forms for."""

from collections.abc import Sequence
from dataclasses import dataclass

SECTIONS = (
    ("/", "Home"),
    ("/data", "Data"),
    ("/train", "Train"),
    ("/runs", "Runs"),
    ("/sample", "Sample"),
    ("/explore", "Explore"),
    ("/edit", "Edit"),
    ("/detect", "Detect"),
    ("/measure", "Measure"),
    ("/compare", "Compare"),
    ("/jobs", "Jobs"),
)
SORTS = {
    "newest": "Newest first",
    "name": "Name",
    "model": "Model",
    "data": "Data",
    "score": "Error on held-out images, by its kind",
}
RUN_STATES = ("training", "finished", "not finished")
COMPARED_STATES = ("waiting", "training", "trained", "measuring", "measured", "failed")  # of those in a comparison


@dataclass(frozen=True)
class Tool:
    """A page with verbs that do one kind of thing with a run. path: of the page; verbs: the first is shown first."""

    path: str
    title: str
    verbs: Sequence[str]


TOOLS = (
    Tool("/sample", "Sample", ("sample", "denoise")),
    Tool("/explore", "Explore", ("traverse", "interpolate", "map", "reconstruct", "disentangle", "compress", "invert")),
    Tool("/edit", "Edit", ("edit", "upscale")),
    Tool("/detect", "Detect", ("detect",)),
    Tool("/measure", "Measure", ("evaluate", "augment")),
)
