"""How far the codes of a model follow the factors that images were drawn from, each code one factor.

Scores and their papers: metrics/disentanglement.py. The codes are what `encode` gives. A model with a Gaussian q(z|x)
for each image, `posterior`, is judged by its means in DCI and SAP, and in MIG, which is defined by the information in
z ~ q(z|x), by one draw for each image: the noise tells units that hold a factor from those that collapsed.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from trilemma import __version__, rng
from trilemma.data import Data, Split
from trilemma.data.load import Source
from trilemma.errors import UserError
from trilemma.explore.images import run_receipt, source_of
from trilemma.files import json_text
from trilemma.keys import Count, Picture, Quiet, Seed
from trilemma.metrics.disentanglement import (
    BINS,
    DCI,
    Gap,
    dci,
    mutual_information_gap,
    separated_attribute_predictability,
)
from trilemma.metrics.intervals import Estimate, half_width
from trilemma.modes import own_modes
from trilemma.pictures.levels import to_float
from trilemma.pictures.plots import png
from trilemma.progress import Display
from trilemma.results import Results, place
from trilemma.run.condition import needed
from trilemma.run.run import Run, RunLike, as_run
from trilemma.types import Condition, Encodes, HasPosterior
from trilemma.values import checked_call

PARTS = 5  # of the images, whose scores say how sure the whole one is
LEAST = 50  # images in a part
LARGEST_CODE = 128  # numbers, each of which is held against every factor; minutes at this length
MOST_TICKS = 40  # numbers beside the codes
MIG_OF = {
    True: "mig: of one draw z ~ q(z|x) for each image; the other scores: of the means of q(z|x)",
    False: "all scores: of the codes as they are, for the model gives no q(z|x) to draw from",
}
INTERVAL_IS = f"95%, from the spread of the score over {PARTS} parts of the images (Student's t); the model held fixed"


@dataclass(frozen=True)
class Disentanglement:
    """Scores in [0, 1], 1 where each code follows one factor and each factor one code.

    scores: mig, disentanglement, completeness, informativeness, sap, each with its 95% interval. MIG is of one draw of
        q(z|x) for each image, the others of its means; without a posterior all are of the codes.
    notes: which of the two it was, and the factors that were left out.
    of_factor: mig, completeness, informativeness and sap by factor.
    picture: codes by factors, mutual information and importance; figures: all of this as JSON.
    """

    picture: Path
    figures: Path
    scores: dict[str, Estimate]
    of_factor: dict[str, dict[str, float]]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class _Scores:
    mig: Gap
    dci: DCI
    sap: Gap

    @property
    def scores(self) -> dict[str, float]:
        return {
            "mig": self.mig.value,
            "disentanglement": self.dci.disentanglement,
            "completeness": self.dci.completeness,
            "informativeness": self.dci.informativeness,
            "sap": self.sap.value,
        }

    @property
    def of_factor(self) -> dict[str, dict[str, float]]:
        return {
            "mig": self.mig.of_factor,
            "completeness": self.dci.completeness_of,
            "informativeness": self.dci.informativeness_of,
            "sap": self.sap.of_factor,
        }


@checked_call
@own_modes()
def disentangle(
    run: RunLike,
    *,
    data: Annotated[Source, Field(description="images with known factors")] = "shapes",
    n: Count = 5_000,
    seed: Seed = 0,
    out: Picture = None,
    quiet: Quiet = False,
) -> Disentanglement:
    """Encode images that were drawn from known factors, and score how the codes follow them: MIG, DCI and SAP.

    Args:
        data: images with factors; they are drawn in the size and channels that the run was trained on.
        n: images, held-out ones first.
        seed: of the draws of codes, of the parts that the images are divided into, and of the predictor behind DCI.
        out: the picture to write, beside which its values are stored as JSON; default: RUN/disentanglement.png.
    Raises:
        UserError: if the model does not encode, its codes are longer than LARGEST_CODE, the data have no factors, or
            there are too few images.
    """
    run = as_run(run)
    run.require("encode images", Encodes)
    picture, within = place(out, run.path, "disentanglement.png")
    file = picture.with_suffix(".json")
    files = Results(picture, [file], verb="disentangle", within=within)
    source = source_of(run, data)
    images = _images(source, n)
    condition = needed(run.model, Condition(label=images.labels))
    codes, draws = _codes(run, images, condition, seed)
    factors, notes = _own(images.factors or {})
    notes += (MIG_OF[isinstance(run.model, HasPosterior)],)
    order = rng.permutation(len(codes), seed, "disentangle")
    display = Display("disentangle", quiet=quiet)
    done = 0

    def measure(index: Tensor) -> _Scores:
        def report() -> None:  # of the work, half is the whole and half its parts
            nonlocal done
            done += len(index)
            display.update(done / (2 * len(codes) * len(factors)), f"{len(codes):,} codes of {codes.shape[1]} numbers")

        of_index = {name: values[index] for name, values in factors.items()}
        return _Scores(
            mutual_information_gap(draws[index], of_index),
            dci(codes[index], of_index, seed=seed, on_factor=report),
            separated_attribute_predictability(codes[index], of_index),
        )

    try:
        whole = measure(torch.arange(len(codes)))
        parts = [measure(index).scores for index in order.chunk(PARTS)]
    finally:
        display.close()
    scores = {name: _around(value, [part[name] for part in parts]) for name, value in whole.scores.items()}
    receipt = run_receipt(run, "disentangle", data=source.name, n=len(codes), seed=seed)
    values = {
        "trilemma": __version__,
        **run.origin,
        "data": source.name,
        "n": len(codes),
        "seed": seed,
        "interval_is": INTERVAL_IS,
        "scores": {name: {"value": score.value, "interval": score.interval} for name, score in scores.items()},
        "of_factor": whole.of_factor,
        "mutual_information": whole.mig.matrix.tolist(),
        "importance": whole.dci.matrix.tolist(),
        "notes": notes,
    }
    files.write(_draw(whole, list(factors)), receipt, {file: json_text(values)})
    return Disentanglement(picture, file, scores, whole.of_factor, notes)


def _codes(run: Run, images: Split, condition: Condition, seed: int) -> tuple[Tensor, Tensor]:
    """Codes (N, Z), means where they are random, and a draw z ~ q(z|x) for each image; without a posterior the same."""
    model, x = run.model, to_float(images.images)
    assert isinstance(model, Encodes)
    numbers = run.apply(model.encode, x[:1], condition.rows(slice(1))).shape[1]
    if numbers > LARGEST_CODE:
        raise UserError(
            f"the codes of {run.recipe.name} have {numbers:,} numbers, and up to {LARGEST_CODE} are held against each "
            "factor of the images; choose a model with shorter codes, such as vae-beta, or train it with fewer numbers"
        )
    if not isinstance(model, HasPosterior):
        codes = run.apply(model.encode, x, condition)
        return codes, codes
    both = run.apply(lambda part, rows: torch.cat(model.posterior(part, rows), dim=1), x, condition)
    mu, logvar = both.chunk(2, dim=1)
    eps = rng.normal(torch.arange(len(mu)), (numbers,), seed, "disentangle")
    return mu, mu + (0.5 * logvar).exp() * eps


def _images(data: Data, n: int) -> Split:
    """The first n images with factors: of the test split, then of the others."""
    splits = [data.splits[name] for name in ("test", "valid", "train") if name in data.splits]
    labels = [split.labels for split in splits if split.labels is not None]
    factors = [split.factors for split in splits if split.factors is not None]
    if len(factors) < len(splits):
        raise UserError(
            f"{data.name} does not say from which factors its images were drawn; choose data with factors, as shapes"
        )
    available = sum(map(len, splits))
    if not PARTS * LEAST <= n <= available:
        raise UserError(f"n={n}: choose from {PARTS * LEAST:,} to {available:,}, as many images as {data.name} has")
    return Split(
        torch.cat([split.images for split in splits])[:n],
        torch.cat(labels)[:n] if len(labels) == len(splits) else None,
        factors={name: torch.cat([values[name] for values in factors])[:n] for name in factors[0]},
    )


def _own(factors: dict[str, Tensor]) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Without the factors that another one determines, as the row of a shape is by its y; which these are, in words."""
    remaining = dict(factors)
    notes = []
    for name, values in factors.items():
        by = [other for other in remaining if other != name and _determines(remaining[other], values)]
        if by:
            del remaining[name]
            notes.append(f'the factor "{name}" is left out: "{by[0]}" determines it')
    return remaining, tuple(notes)


