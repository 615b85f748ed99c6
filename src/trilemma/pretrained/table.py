"""Short names of published checkpoints.

A row says where a checkpoint is and how it is drawn from by default. What may change (commit, licence, size) is not in
it: that is read from the hub at the first use, and recorded.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
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


PREFIX = "pipeline:"  # before the name of a pipeline where a run may stand, too


def pipeline_name(what: object) -> str | None:
    """What stands after "pipeline:"; None for anything else.

    >>> pipeline_name("pipeline:sd-turbo"), pipeline_name("runs/vae")
    ('sd-turbo', None)
    """
    text = str(what) if isinstance(what, str | Path) else ""
    return text.removeprefix(PREFIX) if text.startswith(PREFIX) else None


def defaults_of(name: str) -> dict[str, Any]:
    """The keys that a checkpoint of the table, by its short name or its repository, is drawn with by default."""
    rows = [row for word, row in CHECKPOINTS.items() if name in (word, row.repository)]
    return {key: value for row in rows for key, value in row.keys.items()}


TURBO = {"steps": 1, "guidance": 0.0}
CHECKPOINTS: dict[str, Checkpoint] = {
    "sd-turbo": Checkpoint("stabilityai/sd-turbo", "text to image in one step", TURBO),
    "sdxl-turbo": Checkpoint("stabilityai/sdxl-turbo", "text to image in one step, larger", TURBO),
    "stable-diffusion-v1-4": Checkpoint("CompVis/stable-diffusion-v1-4", "text to image"),
    "stable-diffusion-v1-5": Checkpoint("stable-diffusion-v1-5/stable-diffusion-v1-5", "text to image"),
}
