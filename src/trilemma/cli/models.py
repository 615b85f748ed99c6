"""`trilemma list`: what is shown of the models, from words.json; of models of one's own, from the registry; and of
published checkpoints, from their table."""

import math
import sys
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

import trilemma
from trilemma import vocabulary
from trilemma.arguments import typed, word
from trilemma.cli.output import facts, say, table
from trilemma.errors import unknown
from trilemma.pretrained.table import CHECKPOINTS
from trilemma.words import size_in_words

if TYPE_CHECKING:
    from trilemma.registry import Published, Recipe

SAMPLES = (
    "seconds of training until they cover a quarter of the held-out images of the model's own data (one thread of an "
    "AMD EPYC with AVX2)"
)
LISTED = ("good for", "first samples", "summary")  # facts in the table of all models
KEYS, TRAINING, SAMPLING = "keys", "training", "sampling"
TITLES = {
    KEYS: "Keys for trilemma train {} DATA key=value",
    TRAINING: "Keys of the training, not in `trilemma train --help`",
    SAMPLING: "Keys for trilemma sample RUN key=value",
}


def entry_of(recipe: "Recipe") -> dict[str, Any]:
    """What is shown of a model: its facts, and rows (key, default, meaning) of its own keys, its training's and its
    sampler's."""
    from trilemma.run.command import NOT_TYPED
    from trilemma.training.request import further_keys

    config = recipe.config
    fields = [(key, field) for key, field in type(config).model_fields.items() if key not in NOT_TYPED]
    own = [[key, word(getattr(config, key)), field.description or ""] for key, field in fields]
    parts = [[name, model, "a part: a run of it, or the model to train it by"] for name, model in recipe.parts.items()]
    return {
        "facts": _facts(recipe),
        KEYS: own + parts,
        TRAINING: [list(row) for row in further_keys(recipe, trilemma.train)],
        SAMPLING: _sampling_rows(recipe),
    }


def show_models(pattern: str = "*") -> None:
    """The models that match a pattern in a table and published checkpoints in another, or one of that name in full."""
    entries = _entries()
    names = [name for name in entries if fnmatchcase(name, pattern)]
    published = [name for name in CHECKPOINTS if fnmatchcase(name, pattern)]
    if not names and not published:
        raise unknown("model", pattern, entries)
    if not names:
        return _show_checkpoints(published, pattern)
    if names == [pattern]:
        return _show_model(pattern, entries[pattern])
    facts_of = {name: entries[name]["facts"] for name in names}
    rows = [[name, *(lines.get(fact, "") for fact in LISTED)] for name, lines in facts_of.items()]
    table(("name", "good for", "samples", "what"), rows)
    if sys.stdout.isatty():
        say(f"samples: {SAMPLES}")
    if published:
        print()
        _show_checkpoints(published, pattern)


def _show_checkpoints(names: list[str], pattern: str) -> None:
    """Published checkpoints in a table, or one of that name in full."""
    if names != [pattern]:
        return table(("published", "verbs", "what"), [_checkpoint_row(name) for name in names])
    row = CHECKPOINTS[pattern]
    lines = {"published": pattern, "repository": row.repository, "summary": row.about, "verbs": ", ".join(row.verbs)}
    facts({**lines, **({"keys": " ".join(typed(row.keys))} if row.keys else {}), **_download_of(row.repository)})


def _download_of(repository: str) -> dict[str, str]:
    """What the hub said of a checkpoint when it was downloaded to this machine: licence, commit and size."""
    from trilemma.pretrained.fetch import KIND
    from trilemma.pretrained.hub import read_record
    from trilemma.pretrained.safety import WEIGHTS

    if (record := read_record(KIND, repository)) is None:
        return {"downloaded": "no; licence and size are said at the first use"}
    weights = sum(size for name, size in record.files.items() if name.endswith(WEIGHTS))
    total = sum(record.files.values())
    return {
        "downloaded": f"{size_in_words(total)}, of which {size_in_words(weights)} are weights",
        "licence": record.licence or "not stated",
        "commit": record.commit,
    }


def _checkpoint_row(name: str) -> tuple[str, str, str]:
    return name, ", ".join(CHECKPOINTS[name].verbs), CHECKPOINTS[name].about


def _show_model(name: str, entry: dict[str, Any]) -> None:
    """Everything about one model."""
    facts(entry["facts"])
    for what, title in TITLES.items():
        if entry[what]:
            print(f"\n{title.format(name)}")
            table(("key", "default", "what"), entry[what])


def _entries() -> dict[str, Any]:
    """What is shown, by name; the registry is asked only where it is loaded, for it may have models of one's own."""
    names = vocabulary.models()
    if "trilemma.registry" not in sys.modules:
        return {name: vocabulary.model_entry(name) for name in names}
    from trilemma.registry import get_recipe, list_models

    return {
        name: vocabulary.model_entry(name) if name in names else entry_of(get_recipe(name)) for name in list_models()
    }


def _facts(recipe: "Recipe") -> dict[str, str]:
    """One line each; empty ones are left out."""
    from trilemma.registry import count_parameters, without_memory

    parameters = count_parameters(without_memory(recipe))
    lines = {
        "model": recipe.name,
        "family": recipe.family,
        "summary": recipe.summary,
        "good for": recipe.suits,
        "first samples": _first_samples(recipe.first_samples_s),
        "source": recipe.source,
        "data": recipe.data,
        "values to reach": " ".join(typed(recipe.targets)),
        **({} if recipe.published is None else _published(recipe.published)),
        "parts": " ".join(typed(recipe.parts)),
        "parameters": f"{parameters:,} for images of {' x '.join(map(str, recipe.config.shape))}",
        "training": " ".join(typed(recipe.training)),
    }
    return {name: line for name, line in lines.items() if line}


def _published(published: "Published") -> dict[str, str]:
    """What is published of a model."""
    return {
        "published": " ".join(typed(published.settings)),
        "published values": " ".join(typed(published.values)),
        "published on": published.data,
        "published in": published.source,
    }


def _sampling_rows(recipe: "Recipe") -> list[list[str]]:
    """The keys of a model's sampler."""
    from trilemma.registry import sampling_keys

    fields = sampling_keys(recipe).model_fields
    return [[key, word(field.default), field.description or ""] for key, field in fields.items()]


def _first_samples(seconds: float | None) -> str:
    """Seconds to the first good samples of a model."""
    if seconds is None:
        return ""
    return f"{seconds:.0f} s" if math.isfinite(seconds) else "> 160 s"
