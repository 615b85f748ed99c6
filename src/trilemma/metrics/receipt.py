"""A score and its receipt: everything needed to know what was measured, and to measure it again.

A score's protocol name states metric, feature network, number of images and split, for instance
"kernel_mnist-cnn_2048_test". Values with different protocols do not compare.
"""

import math
import platform
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from importlib import metadata
from pathlib import Path
from types import MappingProxyType
from typing import Any, Self

from trilemma import __version__
from trilemma.errors import UserError, unknown
from trilemma.files import read_json, refuse_foreign, remove_leftovers, write_json
from trilemma.metrics.catalogue import CATALOGUE
from trilemma.metrics.intervals import Estimate
from trilemma.results import claim, claim_folders

METRICS = "metrics"  # of a run folder: its scores
LONGEST_VALUE = 60  # letters of a setting in the name of a file
LARGEST_SCORE = 1 << 20  # bytes of a file; ours have 2,000


@dataclass(frozen=True)
class Score:
    """One value with its receipt. `value` is None where it is refused; `refused` then says why.

    rough: of too few images to decide anything, whatever the interval says.
    interval: 95%, (low, high), or None; `interval_is` says how it was made and what it leaves out.
    resize: how the images were brought to the feature network, "none" where they fitted.
    reading: how the images of either side were scaled when they were read, and which were skipped; "" where none was.
    weights: of a run, its `weights_id` when it was measured; unfinished: how far its training was, if it was not over.
    data, data_fingerprint: the real images; settings: the sampling settings that differ from the model's own.
    """

    name: str
    protocol: str
    value: float | None
    interval: tuple[float, float] | None
    unit: str
    better: str
    n_real: int
    n_fake: int
    features: str
    split: str
    seed: int
    resize: str
    versions: dict[str, str]
    refused: str | None = None
    interval_is: str = ""
    data: str = ""
    data_fingerprint: str = ""
    settings: dict[str, Any] = field(default_factory=dict)
    weights: str = ""
    rough: bool = False
    unfinished: str | None = None
    reading: str = ""

    def __post_init__(self) -> None:
        if self.name not in CATALOGUE:
            raise unknown("score", self.name, CATALOGUE)
        if self.better not in ("lower", "higher"):
            raise unknown("direction", self.better, ("lower", "higher"))
        if (self.value is None) != (self.refused is not None):
            raise ValueError(f"{self.name}: a score has either a value or a reason why it is refused")
        if self.value is not None and not math.isfinite(self.value):
            raise ValueError(f"{self.name}: the value is {self.value}; a score is a finite number")
        if self.interval is not None:
            low, high = self.interval
            if not (math.isfinite(low) and math.isfinite(high) and low <= high):
                raise ValueError(f"{self.name}: the interval {self.interval} is not (low, high)")
            object.__setattr__(self, "interval", (low, high))

    def __str__(self) -> str:
        if self.value is None:
            return f"{self.name}: refused, {self.refused}"
        within = "" if self.interval is None else f" [{self.interval[0]:.4g}, {self.interval[1]:.4g}]"
        return f"{self.name} = {self.value:.4g}{within} {self.unit} ({self.protocol})"

    def to_json(self) -> dict[str, Any]:
        """Plain values only: what `from_json` takes back."""
        values = asdict(self)
        return values | {"interval": None if self.interval is None else list(self.interval)}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Self:
        """The score that `to_json` wrote.

        Raises:
            UserError: if a key is unknown or missing.
        """
        names = [f.name for f in fields(cls)]
        for key in values:
            if key not in names:
                raise unknown("key of a score", key, names)
        try:
            interval = values.get("interval")
            return cls(**{**values, "interval": None if interval is None else tuple(interval)})
        except TypeError as error:
            raise UserError(f"this is not a score: {error}; write it again with `trilemma evaluate`") from None


def score_of(
    name: str,
    protocol: str,
    value: Estimate | float | str,
    *,
    interval_is: str = "",
    features: str = "none",
    split: str = "none",
    resize: str = "none",
    n_real: int = 0,
    n_fake: int = 0,
    seed: int = 0,
    used: Mapping[str, str] = MappingProxyType({}),
    **receipt: Any,
) -> Score:
    """A score of a metric in the catalogue, which knows its unit and its direction.

    Args:
        value: with its interval, without one, or the reason why it is refused.
        used: joins the versions.
        receipt: the other fields of a score.
    """
    metric = CATALOGUE[name]
    number, interval = value if isinstance(value, Estimate) else (None if isinstance(value, str) else value, None)
    return Score(
        name=name,
        protocol=protocol,
        value=number,
        interval=interval,
        unit=metric.unit,
        better=metric.better,
        n_real=n_real,
        n_fake=n_fake,
        features=features,
        split=split,
        seed=seed,
        resize=resize,
        versions=versions(**used),
        refused=value if isinstance(value, str) else None,
        interval_is=interval_is if interval else "",
        **receipt,
    )


def protocol_name(*parts: str | int) -> str:
    """The parts joined by "_": metric, feature network, number of images, split; letters of all alphabets stay.

    >>> protocol_name("kernel", "mnist-cnn", 2048, "test")
    'kernel_mnist-cnn_2048_test'
    """
    return "_".join(re.sub(r"[^\w.-]+", "-", unicodedata.normalize("NFC", str(part))) for part in parts)


def settings_words(settings: Mapping[str, Any]) -> list[str]:
    """Settings of a sampler as parts of a name; of a long value, such as a path, its end.

    >>> settings_words({"steps": 5, "guide": "runs/weak"})
    ['guide-runs-weak', 'steps-5']
    """
    return [f"{key}-{protocol_name(str(settings[key]))[-LONGEST_VALUE:]}" for key in sorted(settings)]


def versions(**more: str) -> dict[str, str]:
    """Versions of what reads and scales the images and computes the values, and what else the caller adds."""
    libraries = {name: metadata.version(name) for name in ("torch", "numpy", "pillow")}
    return {"trilemma": __version__, "python": platform.python_version(), **libraries, **more}


def claim_scores(folder: Path) -> None:
    """Make sure that scores may be written into a folder of a run; its JSON files are scores, all of them.

    Raises:
        UserError: one is not, or is a link.
    """
    claim_folders([folder], within=folder.parent)
    claim(folder.glob("*.json"), within=folder.parent, is_ours=_is_score)
    remove_leftovers(folder)


def _is_score(path: Path) -> bool:
    """Whether a file is a score, also of a version that had other keys."""
    try:
        values = read_json(path, LARGEST_SCORE)
    except UserError:
        return False
    return isinstance(values, dict) and {"name", "protocol", "value"} <= values.keys()


def write_score(folder: Path, score: Score) -> Path:
    """The score as `folder`/<protocol>.json, replaced atomically. Sampling settings and a seed other than 0 join the
    name, so that values of different samplers stand side by side."""
    extra = settings_words(score.settings)
    extra += [f"seed-{score.seed}"] if score.seed else []
    path = folder / f"{protocol_name(score.protocol, *extra)}.json"
    refuse_foreign(path, _is_score)
    return write_json(path, score.to_json())
