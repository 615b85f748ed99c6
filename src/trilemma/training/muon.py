"""Muon (Jordan et al. 2024, "Muon: an optimizer for hidden layers in neural networks"): steps of orthogonal matrices.

A weight of two axes, or a convolution's with its inputs in one row, is a matrix W (m, n). With its gradient G and m the
mean of gradients, the step goes along the nearest matrix whose singular values are all about 1:

    m <- b1 m + (1 - b1) G,    U = b1 m + (1 - b1) G,    W <- W - 0.2 lr sqrt(max(m, n)) O(U)

The factor gives a step the root mean square 0.2 lr that one of Adam typically has (Liu et al. 2025, "Muon is scalable
for LLM training", eq. 4), so that a rate serves both. Weights with fewer than SMALLEST rows or columns, and all that
have one axis, move by AdamW.

O(U) is a polynomial of odd degree, p(x) = 3.4445 x - 4.7750 x^3 + 2.0315 x^5, five times over, of the singular values
of U / |U|. With X <- P X, P = a + b A + c A^2, the Gram matrix A = X X^T becomes P A P. So the five run in A and in the
product Q of the Ps, for all matrices of one height together, and X is multiplied once, by Q.
"""

import inspect
import math
from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.optim.adam import adam

COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # of p
REPEATS = 5
SMALLEST = 8  # rows, and columns, of a matrix
RMS = 0.2  # of a step, over the rate


class Rows(Protocol):
    """Weights that are divided over processes by their rows."""

    def shape_of(self, weight: Tensor) -> torch.Size:
        """The shape of the whole weight."""
        ...

    def joined(self, weight: Tensor, rows: Tensor) -> Tensor:
        """The whole of what each process has the rows of, for one of its weights; all processes take part."""
        ...

    def own_rows(self, whole: Tensor) -> Tensor:
        """The rows that this process has."""
        ...


class Muon(torch.optim.Optimizer):
    """Muon for matrices, and AdamW for the other weights. Weight decay is apart from the gradient, as AdamW's.

    All weights that are no matrices are taken to have their gradients in the same steps.

    Args:
        rows: of the weights, where they are divided: whole matrices are then made orthogonal in every process, one
            after the other, so that one is whole at a time.
    """

    # Without torch's mark for its compiler, whose import would take a second or two of the start of every training.
    add_param_group = inspect.unwrap(torch.optim.Optimizer.add_param_group)
    state_dict = inspect.unwrap(torch.optim.Optimizer.state_dict)

    def __init__(
        self,
        params: Sequence[nn.Parameter],
        lr: float,
        betas: tuple[float, float] = (0.9, 0.999),
        weight_decay: float = 0.0,
        eps: float = 1e-8,
        rows: Rows | None = None,
    ) -> None:
        self.rows = rows
        # "fused": by which a state that is taken back has its steps where the weights are
        super().__init__(params, {"lr": lr, "betas": betas, "weight_decay": weight_decay, "eps": eps, "fused": True})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        """Move the weights by their gradients."""
        for group in self.param_groups:
            moved: list[Tensor] = [p for p in group["params"] if p.grad is not None]
            self._move_matrices(group, [weight for weight in moved if is_matrix(self._shape(weight))])
            self._move_others(group, [weight for weight in moved if not is_matrix(self._shape(weight))])

    def _shape(self, weight: Tensor) -> torch.Size:
        return weight.shape if self.rows is None else self.rows.shape_of(weight)

    def _move_matrices(self, group: dict[str, Any], weights: list[Tensor]) -> None:
        if not weights:
            return
        gradients: list[Tensor] = [p.grad for p in weights]  # type: ignore[misc]
        means = [self._entry(p, "exp_avg") for p in weights]
        b1, lr = group["betas"][0], group["lr"]
        torch._foreach_lerp_(means, gradients, 1 - b1)  # pyright: ignore[reportPrivateImportUsage]
        ahead = torch._foreach_lerp(gradients, means, b1)  # pyright: ignore[reportPrivateImportUsage]
        torch._foreach_mul_(weights, 1 - lr * group["weight_decay"])  # pyright: ignore[reportPrivateImportUsage]
        if self.rows is None:
            return self._move_along(weights, ahead, lr)
        for weight, u in zip(weights, ahead, strict=True):
            self._move_along([weight], [self.rows.joined(weight, u)], lr)

    def _move_along(self, weights: Sequence[Tensor], ahead: Sequence[Tensor], lr: float) -> None:
        """Move weights along the orthogonal factors of whole matrices U."""
        for weight, step in zip(weights, orthogonal([u.flatten(1) for u in ahead]), strict=True):
            own = step if self.rows is None else self.rows.own_rows(step)
            weight.sub_(own.view(weight.shape), alpha=RMS * math.sqrt(max(step.shape)) * lr)

    def _move_others(self, group: dict[str, Any], weights: list[Tensor]) -> None:
        if not weights:
            return
        gradients: list[Tensor] = [p.grad for p in weights]  # type: ignore[misc]
        for p in weights:
            if "step" not in self.state[p]:
                self.state[p]["step"] = torch.zeros((), dtype=torch.float32, device=p.device)
        means, squares = ([self._entry(p, key) for p in weights] for key in ("exp_avg", "exp_avg_sq"))
        adam(
            weights,
            gradients,
            means,
            squares,
            [],
            [self.state[p]["step"] for p in weights],
            fused=True,
            amsgrad=False,
            beta1=group["betas"][0],
            beta2=group["betas"][1],
            lr=group["lr"],
            weight_decay=group["weight_decay"],
            eps=group["eps"],
            maximize=False,
            decoupled_weight_decay=True,
        )

    def _entry(self, parameter: Tensor, key: str) -> Tensor:
        """What the state has of a parameter, zeros at first."""
        state = self.state[parameter]
        if key not in state:
            state[key] = torch.zeros_like(parameter)
        return state[key]


def is_matrix(shape: Sequence[int]) -> bool:
    """Whether a weight has two axes or more, and as many rows and columns as a matrix must."""
    return len(shape) >= 2 and min(shape[0], math.prod(shape[1:])) >= SMALLEST


def orthogonal(matrices: Sequence[Tensor]) -> list[Tensor]:
    """Matrices (m, n), each with its singular vectors and singular values near 1: from 0.65 to 1.21 where they were at
    least a hundredth of the norm."""
    wide = [x if len(x) <= x.shape[1] else x.mT for x in matrices]
    norms = [norm.clamp(min=torch.finfo(norm.dtype).tiny) for norm in torch._foreach_norm(wide)]  # pyright: ignore[reportPrivateImportUsage]
    units = torch._foreach_div(wide, norms)  # pyright: ignore[reportPrivateImportUsage]
    products: list[Tensor] = [*units]
    for height in {len(x) for x in units}:
        numbers = [number for number, x in enumerate(units) if len(x) == height]
        factors = _factors(torch.stack([units[number] @ units[number].mT for number in numbers]))
        for number, factor in zip(numbers, factors, strict=True):
            products[number] = factor @ units[number]
    return [y if y.shape == x.shape else y.mT for x, y in zip(matrices, products, strict=True)]


def _factors(gram: Tensor) -> Tensor:
    """What X is multiplied by, from A = X X^T; both (k, m, m)."""
    a, b, c = COEFFICIENTS
    one = torch.eye(gram.shape[1], dtype=gram.dtype, device=gram.device)
    product = None
    for left in reversed(range(REPEATS)):
        p = torch.baddbmm(a * one + b * gram, gram, gram, alpha=c)
        product = p if product is None else p @ product
        gram = p @ gram @ p if left else gram
    assert product is not None
    return product
