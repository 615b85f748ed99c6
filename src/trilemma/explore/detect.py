"""Abnormal images: scores that a model of normal images gives, and a threshold with a stated rate of false alarms.

A model trained on normal images alone reconstructs others badly and finds them improbable (Hawkins et al. 2002,
"Outlier detection using replicator neural networks"; An & Cho 2015, "Variational autoencoder based anomaly detection
using reconstruction probability"). Scores, the higher the more abnormal:

    error     mean over pixels of (x_hat - x)^2
    relative  log error - (a + b log detail), detail the squared differences of neighbouring pixels, the line fitted
              to training images: a striped shirt has a larger error than a plain one and is just as normal. After
              Serra et al. 2020, "Input complexity and out-of-distribution detection with likelihood-based generative
              models", whose measure of complexity is the size of a compressed file
    elbo      -ELBO(x), nats
    code      (e(x) - m)' S^-1 (e(x) - m), with the mean and covariance of the training images' codes
    critic    -D(x), the logit of a GAN's critic, averaged over the classes. The critic learned to tell real images from
              those of its own generator, at the end of the training; of other images nobody told it anything, and at
              the optimum its logit would be 0 everywhere. So it may rank strange images either way
    pca       mean over pixels of (x_hat - x)^2 for the principal components of training images, as many as a code has
              numbers; pca-relative likewise: baselines
    nearest   root mean squared difference from the nearest training image: a baseline

Threshold: the k-th largest of the scores of n normal images that the model was not trained on, k = floor(f (n + 1)),
for a rate f of false alarms; where they are too few for that, training images lend the shape of their scores'
distribution (detection/threshold.py). Which score flags is chosen without abnormal images (detection/choice.py).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field
from torch import Tensor

from trilemma.explore.detection.images import Classes, Source, groups_of
from trilemma.explore.detection.results import AUTO, document_of, find, images_table, positions_of, thresholds_table
from trilemma.explore.images import name_of, run_receipt
from trilemma.files import json_text, remove, user_path
from trilemma.keys import Seed
from trilemma.modes import own_modes
from trilemma.pictures.png import save_png, says_how_made
from trilemma.results import Results, with_keys
from trilemma.run.run import RunLike, as_run
from trilemma.types import BoundsByPath, BoundsLikelihood, Encodes, JudgesRealness, Reconstructs
from trilemma.values import checked_call

if TYPE_CHECKING:
    from trilemma.explore.detection.report import Page

BESIDE, SHEETS = ("figures.json", "scores.csv", "thresholds.csv", "report.html"), ("flagged.png", "heatmaps.png")
DEFAULTS = {"score": AUTO, "false_alarms": 0.05, "seed": 0}  # of the keys that are not None
MOST, MOST_BY_PATH = 10_000, 64  # images of a kind; of a diffusion model


@dataclass(frozen=True)
class Detection:
    """The result of a detection.

    picture: histograms of the scores; report: the page; score: the one that flags, with its threshold.
    in_short: the result in sentences.
    rows: for each score by name its threshold, and as estimates with 95% intervals the AUROC, average precision and
        rates; None if no image is known to be abnormal, or there are no other normal images to count false alarms on.
    scores: by name, then by kind of image, (N,).
    flagged: positions of the flagged images in `against`, or in the held-out images, the most abnormal first.
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
    score: Annotated[
        str, Field(description="auto, error, relative, elbo, code, critic, pca, pca-relative or nearest")
    ] = AUTO,
    n: Annotated[
        int | None, Field(ge=1, description="images of each kind, at most (default: 10,000, or 64 for diffusion)")
    ] = None,
    seed: Seed = 0,
    out: Annotated[str | Path | None, Field(description="folder to write (default: inside the run folder)")] = None,
) -> Detection:
    """Score images by a run that was trained on normal images alone, and flag the abnormal ones.

    A run learns every image of its data: to learn one class as normal, train on a folder of that class alone. Classes
    of its data that no training image has, as the test split of MVTec's layout has them, are abnormal.

    The threshold comes from the run's validation images, the false alarms are counted on its test images; without a
    test split, or with other images in `data`, all of them set the threshold, and the rate is the expected one. Where
    they are too few for it by rank, the training images help (detection/threshold.py). Of `against` all images that
    were not trained on are scored, or its test split.

    Args:
        against: a source of abnormal, mixed or unknown images, or one image file. Without classes nothing is known of
            its images: they are scored and flagged. With classes all are abnormal but those named in `normal`, or else
            those of the training images' classes. Default: the held-out images of the run.
        normal: the names or numbers of normal classes of `against`, commas between them; its images of those then
            are the normal ones that are counted on. "none": all are abnormal, for a source without classes.
        data: other normal images to set the threshold on, none of them trained on.
        score: error, relative, elbo, code, critic, pca, pca-relative or nearest; auto takes the score of the model's
            own that best tells held-out normal images from altered ones (detection/choice.py).
        n: images of each kind, at most; if there are more, the seed chooses. Default: MOST, or MOST_BY_PATH of a
            diffusion model, which takes many calls for each.
        seed: of that choice, of the ELBO's noise, of the altered images and of a threshold by spread.
        out: the folder to write; default: RUN/detect or RUN/detect-AGAINST, with the keys that are given in its name.
    Raises:
        UserError: the model neither reconstructs nor bounds the likelihood nor encodes, nor has a critic; there are no
            normal images, or too few for the rate of false alarms; `against` is the run's own data; a name or value
            does not fit.
    """
    run = as_run(run)
    if not isinstance(run.model, BoundsLikelihood | Encodes | JudgesRealness):
        run.require("score images", Reconstructs)
    files = None if out is None else _results(user_path(out))
    most = n or (MOST_BY_PATH if isinstance(run.model, BoundsByPath) else MOST)
    images = groups_of(run, data, against, normal, most, seed)
    if n is None and most == MOST_BY_PATH:
        images = images._replace(notes=(*images.notes, f"at most {most} images of each kind are scored (n=: more)"))
    if files is None:
        keys = {"score": score, "false_alarms": false_alarms, "normal": normal, "n": n, "seed": seed}
        stem = "detect" if against is None else f"detect-{images.source}"
        files = _results(run.path / with_keys(stem, {**keys, "data": name_of(data)}, DEFAULTS), run.path)
    findings = find(run, images, score, false_alarms, seed)
    document = document_of(run, findings)
    positions = positions_of(findings)
    from trilemma.explore.detection.report import draw_report

    page = draw_report(run, document, images.groups, findings.flagging, positions)
    figures, table, thresholds, report = files.beside
    contents = {figures: json_text(document), table: images_table(findings), report: page.html}
    contents[thresholds] = thresholds_table(findings)
    picture = _write(files, page, run_receipt(run, "detect", against=images.source, score=findings.chosen), contents)
    return Detection(
        picture,
        report,
        findings.chosen,
        findings.threshold,
        tuple(document["in_short"]),
        document["counts"],
        findings.rows,
        findings.scores,
        tuple(images.groups[-1].numbers[positions["hits"]].tolist()),
    )


def _results(folder: Path, within: Path | None = None) -> Results:
    """The files of a detection, which may be written; see `Results`."""
    beside, sheets = ([folder / name for name in names] for names in (BESIDE, SHEETS))
    return Results(folder / "histogram.png", beside, verb="detect", within=within or folder, pictures=sheets)


def _write(files: Results, page: "Page", receipt: dict[str, Any], contents: Mapping[Path, bytes | str]) -> Path:
    """Write the histogram, the files beside it, and the sheets; a sheet of an earlier call is removed."""
    picture = files.write(page.histogram, receipt, contents)
    for name, sheet in zip(SHEETS, (page.flagged, page.heatmaps), strict=True):
        path = picture.with_name(name)
        if sheet is not None:
            save_png(sheet, path, receipt)
        elif says_how_made(path):
            remove(path)
    return picture
