"""Time grids of a sampler: decreasing, from noise to clean, with as many steps as asked.

    uniform     equal steps in t
    quadratic   equal steps in sqrt(t)                                      (Song, Meng & Ermon 2021, appendix D.3)
    karras      equal steps in (sigma / alpha)**(1/7), then one to clean    (Karras et al. 2022, eq. 5)
    log-snr     equal steps in log(alpha / sigma), then one to clean        (Lu et al. 2022, section 3.3)
    auto        karras, in less than FEW steps between nearer ends

A grid begins at t = 1, or where the log-SNR is BEGIN if it is lower at 1: there noise hides all of an image, and beyond
is noise that no network has seen in training. The last three have their equal steps from there to END, or between
ENDS_OF_FEW. The last step is to t = 0.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from trilemma.diffusion.schedule import LOG_SNR, Schedule, log_snr
from trilemma.errors import UserError, named

BEGIN = 2 * math.log(1 / 80)  # log-SNR where sigma / alpha is 80 (Karras et al. 2022, table 1)
END = 2 * math.log(1 / 0.01)  # log-SNR where sigma / alpha is 0.01, about one level of 256
RHO = 7.0
FEW = 8  # steps, below which `automatic` has other ends: between the 5 and 10 that were measured (docs/diffusion.md)
ENDS_OF_FEW, RHO_OF_FEW = (2 * math.log(1 / 40), 2 * math.log(1 / 0.08)), 5.0

Grid = Callable[[Schedule, int], Tensor]  # (schedule, steps) -> times, float64 (steps + 1,)


def first_time(schedule: Schedule, least: float = -LOG_SNR) -> float:
    """Where sampling begins: t = 1, or the first t with a log-SNR of `least`."""
    return float(schedule.t_of(least)) if float(log_snr(schedule, 1.0)) < least else 1.0


def uniform(schedule: Schedule, steps: int) -> Tensor:
    """Equal steps in t."""
    return torch.linspace(first_time(schedule, BEGIN), 0, steps + 1, dtype=torch.float64)


def quadratic(schedule: Schedule, steps: int) -> Tensor:
    """Equal steps in sqrt(t)."""
    return torch.linspace(math.sqrt(first_time(schedule, BEGIN)), 0, steps + 1, dtype=torch.float64) ** 2


def karras(schedule: Schedule, steps: int, ends: tuple[float, float] = (BEGIN, END), rho: float = RHO) -> Tensor:
    """Equal steps in (sigma / alpha)**(1 / rho)."""
    return _equal_steps(schedule, steps, lambda level: (-level / (2 * rho)).exp(), lambda y: -2 * rho * y.log(), ends)


def automatic(schedule: Schedule, steps: int) -> Tensor:
    """That of Karras; in less than FEW steps between nearer ends, which leave more of the steps to what matters."""
    return karras(schedule, steps, ENDS_OF_FEW, RHO_OF_FEW) if steps < FEW else karras(schedule, steps)


def by_log_snr(schedule: Schedule, steps: int) -> Tensor:
    """Equal steps in log(alpha / sigma)."""
    return _equal_steps(schedule, steps, lambda y: y, lambda y: y)


def _equal_steps(
    schedule: Schedule,
    steps: int,
    scale: Callable[[Tensor], Tensor],
    log_snr_of: Callable[[Tensor], Tensor],
    ends: tuple[float, float] = (BEGIN, END),
) -> Tensor:
    """Equal steps in `scale` of the log-SNR from one end to the other, and a last one to t = 0."""
    first = first_time(schedule, ends[0])
    begin, end = (
        float(scale(level)) for level in (log_snr(schedule, first), torch.tensor(ends[1], dtype=torch.float64))
    )
    inner = schedule.t_of(log_snr_of(torch.linspace(begin, end, steps, dtype=torch.float64)))
    return torch.cat([inner.new_tensor([first]), inner[1:], inner.new_zeros(1)])


GRIDS: dict[str, Grid] = {
    "auto": automatic,
    "uniform": uniform,
    "quadratic": quadratic,
    "karras": karras,
    "log-snr": by_log_snr,
}


def get_grid(name: str) -> Grid:
    """The named grid.

    Raises:
        UserError: with the nearest name.
    """
    return named("grid", name, GRIDS)


def times_of(name: str, schedule: Schedule, steps: int) -> Tensor:
    """The times of a named grid, decreasing, float64 (steps + 1,).

    Raises:
        UserError: an unknown grid, or steps below 1.
    """
    if steps < 1:
        raise UserError(f"steps={steps}: give at least 1")
    return get_grid(name)(schedule, steps)
