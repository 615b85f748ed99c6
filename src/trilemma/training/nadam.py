"""NAdam (Dozat 2016, "Incorporating Nesterov momentum into Adam") in two passes over the weights.

With g the gradient, mu_t = b1 (1 - 0.96**(t psi) / 2) and P_t = mu_1 ... mu_t:

    m <- b1 m + (1 - b1) g,    v <- b2 v + (1 - b2) g**2
    w <- w - lr (A m + B g) / (sqrt(v / (1 - b2**t)) + eps)
    A = mu_{t+1} / (1 - P_{t+1}),    B = (1 - mu_t) / (1 - P_t)

torch computes Adam in one pass where it has a fused kernel, and NAdam in eight. But A m + B g = (A + B) n is the
momentum n that Adam would make of the old m with a decay b of its own, b = b1 A / (A + B). So one step of fused Adam
with this decay moves the weights, and m, which that step left as n, follows from m = n + (B / A) (n - g).
"""

import inspect
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

MOMENTUM_DECAY = 0.004  # psi


class NAdam(torch.optim.Optimizer):
    """As torch.optim.NAdam with its default momentum decay and no weight decay, for a CPU or CUDA.

    All weights of a group are taken to have their gradients in the same steps.
    """

    # Without torch's mark for its compiler, whose import would take a second or two of the start of every training.
    add_param_group = inspect.unwrap(torch.optim.Optimizer.add_param_group)
    state_dict = inspect.unwrap(torch.optim.Optimizer.state_dict)

    def __init__(
        self, params: Iterable[nn.Parameter], lr: float, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8
    ) -> None:
        # "fused": by which a state that is taken back has its steps where the weights are
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "fused": True})
        self.taken: int | None = 0  # steps; None where only the state knows
        self.product = 1.0  # P of the steps taken

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take a state back."""
        super().load_state_dict(state_dict)
        self.taken = None

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        """Move the weights by their gradients."""
        for group in self.param_groups:
            moved: list[Tensor] = [p for p in group["params"] if p.grad is not None]
            if moved:
                self._move(group, moved)

    def _move(self, group: dict[str, Any], weights: list[Tensor]) -> None:
        gradients: list[Tensor] = [p.grad for p in weights]  # type: ignore[misc]
        states = [self._state_of(p) for p in weights]
        steps, means, squares = ([state[key] for state in states] for key in ("step", "exp_avg", "exp_avg_sq"))
        (b1, b2), t = group["betas"], self._count(steps[0], group["betas"][0]) + 1
        mu, mu_next = momentum(b1, t), momentum(b1, t + 1)
        self.product *= mu
        a, b = mu_next / (1 - self.product * mu_next), (1 - mu) / (1 - self.product)
        decay = b1 * a / (a + b)
        torch._foreach_add_(steps, 1)  # pyright: ignore[reportPrivateImportUsage]
        torch._fused_adam_(  # pyright: ignore[reportPrivateImportUsage]
            weights,
            gradients,
            means,
            squares,
            [],
            steps,
            lr=group["lr"] * (a + b) * (1 - decay**t),  # Adam divides by 1 - decay**t
            beta1=decay,
            beta2=b2,
            weight_decay=0.0,
            eps=group["eps"],
            amsgrad=False,
            maximize=False,
        )
        torch._foreach_lerp_(means, gradients, -b / a)  # pyright: ignore[reportPrivateImportUsage]
        self.taken = t

    def _state_of(self, parameter: Tensor) -> dict[str, Tensor]:
        state = self.state[parameter]
        if not state:
            state["step"] = torch.zeros((), dtype=torch.float32, device=parameter.device)
            state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(parameter), torch.zeros_like(parameter)
        return state

    def _count(self, step: Tensor, b1: float) -> int:
        """Steps taken so far; read from the state only once, because a GPU would be waited for."""
        if self.taken is None:
            self.taken, self.product = int(step), 1.0
            for t in range(1, self.taken + 1):
                self.product *= momentum(b1, t)
        return self.taken


def momentum(b1: float, t: int) -> float:
    """mu_t."""
    return b1 * (1 - 0.5 * 0.96 ** (t * MOMENTUM_DECAY))
