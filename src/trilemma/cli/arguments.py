"""Words of a command line: `key=value`, `--key value` and `--key=value` are brought into one form, values get types."""

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from trilemma.arguments import FALSE, TRUE
from trilemma.errors import UserError
from trilemma.verbs import VERBS, Verb, check_value, kinds

IMPORT = "--import"
MAY_BE_EMPTY = ("augment",)  # keys of a verb; of others the settings say what "" is
SETTING = "--setting"  # the hidden option that carries keys of a model, which the verb does not know


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


def take_verb(words: Sequence[str]) -> tuple[Verb | None, list[str]]:
    """The verb that a line begins with, and the rest of its words.

    >>> verb, rest = take_verb(["data", "show", "digits"])
    >>> verb.name, rest
    ('data show', ['digits'])
    """
    for verb in VERBS:
        name = verb.name.split()
        if list(words[: len(name)]) == name:
            return verb, list(words[len(name) :])
    return None, list(words)


def normalise(words: Sequence[str]) -> list[str]:
    """The words in the form typer reads: the verb, options as `--key=value`, then what the verb applies to.

    Keys that the verb does not have become settings where the verb takes settings, and stay as they are (for typer's
    error, which names the nearest key) where it does not.
    """
    verb, words = take_verb(words)
    if verb is None:
        return words
    flags = {name for name, schema in verb.keys.items() if kinds(schema) == {"boolean"}}
    options, what, places, pairs = verb.name.split(), [], {}, {}
    for key, value in _pairs(words, flags | {f"no-{name}" for name in flags} | {"help"}):
        if key is None:
            what.append(value)
            continue
        _check_pair(verb, key, value, pairs)
        if key in verb.places:
            places[key] = value
        elif value is None:
            options.append(f"--{key}")
        elif key in flags and value.lower() in TRUE + FALSE:
            options.append(f"--{key}" if value.lower() in TRUE else f"--no-{key}")
        elif key not in verb.keys and verb.open:
            options.append(f"{SETTING}={key}={value}")
        else:
            options.append(f"--{key}={value}")
    for place, name in enumerate(verb.places):  # model=vae data=digits, where these have a place instead of a key
        if name in places and place <= len(what):
            what.insert(place, places[name])
    return [*options, "--", *what] if what else options


def _spaced(words: Sequence[str]) -> str | None:
    """The first key with a space before or after its sign, as it was typed.

    >>> _spaced(["vae", "steps", "=", "5"]), _spaced(["steps", "=5"]), _spaced(["out=a"])
    ('steps = 5', 'steps =5', None)
    """
    for k, word in enumerate(words):
        if word.startswith("=") and not Path(word).exists():
            return " ".join(words[max(0, k - 1) : k + (2 if word == "=" else 1)])
    return None


def _check_pair(verb: Verb, key: str, value: str | None, pairs: dict[str, str | None]) -> None:
    """Refuse a key that is given twice, and one that has no value but needs one; takes note of the others."""
    if pairs.get(key) is not None:
        raise UserError(f"{key}= is given twice, as {pairs[key]} and as {value}; give it once")
    pairs[key] = value
    if value == "" and key in verb.keys and key not in (*verb.places, *MAY_BE_EMPTY):
        raise UserError(f"{key}= has no value; give one, or leave {key}= out")
    if value is not None and key in verb.keys:
        check_value(key, value, verb.keys[key])


def _pairs(words: list[str], flags: set[str]) -> Iterator[tuple[str | None, Any]]:
    """(key, value) of each option, (key, None) of an option without value, (None, word) of any other word."""
    words = list(words)
    if (spaced := _spaced(words)) is not None:
        raise UserError(f'"{spaced}": write a key, its sign and its value without spaces between, as steps=100')
    while words:
        word = words.pop(0)
        match = re.fullmatch(r"(--)?([A-Za-z_][\w.-]*)=(.*)", word, re.DOTALL)
        if word == "--":
            yield from ((None, rest) for rest in words)
            return
        if match and (match[1] or not Path(word).exists()):
            yield match[2].replace("-", "_"), os.path.expanduser(match[3])
        elif word == "-h":
            yield "help", None
        elif not word.startswith("--"):
            yield None, word
        elif word[2:] in flags or not words or words[0].startswith("--"):
            yield word[2:], None
        else:
            yield word[2:].replace("-", "_"), os.path.expanduser(words.pop(0))
