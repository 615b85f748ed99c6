"""Scores of abnormality, the higher the more abnormal: a model's own, and two baselines that need none."""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

from trilemma import rng
from trilemma.data import Split
from trilemma.errors import check_finite
from trilemma.explore.codes import code_width
from trilemma.explore.compress import by_pca, code_bytes, fit_count, fit_pca
from trilemma.pictures.levels import to_float
from trilemma.run.compute import in_batches
from trilemma.run.run import Run
from trilemma.types import (
    UNCONDITIONAL,
    BoundsByPath,
    BoundsLikelihood,
    Condition,
    Encodes,
    JudgesRealness,
    Reconstructs,
    codes_need,
    flags,
    needs_caption,
)

if TYPE_CHECKING:
    from sklearn.decomposition import PCA

TRAIN = 10_000  # training images that the baselines and the density of codes are fitted on, at most
NUMBERS = 32  # of PCA, for a model without codes
LARGEST_CODE = 1024  # numbers that a covariance matrix is made of
PART = 256  # images that go through a model at a time
ELBO_DRAWS = 4  # of z, averaged
BLOCK = 1024  # images that are compared with all training images at a time
TINY = 1e-6  # keeps logarithms and divisions finite; below one grey level squared
FOLDS = 5  # of training images that are scored without their own
RIDGE = 1e-6  # of the mean variance, added to a covariance: units of a code may be constant
Scored = Callable[[Tensor, Mapping[str, Tensor]], Tensor]


class AnomalyScore(NamedTuple):
    """How images are scored: `of(images uint8 (N, C, H, W), earlier) -> float64 (N,)`, on the CPU; `earlier` holds what
    the scores before it gave for the same images. log: it is positive, and compares by its logarithm."""

    name: str
    title: str
    baseline: bool
    log: bool
    of: Scored


def fitted_on(run: Run, seed: int) -> Split:
    """The training images that baselines and densities are fitted on, drawn by the seed."""
    train = run.data.train
    count = min(TRAIN, fit_count(train.images.shape[1:]))
    return train.take(rng.permutation(len(train), seed, "detect train")[:count])


