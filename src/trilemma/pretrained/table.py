"""Short names of published checkpoints.

A row says where a checkpoint is and how it is drawn from by default. What may change (commit, licence, size) is not in
it: that is read from the hub at the first use, and recorded.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint on the hub.

    repository: OWNER/NAME there; about: what it is, in a line;
    keys: values of `imagine` that differ from the pipeline's own: a checkpoint of few steps draws noise with others.
    """

    repository: str
    about: str
    keys: Mapping[str, Any] = field(default_factory=dict)


TURBO = {"steps": 1, "guidance": 0.0}
CHECKPOINTS: dict[str, Checkpoint] = {
    "sd-turbo": Checkpoint("stabilityai/sd-turbo", "text to image in one step", TURBO),
    "sdxl-turbo": Checkpoint("stabilityai/sdxl-turbo", "text to image in one step, larger", TURBO),
    "stable-diffusion-v1-4": Checkpoint("CompVis/stable-diffusion-v1-4", "text to image"),
    "stable-diffusion-v1-5": Checkpoint("stable-diffusion-v1-5/stable-diffusion-v1-5", "text to image"),
}
