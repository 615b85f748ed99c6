"""What is asked of a comparison: checked, as values that tell it from another, and as the command to make it again."""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from trilemma.comparison.entries import Entry, rows_of
from trilemma.comparison.plain import Json
from trilemma.data.sources.arrays import GIVEN
from trilemma.errors import UserError
from trilemma.files import user_path
from trilemma.language import ENGLISH
from trilemma.run.contestant import ImageSet
from trilemma.values import shown

if TYPE_CHECKING:
    from trilemma.data import Data

ONE_PER_FAMILY = ("ae-stacked", "vae", "gan-dcgan", "diffusion")


class Budget(NamedTuple):
    """What is equal: minutes of each training, or training images that it sees, and parameters; trainings of each
    model."""

    minutes: float | None
    images: int | None
    parameters: int | None
    seeds: int

    @property
    def length(self) -> dict[str, Any]:
        """The key of a training that says how long it is."""
        return {"minutes": self.minutes} if self.minutes is not None else {"images": self.images}


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
        names += (matches := list_models(word)) if "*" in word else [get_recipe(word).name]
        if "*" in word and not matches:
            raise UserError(f'no model matches "{word}"; choose from {", ".join(list_models("*"))}')
    return list(dict.fromkeys(names))


def refuse_training_keys(**given: object) -> None:
    for key, value in given.items():
        if value is not None:
            raise UserError(
                f"{key}={shown(value)}: finished runs are compared as they are; leave {key} out, or leave the runs out"
            )


def request_of(
    entries: Sequence[Entry],
    data: "Data",
    budget: Budget | None,
    n: int,
    seed: int,
    features: str = "auto",
    inverted: int = 0,
    prompt: str | None = None,
) -> Json:
    """What tells a comparison from another."""
    from trilemma.data.load import source_word

    if budget is None:
        wanted: Json = {"runs": [_place_of(entry) for entry in entries]}
        wanted |= {} if any(entry.run for entry in entries) else {"against": source_word(data.source)}
    else:
        wanted = {"models": list(rows_of(entries)), **budget.length, "seeds": budget.seeds}
        wanted |= {} if budget.parameters is None else {"parameters": budget.parameters}
    return {
        "data": source_word(data.source),
        "fingerprint": data.fingerprint,
        **wanted,
        "n": n,
        **({} if features == "auto" else {"features": features}),
        **({"inverted": inverted} if inverted else {}),
        **({} if prompt is None else {"prompt": prompt}),
        "size": list(data.shape[1:]),
        "seed": seed,
    }


def _place_of(entry: Entry) -> str:
    """The path of a run or of a set of images, or the name of a pipeline; of images in memory the SHA-256 of their
    levels."""
    if entry.run is not None:
        return str(entry.run.path.resolve())
    if entry.pipeline is not None:
        return entry.pipeline.name
    if place := entry.path or entry.place:
        return str(place)
    images = entry.images
    return f"{GIVEN}:{images.fingerprint() if isinstance(images, ImageSet) else entry.label}"


def command_of(
    request: Json,
    out: str | Path | None,
    *,
    with_size: bool,
    want: str = "balance",
    curves: bool = True,
    lang: str = ENGLISH,
) -> str:
    """The command line that makes this report again, from any folder; of images in memory, what stands for it."""
    if any(place.startswith(f"{GIVEN}:") for place in request.get("runs", ())):
        return "the same call of trilemma.compare"
    if "runs" in request:
        words = [*request["runs"], *([f"against={request['against']}"] if "against" in request else [])]
        with_size = with_size and "against" in request
    else:
        words = [f"data={request['data']}", f"models={','.join(request['models'])}"]
        words += [f"{key}={_shortest(request[key])}" for key in ("minutes", "images", "parameters") if key in request]
        words += [f"seeds={request['seeds']}"] if request["seeds"] > 1 else []
    words += [f"size={'x'.join(map(str, request['size']))}"] if with_size else []
    words = [*words, f"n={request['n']}", f"seed={request['seed']}"]
    words += [f"{key}={request[key]}" for key in ("features", "inverted", "prompt") if key in request]
    words += [] if want == "balance" else [f"want={want}"]
    words += [] if curves else ["curves=false"]
    words += [] if lang == ENGLISH else [f"lang={lang}"]
    words += [] if out is None else [f"out={user_path(out).absolute()}"]
    return shlex.join(["trilemma", "compare", *words])


def _shortest(value: float) -> str:
    """The fewest digits that give the same number: with another number the command would ask for another comparison."""
    if isinstance(value, int):
        return str(value)
    return text if float(text := f"{value:g}") == value else repr(value)
