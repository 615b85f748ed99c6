"""Words of a command line: `key=value`, `--key value` and `--key=value` are brought into one form, values get types."""

import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from trilemma.errors import UserError

TRUE, FALSE = ("true", "yes", "on", "1"), ("false", "no", "off", "0")
CONSTANTS = {"true": True, "false": False, "none": None}
IMPORT = "--import"
MAY_BE_EMPTY = ("augment",)  # keys of a verb; of others the settings say what "" is
SETTING = "--setting"  # the hidden option that carries keys of a model, which the verb does not know


def parse_value(text: str | None) -> Any:
    """The value a text stands for: a number, true, false, none, several of these with commas between, or the text.

    >>> [parse_value(text) for text in ("3", "1e-3", "True", "none", "heun", "32,48", "a,")]
    [3, 0.001, True, None, 'heun', (32, 48), ('a',)]
    """
    if text is None or text.lower() in CONSTANTS:
        return CONSTANTS[text.lower()] if text else None
    if "," in text:
        return tuple(parse_value(part.strip()) for part in text.split(",") if part.strip())
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def word(value: Any) -> str:
    """A value as it is typed, of which `parse_value` and `parse_rate` make the value again.

    >>> word({"critic": 5e-4, "generator": 0.001}), word((128, 64)), word(10.0), word(True)
    ('critic:0.0005,generator:0.001', '128,64', '10', 'true')
    """
    if isinstance(value, Mapping):
        return ",".join(f"{key}:{word(part)}" for key, part in value.items())
    if isinstance(value, tuple | list):
        return ",".join(map(word, value))
    if value is None or isinstance(value, bool):
        return str(value).lower()
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def typed(values: Mapping[str, Any]) -> list[str]:
    """Words `key=value`.

    >>> typed({"lr": 0.001, "hidden": (256, 128)})
    ['lr=0.001', 'hidden=256,128']
    """
    return [f"{key}={word(value)}" for key, value in values.items()]


def parse_settings(words: Sequence[str] | None) -> dict[str, Any]:
    """Keywords from `key=value` words.

    >>> parse_settings(["beta=4", "hidden=256,128", "autoencoder.lr=encoder:1e-3,decoder:2e-3"])
    {'beta': 4, 'hidden': (256, 128), 'autoencoder.lr': {'encoder': 0.001, 'decoder': 0.002}}
    """
    pairs = (word.partition("=") for word in words or ())
    return {key: parse_rate(value) if key.endswith(".lr") else parse_value(value) for key, _, value in pairs}


def parse_rate(text: str | None) -> Any:
    """A learning rate, or one for each player.

    >>> parse_rate("0.002"), parse_rate("critic:5e-4,generator:1e-3")
    (0.002, {'critic': 0.0005, 'generator': 0.001})

    Raises:
        UserError: if it is neither.
    """
    if text is None:
        return None
    try:
        if ":" not in text:
            return float(text)
        return {player: float(rate) for player, rate in (part.split(":") for part in text.split(","))}
    except ValueError:
        raise UserError(
            f'lr="{text}" is not a learning rate; give a number, as lr=0.001, or lr=PLAYER:NUMBER,PLAYER:NUMBER'
        ) from None


