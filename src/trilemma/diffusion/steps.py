"""The steps of a sampler along a grid of times, and what it is given: a denoiser and noise."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from torch import Tensor

from trilemma.diffusion.schedule import Schedule
from trilemma.types import Watch

if TYPE_CHECKING:
    from trilemma.progress import OnStep

Denoise = Callable[[Tensor, Tensor], Tensor]  # (x_t (B, C, H, W), t (B,)) -> x0_hat, as x_t
Noise = Callable[[int], Tensor]  # step number 0, 1, ... -> standard normal, as x_t


@dataclass(frozen=True)
class Step:
    """From t to s, as numbers of double precision."""

    t: float
    alpha_t: float
    sigma_t: float
    alpha_s: float
    sigma_s: float

    @property
    def added(self) -> float:
        """Variance of q(x_t | x_s), which the step takes away."""
        a = self.alpha_t / self.alpha_s
        variances = self.alpha_t**2 + self.sigma_t**2, self.alpha_s**2 + self.sigma_s**2
        is_preserved = max(abs(variance - 1) for variance in variances) < 1e-12  # then no digits are lost
        return 1 - a**2 if is_preserved else self.sigma_t**2 - (a * self.sigma_s) ** 2

    @property
    def decay(self) -> float:
        """exp(-h); 0 where h is infinite."""
        return self.sigma_s * self.alpha_t / (self.sigma_t * self.alpha_s)

    @property
    def h(self) -> float:
        """l_s - l_t."""
        return -math.log(self.decay) if self.decay > 0 else math.inf

    @property
    def log_ratio(self) -> float:
        """l_t = log(alpha_t / sigma_t)."""
        return math.log(self.alpha_t / self.sigma_t) if self.alpha_t > 0 else -math.inf


def with_watch(
    denoise: Denoise, schedule: Schedule, watch: Watch | None, to_image: Callable[[Tensor], Tensor]
) -> Denoise:
    """The denoiser, which shows x_t / sqrt(alpha**2 + sigma**2) and x0_hat at each call, as images."""
    if watch is None:
        return denoise

    def show(x_t: Tensor, t: Tensor) -> Tensor:
        x0_hat, at = denoise(x_t, t), float(t[0])
        watch(at, to_image(x_t / math.hypot(schedule.alpha(at), schedule.sigma(at))), to_image(x0_hat))
        return x0_hat

    return show


def with_step_count(denoise: Denoise, times: Tensor, on_step: "OnStep | None") -> Denoise:
    """The denoiser, which says after each call which step of a grid it belongs to, of how many: a solver may make
    several calls for one."""
    if on_step is None:
        return denoise

    def say(x_t: Tensor, t: Tensor) -> Tensor:
        x0_hat = denoise(x_t, t)
        nearest = (times - float(t[0])).abs().argmin()  # t has the precision of x_t
        on_step(int(nearest) + 1, len(times) - 1)
        return x0_hat

    return say


def of_images(values: Tensor) -> Tensor:
    """(B,) -> (B, 1, 1, 1)."""
    return values[:, None, None, None]


def as_images(x0: Tensor) -> Tensor:
    """From [-1, 1] to [0, 1]; what is outside is cut."""
    return (x0 + 1).div(2).clamp(0, 1)


def steps_of(schedule: Schedule, times: Tensor) -> Iterator[Step]:
    """The steps of a grid; a last time of 0 counts as without noise, also where a schedule ends with a trace of it."""
    sigmas = schedule.sigma(times).tolist()
    if times[-1] == 0:
        sigmas[-1] = 0.0
    for one, other in pairwise(zip(times.tolist(), schedule.alpha(times).tolist(), sigmas, strict=True)):
        yield Step(*one, *other[1:])
