"""What a detection finds: scores of all images, a threshold and values for each score, and which score flags."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from trilemma import __version__
from trilemma.errors import unknown
from trilemma.explore.detection.choice import altered_aurocs
from trilemma.explore.detection.images import ABNORMAL, CALIBRATION, NORMAL, UNKNOWN, DetectionImages
from trilemma.explore.detection.scores import AnomalyScore, fitted_on, score_all, scores_of, training_scores
from trilemma.explore.detection.sentences import in_short
from trilemma.explore.detection.threshold import Reference, by_rank, by_spread, check_enough, enough
from trilemma.metrics.intervals import Estimate, wilson
from trilemma.metrics.ranking import INTERVAL_IS, ranking
from trilemma.run.run import Run
from trilemma.text import csv_text

AUTO = "auto"
MOST_TRAINED = 1000  # training images that lend the shape of their scores' distribution
STOPS = 200  # thresholds that are tabulated
SHOWN = 16  # images with the highest scores that are shown in any case
EXPECTED_IS = "95% of the rates that thresholds from as many images have (Beta law of the rank); not counted"


@dataclass(frozen=True)
class Findings:
    """Scores by name, then by kind of image; of each score its reference and its row of values; the one that flags.

    keys: what was asked for, as it stands in figures.json.
    """

    images: DetectionImages
    scores: dict[str, dict[str, Tensor]]
    references: dict[str, Reference]
    rows: dict[str, dict[str, Any]]
    chosen: str
    keys: dict[str, Any]

    @property
    def flagging(self) -> dict[str, Tensor]:
        """The scores that flag, by kind of image."""
        return self.scores[self.chosen]

    @property
    def threshold(self) -> float:
        """Of the score that flags."""
        return self.rows[self.chosen]["threshold"]

    @property
    def kind(self) -> str:
        """Of the images that are screened."""
        return self.images.groups[-1].kind


def find(run: Run, images: DetectionImages, score: str, false_alarms: float, seed: int) -> Findings:
    """Score all images, set the thresholds, and choose the score that flags.

    Args:
        score: the name of one, or AUTO.
    Raises:
        UserError: there are too few normal images, or no such score.
    """
    calibration, some = images.groups[0].split, fitted_on(run, seed)
    check_enough(len(calibration), len(some), false_alarms)
    by_name = scores_of(run, seed, some)
    if score not in (AUTO, *by_name):
        raise unknown("score", score, [AUTO, *by_name])
    of_kind = {group.kind: score_all(by_name, group.split.images) for group in images.groups}
    scores = {name: {kind: values[name] for kind, values in of_kind.items()} for name in by_name}
    trained = {}
    if not enough(len(calibration), false_alarms):
        trained = training_scores(run, seed, some.take(torch.arange(min(len(some), MOST_TRAINED))))
    references = {name: _reference(way, scores[name][CALIBRATION], trained, seed) for name, way in by_name.items()}
    aurocs = altered_aurocs(by_name, calibration.images, _as_they_are(scores, trained), seed)
    chosen = max(aurocs, key=aurocs.__getitem__) if score == AUTO else score
    rows = {
        name: _row(way, scores[name], references[name], false_alarms, images.counted)
        | {"chosen": name == chosen, "worth": aurocs.get(name)}
        for name, way in by_name.items()
    }
    keys = {"false_alarms": false_alarms, "seed": seed, "score_was": "given" if score != AUTO else "chosen"}
    return Findings(images, scores, references, rows, chosen, keys)


def _reference(score: AnomalyScore, held_out: Tensor, trained: Mapping[str, Tensor], seed: int) -> Reference:
    """What a new normal image may score: by rank, or with the scores of training images by spread."""
    return by_spread(held_out, trained[score.name], log=score.log, seed=seed) if trained else by_rank(held_out)


def _as_they_are(scores: Mapping[str, Mapping[str, Tensor]], trained: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The scores of normal images by name: the held-out ones, and if these are few, training images."""
    return {name: torch.cat([s[CALIBRATION], *([trained[name]] if trained else [])]) for name, s in scores.items()}


def _row(
    score: AnomalyScore, scores: Mapping[str, Tensor], reference: Reference, false_alarms: float, counted: bool
) -> dict[str, Any]:
    """What a score is worth; each value is an estimate, or None if no image is known to be abnormal."""
    threshold = reference.threshold(false_alarms)
    shares = {kind: wilson(int((s > threshold).sum()), len(s)) for kind, s in scores.items()}
    auroc, precision = None, None
    if ABNORMAL in scores:
        auroc, precision = ranking(normal=scores[NORMAL], abnormal=scores[ABNORMAL])
    return {
        "name": score.name,
        "title": score.title,
        "baseline": score.baseline,
        "threshold": threshold,
        "auroc": auroc,
        "average_precision": precision,
        "false_alarm_rate": shares[NORMAL] if counted else reference.expected(false_alarms),
        "detection_rate": shares.get(ABNORMAL),
        "flagged_share": shares.get(UNKNOWN),
    }


