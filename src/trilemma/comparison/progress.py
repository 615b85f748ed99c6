"""How long a comparison takes: an estimate of the whole at its start, a better one on the way, and what it was.

Before anything is trained, two small batches are drawn from each untrained model, which draws as fast as a trained one:
a batch of k images takes about a + b k; so does a search for the codes of k images. A pipeline is loaded, and draws one
image. What a training does beside its steps (pictures, validation, the density fit) takes at most a tenth of their
time. The estimate for the steps to come is scaled by how long those of the same kind have taken, and a total that has
changed is said.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from trilemma.comparison.entries import Entry, rows_of
from trilemma.comparison.learning import fewer

if TYPE_CHECKING:
    from torch import Tensor

    from trilemma.classifiers.bundled import FeatureNetwork
    from trilemma.data import Data
    from trilemma.run.text_to_image import TextToImage

PROBES = (4, 16)  # images of the batches that are timed
SEARCHED = (1, 4)  # images whose codes are searched together, which is timed
DRAWN = 64  # images of the last picture of a training
EXTRAS = 0.1  # of a training's seconds
STARTED, MEASURED, WRITTEN = 2.0, 1.0, 5.0  # seconds: to begin and end a training, to measure one, to write the report
PER_IMAGE = 0.002  # seconds to measure an image, once drawn
CONTROLS = 5  # are measured once, before the first model
POINTS = 12  # of the curves of a model, about
TIMED = 16  # images whose features are timed
OTHER = 1.2  # times as much, or as little, is another total


class Step(NamedTuple):
    """A part of the work, and the seconds it is estimated to take."""

    kind: str
    seconds: float


class Progress:
    """Knows the steps, and says how long all of them take together.

    `watch` is called when a step begins, with the label of what is compared and what is done to it, and with two empty
    texts when a step is done.

    Args:
        steps: in their order, each to be followed by `done`.
        say: takes a line.
        begin: `time.perf_counter()` when the work began.
    """

    def __init__(self, steps: Sequence[Step], say: Callable[[str], None], begin: float) -> None:
        self.steps, self.say, self.begin = list(steps), say, begin
        self.durations: list[tuple[Step, float]] = []
        self.last = time.perf_counter()
        self.first = self.stated = self.total()
        self.watch: Callable[[str, str], None] = lambda label, doing: None

    def total(self) -> float:
        """Seconds of the whole work, as far as is known."""
        return self.elapsed() + sum(step.seconds * self._factor(step.kind) for step in self.steps)

    def elapsed(self) -> float:
        """Seconds since the work began."""
        return time.perf_counter() - self.begin

    def done(self) -> None:
        """The next step is done; a total that is another one now is said."""
        now = time.perf_counter()
        self.durations.append((self.steps.pop(0), now - self.last))
        self.last = now
        total = self.total()
        if self.steps and not 1 / OTHER < total / self.stated < OTHER:
            if about(total) != about(self.stated):
                self.say(f"{about(total)} in all (first estimate: {about(self.first)})")
            self.stated = total
        self.watch("", "")

    def end(self) -> None:
        """Say how long it took."""
        self.say(f"done in {in_words(self.elapsed())}")

    def _factor(self, kind: str) -> float:
        """Times as long as was estimated, of the steps of this kind."""
        pairs = [(step.seconds, seconds) for step, seconds in self.durations if step.kind == kind]
        estimated = sum(seconds for seconds, _ in pairs)
        return sum(seconds for _, seconds in pairs) / estimated if estimated > 0 else 1.0


def steps_of(
    entries: Sequence[Entry],
    data: "Data",
    folder: Path,
    seconds: float | None,
    n: int,
    network: "FeatureNetwork",
    *,
    curves: bool = False,
    inverted: int = 0,
    own: bool = True,
) -> list[Step]:
    """The steps of a comparison: trainings, measurements, the report.

    Args:
        seconds: of each training; None where nothing is trained.
        n: images to measure, by the features of a network.
        curves: whether each row is measured over its training and under settings of its sampler.
        inverted: images whose codes are searched of each model without an encoder.
        own: whether a model was trained on the data.
    """
    from trilemma.metrics import nearest, probe
    from trilemma.metrics.cost import BATCH, LEAST_TURNS, REPEATS, TURNS_S

    models = [entry for entry in entries if entry.images is None]
    names = {entry.name: entry.run.recipe.name if entry.run else entry.name for entry in models}
    cost = {entry.name: 0.0 for entry in entries}
    cost |= {name: seconds_per_image(model, data.shape) for name, model in names.items()}
    drawing = _drawing(entries, names, cost, data, n, inverted)
    steps = [] if seconds is None else [Step("training", _training(e, folder, seconds, cost[e.name])) for e in entries]
    each = seconds_per_features(network, data)
    of_training = len(data.train) if own and len(data.train) <= nearest.MOST_SLOW else 0
    if data.classes:
        of_training = max(of_training, min(len(data.train), probe.MOST)) + probe.HELD_OUT
    one = MEASURED + n * (PER_IMAGE + each)
    first = one * CONTROLS + of_training * each
    steps += [Step("measuring", one + (0 if k else first) + drawing[e.name]) for k, e in enumerate(entries)]
    if curves:
        images = POINTS * fewer(n, network.is_slow)
        steps += [Step("curves", STARTED + images * (PER_IMAGE + each + cost[name])) for name in rows_of(entries)]
    turn = min(BATCH, n) * sum(cost.values())
    return [*steps, Step("writing", WRITTEN + min(REPEATS * turn, max(LEAST_TURNS * turn, TURNS_S)))]


def _drawing(
    entries: Sequence[Entry], names: Mapping[str, str], cost: Mapping[str, float], data: "Data", n: int, inverted: int
) -> dict[str, float]:
    """By row, seconds that n images of a training take, or of a pipeline, with the details of their cost and the search
    for codes.

    Args:
        names: of the models by row; cost: seconds of an image by row, 0 of what is no model.
    """
    from trilemma.metrics.cost import BATCH, LEAST_TURNS

    alone = 1 + LEAST_TURNS  # images that are drawn alone, at least, for their operations and their time
    seconds = {name: (n + min(BATCH, n) + alone) * each for name, each in cost.items()}  # a batch for its memory
    for name, model in names.items() if inverted else ():
        seconds[name] += seconds_of_codes(model, data, inverted)
    for entry in entries:
        if entry.pipeline is not None:
            loading, each = seconds_of_pipeline(entry.pipeline)
            seconds[entry.name] = loading + (n + 1 + alone) * each
    return seconds


def _training(entry: Entry, folder: Path, seconds: float, per_image: float) -> float:
    """Seconds that a training takes; one that is finished takes none."""
    if (folder / "runs" / entry.label / "summary.json").exists():
        return 0.0
    return STARTED + seconds + max(EXTRAS * seconds, DRAWN * per_image)  # looks on the way leave room for the last


def seconds_per_image(model: str, shape: tuple[int, int, int]) -> float:
    """Seconds for an image in a batch of 64 of an untrained model; 0 where it cannot draw: its training says why."""
    from trilemma.hardware import pick_device
    from trilemma.metrics.cost import BATCH, time_in_turns
    from trilemma.registry import create
    from trilemma.types import Samples, draw

    device = pick_device("auto")
    try:
        network = create(model, shape=shape).to(device).eval()

        assert isinstance(network, Samples)

        def images(first: int, count: int) -> "Tensor":
            return draw(network, count, seed=0, first=first)

        few, many = (k * time_in_turns([(images, device)], batch=k, turns=1)[0][0] / 1000 for k in PROBES)
        each = max(0.0, many - few) / (PROBES[1] - PROBES[0])
        return each + max(0.0, few - PROBES[0] * each) / BATCH
    except Exception:  # whatever it is, the training of this model ends with it too, and its error is kept there
        return 0.0


def seconds_of_codes(model: str, data: "Data", count: int) -> float:
    """Seconds to search the codes of so many images by an untrained model; 0 of one that encodes or has no codes, and
    where it cannot: its training says why."""
    import torch

    from trilemma.hardware import pick_device
    from trilemma.pictures.levels import to_float
    from trilemma.registry import create
    from trilemma.run.compute import MOST_NUMBERS
    from trilemma.types import Coder, Inverts, Reconstructs, Upscales

    device = pick_device("auto")
    try:
        network = create(model, shape=data.shape).to(device).eval()
        if not isinstance(network, Inverts) or isinstance(network, Reconstructs | Upscales):
            return 0.0
        coder, seconds = Coder(network), list[float]()
        for k in SEARCHED:
            images, start = to_float(data.train.images[:k].to(device)), time.perf_counter()
            with torch.no_grad():
                coder.reconstruct(images).cpu()
            seconds.append(time.perf_counter() - start)
    except Exception:  # as in `seconds_per_image`
        return 0.0
    each = max(0.0, seconds[1] - seconds[0]) / (SEARCHED[1] - SEARCHED[0])
    batches = math.ceil(count * math.prod(data.shape) / MOST_NUMBERS)
    return batches * max(0.0, seconds[0] - SEARCHED[0] * each) + count * each


def seconds_of_pipeline(pipeline: "TextToImage") -> tuple[float, float]:
    """Seconds to load a pipeline, and for an image; 0 where it cannot draw: its measurement says why."""
    start = time.perf_counter()
    try:
        session, loaded = pipeline.open(), time.perf_counter()
        session.images(0, 1, 0)
    except Exception:  # as in `seconds_per_image`
        return 0.0, 0.0
    return loaded - start, time.perf_counter() - loaded


def seconds_per_features(network: "FeatureNetwork", data: "Data") -> float:
    """Seconds for the features of an image by a slow network; 0 by another one, which PER_IMAGE allows for."""
    from trilemma.metrics.features import extract

    if not network.is_slow:
        return 0.0
    images = data.train.images[:TIMED]
    extract(network, images)
    start = time.perf_counter()
    extract(network, images)
    return (time.perf_counter() - start) / len(images)


def about(seconds: float) -> str:
    """A rounded time.

    >>> about(48), about(95), about(170), about(5000)
    ('about 50 s', 'about 1.5 min', 'about 3 min', 'about 1.4 h')
    """
    if seconds < 55:
        return f"about {max(10 * round(seconds / 10), 10)} s"
    if seconds < 3600:
        minutes = seconds / 60
        return f"about {round(2 * minutes) / 2:g} min" if minutes < 10 else f"about {minutes:.0f} min"
    return f"about {seconds / 3600:.1f} h"


def in_words(seconds: float) -> str:
    """
    >>> in_words(30), in_words(0.9), in_words(200), in_words(7000)
    ('30 s', '0.9 s', '3 min 20 s', '1 h 56 min')
    """
    if seconds < 99.5:
        return f"{seconds:.0f} s" if seconds >= 9.95 or float(seconds).is_integer() else f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s" if rest else f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min"
