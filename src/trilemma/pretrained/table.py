"""Short names of published checkpoints.

A row says where a checkpoint is and how it is drawn from by default. What may change (commit, licence, size) is not in
it: that is read from the hub at the first use, and recorded.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from types import MappingProxyType
from typing import Any

from trilemma.errors import UserError, unknown
from trilemma.files import user_path


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
TEXT_KEYS = ("negative", "scheduler")  # of a pipeline there: their values are texts, with commas or of digits, too
STRENGTH = 0.5  # default, where a checkpoint whose steps are in the table draws an image again
MOST_STEPS = 1000  # that are asked for


def pipeline_name(what: object) -> str | None:
    """What stands after "pipeline:"; None for anything else.

    >>> pipeline_name("pipeline:sd-turbo"), pipeline_name("runs/vae")
    ('sd-turbo', None)
    """
    text = str(what) if isinstance(what, str | Path) else ""
    return text.removeprefix(PREFIX) if text.startswith(PREFIX) else None


def defaults_of(name: str, given: Mapping[str, Any] = MappingProxyType({})) -> dict[str, Any]:
    """The keys that a checkpoint of the table, by its short name or its repository, is drawn with by default.

    Args:
        given: what is asked for. An image is drawn again in steps * strength of the steps, so that more are needed.

    >>> defaults_of("sd-turbo")
    {'steps': 1, 'guidance': 0.0}
    >>> defaults_of("sd-turbo", {"image": "photo.png", "strength": 0.3})
    {'steps': 4, 'guidance': 0.0, 'strength': 0.3}
    """
    rows = [row for word, row in CHECKPOINTS.items() if name in (word, row.repository)]
    own = {key: value for row in rows for key, value in row.keys.items()}
    if "steps" not in own or "steps" in given or given.get("image") is None:
        return own
    strength = given.get("strength") or (STRENGTH if given.get("mask") is None else 1.0)
    share = max(strength, 1 / MOST_STEPS)
    enough = (n for n in count(math.ceil(own["steps"] / share)) if n * share >= own["steps"])
    return {**own, "steps": next(enough), "strength": strength}


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
    if name and name not in CHECKPOINTS and user_path(name).is_dir():
        return None
    repository = CHECKPOINTS[name].repository if name in CHECKPOINTS else name
    if not REPOSITORY.fullmatch(repository):
        raise unknown("model", name, [*CHECKPOINTS, "OWNER/NAME of the hub", "a folder"])
    return repository


def takers(verb: str) -> list[str]:
    """The checkpoints of the table that a verb takes.

    >>> takers("upscale")
    ['stable-diffusion-x4']
    """
    return [name for name, row in CHECKPOINTS.items() if verb in row.verbs]


def check_verb(name: str, verb: str) -> None:
    """Refuse a checkpoint that a verb does not take, as far as the table says. Nothing is read.

    Raises:
        UserError: it does not, or the name stands for nothing.
    """
    repository = check_name(name)
    for row in CHECKPOINTS.values():
        if row.repository == repository and verb not in row.verbs:
            others = f"; choose one of {', '.join(takers(verb))}" if takers(verb) else ""
            raise UserError(f"{verb} does not take {name} ({row.about}), which is for {', '.join(row.verbs)}{others}")