def document_of(run: Run, findings: Findings) -> dict[str, Any]:
    """What stands in figures.json, in plain values."""
    images, reference = findings.images, findings.references[findings.chosen]
    document = {
        "trilemma": __version__,
        **run.origin,
        "run": str(run.path),
        "model": run.recipe.name,
        "trained_on": run.config["data"],
        "source": images.source,
        "kind": findings.kind,
        "score": findings.chosen,
        "title": findings.rows[findings.chosen]["title"],
        "threshold": findings.threshold,
        "flagged": int((findings.flagging[findings.kind] > findings.threshold).sum()),
        "counts": {group.kind: len(group.split) for group in images.groups},
        "sources": {group.kind: group.source for group in images.groups},
        "counted": images.counted,
        "notes": images.notes,
        "interval_is": {
            "auroc, average_precision": INTERVAL_IS,
            "rates": "Wilson 95%",
            "false_alarm_rate": "Wilson 95%" if images.counted else EXPECTED_IS,
        },
        "rows": {name: _plain(row) for name, row in findings.rows.items()},
        **findings.keys,
        "threshold_by": reference.by,
        "images_behind": reference.images,
    }
    return document | {"in_short": in_short(document)}


def _plain(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row as it stands in figures.json: each estimate as {"value", "interval"}."""
    return {key: value._asdict() if isinstance(value, Estimate) else value for key, value in row.items()}


def flagged(scores: Tensor, threshold: float) -> Tensor:
    """Positions of the scores above the threshold, the highest first."""
    order = scores.argsort(descending=True, stable=True)
    return order[scores[order] > threshold]


def positions_of(findings: Findings) -> dict[str, Tensor]:
    """Positions in their group of what is flagged (`hits`), of the highest scores that are not (`below`, as many as
    make SHOWN with the hits), of false `alarms`, and of `misses`, the lowest first."""
    scores, kind, threshold = findings.flagging, findings.kind, findings.threshold
    hits = flagged(scores[kind], threshold)
    order = scores[kind].argsort(descending=True, stable=True)
    positions = {"hits": hits, "below": order[len(hits) : max(SHOWN, len(hits))]}
    if kind != NORMAL and findings.images.counted:
        positions["alarms"] = flagged(scores[NORMAL], threshold)
    if kind == ABNORMAL:
        positions["misses"] = order[len(hits) :].flip(0)
    return positions


def images_table(findings: Findings) -> str:
    """Every image with its scores, as CSV; p_value: of the score that flags, if the image is normal."""
    scores, reference = findings.scores, findings.references[findings.chosen]
    rows: list[list[object]] = [["kind", "number", "file", "class", *scores, "p_value", "flagged"]]
    for group in findings.images.groups:
        split, flagging = group.split, findings.flagging[group.kind]
        p_values = reference.p_values(flagging)
        for k, number in enumerate(group.numbers.tolist()):
            name = "" if split.names is None else split.names[k]
            label = "" if split.labels is None else group.classes[int(split.labels[k])]
            values = [*(by_kind[group.kind][k].item() for by_kind in scores.values()), p_values[k].item()]
            hit = int(flagging[k] > findings.threshold)
            rows.append([group.kind, number, name, label, *(f"{value:.8g}" for value in values), hit])
    return csv_text(rows)


def thresholds_table(findings: Findings) -> str:
    """What other thresholds would give, as CSV, the lowest first.

    `false_alarm_rate` with its 95% interval `low`, `high` is counted or expected as that of the threshold in use, and
    empty where that is not known; `false_alarms` is the key with which `detect` sets this threshold, or the nearest one
    below it, empty where held-out images are too few; `flagged_KIND` are the images above the threshold.
    """
    scores, reference = findings.flagging, findings.references[findings.chosen]
    rows: list[list[object]] = [
        ["threshold", "false_alarm_rate", "low", "high", "false_alarms", *(f"flagged_{kind}" for kind in scores)]
    ]
    for threshold in _stops(findings):
        above = {kind: int((values > threshold).sum()) for kind, values in scores.items()}
        expected = reference.expected_above(threshold)
        rate = wilson(above[NORMAL], len(scores[NORMAL])) if findings.images.counted else expected
        cells = ["", "", ""] if rate is None else [f"{value:.6g}" for value in (rate.value, *rate.interval)]
        key = "" if expected is None or expected.value == 1 else f"{math.ceil(1e6 * expected.value) / 1e6:g}"
        rows.append([repr(threshold), *cells, key, *above.values()])
    return csv_text(rows)


def _stops(findings: Findings) -> list[float]:
    """At most STOPS scores of all images, evenly by rank, and the threshold in use."""
    values = torch.cat([values.double() for values in findings.flagging.values()]).unique()
    index = torch.linspace(0, len(values) - 1, min(STOPS, len(values))).round().long()
    return sorted({*values[index].tolist(), findings.threshold})
