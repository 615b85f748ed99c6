"""Writes words.json and docs/commands.md: python -m trilemma.cli.collect"""

import json
from collections.abc import Iterator
from typing import Any

from trilemma.cli.models import entry_of
from trilemma.data import list_sources
from trilemma.lessons.gallery import LESSONS, settings_of
from trilemma.registry import get_recipe, list_models
from trilemma.signatures import schema_of
from trilemma.training import train
from trilemma.training.request import key_names
from trilemma.verbs import VERBS, Verb, default_of, kind_of
from trilemma.vocabulary import FILE

PAGE = FILE.parents[2] / "docs" / "commands.md"
HEAD = """# Commands

`trilemma VERB [WHAT] [key=value ...]`; `--key value` and `--key=value` are the same, and so are the keywords in Python.
`trilemma help VERB` explains a verb, `trilemma help VERB --json` gives its keys as a JSON schema.
Written by `make words` from the signatures of the functions.
"""


def collect() -> dict[str, Any]:
    """The words as the code has them."""
    return {
        "verbs": {verb.name: schema_of(verb) for verb in VERBS},
        "models": {name: entry_of(get_recipe(name)) for name in list_models()},
        "training": " ".join(key_names(train)),
        "data": " ".join(word for word, _, _ in list_sources()),
        "figures": {name: " ".join(settings_of(lesson).model_fields) for name, lesson in LESSONS.items()},
    }


def page() -> str:
    """docs/commands.md, from words.json."""
    return "\n".join([HEAD, *_table(("command", "in Python", "does"), map(_row, VERBS)), *map(_section, VERBS)])


def _row(verb: Verb) -> tuple[str, str, str]:
    name, place = f"`trilemma {verb.name}`", f"trilemma-{verb.name.replace(' ', '-')}"
    return f"[{name}](#{place})" if verb.keys else name, f"`trilemma.{verb.function}`", verb.about


def _section(verb: Verb) -> str:
    """The keys of a verb."""
    rows = [(f"`{key}`", kind_of(s), default_of(verb, key), s.get("description", "")) for key, s in verb.keys.items()]
    if not rows:
        return ""
    parts = [f"\n## trilemma {verb.name}\n", f"`{verb.usage}`", *([f"\n{verb.see}"] if verb.see else []), ""]
    return "\n".join([*parts, *_table(("key", "type", "default", "what"), rows)])


def _table(columns: tuple[str, ...], rows: Any) -> Iterator[str]:
    for row in (columns, ["---"] * len(columns), *rows):
        yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |"


if __name__ == "__main__":
    FILE.write_text(json.dumps(collect(), indent=1) + "\n", "utf-8")
    PAGE.write_text(page() + "\n", "utf-8")
