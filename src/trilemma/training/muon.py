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
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.adam import adam

COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # of p
REPEATS = 5
SMALLEST = 8  # rows, and columns, of a matrix
RMS = 0.2  # of a step, over the rate


class Muon(torch.optim.Optimizer):
    """Muon for matrices, and AdamW for the other weights. Weight decay is apart from the gradient, as AdamW's.

    All weights that are no matrices are taken to have their gradients in the same steps.
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
    ) -> None:
        # "fused": by which a state that is taken back has its steps where the weights are
        super().__init__(params, {"lr": lr, "betas": betas, "weight_decay": weight_decay, "eps": eps, "fused": True})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        """Move the weights by their gradients."""
        for group in self.param_groups:
            moved: list[Tensor] = [p for p in group["params"] if p.grad is not None]
            self._move_matrices(group, [weight for weight in moved if is_matrix(weight)])
            self._move_others(group, [weight for weight in moved if not is_matrix(weight)])

    def _move_matrices(self, group: dict[str, Any], weights: list[Tensor]) -> None:
        if not weights:
            return
        gradients: list[Tensor] = [p.grad for p in weights]  # type: ignore[misc]
        means = [self._entry(p, "exp_avg") for p in weights]
        b1, lr = group["betas"][0], group["lr"]
        torch._foreach_lerp_(means, gradients, 1 - b1)  # pyright: ignore[reportPrivateImportUsage]
        ahead = torch._foreach_lerp(gradients, means, b1)  # pyright: ignore[reportPrivateImportUsage]
        torch._foreach_mul_(weights, 1 - lr * group["weight_decay"])  # pyright: ignore[reportPrivateImportUsage]
        for weight, step in zip(weights, orthogonal([u.flatten(1) for u in ahead]), strict=True):
            weight.sub_(step.view(weight.shape), alpha=RMS * math.sqrt(max(step.shape)) * lr)

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


def is_matrix(weight: Tensor) -> bool:
    """Whether a weight has two axes or more, and as many rows and columns as a matrix must."""
    return weight.ndim >= 2 and min(len(weight), weight[0].numel()) >= SMALLEST


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
