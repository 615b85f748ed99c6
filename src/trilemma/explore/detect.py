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

Threshold: the k-th largest of the scores of n normal images that the model was not trained on, k = floor(f (n + 1)),
for a rate f of false alarms; where they are too few for that, training images lend the shape of their scores'
distribution (detection_threshold.py). Which score flags is chosen without abnormal images (detection_choice.py).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor

from trilemma import __version__
from trilemma.errors import unknown
from trilemma.explore.codes import require
from trilemma.explore.detection_choice import altered_aurocs
from trilemma.explore.detection_images import (
    ABNORMAL,
    CALIBRATION,
    NORMAL,
    UNKNOWN,
    Classes,
    DetectionImages,
    Group,
    Source,
    groups_of,
)
from trilemma.explore.detection_scores import Score, fitted_on, score_all, scores_of, training_scores
from trilemma.explore.detection_threshold import Reference, by_rank, by_spread, check_enough, enough
from trilemma.explore.detection_words import in_short
from trilemma.explore.images import name_of, run_receipt
from trilemma.files import json_text, remove
from trilemma.keys import Seed
from trilemma.metrics.intervals import Estimate, wilson
from trilemma.metrics.ranking import INTERVAL_IS, ranking
from trilemma.modes import own_modes
from trilemma.pictures.png import save_png, says_how_made
from trilemma.results import Results, with_keys
from trilemma.run.run import Run, RunLike, as_run
from trilemma.text import csv_text
from trilemma.types import BoundsLikelihood, Encodes, Reconstructs
from trilemma.values import checked_call

AUTO = "auto"
BESIDE, SHEETS = ("figures.json", "scores.csv", "report.html"), ("flagged.png", "heatmaps.png")
DEFAULTS = {"score": AUTO, "false_alarms": 0.05, "n": 10_000, "seed": 0}  # of the keys that are not None
MOST_TRAINED = 1000  # training images that lend the shape of their scores' distribution
SHOWN = 16  # images with the highest scores that are shown in any case
EXPECTED_IS = "95% of the rates that thresholds from as many images have (Beta law of the rank); not counted"


@dataclass(frozen=True)
class Detection:
    """What was found.

    picture: histograms of the scores; report: the page; score: the one that flags, with its threshold.
    in_short: the result in sentences.
    rows: for each score by name its threshold, and as estimates with 95% intervals the AUROC, average precision and
        rates, None where nothing is known to be abnormal or no other normal images were there to count on.
    scores: by name, then by kind of image, (N,).
    flagged: positions of the flagged images in `against` (where None, in the held-out images), the most abnormal
        first.
    """

    picture: Path
    report: Path
    score: str
    threshold: float
    in_short: tuple[str, ...]
    counts: dict[str, int]
    rows: dict[str, dict[str, Any]]
    scores: dict[str, dict[str, Tensor]]
    flagged: tuple[int, ...]


