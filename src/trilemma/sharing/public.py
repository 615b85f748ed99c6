"""What of a run is shared: the weights and what is needed to use them, without anything that says whose machine it was.

Left out: the images and where they lie, checkpoints, logs, facts of the machine, and what pictures say of their making.
Of the images that a run was trained on, a data set known by name and one of the hub are named; any other is "private".
"""

import getpass
import io
import platform
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from trilemma.config import make
from trilemma.data.config import DataConfig
from trilemma.data.sources.builtin import is_named
from trilemma.data.sources.hub import PREFIX
from trilemma.errors import UserError
from trilemma.files import json_text, read_json, read_plain
from trilemma.run.command import train_command
from trilemma.run.config import TrainConfig
from trilemma.run.hub import GRID
from trilemma.run.locate import CONFIG, WEIGHTS
from trilemma.run.parts import read_parts
from trilemma.run.record import KINDS, SUMMARY
from trilemma.run.run import LARGEST_PICTURE, Run
from trilemma.sharing.hub_card import hub_card

PRIVATE = "private images"  # in place of where the images lie
ENVIRONMENT = "environment.json"
OF_CONFIG = (*KINDS, "trilemma", "n_images", "notes")
OF_ENVIRONMENT = ("python", "torch", "device", "device_name", "precision")
Content = bytes | Path


def public_files(run: Run, repository: str) -> dict[str, Content]:
    """The files of a finished run as they are shared, by name: contents, or where the content is.

    Args:
        repository: OWNER/NAME, which the card names.
    Raises:
        UserError: the run is not finished, or a text still says something of this machine.
    """
    if run.unfinished is not None:
        raise UserError(f"{run.path} is {run.unfinished}; resume its training first, or push a finished run")
    words = private_words(run)
    config, summary = public_config(run, words), public_summary(run.summary, words)
    environment = {key: value for key, value in _environment(run).items() if key in OF_ENVIRONMENT}
    texts = {name: json_text(obj) for name, obj in ((CONFIG, config), (SUMMARY, summary), (ENVIRONMENT, environment))}
    grid = _grid(run.path / GRID)
    texts["README.md"] = hub_card(run, repository, config, summary, environment, has_grid=grid is not None)
    for name, text in texts.items():
        if (word := _first_private(text.replace(repository, ""), words)) is not None:
            raise UserError(f'{run.path}: {name} would say "{word}", which is of this machine; nothing was uploaded')
    files: dict[str, Content] = {name: text.encode() for name, text in texts.items()}
    return {**files, WEIGHTS: run.weights_file, **({} if grid is None else {GRID: grid})}


def public_config(run: Run, words: Sequence[str]) -> dict[str, Any]:
    """The run's config.json, without where its images and its parts lay."""
    config = {key: run.config[key] for key in OF_CONFIG if key in run.config}
    config["notes"] = _without(words, config.get("notes"))
    config["parts"] = {name: _public_part(part) for name, part in config["parts"].items()}
    is_public = is_named(config["data"]) or config["data"].startswith(PREFIX)
    if not is_public:
        config |= {"data": PRIVATE, "notes": []}
    settings = make(DataConfig, config["data_config"]), make(TrainConfig, config["training"])
    source = config["data"] if is_public else "IMAGES"
    config["command"] = train_command(run.recipe, source, run.model_config, *settings, read_parts(config))
    return config


def public_summary(summary: Mapping[str, Any], words: Sequence[str]) -> dict[str, Any]:
    """A run's summary.json, without the warnings that name a place on this machine."""
    return {**summary, "warnings": _without(words, summary.get("warnings"))}


def _without(words: Sequence[str], texts: object) -> list[str]:
    """Those of some texts that hold none of the words."""
    return [str(text) for text in texts if _first_private(str(text), words) is None] if isinstance(texts, list) else []


def private_words(run: Run) -> list[str]:
    """What a shared text must not hold: places of this machine, and the names of its user and of itself."""
    places = [Path.home(), Path.cwd(), run.path.absolute(), run.path.resolve(), run.path.absolute().parent]
    if Path(run.config["data"]).is_absolute():
        places.append(Path(run.config["data"]))
    return [*(str(place) for place in places if len(place.parts) > 1), *map(_in_a_path, _names()), platform.node()]


def _names() -> list[str]:
    """The user's name, where the system has one."""
    try:
        return [getpass.getuser()]
    except (OSError, KeyError, ImportError):
        return []


def _in_a_path(name: str) -> str:
    return f"/{name}/"


def _first_private(text: str, words: Sequence[str]) -> str | None:
    """The first word that stands by itself in a text, whose paths may be those of any system."""
    plain = _with_slashes(text)
    return next((word for word in words if word and _stands_in(_with_slashes(word), plain)), None)


def _with_slashes(text: str) -> str:
    return text.replace("\\\\", "/").replace("\\", "/")


def _stands_in(word: str, text: str) -> bool:
    """Whether a word is in a text, not as a part of a longer one."""
    before, after = r"(?<!\w)" if word[0].isalnum() else "", r"(?!\w)" if word[-1].isalnum() else ""
    return re.search(before + re.escape(word) + after, text) is not None


def _public_part(part: Mapping[str, Any]) -> dict[str, Any]:
    """What is said of a part, without where it lay."""
    return {**part, "run": None, "parts": {name: _public_part(own) for name, own in part.get("parts", {}).items()}}


def _environment(run: Run) -> dict[str, Any]:
    try:
        environment = read_json(run.path / ENVIRONMENT)
    except FileNotFoundError:
        return {}
    return environment if isinstance(environment, dict) else {}


def _grid(path: Path) -> bytes | None:
    """The pixels of the run's last samples, without what the picture says of its making; None of a model without."""
    from PIL import Image

    if not path.exists():
        return None
    with Image.open(io.BytesIO(read_plain(path, LARGEST_PICTURE))) as picture:
        plain = Image.new(picture.mode, picture.size)
        plain.paste(picture)
    content = io.BytesIO()
    plain.save(content, "png")
    return content.getvalue()
