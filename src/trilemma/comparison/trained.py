"""What is said of a training: its run folder in words and numbers, its curves, and the commands that make it again."""

import shlex
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from trilemma.comparison.content import Asked, Curve, Trained
from trilemma.comparison.entries import Entry
from trilemma.comparison.plain import Json, finite
from trilemma.errors import UserError
from trilemma.text import quoted

if TYPE_CHECKING:
    from trilemma.data import Data
    from trilemma.metrics.receipt import Score
    from trilemma.run.run import Run

CURVE_POINTS = 200  # of one loss curve at most
# of a model whose bound takes many calls: 512 in all, as many as 51 images of diffusion take in ten steps
PATH_BOUND = {"bound_samples": 8, "bound_images": 64}
MOST_CURVES = 40  # of a training; no model here has more than 20


def training_of(run: "Run", data: "Data") -> Trained:
    """What the run folder says of the training."""
    summary, recipe = run.summary, run.recipe
    return Trained(
        recipe=recipe.name,
        family=recipe.family,
        summary=recipe.summary,
        source=recipe.source,
        run=str(run.path.absolute()),
        weights=run.weights_id,
        parameters=summary["parameters"],
        images=summary["images"],
        epochs=summary["images"] / max(len(data.train), 1),
        steps=summary.get("steps"),
        seconds=run.seconds,
        images_per_second=summary["images_per_second"],
        valid={k: v for k, v in summary.items() if k.startswith("valid_") and finite(v)},
        settings=run.config["model_config"],
        training={**run.config["training"], **run.config["data_config"]},
    )


def curves(log: Sequence[Json]) -> list[Curve]:
    """Loss parts and validation values of a log, MOST_CURVES at most, as at most CURVE_POINTS points over training
    seconds."""
    names = dict.fromkeys(key for row in log for key in row if "/" in key or key.startswith("valid_"))
    return [_curve(name, log) for name in list(names)[:MOST_CURVES]]


def _curve(name: str, log: Sequence[Json]) -> Curve:
    points = [(row["seconds"], row[name]) for row in log if finite(row.get(name))]
    last = max(len(points) - 1, 0)
    count = min(len(points), CURVE_POINTS)
    spread = [points[round(i * last / max(count - 1, 1))] for i in range(count)]
    return Curve(name, [x for x, _ in spread], [y for _, y in spread])


def usefulness_of(run: "Run", seed: int) -> "list[Score]":
    """What `augment` has measured of these weights by classifiers, with the model's own settings and this seed, in the
    order of the catalogue. A file that cannot be read is left out."""
    from trilemma.files import read_json
    from trilemma.metrics.catalogue import OF_CLASSIFIER
    from trilemma.metrics.receipt import LARGEST_SCORE, METRICS, Score

    def is_known(score: Score) -> bool:
        of_these = score.weights == run.weights_id and score.data_fingerprint == run.config["fingerprint"]
        return score.name in OF_CLASSIFIER and of_these and score.seed == seed and not score.settings

    scores = list[Score]()
    for path in sorted((run.path / METRICS).glob("*.json")):
        with suppress(UserError, OSError, ValueError, LookupError, TypeError, AttributeError):
            scores.append(Score.from_json(read_json(path, LARGEST_SCORE)))
    return sorted(filter(is_known, scores), key=lambda score: OF_CLASSIFIER.index(score.name))


def keys_of(run: "Run", inverted: int) -> dict[str, Any]:
    """What `evaluate` is asked of a run in a comparison, beside what it is asked of all."""
    from trilemma.types import BoundsByPath, Inverts, Reconstructs, Upscales

    bound = PATH_BOUND if isinstance(run.model, BoundsByPath) else {}
    inverts = isinstance(run.model, Inverts | Reconstructs) and not isinstance(run.model, Upscales)
    return {**bound, **({"inverted": inverted} if inverts and inverted else {})}


def words_of(asked: Asked, *names: str) -> list[str]:
    """The keys of a comparison with these names that were given, as key=value."""
    return [word for word in shlex.split(asked.command) if word.split("=", 1)[0] in names]


def commands(entry: Entry, data: "Data", asked: Asked) -> dict[str, str]:
    """What trains, draws and measures the same again; of a pipeline or a set of images, what measures it."""
    from trilemma.data.load import source_word

    run, keys = entry.run, [f"n={asked.n}", f"seed={asked.seed}", f"batch={asked.batch}"]
    keys += [] if asked.features == "auto" else [f"features={asked.features}"]
    if run is not None:
        path = str(run.path.absolute())
        keys += [f"{key}={value}" for key, value in keys_of(run, asked.inverted).items()]
        return {
            **({"train": run.command} if run.command else {}),
            "sample": quoted(["trilemma", "sample", path, "n=64", f"seed={asked.seed}"]),
            "evaluate": quoted(["trilemma", "evaluate", path, *keys]),
        }
    if entry.place is None and entry.pipeline is None:
        return {}
    what = entry.pipeline.name if entry.pipeline else str(entry.place)
    size = f"size={'x'.join(map(str, data.shape[1:]))}"  # of a pipeline, the size it draws at
    keys += words_of(asked, "prompt") if entry.pipeline else [size]
    against = [f"against={source_word(data.source)}", f"split={asked.split}"]
    return {"evaluate": quoted(["trilemma", "evaluate", what, *against, *keys])}
