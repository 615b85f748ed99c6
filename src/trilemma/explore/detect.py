"""Abnormal images: scores that a model of normal images gives, and a threshold with a stated rate of false alarms.

A model trained on normal images alone reconstructs others badly and finds them improbable (Hawkins et al. 2002,
"Outlier detection using replicator neural networks"; An & Cho 2015, "Variational autoencoder based anomaly detection
using reconstruction probability"). Scores, the higher the more abnormal:

    error     mean over pixels of (x_hat - x)^2
    relative  log error - (a + b log detail), detail the squared differences of neighbouring pixels, the line fitted
              to training images: a striped shirt has a larger error than a plain one and is no less normal. After
              Serra et al. 2020, "Input complexity and out-of-distribution detection with likelihood-based generative
              models", whose measure of complexity is the size of a compressed file
    elbo      -ELBO(x), nats
    code      (e(x) - m)' S^-1 (e(x) - m), with the mean and covariance of the training images' codes
    pca       mean over pixels of (x_hat - x)^2 for the principal components of training images, as many as a code has
              numbers; pca-relative likewise: baselines
    nearest   root mean squared difference from the nearest training image: a baseline

Threshold: with n held-out normal images and a rate f, the k-th largest of their scores, k = floor(f (n + 1)). An
image is flagged if its score is higher. A new normal image then is with probability at most f, whatever the scores'
distribution (Vovk et al. 2005, "Algorithmic learning in a random world").
"""

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from trilemma import __version__
from trilemma.errors import UserError, unknown
from trilemma.explore.detection_images import ABNORMAL, CALIBRATION, NORMAL, UNKNOWN, Classes, Group, Source, groups_of
from trilemma.explore.detection_scores import Score, score_all, scores_of
from trilemma.explore.images import require
from trilemma.files import write_atomic, write_json
from trilemma.metrics.intervals import Estimate, wilson
from trilemma.metrics.ranking import INTERVAL_IS, ranking
from trilemma.run import Run, as_run
from trilemma.types import BoundsLikelihood, Encodes, Reconstructs

AUTO = "auto"


@dataclass(frozen=True)
class Detection:
    """What was found.

    picture: histograms of the scores; report: the page; score: the one that flags, with its threshold.
    rows: for each score by name its threshold, and as estimates with 95% intervals the AUROC, average precision and
        rates, None where nothing is known to be abnormal.
    scores: by name, then by kind of image, (N,).
    flagged: positions of the flagged images in `against` (where None, in the held-out normals), the most abnormal
        first.
    """

    picture: Path
    report: Path
    score: str
    threshold: float
    counts: dict[str, int]
    rows: dict[str, dict[str, Any]]
    scores: dict[str, dict[str, Tensor]]
    flagged: tuple[int, ...]


def detect(
    run: Run | str | Path,
    *,
    against: Source | None = None,
    normal: Classes | None = None,
    data: Source | None = None,
    false_alarms: float = 0.05,
    score: str = AUTO,
    n: int = 10_000,
    seed: int = 0,
    out: str | Path | None = None,
) -> Detection:
    """Score images by a run that was trained on normal images alone, and flag the abnormal ones.

    A run learns every image of its data: to learn one class as normal, train on a folder of that class alone.

    The threshold comes from the run's validation images, the false alarms are counted on its test images; without a
    test split, either gets half of the validation images, and of other images in `data` half of all. Of `against` all
    images are scored, or its test split.

    Args:
        against: a source of abnormal, mixed or unknown images, or one image file. Without classes nothing is known of
            its images: they are scored and flagged. With classes all are abnormal but those named in `normal`. Where
            None, the held-out normal images themselves are, which finds the odd ones.
        normal: the names or numbers of normal classes of `against`, commas between them; its images of those then
            are the normal ones that are counted on. "none": all are abnormal, for a source without classes.
        data: other normal images to set the threshold and to count false alarms on, none of them trained on.
        false_alarms: the share of normal images that may be flagged.
        score: error, relative, elbo, code, pca, pca-relative or nearest; auto takes the model's own with the highest
            AUROC, without labels the first of these that it has.
        n: images of each kind, at most; chosen by the seed where there are more.
        seed: of that choice, of the ELBO's noise and of the intervals.
        out: the folder to write; RUN/detect or RUN/detect-AGAINST where None.
    Raises:
        UserError: the model neither reconstructs nor bounds the likelihood nor encodes; there are no normal images, or
            too few for the rate of false alarms; `against` is the run's own data; a name or value does not fit.
    """
    run = as_run(run)
    if not isinstance(run.model, BoundsLikelihood | Encodes):
        require(run, "score images", Reconstructs)
    if not 0 < false_alarms < 1:
        raise UserError(f"false_alarms={false_alarms}: a share of the normal images, for instance 0.05")
    if n < 1:
        raise UserError(f"n={n}: at least 1 image of each kind is needed")
    source, groups = groups_of(run, data, against, normal, n, seed)
    ways = scores_of(run, seed)
    if score not in (AUTO, *ways):
        raise unknown("score", score, [AUTO, *ways])
    of_kind = {group.kind: score_all(ways, group.split.images) for group in groups}
    scores = {name: {kind: values[name] for kind, values in of_kind.items()} for name in ways}
    rows = {way.name: _row(way, scores[way.name], false_alarms, seed) for way in ways.values()}
    chosen = _choice(rows) if score == AUTO else score
    rows[chosen]["chosen"] = True
    document = _document(run, source, groups, rows, chosen, scores[chosen])
    document["false_alarms"], document["seed"] = false_alarms, seed
    document["score_was"] = "given" if score != AUTO else "highest AUROC" if rows[chosen]["auroc"] else "first"
    folder = Path(out) if out is not None else run.path / ("detect" if against is None else f"detect-{source}")
    write_json(folder / "figures.json", document)
    write_atomic(folder / "scores.csv", _table(groups, scores, chosen, document["threshold"]))
    from trilemma.explore.detection_report import write_report

    found = _positions(groups[-1].kind, scores[chosen], document["threshold"])
    picture, report = write_report(run, folder, document, groups, scores[chosen], found)
    numbers = tuple(groups[-1].numbers[found["hits"]].tolist())
    return Detection(picture, report, chosen, document["threshold"], document["counts"], rows, scores, numbers)


