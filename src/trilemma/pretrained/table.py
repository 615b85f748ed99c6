"""Short names of published checkpoints.

A row says where a checkpoint is and how it is drawn from by default. What may change (commit, licence, size) is not in
it: that is read from the hub at the first use, and recorded.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trilemma.errors import unknown


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint on the hub.

    repository: OWNER/NAME there; about: what it is, in a line; verbs: that take it;
    keys: values of `imagine` that differ from the pipeline's own: a checkpoint of few steps draws noise with others.
    """

    repository: str
    about: str
    verbs: tuple[str, ...]
    keys: Mapping[str, Any] = field(default_factory=dict)


REPOSITORY = re.compile(r"[\w-][\w.-]{0,95}/[\w-][\w.-]{0,95}")
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


DRAWING = ("imagine", "edit", "interpolate", "evaluate", "compare")  # verbs of checkpoints that draw from a text
TURBO = {"steps": 1, "guidance": 0.0}
CHECKPOINTS: dict[str, Checkpoint] = {
    "sd-turbo": Checkpoint("stabilityai/sd-turbo", "text to image in one step", DRAWING, TURBO),
    "sdxl-turbo": Checkpoint("stabilityai/sdxl-turbo", "text to image in one step, larger", DRAWING, TURBO),
    "stable-diffusion-v1-4": Checkpoint("CompVis/stable-diffusion-v1-4", "text to image", DRAWING),
    "stable-diffusion-v1-5": Checkpoint("stable-diffusion-v1-5/stable-diffusion-v1-5", "text to image", DRAWING),
    "stable-diffusion-x4": Checkpoint("stabilityai/stable-diffusion-x4-upscaler", "an image enlarged", ("upscale",)),
    "ltx-video": Checkpoint("Lightricks/LTX-Video", "text to film: frames=", ("imagine",)),
    "wan-t2v-1.3b": Checkpoint("Wan-AI/Wan2.1-T2V-1.3B-Diffusers", "text to film: frames=", ("imagine",)),
    "cogvideox-2b": Checkpoint("THUDM/CogVideoX-2b", "text to film: frames=", ("imagine",)),
    "svd-xt": Checkpoint(
        "stabilityai/stable-video-diffusion-img2vid-xt", "image to film: image= frames=", ("imagine",)
    ),
    "shap-e": Checkpoint("openai/shap-e", "text to object: views and a surface", ("imagine",)),
    "shap-e-image": Checkpoint("openai/shap-e-img2img", "image to object: image=", ("imagine",)),
}


def check_name(name: str) -> str | None:
    """The repository that a name stands for; None for a folder. Nothing is read.

    Raises:
        UserError: it is neither.
    """
    if name and name not in CHECKPOINTS and Path(name).expanduser().is_dir():
        return None
    repository = CHECKPOINTS[name].repository if name in CHECKPOINTS else name
    if not REPOSITORY.fullmatch(repository):
        raise unknown("model", name, [*CHECKPOINTS, "OWNER/NAME of the hub", "a folder"])
    return repository
