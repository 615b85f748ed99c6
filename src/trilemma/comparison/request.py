"""What is asked of a comparison: checked, as values that tell it from another, and as the command to make it again."""

import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from trilemma.comparison.entries import Entry, rows_of
from trilemma.errors import UserError

if TYPE_CHECKING:
    from trilemma.data import Data

ONE_PER_FAMILY = ("ae-stacked", "vae", "gan-dcgan", "diffusion-small")


class Budget(NamedTuple):
    """Minutes of each training, and trainings of each model."""

    minutes: float
    seeds: int


def model_names(models: Sequence[str] | None) -> list[str]:
    """Model names from a list; wildcards are spelt out, unknown names refused."""
    from trilemma.registry import get_recipe, list_models

    if models is None:
        return list(ONE_PER_FAMILY)
    words = [word.strip() for word in models if word.strip()]
    if not words:
        raise UserError('models="" names no model; give names with commas, for instance models=vae,gan-dcgan')
    names: list[str] = []
    for word in words:
        names += _matching(word, list_models) if "*" in word else [get_recipe(word).name]
    return list(dict.fromkeys(names))


def _matching(pattern: str, list_models: Callable[[str], list[str]]) -> list[str]:
    found = list_models(pattern)
    if not found:
        raise UserError(f'no model matches "{pattern}"; choose from {", ".join(list_models("*"))}')
    return found


def refuse_training_keys(**given: Any) -> None:
    for key, value in given.items():
        if value is not None:
            raise UserError(
                f"{key}={value}: finished runs are compared as they are; leave {key} out, or leave the runs out"
            )


def request_of(entries: Sequence[Entry], data: "Data", budget: Budget | None, n: int, seed: int) -> dict[str, Any]:
    """What tells a comparison from another."""
    from trilemma.data.load import source_word

    if budget is None:
        wanted: dict[str, Any] = {"runs": [str(entry.path or entry.run.path.resolve()) for entry in entries]}
    else:
        wanted = {"models": list(rows_of(entries)), "minutes": budget.minutes, "seeds": budget.seeds}
    return {
        "data": source_word(data.source),
        "fingerprint": data.fingerprint,
        **wanted,
        "n": n,
        "size": list(data.shape[1:]),
        "seed": seed,
    }


def command_of(request: dict[str, Any], out: str | Path | None, *, with_size: bool) -> str:
    """The command line that makes this report again, from any folder."""
    if "runs" in request:
        words = request["runs"]
    else:
        words = [f"data={request['data']}", f"models={','.join(request['models'])}"]
        words += [f"minutes={_shortest(request['minutes'])}"]
        words += [f"seeds={request['seeds']}"] if request["seeds"] > 1 else []
        words += [f"size={'x'.join(map(str, request['size']))}"] if with_size else []
    words = [*words, f"n={request['n']}", f"seed={request['seed']}"]
    words += [] if out is None else [f"out={Path(out).expanduser().absolute()}"]
    return shlex.join(["trilemma", "compare", *words])


def _shortest(value: float) -> str:
    """The fewest digits that give the same number: with another number the command would ask for another comparison."""
    return text if float(text := f"{value:g}") == value else repr(value)
