"""Half precision ends where a network ends: losses and codes are computed in float32 or better."""

import torch
from torch import Tensor


def full(x: Tensor) -> Tensor:
    """float16 and bfloat16 become float32; float32 and float64 stay."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
