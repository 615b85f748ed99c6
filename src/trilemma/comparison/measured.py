"""Measurements of a comparison, kept in its folder until the report is written, so that the same command resumes it.

A measurement is FOLDER/measured/DIGEST-KIND, where DIGEST tells the run and its weights or the content of a set of
images, the protocol, the machine and the versions apart: one of other weights, or of other images, is never taken. A
file that cannot be read is measured again; one that cannot be written is not kept.
"""

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from trilemma.errors import UserError
from trilemma.files import read_json, remove_leftovers, write_atomic, write_json
from trilemma.hardware import describe

if TYPE_CHECKING:
    from trilemma.metrics.controls import Reference
    from trilemma.metrics.evaluate import Evaluation
    from trilemma.run.contestant import ImageSet
    from trilemma.run.run import Run
    from trilemma.run.text_to_image import TextToImage

    Known = Run | ImageSet | TextToImage  # contestants whose content is known

FOLDER = "measured"
OURS = re.compile(r"[0-9a-f]{32}-\w+\.(safetensors|json)")  # the whole name of a file
NONE: Mapping[str, Any] = MappingProxyType({})
DEVIATIONS, PLAIN = ("shared", "own", "cuts"), ("value", "n", "least", "most", "halves")  # of a spread
T = TypeVar("T")


@dataclass(frozen=True)
class Measured:
    """The measurements of the comparison in `folder` that are not in its report yet."""

    folder: Path

    def evaluation(
        self,
        contestant: "Known",
        reference: "Reference",
        settings: Mapping[str, Any],
        measure: Callable[[], "Evaluation"],
    ) -> "Evaluation":
        """That of a contestant by these settings, or else what `measure` gives, which is kept."""
        path = self._path(contestant, reference, "evaluation.safetensors", settings)
        with suppress(OSError, SafetensorError, UserError, ValueError, LookupError, TypeError, AttributeError):
            return _read(path, reference)
        evaluation = measure()
        with suppress(OSError, UserError):
            _write(path, evaluation)
        return evaluation

    def points(
        self, run: "Run", reference: "Reference", kind: type[T], measure: Callable[[], tuple[list[T], bool]]
    ) -> tuple[T, ...]:
        """Points of a curve, of a dataclass of plain values, or else what `measure` gives; which is kept if that says
        that these are all."""
        path = self._path(run, reference, f"{kind.__name__}.json")
        with suppress(OSError, UserError, TypeError):
            return tuple(kind(**point) for point in read_json(path))
        points, complete = measure()
        if complete:
            with suppress(OSError, UserError):
                write_json(path, [asdict(point) for point in points])  # type: ignore[call-overload]
        return tuple(points)

    def clear(self) -> None:
        """Remove them, once the report has them; what else lies there stays."""
        folder = self.folder / FOLDER
        with suppress(OSError):
            remove_leftovers(folder)
            for path in folder.iterdir():
                if OURS.fullmatch(path.name):
                    path.unlink()
            folder.rmdir()

    def _path(
        self,
        contestant: "Known",
        reference: "Reference",
        ending: str,
        settings: Mapping[str, Any] = NONE,
    ) -> Path:
        from trilemma.metrics.receipt import versions

        setup = reference.setup
        parts = {
            "contestant": _identity(contestant, setup.n, setup.seed),
            "features": (setup.network.name, setup.network.sha256),
            "images": (setup.data.fingerprint, setup.data.shape, setup.split, setup.own, setup.n, setup.seed),
            "settings": dict(settings),
            "machine": (describe(), torch.get_num_threads()),
            "versions": versions(),
        }
        digest = hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()
        return self.folder / FOLDER / f"{digest[:32]}-{ending}"


def _identity(contestant: "Known", n: int, seed: int) -> tuple[object, ...]:
    """What tells a run with its weights and its device from others, a pipeline by its commit or its content and
    its prompts, or n images of a seed by their content."""
    from trilemma.run.contestant import ImageSet
    from trilemma.run.text_to_image import TextToImage

    if isinstance(contestant, TextToImage):
        return contestant.name, contestant.identity
    if isinstance(contestant, ImageSet):
        return contestant.name, contestant.shape, contestant.count, contestant.fingerprint(n, seed)
    run = contestant
    name, config = run.recipe.name, run.config["model_config"]
    return str(run.path), name, config, run.weights_id, run.unfinished, str(run.device)


def _write(path: Path, evaluation: "Evaluation") -> None:
    tensors = {"fakes": evaluation.fakes, "features": evaluation.features}
    for name, spread in evaluation.spreads.items():
        tensors |= {f"{name}.{part}": getattr(spread, part).clone() for part in DEVIATIONS}  # scores may share them
    plain = {
        "scores": [score.to_json() for score in evaluation.scores],
        "notes": list(evaluation.notes),
        "learned_nothing": evaluation.learned_nothing,
        "spreads": {name: {key: getattr(s, key) for key in PLAIN} for name, s in evaluation.spreads.items()},
    }
    contiguous = {name: tensor.contiguous() for name, tensor in tensors.items()}
    write_atomic(path, save(contiguous, metadata={"plain": json.dumps(plain)}))


def _read(path: Path, reference: "Reference") -> "Evaluation":
    from trilemma.metrics.evaluate import Evaluation
    from trilemma.metrics.intervals import Spread
    from trilemma.metrics.receipt import Score

    with safe_open(path, "pt") as file:
        plain = json.loads(file.metadata()["plain"])
        # copies, for a file that tensors lie in cannot be removed everywhere
        tensors = {name: file.get_tensor(name).clone() for name in set(file.keys())}
    spreads = {
        name: Spread(**values, **{part: tensors[f"{name}.{part}"] for part in DEVIATIONS})
        for name, values in plain["spreads"].items()
    }
    scores = tuple(Score.from_json(score) for score in plain["scores"])
    notes, nothing = tuple(plain["notes"]), plain["learned_nothing"]
    return Evaluation(scores, tensors["fakes"], tensors["features"], notes, spreads, reference, nothing)