def take_imports(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """The modules that a line imports, and the rest of its words.

    >>> take_imports(["--import", "mine", "train", "my-ae", "--import=other.py"])
    (['mine', 'other.py'], ['train', 'my-ae'])
    """
    rest, imports = list(words), []
    while rest and (place := next((k for k, w in enumerate(rest) if w.partition("=")[0] == IMPORT), None)) is not None:
        _, has_value, value = rest.pop(place).partition("=")
        if not has_value:
            value = rest.pop(place) if place < len(rest) else ""
        if not value:
            raise UserError(f"{IMPORT} needs the name of a module, or a file: {IMPORT} mymodel.py")
        imports.append(value)
    return imports, rest


def normalise(words: Sequence[str], command: Any) -> list[str]:
    """The words in the form typer reads: the verb, options as `--key=value`, then what the verb applies to.

    Keys that the verb does not have become settings where the verb takes settings, and stay as they are (for typer's
    error, which names the nearest key) where it does not.
    """
    words, done = list(words), []
    while words and words[0] in getattr(command, "commands", {}):
        command = command.commands[words[0]]
        done.append(words.pop(0))
    if hasattr(command, "commands"):  # no verb, or one that does not exist
        return done + words
    options = {name[2:]: p for p in command.params for name in (*p.opts, *p.secondary_opts) if name.startswith("--")}
    places = [p.name for p in command.params if not p.opts[0].startswith("-")]
    flags = {name for name, option in options.items() if option.is_flag} | {"help"}
    what, named, given = [], {}, {}
    for key, value in _pairs(words, flags):
        if key is None:
            what.append(value)
            continue
        _check_pair(key, value, given, options)
        if key in places:
            named[key] = value
        elif value is None:
            done.append(f"--{key}")
        elif key in flags and value.lower() in TRUE + FALSE:
            done.append(f"--{key}" if value.lower() in TRUE else f"--no-{key}")
        elif key not in options and SETTING[2:] in options:
            done.append(f"{SETTING}={key}={value}")
        else:
            done.append(f"--{key}={value}")
    for place, name in enumerate(places):  # model=vae data=digits, where these have a place instead of a key
        if name in named and place <= len(what):
            what.insert(place, named[name])
    return [*done, "--", *what] if what else done


def _spaced(words: Sequence[str]) -> str | None:
    """The first key with a space before or after its sign, as it was typed.

    >>> _spaced(["vae", "steps", "=", "5"]), _spaced(["steps", "=5"]), _spaced(["out=a"])
    ('steps = 5', 'steps =5', None)
    """
    for k, word in enumerate(words):
        if word.startswith("=") and not Path(word).exists():
            return " ".join(words[max(0, k - 1) : k + (2 if word == "=" else 1)])
    return None


def _check_pair(key: str, value: str | None, given: dict[str, str | None], options: Mapping[str, Any]) -> None:
    """Refuse a key that is given twice, and one that has no value but needs one; takes note of the others."""
    if given.get(key) is not None and not getattr(options.get(key), "multiple", False):
        raise UserError(f"{key}= is given twice, as {given[key]} and as {value}; give it once")
    given[key] = value
    if value == "" and key in options and key not in MAY_BE_EMPTY:
        raise UserError(f"{key}= has no value; give one, or leave {key}= out")
    if value is not None and key in options:
        _check_number(key, value, options[key])


def _check_number(key: str, value: str, option: Any) -> None:
    """Refuse what is no number for a key that takes one, or is less than it may be; typer says it in other words."""
    kind = getattr(getattr(option, "type_descriptor", None), "annotation", None)
    if kind not in (int, float):
        return
    least = getattr(option, "min", None)
    try:
        fits = kind(value) >= (-math.inf if least is None else least)
    except ValueError:
        fits = False
    if not fits:
        bound = "" if least is None else f" of at least {least}"
        raise UserError(f"{key}={value}: give a {'whole ' if kind is int else ''}number{bound}")


def _pairs(words: list[str], flags: set[str]) -> Iterator[tuple[str | None, Any]]:
    """(key, value) of each option, (key, None) of an option without value, (None, word) of any other word."""
    words = list(words)
    if (spaced := _spaced(words)) is not None:
        raise UserError(f'"{spaced}": write a key, its sign and its value without spaces between, as steps=100')
    while words:
        word = words.pop(0)
        given = re.fullmatch(r"(--)?([A-Za-z_][\w.-]*)=(.*)", word, re.DOTALL)
        if word == "--":
            yield from ((None, rest) for rest in words)
            return
        if given and (given[1] or not Path(word).exists()):
            yield given[2].replace("-", "_"), os.path.expanduser(given[3])
        elif word == "-h":
            yield "help", None
        elif not word.startswith("--"):
            yield None, word
        elif word[2:] in flags or not words or words[0].startswith("--"):
            yield word[2:], None
        else:
            yield word[2:].replace("-", "_"), os.path.expanduser(words.pop(0))
