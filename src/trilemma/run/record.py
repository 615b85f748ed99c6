"""`config.json` and `summary.json` of a run folder, which anyone may have written: read within bounds, checked as a
whole, so that what reads them further on meets the types it expects."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from trilemma.config import Config, explained
from trilemma.data import Data
from trilemma.data.config import DataConfig
from trilemma.errors import UserError
from trilemma.files import read_json
from trilemma.run.config import TrainConfig
from trilemma.run.locate import CONFIG
from trilemma.run.migration import FORMAT, migrated
from trilemma.run.parts import PartConfig

SUMMARY = "summary.json"
HASH, DIVERGED = "weights_sha256", "diverged"  # keys of a summary
KINDS: dict[str, type] = {  # of the values in config.json
    "format": int,
    "model": str,
    "model_config": dict,
    "data_config": dict,
    "parts": dict,
    "training": dict,
    "data": str,
    "fingerprint": str,
    "classes": list,
    "command": str,
}
NEW = {"data_config", "parts"}  # keys that format 1 did not have
CAPTIONS = "captions_fingerprint"  # of models that read them; earlier versions did not write it
LONGEST = {"model": 100, "data": 4096, "fingerprint": 200, CAPTIONS: 200}  # letters
WORDS = {int: "a whole number", str: "text", dict: "an object", list: "a list of texts"}
COUNTS = ("images", "seconds", "images_per_second", "parameters")  # that every summary has


def read_config(folder: Path) -> dict[str, Any]:
    """What a run's config.json says.

    Raises:
        UserError: if there is none, or a value in it has the wrong type or is out of bounds, or it is of a later
            version.
    """
    return check_config(_read(folder, CONFIG), folder / CONFIG)


def check_config(config: Any, file: Path) -> dict[str, Any]:
    """The content of a config.json, checked, in the form of this version; errors as `read_config`."""
    missing = [key for key in KINDS if not isinstance(config, dict) or key not in config]
    if missing and not (isinstance(config, dict) and set(missing) <= NEW and config["format"] == 1):
        raise UserError(f"{file} is not the {CONFIG} of a run: it has no {', '.join(missing)}")
    for key, kind in {**KINDS, CAPTIONS: str}.items():
        if key in config:
            _check_kind(key, config[key], kind, file)
    if config["format"] not in range(1, FORMAT + 1):
        raise UserError(
            f"{file} has format {config['format']}; this version reads up to {FORMAT}: use the version that made it"
        )
    config = migrated(config)
    _check_values(DataConfig, config["data_config"], f"{file}: in data_config")
    _check_values(TrainConfig, config["training"], f"{file}: in training")
    for name, part in config["parts"].items():
        _check_values(PartConfig, part, f"{file}: in the part {name}")
    return config


def _check_kind(key: str, value: Any, kind: type, file: Path) -> None:
    """Whether a value has its type, and no more letters than it may."""
    if type(value) is not kind or (kind is list and not all(isinstance(entry, str) for entry in value)):
        raise UserError(f"{file}: {key} must be {WORDS[kind]}; restore the file or train again")
    if key in LONGEST and len(value) > LONGEST[key]:
        raise UserError(f"{file}: {key} has {len(value):,} letters; restore the file or train again")


def fingerprints(data: Data, *, captions: bool = True) -> dict[str, str]:
    """What a config.json says of the data of a training, by which `changed_data` tells whether others are the same.

    Args:
        captions: whether the model reads them.
    """
    own = {"fingerprint": data.fingerprint}
    return {**own, CAPTIONS: data.captions_fingerprint} if captions else own


def changed_data(then: Mapping[str, Any], now: Mapping[str, Any]) -> str | None:
    """Which data are not the same in two configs: "images", or else "captions", where both say it; None where all
    are."""
    if then["fingerprint"] != now["fingerprint"]:
        return "images"
    return "captions" if then.keys() & now.keys() >= {CAPTIONS} and then[CAPTIONS] != now[CAPTIONS] else None


def read_summary(folder: Path) -> dict[str, Any]:
    """What a run's summary.json says; a value that is not finite is None.

    Raises:
        UserError: if there is none, or it lacks a number.
    """
    summary, file = _read(folder, SUMMARY), folder / SUMMARY
    if not isinstance(summary, dict):
        raise UserError(f"{file} is not an object; repeat the training's command, which writes it again")
    for key in COUNTS:
        if not _is_number(summary.get(key)) or summary[key] < 0:
            raise UserError(f"{file}: {key} must be a number; repeat the training's command, which writes it again")
    return {key: _value(value, f"{file}: {key}") if _is_value(key) else value for key, value in summary.items()}


def written_hash(folder: Path) -> str | None:
    """The SHA-256 of the weights as a run's summary.json says it; None of earlier versions, which did not write it."""
    if not (folder / SUMMARY).exists():
        return None
    summary = _read(folder, SUMMARY)
    written = summary.get(HASH) if isinstance(summary, dict) else None
    return written if isinstance(written, str) else None


def _read(folder: Path, name: str) -> Any:
    try:
        return read_json(folder / name)
    except UserError as error:
        raise UserError(f"{error}; restore it or train again" if "is not valid" in str(error) else str(error)) from None
    except (FileNotFoundError, NotADirectoryError):
        missing = f"it has no {name}" if folder.exists() else "no such folder"
        raise UserError(f"{folder} is not a (finished) run: {missing}; give a folder that train made") from None


def _check_values(kind: type[Config], values: Any, where: str) -> None:
    """Whether keys are known and have their types; earlier versions did not write all of them."""
    try:
        kind.model_validate_json(json.dumps(values), strict=True)
    except ValidationError as error:
        raise UserError(f"{where}, {explained(kind, values, error)}") from None


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def _is_value(key: str) -> bool:
    return key.startswith(("valid_", "train_")) or key == "mean_image_rmse"


def _value(value: Any, where: str) -> float | None:
    """A value of a summary: earlier versions wrote NaN where a training had diverged."""
    if value is not None and type(value) not in (int, float):
        raise UserError(f"{where} must be a number; repeat the training's command, which writes it again")
    return value if _is_number(value) else None