@checked_call
@own_modes()
def detect(
    run: RunLike,
    *,
    against: Annotated[
        Source | None, Field(description="images to search for anomalies (default: the held-out images)")
    ] = None,
    normal: Annotated[
        Classes | None,
        Field(
            description='classes in against= that count as normal, comma-separated; "none" if every image is abnormal'
        ),
    ] = None,
    data: Annotated[
        Source | None, Field(description="other normal images to set the threshold on (default: the data of the run)")
    ] = None,
    false_alarms: Annotated[float, Field(gt=0, lt=1, description="share of normal images that may be flagged")] = 0.05,
    score: Annotated[str, Field(description="auto, error, relative, elbo, code, pca, pca-relative or nearest")] = AUTO,
    n: Annotated[int, Field(ge=1, description="images of each kind, at most")] = 10_000,
    seed: Seed = 0,
    out: Annotated[str | Path | None, Field(description="folder to write (default: inside the run folder)")] = None,
) -> Detection:
    """Score images by a run that was trained on normal images alone, and flag the abnormal ones.

    A run learns every image of its data: to learn one class as normal, train on a folder of that class alone. Classes
    of its data that no training image has, as the test split of MVTec's layout has them, are abnormal.

    The threshold comes from the run's validation images, the false alarms are counted on its test images; without a
    test split, or with other images in `data`, all of them set the threshold, and the rate is the expected one. Where
    they are too few for it by rank, the training images help (detection_threshold.py). Of `against` all images that
    were not trained on are scored, or its test split.

    Args:
        against: a source of abnormal, mixed or unknown images, or one image file. Without classes nothing is known of
            its images: they are scored and flagged. With classes all are abnormal but those named in `normal`, or else
            those of the training images' classes. Where None, the held-out images of the run are looked at.
        normal: the names or numbers of normal classes of `against`, commas between them; its images of those then
            are the normal ones that are counted on. "none": all are abnormal, for a source without classes.
        data: other normal images to set the threshold on, none of them trained on.
        false_alarms: the share of normal images that may be flagged.
        score: error, relative, elbo, code, pca, pca-relative or nearest; auto takes that of the model's own which best
            tells held-out normal images from altered ones (detection_choice.py).
        n: images of each kind, at most; chosen by the seed where there are more.
        seed: of that choice, of the ELBO's noise, of the altered images and of a threshold by spread.
        out: the folder to write; RUN/detect or RUN/detect-AGAINST, with the keys that are given in its name, where
            None.
    Raises:
        UserError: the model neither reconstructs nor bounds the likelihood nor encodes; there are no normal images, or
            too few for the rate of false alarms; `against` is the run's own data; a name or value does not fit.
    """
    run = as_run(run)
    if not isinstance(run.model, BoundsLikelihood | Encodes):
        require(run, "score images", Reconstructs)
    files = None if out is None else _results(*[Path(out).expanduser()] * 2)
    images = groups_of(run, data, against, normal, n, seed)
    if files is None:
        keys = {"score": score, "false_alarms": false_alarms, "normal": normal, "n": n, "seed": seed}
        stem = "detect" if against is None else f"detect-{images.source}"
        files = _results(run.path / with_keys(stem, {**keys, "data": name_of(data)}, DEFAULTS), run.path)
    groups, some = images.groups, fitted_on(run, seed)
    check_enough(len(groups[0].split), len(some), false_alarms)
    ways = scores_of(run, seed, some)
    if score not in (AUTO, *ways):
        raise unknown("score", score, [AUTO, *ways])
    of_kind = {group.kind: score_all(ways, group.split.images) for group in groups}
    scores = {name: {kind: values[name] for kind, values in of_kind.items()} for name in ways}
    trained = {}
    if not enough(len(groups[0].split), false_alarms):
        trained = training_scores(run, seed, some.take(torch.arange(min(len(some), MOST_TRAINED))))
    references = {way.name: _reference(way, scores[way.name][CALIBRATION], trained, seed) for way in ways.values()}
    rows = {name: _row(way, scores[name], references[name], false_alarms, images.counted) for name, way in ways.items()}
    aurocs = altered_aurocs(ways, groups[0].split.images, _as_they_are(scores, trained), seed)
    chosen = max(aurocs, key=aurocs.__getitem__) if score == AUTO else score
    for name, row in rows.items():
        row |= {"chosen": name == chosen, "worth": aurocs.get(name)}
    document = _document(run, images, rows, chosen, scores[chosen])
    document |= {"false_alarms": false_alarms, "seed": seed, "score_was": "given" if score != AUTO else "chosen"}
    document["threshold_by"], document["images_behind"] = references[chosen].by, references[chosen].images
    document["in_short"] = in_short(document)
    p_values = {group.kind: references[chosen].p_values(scores[chosen][group.kind]) for group in groups}
    rows_of_images = _table(groups, scores, p_values, chosen, document["threshold"])
    from trilemma.explore.detection_report import draw_report

    positions = _positions(groups[-1].kind, scores[chosen], document["threshold"], images.counted)
    page = draw_report(run, document, groups, scores[chosen], positions)
    receipt = run_receipt(run, "detect", against=document["source"], score=document["score"])
    figures, table, report = files.beside
    contents = {figures: json_text(document), table: rows_of_images, report: page.html}
    picture = files.write(page.histogram, receipt, contents)
    sheets = zip(SHEETS, (page.flagged, page.heatmaps), strict=True)
    for path, sheet in ((picture.with_name(name), sheet) for name, sheet in sheets):
        if sheet is not None:
            save_png(sheet, path, receipt)
        elif says_how_made(path):  # of an earlier call, which flagged some
            remove(path)
    numbers = tuple(groups[-1].numbers[positions["hits"]].tolist())
    texts = tuple(document["in_short"])
    return Detection(picture, report, chosen, document["threshold"], texts, document["counts"], rows, scores, numbers)


def _results(folder: Path, within: Path) -> Results:
    """The files of a detection, which may be written; see `Results`."""
    beside, sheets = ([folder / name for name in names] for names in (BESIDE, SHEETS))
    return Results(folder / "histogram.png", beside, verb="detect", within=within, pictures=sheets)