def scores_of(run: Run, seed: int, some: Split | None = None) -> dict[str, AnomalyScore]:
    """The model's own scores, then the baselines.

    Args:
        some: training images that they are fitted on.
    """
    model = run.model
    some = fitted_on(run, seed) if some is None else some
    numbers = NUMBERS
    scores: dict[str, AnomalyScore] = {}

    def add(name: str, title: str, of: Scored, *, baseline: bool = False, log: bool = False) -> None:
        scores[name] = AnomalyScore(name, title, baseline, log, of)

    if isinstance(model, Reconstructs):
        error = partial(_error, run)
        add("error", "reconstruction error", _alone(error), log=True)
        add("relative", "error relative to detail", _relative("error", error, some.images))
    if isinstance(model, BoundsLikelihood) and not needs_caption(model):
        add("elbo", "negative ELBO (nats)", _alone(partial(_negative_elbo, run, seed)))
    if isinstance(model, Encodes):
        numbers = code_width(run)
        if numbers <= LARGEST_CODE and not codes_need(model):
            add("code", "distance of the code", _alone(_mahalanobis(run, some.images)), log=True)
        numbers = int(code_bytes(run.model, numbers)[0] // 2)
    if isinstance(model, JudgesRealness):
        add("critic", "negative logit of the critic", _alone(partial(_unreal, run, model)))
    pca = fit_pca(some.images, min(numbers, some.images[0].numel() // 2))  # all of them would leave no error
    error, title = partial(_pca_error, pca), f"PCA ({pca.n_components_} components)"
    add("pca", title, _alone(error), baseline=True, log=True)
    add("pca-relative", f"{title} relative to detail", _relative("pca", error, some.images), baseline=True)
    title = f"nearest of {len(some):,} training images"
    add("nearest", title, _alone(partial(_nearest, some.images)), baseline=True, log=True)
    return scores


def training_scores(run: Run, seed: int, some: Split) -> dict[str, Tensor]:
    """Every score of some training images, (N,), each fitted on the other folds: what can be fitted anew has not seen
    the image; the model has."""
    order = rng.permutation(len(some), seed, "detect folds")
    parts = []
    for fold in order.chunk(FOLDS):
        rest = order[~torch.isin(order, fold)]
        parts.append(score_all(scores_of(run, seed, some.take(rest)), some.take(fold).images))
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def _alone(score: Callable[[Tensor], Tensor]) -> Scored:
    """A score that needs no others."""
    return lambda images, earlier: score(images)


def _relative(base: str, error: Callable[[Tensor], Tensor], train: Tensor) -> Scored:
    """log error - (a + b log detail), with the line that fits training images best (least squares)."""
    x, y = _detail(train).log(), error(train).clamp(min=TINY).log()
    b = ((x - x.mean()) * (y - y.mean())).sum() / (x - x.mean()).square().sum().clamp(min=TINY)
    a = y.mean() - b * x.mean()
    return lambda images, earlier: earlier[base].clamp(min=TINY).log() - a - b * _detail(images).log()


def _detail(images: Tensor) -> Tensor:
    """Squared differences of neighbouring pixels, summed, by the number of pixels: (N,)."""
    x = _float(images).double()
    total = sum(x.diff(dim=side).square().flatten(1).sum(1) for side in (2, 3))
    return torch.as_tensor(total).div(images[0].numel()).clamp(min=TINY)


def _pca_error(pca: "PCA", images: Tensor) -> Tensor:
    return _mse(by_pca(pca, images, half=False), _float(images))


def _error(run: Run, images: Tensor) -> Tensor:
    return _mse(reconstructions(run, images), _float(images))


def _negative_elbo(run: Run, seed: int, images: Tensor) -> Tensor:
    model = run.model
    assert isinstance(model, BoundsLikelihood)
    n_draws = 1 if isinstance(model, BoundsByPath) else ELBO_DRAWS  # one is of several noise levels

    def compute(start: int, count: int) -> Tensor:
        part, bounds = _float(images[start : start + count]).to(run.device), []
        for condition in _conditions(model, len(part), run.device):
            noise = rng.generator(seed, "detect elbo", start // PART, device=run.device)
            with torch.no_grad():
                draws = [model.elbo(part, noise, condition) for _ in range(n_draws)]
            bounds.append(torch.stack(draws).double().mean(0))
        return -torch.stack(bounds).max(0).values.cpu()

    return torch.cat([part for _, part in in_batches(compute, 0, len(images), PART)])


def _unreal(run: Run, model: JudgesRealness, images: Tensor) -> Tensor:
    return -run.apply(lambda part, _: model.realness(part), _float(images)).double()


def _mahalanobis(run: Run, train: Tensor) -> Callable[[Tensor], Tensor]:
    """Squared Mahalanobis distance from the codes of training images."""
    codes = run.encode(_float(train)).double()
    mean = codes.mean(0)
    covariance = (codes - mean).T @ (codes - mean) / len(codes)
    ridge = RIDGE * covariance.diagonal().mean().clamp(min=1e-12)
    root = torch.linalg.cholesky(covariance + ridge * torch.eye(len(mean), dtype=torch.float64))

    def distance(images: Tensor) -> Tensor:
        apart = run.encode(_float(images)).double() - mean
        return torch.linalg.solve_triangular(root, apart.T, upper=False).square().sum(0)

    return distance


def _nearest(train: Tensor, images: Tensor) -> Tensor:
    """Root mean squared difference from the nearest of some training images.

    It is sought by |y|^2 - 2 x.y, which is quick and may take one of two that are almost equally near.
    """
    y = _float(train).flatten(1)
    squares, distances = y.square().sum(1), []
    for part in images.split(BLOCK):
        x = _float(part).flatten(1)
        nearest = (squares - 2 * x @ y.T).argmin(1)
        distances.append(_mse(x, y[nearest]).sqrt())
    return torch.cat(distances)


def _conditions(model: nn.Module, count: int, device: torch.device) -> Iterator[Condition]:
    """Every class for all of `count` images; once none for a model whose codes need none."""
    if "label" not in codes_need(model):
        yield UNCONDITIONAL
        return
    for k in range(flags(model).n_classes):
        yield Condition(label=torch.full((count,), k, device=device))


def _float(images: Tensor) -> Tensor:
    return to_float(images) if images.dtype == torch.uint8 else images


def _mse(result: Tensor, images: Tensor) -> Tensor:
    return (result.double() - images.double()).square().flatten(1).mean(1)


def score_all(scores: Mapping[str, AnomalyScore], images: Tensor) -> dict[str, Tensor]:
    """Every score of uint8 images (N, C, H, W), each float64 (N,).

    Raises:
        UserError: if one is not finite.
    """
    parts = [_score(scores, part) for part in images.split(fit_count(images.shape[1:]))]
    scored = {name: torch.cat([part[name] for part in parts]) for name in scores}
    for name, values in scored.items():
        advice = "the training may have diverged: look at the run's samples, or train with a lower lr="
        check_finite(values, f"scores ({name})", advice)
    return scored


def _score(scores: Mapping[str, AnomalyScore], images: Tensor) -> dict[str, Tensor]:
    values: dict[str, Tensor] = {}
    for name, score in scores.items():
        values[name] = score.of(images, values)
    return values


def reconstructions(run: Run, images: Tensor) -> Tensor:
    """uint8 or float images (N, C, H, W) after a pass through the model, float32 on the CPU; a conditional model tries
    every class (what the image shows is not known), and the best counts."""
    model = run.require("reconstruct", Reconstructs)

    def best(part: Tensor, _: Condition) -> Tensor:
        tries = torch.stack([model.reconstruct(part, y) for y in _conditions(run.model, len(part), part.device)])
        nearest = (tries - part).square().flatten(2).mean(2).argmin(0)  # (B,)
        return tries[nearest, torch.arange(len(part), device=part.device)]

    return run.apply(best, _float(images))