def threshold_of(scores: Tensor, false_alarms: float) -> float:
    """The score that a new normal image exceeds with probability at most `false_alarms`, from those of held-out ones.

    Raises:
        UserError: if they are too few to tell: k = floor(f (n + 1)) is 0.
    """
    k = math.floor(false_alarms * (len(scores) + 1) + 1e-9)  # 0.05 * 20 is 1, not a rounding error less
    if k < 1:
        needed = math.ceil(1 / false_alarms - 1 - 1e-9)
        raise UserError(
            f"false_alarms={false_alarms} needs at least {needed:,} held-out normal images, and there are "
            f"{len(scores):,}; allow more false alarms, or give more normal images with data="
        )
    return scores.sort(descending=True).values[k - 1].item()


def flagged(scores: Tensor, threshold: float) -> Tensor:
    """Positions of the scores above the threshold, the highest first."""
    order = scores.argsort(descending=True, stable=True)
    return order[scores[order] > threshold]


def _row(way: Score, scores: dict[str, Tensor], false_alarms: float, seed: int) -> dict[str, Any]:
    """What a score is worth; each figure is an estimate, or None where nothing is known to be abnormal."""
    threshold = threshold_of(scores[CALIBRATION], false_alarms)
    shares = {kind: wilson(int((s > threshold).sum()), len(s)) for kind, s in scores.items()}
    both = (None, None)
    if ABNORMAL in scores:
        both = ranking(normal=scores[NORMAL], abnormal=scores[ABNORMAL])
    return {
        "name": way.name,
        "title": way.title,
        "baseline": way.baseline,
        "chosen": False,
        "threshold": threshold,
        "auroc": both[0],
        "average_precision": both[1],
        "false_alarm_rate": shares[NORMAL],
        "detection_rate": shares.get(ABNORMAL),
        "flagged_share": shares.get(UNKNOWN),
    }


def _plain(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row as it stands in figures.json: each estimate as {"value", "interval"}."""
    return {key: value._asdict() if isinstance(value, Estimate) else value for key, value in row.items()}


def _choice(rows: Mapping[str, Mapping[str, Any]]) -> str:
    """The model's own score with the highest AUROC; the first without labels."""
    own = [name for name, row in rows.items() if not row["baseline"]] or list(rows)
    return max(own, key=lambda name: rows[name]["auroc"].value if rows[name]["auroc"] else 0)


def _document(
    run: Run,
    source: str,
    groups: Sequence[Group],
    rows: Mapping[str, Mapping[str, Any]],
    chosen: str,
    scores: Mapping[str, Tensor],
) -> dict[str, Any]:
    """What stands in figures.json, in plain values."""
    kind, threshold = groups[-1].kind, rows[chosen]["threshold"]
    return {
        "trilemma": __version__,
        "run": str(run.path),
        "model": run.recipe.name,
        "weights": run.weights_id,
        "trained_on": run.config["data"],
        "source": source,
        "kind": kind,
        "score": chosen,
        "title": rows[chosen]["title"],
        "threshold": threshold,
        "flagged": int((scores[kind] > threshold).sum()),
        "counts": {group.kind: len(group.split) for group in groups},
        "sources": {group.kind: group.source for group in groups},
        "interval_is": {"auroc, average_precision": INTERVAL_IS, "rates": "Wilson 95%"},
        "rows": {name: _plain(row) for name, row in rows.items()},
    }


def _positions(kind: str, scores: Mapping[str, Tensor], threshold: float) -> dict[str, Tensor]:
    """Positions in their group of what is flagged (`hits`), of false `alarms`, and of `misses`, the lowest first."""
    found = {"hits": flagged(scores[kind], threshold)}
    if kind != NORMAL:
        found["alarms"] = flagged(scores[NORMAL], threshold)
    if kind == ABNORMAL:
        order = scores[kind].argsort(stable=True)
        found["misses"] = order[scores[kind][order] <= threshold]
    return found


def _table(groups: Sequence[Group], scores: dict[str, dict[str, Tensor]], chosen: str, threshold: float) -> str:
    """Every image with its scores, as CSV."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["kind", "number", "file", "class", *scores, "flagged"])
    for g in groups:
        for k, number in enumerate(g.numbers.tolist()):
            name = "" if g.split.names is None else g.split.names[k]
            label = "" if g.split.labels is None else g.classes[int(g.split.labels[k])]
            values = [by_kind[g.kind][k].item() for by_kind in scores.values()]
            hit = int(scores[chosen][g.kind][k] > threshold)
            writer.writerow([g.kind, number, name, label, *(f"{value:.8g}" for value in values), hit])
    return text.getvalue()
