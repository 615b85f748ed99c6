"""Noise schedules: x_t = alpha_t x0 + sigma_t eps for t in [0, 1], 0 clean, 1 noise.

A schedule is alpha(t), sigma(t) and the inverse t_of of its log signal-to-noise ratio log(alpha**2 / sigma**2), which
falls as t grows. Closed forms, continuous in t:

    cosine   alpha = cos(a), sigma = sin(a), the angle a linear in t, cut where the log-SNR is +-20
                                                     (Nichol & Dhariwal 2021 without offset; cut as Kingma et al. 2021)
    linear   log alpha = -b0 t / 2 - (b1 - b0) t**2 / 4, b0 = 0.1, b1 = 20, alpha**2 + sigma**2 = 1
                                                     (Song et al. 2021, "Score-based generative modeling", eq. 32-33)
    edm      alpha = 1, sigma = (s0**(1/7) + t (s1**(1/7) - s0**(1/7)))**7, s0 = 0.002, s1 = 80
                                                     (Karras et al. 2022, eq. 5)
    flow     alpha = 1 - t, sigma = t                (Lipman et al. 2023; Liu et al. 2023)

`Shifted` lowers the log-SNR of any of them at every t, as larger images need (Hoogeboom et al. 2023, section 3.1).

`Table` has T steps, t = i / T, as DDPM was published, and is variance-preserving:

    alpha_bar_i = prod_{j <= i} (1 - beta_j),  alpha_t = sqrt(alpha_bar),  sigma_t = sqrt(1 - alpha_bar)

    linear  beta_i from 1e-4 to 0.02 in equal steps                                (Ho, Jain & Abbeel 2020, section 4)
    cosine  alpha_bar_i = f(i) / f(0),  f(i) = cos((i / T + s) / (1 + s) * pi / 2)**2,  beta_i at most 0.999
                                                                                   (Nichol & Dhariwal 2021, eq. 17)
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from trilemma.errors import UserError, named

LOG_SNR = 20.0  # beyond +-this, an image is clean, or noise, to 5e-5


class Schedule(Protocol):
    """alpha, sigma and t_of; each takes a tensor of any shape or a number and gives float64 on the CPU."""

    def alpha(self, t: Tensor | float) -> Tensor:
        """Factor of x0."""
        ...

    def sigma(self, t: Tensor | float) -> Tensor:
        """Factor of eps. At t = 1, the spread of the noise that sampling starts from."""
        ...

    def t_of(self, log_snr: Tensor | float) -> Tensor:
        """The t at which log(alpha**2 / sigma**2) has a value."""
        ...


def log_snr(schedule: Schedule, t: Tensor | float) -> Tensor:
    """log(alpha**2 / sigma**2), float64; infinite where there is no noise, or nothing else."""
    return 2 * (schedule.alpha(t).log() - schedule.sigma(t).log())


def noise_level(alpha: Tensor, sigma: Tensor) -> Tensor:
    """log(sigma / alpha), by which a network is told how noisy an image is, whatever the schedule; within +-10."""
    return (sigma.log() - alpha.log()).clamp(-LOG_SNR / 2, LOG_SNR / 2)


@dataclass(frozen=True)
class Cosine:
    """alpha = cos(angle), sigma = sin(angle)."""

    def alpha(self, t: Tensor | float) -> Tensor:
        """Factor of x0."""
        return self._angle(t).cos()

    def sigma(self, t: Tensor | float) -> Tensor:
        """Factor of eps."""
        return self._angle(t).sin()

    def t_of(self, log_snr: Tensor | float) -> Tensor:
        """tan(angle) = exp(-log_snr / 2)."""
        first, last = self._ends()
        return ((-_float64(log_snr) / 2).exp().atan() - first) / (last - first)

    def _angle(self, t: Tensor | float) -> Tensor:
        first, last = self._ends()
        return first + _float64(t) * (last - first)

    @staticmethod
    def _ends() -> tuple[float, float]:
        return math.atan(math.exp(-LOG_SNR / 2)), math.atan(math.exp(LOG_SNR / 2))


@dataclass(frozen=True)
class Linear:
    """The continuous limit of DDPM's betas: beta(t) from b0 to b1."""

    b0: float = 0.1
    b1: float = 20.0

    def alpha(self, t: Tensor | float) -> Tensor:
        """Factor of x0."""
        return self._log_alpha(t).exp()

    def sigma(self, t: Tensor | float) -> Tensor:
        """Factor of eps."""
        return (-(2 * self._log_alpha(t)).expm1()).sqrt()

    def t_of(self, log_snr: Tensor | float) -> Tensor:
        """-2 log alpha = softplus(-log_snr) = b0 t + (b1 - b0) t**2 / 2, solved for t."""
        y, slope = torch.nn.functional.softplus(-_float64(log_snr), threshold=50), self.b1 - self.b0
        return torch.where(y.isinf(), y, 2 * y / (self.b0 + (self.b0**2 + 2 * slope * y).sqrt()))

    def _log_alpha(self, t: Tensor | float) -> Tensor:
        t = _float64(t)
        return -self.b0 * t / 2 - (self.b1 - self.b0) * t**2 / 4


