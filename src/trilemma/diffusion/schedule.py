"""Noise schedules: x_t = alpha_t x0 + sigma_t eps for t in [0, 1], 0 clean, 1 noise.

Both here are variance-preserving, alpha_t**2 + sigma_t**2 = 1, and given by a table over T steps, t = i / T:

    alpha_bar_i = prod_{j <= i} (1 - beta_j),  alpha_t = sqrt(alpha_bar),  sigma_t = sqrt(1 - alpha_bar)

    linear  beta_i from 1e-4 to 0.02 in equal steps                                (Ho, Jain & Abbeel 2020, section 4)
    cosine  alpha_bar_i = f(i) / f(0),  f(i) = cos((i / T + s) / (1 + s) * pi / 2)**2,  beta_i at most 0.999
                                                                                   (Nichol & Dhariwal 2021, eq. 17)
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from trilemma.errors import UserError, unknown


@dataclass(frozen=True, eq=False)
class Schedule:
    """A schedule over T steps; `table` holds alpha_bar_0 = 1 ... alpha_bar_T, float64 (T + 1,), on the CPU.

    The functions of t take a tensor of any shape or a number, round t * T to the nearest step and give float64.
    """

    table: Tensor

    @property
    def T(self) -> int:
        """Number of steps."""
        return len(self.table) - 1

    def index(self, t: Tensor | float) -> Tensor:
        """The step i nearest to t * T, int64."""
        return (torch.as_tensor(t, dtype=torch.float64, device="cpu") * self.T).round().long()

    def alpha_bar(self, t: Tensor | float) -> Tensor:
        """Share of the signal in the variance of x_t."""
        return self.table[self.index(t)]

    def alpha(self, t: Tensor | float) -> Tensor:
        """Factor of x0."""
        return self.alpha_bar(t).sqrt()

    def sigma(self, t: Tensor | float) -> Tensor:
        """Factor of eps."""
        return (1 - self.alpha_bar(t)).sqrt()

    def beta(self, t: Tensor | float) -> Tensor:
        """Variance that step i adds, 1 - alpha_bar_i / alpha_bar_(i-1); 0 at t = 0."""
        i = self.index(t)
        return 1 - self.table[i] / self.table[(i - 1).clamp(min=0)]

    def times(self, steps: int, *, least_signal: float = 0.0) -> Tensor:
        """Times of a sampler's grid, decreasing to 0 with equal spacing up to rounding; float64 (steps + 1,).

        Args:
            least_signal: the grid begins at the last step whose alpha_bar is not below this; at t = 1 for 0.
        Raises:
            UserError: unless 1 <= steps <= the step it begins at.
        """
        first = max(1, int((self.table >= least_signal).nonzero().max()))
        if not 1 <= steps <= first:
            raise UserError(f"steps={steps}: the schedule has {first} steps; give 1 to {first}")
        return torch.linspace(first, 0, steps + 1, dtype=torch.float64).round() / self.T


def linear(T: int = 1000) -> Schedule:
    """Ho et al. (2020). Defined for T = 1000; for other T the betas are scaled by 1000 / T.

    That keeps the total noise while the betas are small: log alpha_bar_T is -10.12 at T = 1000, -10.07 at 4000, -10.8
    at 100 and -15 at 25. From T = 20 down the last betas are cut at 0.999: all noise long before the end.
    """
    scale = 1000 / T
    return from_betas(torch.linspace(1e-4 * scale, 0.02 * scale, T, dtype=torch.float64, device="cpu").clamp(max=0.999))


def cosine(T: int = 4000, s: float = 0.008, max_beta: float = 0.999) -> Schedule:
    """Nichol & Dhariwal (2021), eq. 17."""
    angle = (torch.arange(T + 1, dtype=torch.float64, device="cpu") / T + s) / (1 + s) * math.pi / 2
    f = angle.cos().square()
    return from_betas((1 - f[1:] / f[:-1]).clamp(max=max_beta))


def from_betas(betas: Tensor) -> Schedule:
    """The schedule of given beta_1 ... beta_T, float64 (T,)."""
    return Schedule(torch.cat([betas.new_ones(1), (1 - betas).cumprod(0)]))


SCHEDULES: dict[str, Callable[[int], Schedule]] = {"cosine": cosine, "linear": linear}


def get_schedule(name: str, T: int) -> Schedule:
    """The named schedule over T steps.

    Raises:
        UserError: with the nearest name.
    """
    if name not in SCHEDULES:
        raise unknown("schedule", name, SCHEDULES)
    return SCHEDULES[name](T)
