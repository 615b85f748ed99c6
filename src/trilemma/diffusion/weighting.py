"""Which errors count, and which noise levels are drawn: two separate choices.

Weights are those of the squared error of x0_hat, as functions of the log-SNR l = log(alpha**2 / sigma**2):

    uniform    1 / c_out**2, the plain squared error of the network's output, whatever it predicts
    min-snr    min(SNR, 5)                                    (Hang et al. 2023, eq. 10)
    soft-min-snr   SNR / (1 + s**2 SNR), a smooth min-snr
    edm        (1 + s**2 SNR) / s**2                          (Karras et al. 2022, table 1: 1 / c_out**2 of edm)
    sigmoid    SNR sigmoid(bias - l), bias = -1               (Kingma & Gao 2023; Hoogeboom et al. 2024)

with s the standard deviation of the data. Densities turn numbers u, evenly spread over (0, 1), into times:

    uniform        t = u
    logit-normal   t = sigmoid(mean + std z)                  (Esser et al. 2024, eq. 19)
    log-normal     log(sigma / alpha) = mean + std z          (Karras et al. 2022, table 1: P_mean, P_std)

where z = Phi^-1(u) is standard normal. Times are those of a schedule without shift, so a shift moves them all.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from trilemma.diffusion.schedule import Schedule
from trilemma.errors import named
from trilemma.rng import place_in_batch

GAMMA = 5.0
BIAS = -1.0

Weighting = Callable[[Tensor, Tensor, float], Tensor]  # (log-SNR, c_out, standard deviation of the data) -> weights
WEIGHTINGS: dict[str, Weighting] = {
    "uniform": lambda log_snr, c_out, std: c_out**-2,
    "min-snr": lambda log_snr, c_out, std: log_snr.exp().clamp(max=GAMMA),
    "soft-min-snr": lambda log_snr, c_out, std: 1 / ((-log_snr).exp() + std**2),
    "edm": lambda log_snr, c_out, std: std**-2 + log_snr.exp(),
    "sigmoid": lambda log_snr, c_out, std: log_snr.exp() * (BIAS - log_snr).sigmoid(),
}

Density = Callable[[Tensor, Schedule, float, float], Tensor]  # (u (B,), schedule, mean, std) -> t (B,)
DENSITIES: dict[str, Density] = {
    "uniform": lambda u, schedule, mean, std: u,
    "logit-normal": lambda u, schedule, mean, std: (mean + std * torch.special.ndtri(u)).sigmoid(),
    "log-normal": lambda u, schedule, mean, std: schedule.t_of(-2 * (mean + std * torch.special.ndtri(u))).clamp(0, 1),
}


def get_weighting(name: str) -> Weighting:
    """The named weights.

    Raises:
        UserError: with the nearest name.
    """
    return named("weighting", name, WEIGHTINGS)


def get_density(name: str) -> Density:
    """The named density of t.

    Raises:
        UserError: with the nearest name.
    """
    return named("density of t", name, DENSITIES)


def evenly_spread(n: int, rng: torch.Generator) -> Tensor:
    """n numbers in (0, 1), each uniform by itself, evenly spaced over a batch from one random start: float64 (n,) on
    the CPU.

    The mean loss over them varies far less than over independent ones (Kingma et al. 2021, appendix I.1).
    """
    start = torch.rand((), generator=rng, dtype=torch.float32, device=rng.device).cpu().double()
    first, total = place_in_batch(n, rng)
    places = torch.arange(first, first + n, dtype=torch.float64, device="cpu") / total
    return ((places + start) % 1).clamp(1e-6, 1 - 1e-6)
