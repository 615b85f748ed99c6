"""Randomness as a function of (seed, purpose, position), so that nothing depends on what was drawn before.

Two tools. `generator` seeds a torch generator for one purpose at one position (a training step, an epoch's order).
`normal` and `uniform` give image k its own numbers, whatever batch it is drawn in: a counter goes through the
SplitMix64 finaliser (Steele, Lea & Flood 2014, "Fast splittable pseudorandom number generators"), started per image
from a hash of (seed, purpose, position, k), so a whole batch is drawn in a few vector operations. They are always
computed on the CPU: the noise is bit-equal on every device.
"""

import hashlib
import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

GOLDEN = 0x9E3779B97F4A7C15 - 2**64  # 2**64 / golden ratio, as a signed 64-bit number
MIX_1 = 0xBF58476D1CE4E5B9 - 2**64
MIX_2 = 0x94D049BB133111EB - 2**64


def seed_of(seed: int, purpose: str, *position: int) -> int:
    """A 63-bit number that depends on all the arguments."""
    text = "/".join([str(seed), purpose, *map(str, position)])
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def generator(seed: int, purpose: str, *position: int, device: torch.device | str = "cpu") -> torch.Generator:
    """A fresh generator for one purpose at one position."""
    return torch.Generator(device).manual_seed(seed_of(seed, purpose, *position))


@contextmanager
def isolated(seed: int | None = None) -> Iterator[None]:
    """Inside, torch's global random state is this block's own (seeded if asked); outside it is untouched."""
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []
    with torch.random.fork_rng(devices):
        if seed is not None:
            torch.manual_seed(seed)
        yield


def permutation(n: int, seed: int, purpose: str, *position: int) -> Tensor:
    """The numbers 0 ... n-1 in an order that depends on the arguments alone; int64 (n,)."""
    return torch.randperm(n, generator=generator(seed, purpose, *position))


def uniform(ids: Tensor, shape: tuple[int, ...], seed: int, purpose: str, *position: int) -> Tensor:
    """Uniform numbers in [0, 1), float32 (len(ids), *shape); row i depends on ids[i], not on the other rows."""
    bits = _bits(ids, math.prod(shape), seed, purpose, *position)
    return ((bits >> 40 & 0xFFFFFF).float() / 2**24).reshape(-1, *shape)


def normal(ids: Tensor, shape: tuple[int, ...], seed: int, purpose: str, *position: int) -> Tensor:
    """Standard normal numbers, float32 (len(ids), *shape); row i depends on ids[i], not on the other rows.

    Box & Muller (1958): sqrt(-2 ln u1) (cos, sin)(2 pi u2), two numbers from the two halves of one 64-bit word.
    """
    count = math.prod(shape)
    bits = _bits(ids, (count + 1) // 2, seed, purpose, *position)
    u1 = ((bits >> 32 & 0xFFFFFFFF).double() + 1) / 2**32  # in (0, 1]
    u2 = (bits & 0xFFFFFFFF).double() / 2**32
    radius, angle = (-2 * u1.log()).sqrt(), 2 * math.pi * u2
    pairs = torch.cat([radius * angle.cos(), radius * angle.sin()], dim=1)
    return pairs[:, :count].float().reshape(-1, *shape)


def _bits(ids: Tensor, count: int, seed: int, purpose: str, *position: int) -> Tensor:
    """Random 64-bit words, int64 (len(ids), count)."""
    start = _mix(ids.to("cpu", torch.int64) * GOLDEN + seed_of(seed, purpose, *position))
    return _mix(start[:, None] + torch.arange(1, count + 1) * GOLDEN)


def _mix(z: Tensor) -> Tensor:
    z = (z ^ _shift(z, 30)) * MIX_1
    z = (z ^ _shift(z, 27)) * MIX_2
    return z ^ _shift(z, 31)


def _shift(z: Tensor, by: int) -> Tensor:
    """Logical (zero-filling) right shift; torch's own keeps the sign."""
    return z >> by & ((1 << (64 - by)) - 1)
