"""Statistics of a whole batch of which several processes have a part each: means of it, and batch norm by them.

The mean over a batch is the sum over processes of each one's share of it times the mean over its own images. Gradients
pass through that sum: each process adds up what all of them ask of it.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from trilemma.team import ALONE, Team

_DIVISION: ContextVar[tuple[Team, float]] = ContextVar("_DIVISION", default=(ALONE, 1.0))  # and the share of this one


@contextmanager
def divided(team: Team, share: float) -> Iterator[None]:
    """Inside, and in this thread, the processes of a team have parts of a batch, this one a share of it."""
    token = _DIVISION.set((team, share))
    try:
        yield
    finally:
        _DIVISION.reset(token)


def batch_mean(mean: Tensor) -> Tensor:
    """The mean over the whole batch, of that over the images that this process has; any shape, the same in all."""
    team, share = _DIVISION.get()
    return mean if team.size == 1 else _Sum.apply(share * mean, team)


def batch_total(total: Tensor) -> Tensor:
    """The sum over the whole batch, of that over the images that this process has."""
    team, _ = _DIVISION.get()
    return total if team.size == 1 else _Sum.apply(total, team)


def batch_std(x: Tensor, dim: tuple[int, ...]) -> Tensor:
    """Standard deviation over dimensions that are kept, the images of the whole batch among them; biased."""
    if _DIVISION.get()[0].size == 1:
        return x.std(dim, correction=0, keepdim=True)
    return _moments(x, dim)[1].sqrt()


def share_batch_norms(model: nn.Module) -> None:
    """From now on the model's batch norms take their statistics over the whole batch where it is divided."""
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            module.forward = partial(_normalised, module)  # type: ignore[method-assign]


def _normalised(module: _BatchNorm, x: Tensor) -> Tensor:
    """Ioffe & Szegedy (2015), algorithm 1: (x - mean) / sqrt(variance + eps), scaled and shifted by channel; x is
    (B, C) or (B, C, ...). The running variance is unbiased."""
    team, share = _DIVISION.get()
    if team.size == 1 or not module.training:
        return type(module).forward(module, x)
    dims = (0, *range(2, x.ndim))
    wide = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
    mean, variance = _moments(wide, dims)
    count = x.numel() / x.shape[1] / share
    _update_running(module, mean.detach().flatten(), variance.detach().flatten() * count / (count - 1))
    y = (wide - mean) * (variance + module.eps).rsqrt()
    if module.affine:
        y = y * module.weight.view_as(mean) + module.bias.view_as(mean)
    return y.to(x.dtype)


@torch.no_grad()
def _update_running(module: _BatchNorm, mean: Tensor, variance: Tensor) -> None:
    """Move the running statistics (C,) of a batch norm."""
    if module.running_mean is None or module.running_var is None or module.num_batches_tracked is None:
        return
    module.num_batches_tracked += 1
    momentum = 1 / int(module.num_batches_tracked) if module.momentum is None else module.momentum
    module.running_mean.lerp_(mean.to(module.running_mean), momentum)
    module.running_var.lerp_(variance.to(module.running_var), momentum)


def _moments(x: Tensor, dim: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Mean and biased variance over the whole batch, in dimensions that are kept."""
    mean = batch_mean(x.mean(dim, keepdim=True))
    return mean, batch_mean((x - mean).square().mean(dim, keepdim=True))


class _Sum(torch.autograd.Function):
    """The sum over the processes of a team. All of them depend on it, so its gradient is the sum of theirs."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, team: Team) -> Tensor:
        ctx.team = team
        total = x.contiguous().clone()
        team.sum(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        return _Sum.apply(gradient, ctx.team), None
