"""Disentanglement: whether each code follows one factor of the data, and each factor one code.

Codes z_1 ... z_Z of images that were drawn from known factors v_1 ... v_K. Three scores, each the mean over factors:

- MIG (Chen et al. 2018, "Isolating sources of disentanglement in VAEs"): the mutual information gap
  (I(z_a; v_k) - I(z_b; v_k)) / H(v_k), where a and b are the two codes that tell most about v_k.
- DCI (Eastwood & Williams 2018, "A framework for the quantitative evaluation of disentangled representations"):
  R_ik is the importance of code i to a predictor of factor k. With P_ik = R_ik / sum_k R_ik, a code's disentanglement
  is 1 - H_K(P_i), and the whole weighs codes by their importance; a factor's completeness is 1 - H_Z of its column.
  H_b is the entropy to base b. Informativeness is how well the factor is predicted.
- SAP (Kumar et al. 2018, "Variational inference of disentangled latent concepts from unlabeled observations"): the
  separated attribute predictability, S_ak - S_bk of the two codes that predict v_k best by themselves: by a line, or
  a factor of classes by thresholds.

A factor is discrete if its type is a whole number, else continuous. No score depends on the scale of a code, so a code
of tiny spread counts as any other one.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from trilemma.errors import UserError, check_finite

if TYPE_CHECKING:
    import numpy as np

    Columns = dict[str, "np.ndarray[Any, Any]"]

BINS = 20  # of a code's histogram, equal in width between its smallest and its largest value
TREES = 30  # of the predictor behind the importances
LEAF = 5  # images in a leaf at least: fewer, and a tree splits noise by codes that mean nothing
MOST_PER_TREE = 2_000  # images that a tree is grown on


@dataclass(frozen=True)
class Gap:
    """A score that is the gap between the best two codes: its mean over factors, and that of each factor.

    matrix: what the gap is taken of, for code i and factor k, (Z, K): I(z_i; v_k) / H(v_k), or S_ik.
    """

    value: float
    of_factor: dict[str, float]
    matrix: Tensor


@dataclass(frozen=True)
class DCI:
    """The three scores; completeness and informativeness of each factor, disentanglement of each code (Z,).

    matrix: importances R, (Z, K); the column of a factor that can be predicted adds up to 1.
    """

    disentanglement: float
    completeness: float
    informativeness: float
    of_code: Tensor
    completeness_of: dict[str, float]
    informativeness_of: dict[str, float]
    matrix: Tensor


def mutual_information_gap(codes: Tensor, factors: Mapping[str, Tensor]) -> Gap:
    """MIG, in [0, 1]; continuous factors are put into bins as the codes are.

    Args:
        codes: (N, Z). The information is that of z ~ q(z|x): of an encoder that is a distribution give a draw for each
            image. By its means alone, a unit that says nothing would count, if its mean followed a factor by a
            thousandth of its noise.
        factors: by name, (N,) each.
    Raises:
        UserError: if the numbers of images differ, a code is not finite, or a factor has only one value.
    """
    columns, values = _checked(codes, factors)
    binned = [_bin(column) for column in columns]
    discrete = {name: _bin(v) if v.dtype.kind == "f" else v for name, v in values.items()}
    matrix = [
        [mutual_information(code, v) / mutual_information(v, v) for v in discrete.values()] for code in binned
    ]  # I(v; v) = H(v)
    return _gap(torch.tensor(matrix, dtype=torch.float64), list(values))


def mutual_information(one: "np.ndarray[Any, Any]", other: "np.ndarray[Any, Any]") -> float:
    """I(one; other) = H(one) + H(other) - H(one, other) of two columns of whole numbers (N,), as counted; in nats."""
    import numpy as np

    (values, a), (others, b) = (np.unique(column, return_inverse=True) for column in (one, other))
    joint = np.bincount(a * len(others) + b, minlength=len(values) * len(others)).reshape(len(values), -1) / len(a)
    entropies = (torch.special.entr(torch.from_numpy(p)).sum() for p in (joint.sum(0), joint.sum(1), joint))
    first, second, both = map(float, entropies)
    return first + second - both


def separated_attribute_predictability(codes: Tensor, factors: Mapping[str, Tensor]) -> Gap:
    """SAP, in [0, 1].

    S_ik is R^2 of the line from code i to a continuous factor, and for one of C classes the balanced accuracy of the
    best C - 1 thresholds on code i, on these images themselves: they part its range into C intervals, and each takes
    a class. A code that tells nothing of such a factor has balanced accuracy 1 / C, so its gap is at most 1 - 1 / C.

    Args and Raises: as `mutual_information_gap`; for an encoder that is a distribution, the codes are its means.
    """
    columns, values = _checked(codes, factors)
    columns_of = [_r2(columns, v) if v.dtype.kind == "f" else threshold_accuracy(columns, v) for v in values.values()]
    return _gap(torch.stack([torch.from_numpy(column) for column in columns_of], dim=1), list(values))


def dci(
    codes: Tensor, factors: Mapping[str, Tensor], *, seed: int = 0, on_factor: Callable[[], object] = lambda: None
) -> DCI:
    """Disentanglement, completeness and informativeness, each in [0, 1].

    The predictor is a random forest (Breiman 2001) that sees all codes at every split; R_ik is the share of code i in
    the impurity it removes. Informativeness is measured on the images that a tree was not grown on: the share of
    images whose class is right, or R^2 of a continuous factor (0 where it is negative).

    Args:
        seed: of the forest.
        on_factor: called after each factor: on long codes a forest takes seconds.
    Args and Raises: as `mutual_information_gap`; for an encoder that is a distribution, the codes are its means.
    """
    columns, values = _checked(codes, factors)
    forests = {}
    for name, v in values.items():
        forests[name] = _forest(columns.T, v, seed)
        on_factor()
    importance = torch.stack([torch.from_numpy(forest.feature_importances_) for forest in forests.values()], dim=1)
    informativeness = {name: max(0.0, float(forest.oob_score_)) for name, forest in forests.items()}
    of_code = 1 - _entropy(importance)
    of_factor = (1 - _entropy(importance.T)).tolist()
    weight = importance.sum(1) / importance.sum().clamp(min=1e-12)  # rho_i
    completeness = dict(zip(values, of_factor, strict=True))
    return DCI(
        float((weight * of_code).sum()),
        _mean(completeness),
        _mean(informativeness),
        of_code,
        completeness,
        informativeness,
        importance,
    )


def _checked(codes: Tensor, factors: Mapping[str, Tensor]) -> "tuple[np.ndarray[Any, Any], Columns]":
    """Codes as rows, (Z, N), and factors, (N,) each, as arrays."""
    if codes.ndim != 2 or not factors or any(v.shape != codes.shape[:1] for v in factors.values()):
        shapes = ", ".join(f"{name} {tuple(v.shape)}" for name, v in factors.items()) or "none"
        raise UserError(f"codes {tuple(codes.shape)} and factors {shapes}: give (N, Z) codes and factors of (N,) each")
    check_finite(codes, "codes", "the model has diverged: train it again with a lower lr=")
    for name, values in factors.items():
        if len(values) == 0 or (values == values[0]).all():
            raise UserError(f'the factor "{name}" has one value in {len(values)} images; give more, or leave it out')
    values = {name: v.detach().cpu().numpy() for name, v in factors.items()}
    return codes.detach().cpu().double().T.contiguous().numpy(), values


def _bin(values: "np.ndarray[Any, Any]") -> "np.ndarray[Any, Any]":
    """Numbers of the BINS bins of equal width that the values lie in."""
    import numpy as np

    edges = np.linspace(values.min(), values.max(), BINS + 1)
    return np.digitize(values, edges[1:-1])


def _r2(codes: "np.ndarray[Any, Any]", factor: "np.ndarray[Any, Any]") -> "np.ndarray[Any, Any]":
    """Squared correlation of each code (Z, N) with a factor (N,); 0 for a code that is constant: (Z,)."""
    import numpy as np

    spread = codes.std(1, keepdims=True)
    z = (codes - codes.mean(1, keepdims=True)) / np.where(spread > 0, spread, np.inf)
    v = (factor - factor.mean()) / factor.std()
    return (z * v).mean(1) ** 2


def threshold_accuracy(
    codes: "np.ndarray[Any, Any]", factor: "np.ndarray[Any, Any]", thresholds: int | None = None
) -> "np.ndarray[Any, Any]":
    """Balanced accuracy of the best thresholds on each code: (Z, N) codes and (N,) classes -> (Z,).

    Exact, in one pass over the images by value (Viterbi 1967): best[i, k, c] is the largest sum of weights of rightly
    classed images so far, with k thresholds spent and class c given since the last of them. An image weighs one over
    the number of its class's images and over the number of classes.

    Args:
        thresholds: at most so many on a code (default: one less than classes).
    """
    import numpy as np

    kinds, of_image, counts = np.unique(factor, return_inverse=True, return_counts=True)
    weight = 1 / (counts * len(kinds))
    order = codes.argsort(axis=1, kind="stable")
    ranked = np.take_along_axis(codes, order, axis=1)
    between = np.diff(ranked, axis=1, prepend=ranked[:, :1]) > 0  # (Z, N): a threshold fits before this image
    classes, between = of_image[order].T.copy(), between.T.copy()
    rows = np.arange(len(codes))
    best = np.full((len(codes), (len(kinds) - 1 if thresholds is None else thresholds) + 1, len(kinds)), -np.inf)
    best[:, 0] = 0
    for c, fits in zip(classes, between, strict=True):
        moved = np.where(fits[:, None], best[:, :-1].max(2), -np.inf)  # (Z, K): another threshold, any class before it
        np.maximum(best[:, 1:], moved[:, :, None], out=best[:, 1:])
        best[rows, :, c] += weight[c][:, None]
    return best.max((1, 2))


def _forest(codes: "np.ndarray[Any, Any]", factor: "np.ndarray[Any, Any]", seed: int) -> Any:
    """A random forest grown on codes (N, Z), with its score on the images left out of each tree."""
    from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor

    kind = RandomForestRegressor if factor.dtype.kind == "f" else RandomForestClassifier
    forest = kind(
        n_estimators=TREES,
        min_samples_leaf=LEAF,
        max_features=1.0,  # pyright: ignore[reportArgumentType]
        max_samples=min(len(codes), MOST_PER_TREE),
        oob_score=True,
        n_jobs=torch.get_num_threads(),  # the trees are the same, however many grow at once
        random_state=seed,
    )
    return forest.fit(codes, factor)


def _entropy(weights: Tensor) -> Tensor:
    """Entropy of each row (n, m) made to add up to 1, to base m; 1 for a row of zeros, 0 where m = 1."""
    rows, m = weights.double(), weights.shape[1]
    total = rows.sum(1, keepdim=True)
    p = torch.where(total > 0, rows / total, torch.full_like(rows, 1 / m))
    return torch.special.entr(p).sum(1) / math.log(m) if m > 1 else torch.zeros(len(rows), dtype=torch.float64)


def _gap(matrix: Tensor, names: list[str]) -> Gap:
    """The gap between the two largest values of each column; a single code has a gap to nothing."""
    best = torch.cat([matrix, torch.zeros_like(matrix[:1])]).topk(2, dim=0).values
    of_factor = dict(zip(names, (best[0] - best[1]).tolist(), strict=True))
    return Gap(_mean(of_factor), of_factor, matrix)


def _mean(values: Mapping[str, float]) -> float:
    return sum(values.values()) / len(values)