@dataclass(frozen=True)
class EDM:
    """alpha = 1; sigma from s0 to s1, equally spaced in sigma**(1/7)."""

    s0: float = 0.002
    s1: float = 80.0
    rho: float = 7.0

    def alpha(self, t: Tensor | float) -> Tensor:
        """Factor of x0."""
        return torch.ones_like(_float64(t))

    def sigma(self, t: Tensor | float) -> Tensor:
        """Factor of eps."""
        first, last = self._ends()
        return (first + _float64(t) * (last - first)) ** self.rho

    def t_of(self, log_snr: Tensor | float) -> Tensor:
        """sigma = exp(-log_snr / 2)."""
        first, last = self._ends()
        return ((-_float64(log_snr) / (2 * self.rho)).exp() - first) / (last - first)

    def _ends(self) -> tuple[float, float]:
        return self.s0 ** (1 / self.rho), self.s1 ** (1 / self.rho)


@dataclass(frozen=True)
class Flow:
    """The straight line from image to noise."""

    def alpha(self, t: Tensor | float) -> Tensor:
        """Factor of x0."""
        return 1 - _float64(t)

    def sigma(self, t: Tensor | float) -> Tensor:
        """Factor of eps."""
        return _float64(t)

    def t_of(self, log_snr: Tensor | float) -> Tensor:
        """t / (1 - t) = exp(-log_snr / 2)."""
        return (-_float64(log_snr) / 2).sigmoid()


@dataclass(frozen=True)
class Shifted:
    """A schedule whose log-SNR is lower by 2 log(shift) at every t; shift > 1 for more noise."""

    schedule: Schedule
    shift: float

    def alpha(self, t: Tensor | float) -> Tensor:
        """Factor of x0."""
        return self.schedule.alpha(self._inner(t))

    def sigma(self, t: Tensor | float) -> Tensor:
        """Factor of eps."""
        return self.schedule.sigma(self._inner(t))

    def t_of(self, log_snr: Tensor | float) -> Tensor:
        """The t of the schedule that is shifted, where its log-SNR is higher."""
        return self.schedule.t_of(_float64(log_snr) + 2 * math.log(self.shift))

    def _inner(self, t: Tensor | float) -> Tensor:
        return self.schedule.t_of(log_snr(self.schedule, t) - 2 * math.log(self.shift))


@dataclass(frozen=True, eq=False)
class Table:
    """A schedule over T steps; `table` holds alpha_bar_0 = 1 ... alpha_bar_T, float64 (T + 1,), on the CPU.

    The functions of t round t * T to the nearest step.
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

    def t_of(self, log_snr: Tensor | float) -> Tensor:
        """The time between two steps at which the log-SNR, a straight line between them, has a value."""
        bars, y = self.table[1:], _float64(log_snr)  # the first step is the cleanest: without noise it is infinite
        falling = bars.logit()
        right = (falling > y[..., None]).sum(-1).clamp(1, len(bars) - 1)
        high, low = falling[right - 1], falling[right]
        return (right + ((high - y) / (high - low)).clamp(0, 1)) / self.T

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


def linear(T: int = 1000) -> Table:
    """Ho et al. (2020). Defined for T = 1000; for other T the betas are scaled by 1000 / T.

    That keeps the total noise while the betas are small: log alpha_bar_T is -10.12 at T = 1000, -10.07 at 4000, -10.8
    at 100 and -15 at 25. From T = 20 down the last betas are cut at 0.999: all noise long before the end.
    """
    scale = 1000 / T
    return from_betas(torch.linspace(1e-4 * scale, 0.02 * scale, T, dtype=torch.float64, device="cpu").clamp(max=0.999))


def cosine(T: int = 4000, s: float = 0.008, max_beta: float = 0.999) -> Table:
    """Nichol & Dhariwal (2021), eq. 17."""
    angle = (torch.arange(T + 1, dtype=torch.float64, device="cpu") / T + s) / (1 + s) * math.pi / 2
    f = angle.cos().square()
    return from_betas((1 - f[1:] / f[:-1]).clamp(max=max_beta))


def from_betas(betas: Tensor) -> Table:
    """The schedule of given beta_1 ... beta_T, float64 (T,)."""
    return Table(torch.cat([betas.new_ones(1), (1 - betas).cumprod(0)]))


TABLES: dict[str, Callable[[int], Table]] = {"cosine": cosine, "linear": linear}
SCHEDULES: dict[str, Schedule] = {"cosine": Cosine(), "linear": Linear(), "edm": EDM(), "flow": Flow()}


def get_table(name: str, T: int) -> Table:
    """The named schedule over T steps.

    Raises:
        UserError: with the nearest name.
    """
    return named("schedule", name, TABLES)(T)


def get_schedule(name: str, shift: float = 1.0) -> Schedule:
    """The named schedule, continuous in t.

    Args:
        shift: the log-SNR is lower by 2 log(shift).
    Raises:
        UserError: with the nearest name.
    """
    schedule = named("schedule", name, SCHEDULES)
    return schedule if shift == 1 else Shifted(schedule, shift)


def _float64(value: Tensor | float) -> Tensor:
    return torch.as_tensor(value, dtype=torch.float64, device="cpu")