def _determines(by: Tensor, values: Tensor) -> bool:
    """Whether images alike in one factor (in the same of BINS bins, where it is continuous) are alike in another."""
    if values.is_floating_point():
        return False
    if by.is_floating_point():
        by = ((by - by.min()) / (by.max() - by.min()).clamp(min=1e-12) * BINS).long()
    return len(torch.stack([by, values]).unique(dim=1)[0]) == len(by.unique())


def _around(value: float, of_parts: list[float]) -> Estimate:
    """A score in [0, 1] with the interval that its spread over parts of the images gives."""
    half = half_width(of_parts)
    return Estimate(value, (max(0.0, value - half), min(1.0, value + half)))


def _draw(scores: _Scores, factors: list[str]) -> bytes:
    """Heat maps of units (rows) by factors (columns): mutual information and importance."""
    from matplotlib.colors import PowerNorm
    from matplotlib.figure import Figure

    panels = {
        f"share of the factor's entropy that the unit explains\nMIG {scores.mig.value:.2f}": scores.mig.matrix,
        f"importance of the unit to a predictor of the factor\ndisentanglement {scores.dci.disentanglement:.2f}": (
            scores.dci.matrix
        ),
    }
    n = len(scores.mig.matrix)
    figure = Figure(figsize=(2.5 + 1.1 * len(factors) * len(panels), min(2 + 0.3 * n, 40)), layout="constrained")
    for axis, (title, matrix) in zip(figure.subplots(1, len(panels)), panels.items(), strict=True):
        norm = PowerNorm(0.5, vmin=0, vmax=1)  # a share of 0.04 takes a fifth of the colours
        heat = axis.imshow(matrix.numpy(), norm=norm, cmap="YlGnBu", aspect="auto")
        axis.set_title(title, fontsize="medium")
        axis.set_xticks(range(len(factors)), factors)
        axis.set_yticks(range(0, n, -(-n // MOST_TICKS)))
        axis.set_ylabel("unit")
        figure.colorbar(heat, ax=axis, ticks=(0, 0.04, 0.25, 0.5, 1))
    return png(figure, dpi=100)
