"""The modes of torch that a caller may have set in his thread: gradients off, inference mode, autocast."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def own_modes() -> Iterator[None]:
    """Inside, gradients are taken, tensors can be trained, and nothing is cast; afterwards the caller's modes hold.

    It serves as a decorator too.
    """
    with torch.inference_mode(False), torch.enable_grad(), _outside_autocast():
        yield


@contextmanager
def _outside_autocast() -> Iterator[None]:
    """As if there were no autocast: torch forgets the casts of weights where the outermost one ends, so that within one
    that is only switched off, those of a step would be used in the next."""
    on = [device for device in ("cpu", "cuda", "mps") if torch.is_autocast_enabled(device)]
    cached, depth = torch.is_autocast_cache_enabled(), torch.autocast_increment_nesting()
    for _ in range(depth):
        torch.autocast_decrement_nesting()
    for device in on:
        torch.set_autocast_enabled(device, False)
    torch.set_autocast_cache_enabled(True)
    try:
        yield
    finally:
        torch.set_autocast_cache_enabled(cached)
        for device in on:
            torch.set_autocast_enabled(device, True)
        for _ in range(depth - 1):
            torch.autocast_increment_nesting()


@contextmanager
def in_float32() -> Iterator[None]:
    """Inside, products and convolutions of float32 are computed in float32, whatever the caller allows: TF32 and
    bfloat16 round 8,000 and 65,000 times as coarsely."""
    cudnn, precision = torch.backends.cudnn, torch.get_float32_matmul_precision()
    with (
        _outside_autocast(),
        cudnn.flags(cudnn.enabled, cudnn.benchmark, cudnn.deterministic, False),  # pyright: ignore[reportArgumentType]
    ):
        torch.set_float32_matmul_precision("highest")
        try:
            yield
        finally:
            torch.set_float32_matmul_precision(precision)


@contextmanager
def in_eval_mode(network: nn.Module) -> Iterator[None]:
    """Inside, the network is in eval mode; afterwards in the mode that it had."""
    training = network.training
    network.eval()
    try:
        yield
    finally:
        network.train(training)


@contextmanager
def without_gradients(network: nn.Module) -> Iterator[None]:
    """What is computed inside gives the network's parameters no gradient, which also saves computing it."""
    parameters = [p for p in network.parameters() if p.requires_grad]
    for p in parameters:
        p.requires_grad_(False)
    try:
        yield
    finally:
        for p in parameters:
            p.requires_grad_(True)