def _reference(way: Score, held_out: Tensor, trained: Mapping[str, Tensor], seed: int) -> Reference:
    """What a new normal image may score: by rank, or with the scores of training images by spread."""
    return by_spread(held_out, trained[way.name], log=way.log, seed=seed) if trained else by_rank(held_out)


def _as_they_are(scores: Mapping[str, Mapping[str, Tensor]], trained: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The scores of normal images by name: those held out, and where they are few, training images."""
    return {name: torch.cat([s[CALIBRATION], *([trained[name]] if trained else [])]) for name, s in scores.items()}


def flagged(scores: Tensor, threshold: float) -> Tensor:
    """Positions of the scores above the threshold, the highest first."""
    order = scores.argsort(descending=True, stable=True)
    return order[scores[order] > threshold]


def _row(
    way: Score, scores: Mapping[str, Tensor], reference: Reference, false_alarms: float, counted: bool
) -> dict[str, Any]:
    """What a score is worth; each figure is an estimate, or None where nothing is known to be abnormal."""
    threshold = reference.threshold(false_alarms)
    shares = {kind: wilson(int((s > threshold).sum()), len(s)) for kind, s in scores.items()}
    both = (None, None)
    if ABNORMAL in scores:
        both = ranking(normal=scores[NORMAL], abnormal=scores[ABNORMAL])
    return {
        "name": way.name,
        "title": way.title,
        "baseline": way.baseline,
        "threshold": threshold,
        "auroc": both[0],
        "average_precision": both[1],
        "false_alarm_rate": shares[NORMAL] if counted else reference.expected(false_alarms),
        "detection_rate": shares.get(ABNORMAL),
        "flagged_share": shares.get(UNKNOWN),
    }


def _plain(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row as it stands in figures.json: each estimate as {"value", "interval"}."""
    return {key: value._asdict() if isinstance(value, Estimate) else value for key, value in row.items()}


def _document(
    run: Run,
    images: DetectionImages,
    rows: Mapping[str, Mapping[str, Any]],
    chosen: str,
    scores: Mapping[str, Tensor],
) -> dict[str, Any]:
    """What stands in figures.json, in plain values."""
    groups = images.groups
    kind, threshold = groups[-1].kind, rows[chosen]["threshold"]
    return {
        "trilemma": __version__,
        **run.origin,
        "run": str(run.path),
        "model": run.recipe.name,
        "trained_on": run.config["data"],
        "source": images.source,
        "kind": kind,
        "score": chosen,
        "title": rows[chosen]["title"],
        "threshold": threshold,
        "flagged": int((scores[kind] > threshold).sum()),
        "counts": {group.kind: len(group.split) for group in groups},
        "sources": {group.kind: group.source for group in groups},
        "counted": images.counted,
        "notes": images.notes,
        "interval_is": {
            "auroc, average_precision": INTERVAL_IS,
            "rates": "Wilson 95%",
            "false_alarm_rate": "Wilson 95%" if images.counted else EXPECTED_IS,
        },
        "rows": {name: _plain(row) for name, row in rows.items()},
    }


def _positions(kind: str, scores: Mapping[str, Tensor], threshold: float, counted: bool) -> dict[str, Tensor]:
    """Positions in their group of what is flagged (`hits`), of the highest scores that are not (`below`, as many as
    make SHOWN with the hits), of false `alarms`, and of `misses`, the lowest first."""
    hits = flagged(scores[kind], threshold)
    order = scores[kind].argsort(descending=True, stable=True)
    positions = {"hits": hits, "below": order[len(hits) : max(SHOWN, len(hits))]}
    if kind != NORMAL and counted:
        positions["alarms"] = flagged(scores[NORMAL], threshold)
    if kind == ABNORMAL:
        positions["misses"] = order[len(hits) :].flip(0)
    return positions


def _table(
    groups: Sequence[Group],
    scores: Mapping[str, Mapping[str, Tensor]],
    p_values: Mapping[str, Tensor],
    chosen: str,
    threshold: float,
) -> str:
    """Every image with its scores, as CSV; p_value: of the score that flags, if the image is normal."""
    rows: list[list[object]] = [["kind", "number", "file", "class", *scores, "p_value", "flagged"]]
    for g in groups:
        for k, number in enumerate(g.numbers.tolist()):
            name = "" if g.split.names is None else g.split.names[k]
            label = "" if g.split.labels is None else g.classes[int(g.split.labels[k])]
            values = [*(by_kind[g.kind][k].item() for by_kind in scores.values()), p_values[g.kind][k].item()]
            hit = int(scores[chosen][g.kind][k] > threshold)
            rows.append([g.kind, number, name, label, *(f"{value:.8g}" for value in values), hit])
    return csv_text(rows)
