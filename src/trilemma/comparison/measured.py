"""Measurements of a comparison, kept in its folder until the report is written, so that an interrupted one goes on.

A measurement is FOLDER/measured/DIGEST, where DIGEST tells the weights, the protocol and the versions apart: one of
other weights, or of other real images, is never taken. A file that cannot be read is measured again.
"""

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from trilemma.errors import UserError
from trilemma.files import read_json, write_atomic, write_json

if TYPE_CHECKING:
    from trilemma.metrics.controls import Reference
    from trilemma.metrics.evaluate import Evaluation
    from trilemma.run.run import Run

FOLDER = "measured"
T = TypeVar("T")


@dataclass(frozen=True)
class Measured:
    """The measurements of the comparison in `folder` that are not in its report yet."""

    folder: Path

    def evaluation(
        self, run: "Run", reference: "Reference", settings: Mapping[str, Any], measure: Callable[[], "Evaluation"]
    ) -> "Evaluation":
        """That of a run by these settings, or else what `measure` gives, which is kept."""
        path = self._path(run, reference, "evaluation.safetensors", settings)
        with suppress(OSError, SafetensorError, UserError, ValueError, KeyError, TypeError):
            return _read(path, reference)
        evaluation = measure()
        _write(path, evaluation)
        return evaluation

    def points(
        self, run: "Run", reference: "Reference", kind: type[T], measure: Callable[[], tuple[T, ...]]
    ) -> tuple[T, ...]:
        """Points of a curve, of a dataclass of plain values, or else what `measure` gives, which is kept."""
        path = self._path(run, reference, f"{kind.__name__}.json")
        with suppress(OSError, UserError, TypeError):
            return tuple(kind(**point) for point in read_json(path))
        points = measure()
        write_json(path, [asdict(point) for point in points])  # type: ignore[call-overload]
        return points

    def clear(self) -> None:
        """Remove them, once the report has them."""
        shutil.rmtree(self.folder / FOLDER, ignore_errors=True)

    def _path(self, run: "Run", reference: "Reference", ending: str, settings: Mapping[str, Any] = {}) -> Path:
        from trilemma.metrics.receipt import versions

        setup = reference.setup
        network = (setup.network.name, setup.network.sha256)
        images = (setup.data.fingerprint, list(setup.data.shape), setup.split, setup.own, setup.n, setup.seed)
        parts = (run.weights_id, run.unfinished, network, images, dict(settings), versions())
        digest = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
        return self.folder / FOLDER / f"{digest[:32]}-{ending}"


def _write(path: Path, evaluation: "Evaluation") -> None:
    tensors = {"fakes": evaluation.fakes, "features": evaluation.features}
    for name, spread in evaluation.spreads.items():
        tensors |= {f"{name}.shared": spread.shared, f"{name}.own": spread.own}
    plain = {
        "scores": [score.to_json() for score in evaluation.scores],
        "notes": list(evaluation.notes),
        "learned_nothing": evaluation.learned_nothing,
        "spreads": {name: [s.value, s.n, s.least] for name, s in evaluation.spreads.items()},
    }
    whole = {name: tensor.contiguous() for name, tensor in tensors.items()}
    write_atomic(path, save(whole, metadata={"plain": json.dumps(plain)}))


def _read(path: Path, reference: "Reference") -> "Evaluation":
    from trilemma.metrics.evaluate import Evaluation
    from trilemma.metrics.intervals import Spread
    from trilemma.metrics.receipt import Score

    with safe_open(path, "pt") as file:
        plain, tensors = (
            json.loads(file.metadata()["plain"]),
            {name: file.get_tensor(name) for name in set(file.keys())},
        )
    spreads = {
        name: Spread(value, tensors[f"{name}.shared"], tensors[f"{name}.own"], n, least)
        for name, (value, n, least) in plain["spreads"].items()
    }
    scores = tuple(Score.from_json(score) for score in plain["scores"])
    notes, nothing = tuple(plain["notes"]), plain["learned_nothing"]
    return Evaluation(scores, tensors["fakes"], tensors["features"], notes, spreads, reference, nothing)
