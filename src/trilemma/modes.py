"""The modes of torch that a caller may have set in his thread: gradients off, inference mode, autocast."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch


@contextmanager
def own_modes() -> Iterator[None]:
    """Inside, gradients are taken, tensors can be trained, and nothing is cast; afterwards the caller's modes hold.

    It serves as a decorator too.
    """
    cast = [device for device in ("cpu", "cuda", "mps") if torch.is_autocast_enabled(device)]
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        for device in cast:
            stack.enter_context(torch.autocast(device, enabled=False, cache_enabled=False))
        yield
