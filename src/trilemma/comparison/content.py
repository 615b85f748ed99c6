"""What a report holds, typed: `document.document` makes it, the page, the terminal and the plots show it.

report.json is its plain form (`Document.to_json`). Every number is finite: a value that is missing is None, with the
reason beside it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from trilemma.comparison.plain import Json, clean

if TYPE_CHECKING:
    from trilemma.metrics.nearest import Closeness
    from trilemma.metrics.reals import Caveat
    from trilemma.metrics.receipt import Score

SAME = ("protocol", "n_real", "n_fake", "features", "split", "seed", "resize")  # what a column must share
RECEIPT = (*SAME, "versions", "interval_is", "data_fingerprint")  # of a column
POINT = ("name", "unit", *RECEIPT)  # of a value of a point on a curve
IMAGES = "images"  # the kind of a row of which only the images are known: a set of them, or one's own contestant
PIPELINE = "pipeline"  # the kind of a row that is a published pipeline, which was not trained here

FIDELITY, DIVERSITY, SPEED = "fidelity", "diversity", "speed"  # axes
WANTS = {  # of a user, and the axes that decide
    "balance": (FIDELITY, DIVERSITY),
    "quality": (FIDELITY,),
    "diversity": (DIVERSITY,),
    "speed": (SPEED,),
}

Scores = Mapping[str, "Score"]  # by the name of the column


@dataclass(frozen=True)
class Asked:
    """What was asked of a comparison.

    command: makes the same report again; length: of each training, minutes or images, {} where nothing is trained;
    split, caveats: of the real images; own: whether there is a model that was trained on their data;
    want: what the user wants most, one of WANTS; features, inverted: as `compare` was given them.
    """

    command: str
    length: Mapping[str, Any]
    n: int
    batch: int
    seed: int
    split: str
    caveats: "Sequence[Caveat]" = ()
    want: str = "balance"
    features: str = "auto"
    inverted: int = 0
    own: bool = True


@dataclass(frozen=True)
class Place:
    """Where a model stands on an axis: value and interval in the axis's own unit, low end first, and their places in
    [0, 1]; `reach` is the interval's."""

    value: float
    interval: Sequence[float] | None = None
    place: float = 0.0
    reach: Sequence[float] | None = None


Places = Mapping[str, Place | None]  # by axis


@dataclass(frozen=True)
class Difference:
    """a - b of two rows, or a / b where `ratio` is true, with its interval at a level."""

    a: str
    b: str
    value: float
    interval: Sequence[float]
    ratio: bool = False
    level: float = 0.95


Differences = Mapping[str, Sequence[Difference]]  # by metric


@dataclass(frozen=True)
class Curve:
    """Values over the seconds of a training."""

    name: str
    seconds: Sequence[float]
    values: Sequence[float]


@dataclass(frozen=True)
class LearningPoint:
    """The kernel distance after so many images and seconds of a training, its 95% interval, and its standard errors due
    to the real images, which all points share, and to its own generated ones; `receipts` by metric."""

    images: int
    seconds: float
    value: float
    interval: Sequence[float]
    shared: float
    own: float
    receipts: Mapping[str, Json]


@dataclass(frozen=True)
class Forecast:
    """The kernel distance to be expected after so many seconds, and its interval; it falls as seconds**-power."""

    seconds: float
    value: float
    interval: Sequence[float]
    power: float


@dataclass(frozen=True)
class SamplerPoint:
    """A model under one setting of its sampler, `key=value` ("" where it has no keys), or under its `own`; density and
    coverage with their intervals, and milliseconds per image, and their `receipts` by metric; `changes`: the intervals
    of the differences of density and coverage from those of the own setting, by the same real images. On the frontier
    no other one is at least as good in all three."""

    setting: str
    own: bool
    ms_per_image: float
    density: float
    density_interval: Sequence[float]
    coverage: float
    coverage_interval: Sequence[float]
    n: int
    receipts: Mapping[str, Json]
    changes: Mapping[str, Sequence[float]]
    frontier: bool = False


@dataclass(frozen=True)
class Training:
    """One training of a row, or its images; `run` is the folder."""

    name: str
    seed: int | None = None
    error: str | None = None
    scores: Scores = field(default_factory=dict)
    warnings: Sequence[str] = ()
    run: str | None = None
    seconds: float | None = None


@dataclass(frozen=True)
class Trained:
    """What the run folder says of the training that stands for a row."""

    recipe: str
    family: str
    summary: str
    source: str
    run: str
    weights: str
    parameters: int
    images: int
    epochs: float
    steps: int | None
    seconds: float
    images_per_second: float
    valid: Mapping[str, float]
    settings: Json
    training: Json


@dataclass(frozen=True)
class Nearest:
    """Nearest training image and distance of each sample, numbers of the samples that lie nearest, how many different
    training images are nearest to those, and the test of copying against `n_real` held-out images."""

    index: Sequence[int]
    distance: Sequence[float]
    n_real: int
    shown: Sequence[int]
    different: int
    closeness: "Sequence[Closeness]"
    copies: bool


