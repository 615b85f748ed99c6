"""The words of a command line, known without loading torch: verbs, models, data sets, figures, and their keys.

words.json holds what the code says, so that a wrong word is answered at once, help is shown without loading anything,
and the shell can complete a right word. `make words` writes it (cli/collect.py); a test compares the two.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Any

from trilemma.errors import UserError, unknown, unknown_key
from trilemma.files import user_path
from trilemma.words import first_names

FILE = Path(__file__).with_name("words.json")
HUB = "hf:"
DATA_KINDS = (
    "a folder of images, a .zip or .tar of one, a folder of .tar shards, a .npz or .npy file, an idx file of images, "
    f"a .parquet file or a folder of them, or {HUB}NAME"
)


@cache
def _words() -> dict[str, Any]:
    return json.loads(FILE.read_text("utf-8"))


def verb_schema(name: str) -> Mapping[str, Any]:
    """The keys of a verb as a JSON schema."""
    return _words()["verbs"][name]


def models() -> list[str]:
    """The models of `trilemma list`."""
    return list(_words()["models"])


def model_entry(name: str) -> Mapping[str, Any]:
    """What `trilemma list` shows of a model."""
    return _words()["models"][name]


def data_words() -> list[str]:
    """The data sets of `trilemma data list`."""
    return _words()["data"].split()


def figures() -> list[str]:
    """The figures of `trilemma figure`."""
    return list(_words()["figures"])


def check_model(name: str) -> None:
    """Raises UserError for a name, or a pattern, that fits no model of ours."""
    if not any(fnmatchcase(model, name) for model in models()):
        raise unknown("model", name, models())


def check_figure(name: str) -> None:
    """Raises UserError for an unknown figure."""
    if name not in figures():
        raise unknown("figure", name, figures())


def check_data(source: str) -> None:
    """Raises UserError for data that are neither known by name nor a path that exists."""
    named = source.partition(":")[0] in data_words()
    if not named and not source.startswith(HUB) and not user_path(source).exists():
        raise no_data(source)


def no_data(source: str) -> UserError:
    """The error for a source that does not exist: the nearest word, or what a path may be."""
    words, path = data_words(), user_path(source)
    if "://" in source:
        return UserError(f"{source} is an address; download it and give the path of the file, or {HUB}NAME")
    if path.suffix or len(path.parts) > 1 or "\\" in source:
        place = "" if path.is_absolute() else f" in {Path.cwd()}"
        return UserError(f"{path} not found{place}; give {DATA_KINDS}, or one of {', '.join(words)}")
    return unknown("data source", source, words)


def check_training_keys(model: str, keys: Iterable[str]) -> None:
    """Raises UserError for a key that neither training nor the model takes; `NAME.key` is left to the part NAME."""
    parts = [part.partition("=")[0] for part in model_entry(model)["facts"].get("parts", "").split()]
    keys = (part if (part := key.partition(".")[0]) in parts else key for key in keys)
    takes = {"training": _words()["training"].split(), model: _own_keys(model, "keys")}
    _check_keys(keys, takes, f"`trilemma list {model}` shows its keys", trained_with)


def check_sampling_keys(model: str, verb: str, options: Sequence[str], keys: Iterable[str]) -> None:
    """Raises UserError for a key that neither the verb nor the model's sampler takes."""
    takes = {verb: options, f"drawing from {model}": _own_keys(model, "sampling")}
    _check_keys(keys, takes, of=sampled_with)


def sampled_with(key: str) -> str:
    """The models whose samplers take a key, in words; "" for none."""
    return _having(key, "sampling")


def trained_with(key: str) -> str:
    """The models that have a key in their training, in words; "" for none."""
    return _having(key, "keys")


def check_figure_keys(name: str, keys: Iterable[str]) -> None:
    """Raises UserError for a key that a figure does not take."""
    _check_keys(keys, {f"the figure {name}": _words()["figures"][name].split()})


def _having(key: str, what: str) -> str:
    names = [model for model in models() if key in _own_keys(model, what)]
    return first_names(names) if names else ""


def _own_keys(model: str, what: str) -> list[str]:
    """Names in one of the tables of a model."""
    return [key for key, *_ in model_entry(model)[what]]


def _check_keys(
    keys: Iterable[str],
    takes: dict[str, Sequence[str]],
    see: str = "",
    of: Callable[[str], str] = lambda key: "",
) -> None:
    names = {key for own in takes.values() for key in own}
    for key in keys:
        if key not in names:
            raise unknown_key(key, takes, see, of(key))