@dataclass(frozen=True)
class Refused:
    """Why something is missing."""

    refused: str


@dataclass(frozen=True)
class Model:
    """A row: a model as the mean over its trainings, which differ in their seed alone, or only images.

    kind: "model", IMAGES or PIPELINE; trained: None of the latter two, and of a model that failed before it was
    trained; folder: where a set of images lies; learning: of the training that stands for the row; forecast: what a
    longer one would reach; samplers: the model under several settings of its sampler.
    """

    name: str
    error: str | None = None
    scores: Scores = field(default_factory=dict)
    curves: Sequence[Curve] = ()
    notes: Sequence[str] = ()
    commands: Mapping[str, str] = field(default_factory=dict)
    warnings: Sequence[str] = ()
    learned_nothing: str | None = None
    trainings: Sequence[Training] = ()
    place: Places = field(default_factory=dict)
    nearest: Nearest | Refused | None = None
    trained: Trained | None = None
    kind: str = "model"
    folder: str | None = None
    learning: Sequence[LearningPoint] = ()
    forecast: Forecast | None = None
    samplers: Sequence[SamplerPoint] = ()


@dataclass(frozen=True)
class Control:
    """Images whose quality is known, measured as the models are."""

    name: str
    title: str
    note: str
    scores: Scores


def receipt_of(score: "Score") -> Json:
    """The receipt of a value on a curve."""
    return {key: getattr(score, key) for key in POINT}


def point_receipts(models: Sequence[Model]) -> dict[str, Json]:
    """Those of all points on the curves, by protocol: points of one protocol share theirs."""
    points = [point for model in models for point in (*model.learning, *model.samplers)]
    return {receipt["protocol"]: dict(receipt) for point in points for receipt in point.receipts.values()}


def scores_of_real(controls: Sequence[Control]) -> Scores:
    """The scores of real images: of held-out ones, or where there are too few of training images; {} without either."""
    by_name = {control.name: control.scores for control in controls}
    return by_name.get("real") or by_name.get("training") or {}


def value_of(scores: Scores, name: str) -> float | None:
    """The value of a score; None where there is none, or it is refused."""
    return scores[name].value if name in scores else None


@dataclass(frozen=True)
class Item:
    """A sentence of the answer: its kind, the models it names, and a command to type next."""

    kind: str
    text: str
    models: Sequence[str] = ()
    command: str | None = None


@dataclass(frozen=True)
class Leaders:
    """Who leads on an axis: `first` are the unbeaten among those that count, `beaten` the others; one name alone is
    `clear` where it is ahead of another model."""

    first: Sequence[str]
    beaten: Sequence[str]
    clear: bool
    text: str


@dataclass(frozen=True)
class Verdict:
    """Who leads on each axis, and the sentences that say so."""

    text: str
    axes: Mapping[str, Leaders]


@dataclass(frozen=True)
class Column:
    """A metric: its title, its best models, which no other is shown to beat, and a score with the receipt of all, whose
    versions are those that no model has otherwise; `shared` where every contestant that can have it has it."""

    name: str
    title: str
    head: str
    shared: bool
    unit: str
    better: str
    best: Sequence[str]
    refused: str | None
    receipt: "Score"


@dataclass(frozen=True)
class Images:
    """The real images."""

    name: str
    source: str
    shape: Sequence[int]
    classes: Sequence[str]
    counts: Mapping[str, int]
    notes: Sequence[str]
    skipped: Sequence[str]
    fingerprint: str


@dataclass(frozen=True)
class Budget:
    """Training seconds: asked for, used, and whether they were equal; and the machine that sampled and measured."""

    asked_seconds: float | None
    used_seconds: Sequence[float]
    equal: bool
    text: str
    machine: Json


@dataclass(frozen=True)
class Document:
    """Everything the report shows."""

    format: int
    trilemma: str
    title: str
    answer: Sequence[Item]
    verdict: Verdict
    data: Images
    budget: Budget
    columns: Sequence[Column]
    differences: Differences
    versions: Mapping[str, str]
    axes: Sequence[Mapping[str, str]]
    speed_scale: Json
    language: str
    real: Mapping[str, str]
    caveats: Sequence[str]
    notes: Sequence[str]
    seed: int
    models: Sequence[Model]
    controls: Sequence[Control]
    again: Mapping[str, str | None]

    def to_json(self) -> Json:
        """Plain values; what is known of a training stands in its row itself, and is left out where it is not. Points
        of curves name their protocols, whose receipts stand in `point_receipts`."""
        values: Json = clean(asdict(self)) | {"point_receipts": clean(point_receipts(self.models))}
        for model in values["models"]:
            model |= model.pop("trained") or {}
            for point in (*model["learning"], *model["samplers"]):
                point["protocols"] = {name: one["protocol"] for name, one in point.pop("receipts").items()}
            for training in model["trainings"]:
                if training["seconds"] is None:
                    del training["seconds"]
        for column in values["columns"]:
            column["receipt"] = {key: column["receipt"][key] for key in RECEIPT}
        return values
