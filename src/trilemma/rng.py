"""Randomness as a function of (seed, purpose, position), so that nothing depends on what was drawn before.

Two tools. `generator` seeds a torch generator for one purpose at one position (a training step, an epoch's order);
`batch_uniform` and `batch_normal` draw from it for a batch.
`normal` and `uniform` give image k its own numbers, whatever batch it is drawn in: a counter goes through the
SplitMix64 finaliser (Steele, Lea & Flood 2014, "Fast splittable pseudorandom number generators"), started per image
from a hash of (seed, purpose, position, k), so a whole batch is drawn in a few vector operations. They are always
computed on the CPU: the noise is bit-equal on every device.

torch's own generators belong to the whole process: the caller, and every training beside this one, draw from them.
Where a layer of torch would, it is given a generator of ours: `OwnStart` for initial weights, `own_dropout`.

A process that has some rows of a batch draws the numbers of all of it, and keeps those of its own: `RowsGenerator`.
"""

import hashlib
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from trilemma.errors import UserError

GOLDEN = 0x9E3779B97F4A7C15 - 2**64  # 2**64 / golden ratio, as a signed 64-bit number
MIX_1 = 0xBF58476D1CE4E5B9 - 2**64
MIX_2 = 0x94D049BB133111EB - 2**64
CREATE = {"empty", "zeros", "ones", "eye", "linspace", "rand", "randn"}  # in the default type where none is given
INITIALISE = {f"{law}_{kind}_" for law in ("xavier", "kaiming") for kind in ("uniform", "normal")}
INITIALISE |= {"uniform_", "normal_", "trunc_normal_", "orthogonal_", "sparse_"}  # of torch.nn.init
DRAW = {"rand", "randn", "randint", "randperm", "normal", "bernoulli", "multinomial"}
DRAW |= {"bernoulli_", "random_", "exponential_", *INITIALISE}  # functions that take generator=


def check_seed(seed: int) -> None:
    """Refuse a negative seed."""
    if seed < 0:
        raise UserError(f"seed={seed}: a seed is a whole number, 0 or more")


def seed_of(seed: int, purpose: str, *position: int) -> int:
    """A 63-bit number that depends on all the arguments.

    Raises:
        UserError: the seed is negative.
    """
    check_seed(seed)
    text = "/".join([str(seed), purpose, *map(str, position)])
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def generator(seed: int, purpose: str, *position: int, device: torch.device | str = "cpu") -> torch.Generator:
    """A fresh generator for one purpose at one position."""
    return torch.Generator(device).manual_seed(seed_of(seed, purpose, *position))


def batch_uniform(count: int, like: Tensor, rng: torch.Generator) -> Tensor:
    """Numbers in [0, 1) for each image of a batch, (count, B), as `like`; drawn where the generator is."""
    return torch.rand(len(like), count, generator=rng, dtype=torch.float32, device=rng.device).T.to(like)


def batch_normal(count: int, like: Tensor, rng: torch.Generator) -> Tensor:
    """Standard normal numbers for each image of a batch, (count, B), as `like`; drawn where the generator is."""
    return torch.randn(len(like), count, generator=rng, dtype=torch.float32, device=rng.device).T.to(like)


class OwnStart(TorchFunctionMode):
    """Inside, and in this thread alone, weights are float32 and drawn from one generator, whatever the process has set.

    The numbers are the ones that torch's own generator would draw from the same seed, in float32.
    """

    def __init__(self, source: torch.Generator) -> None:
        super().__init__()
        self.source = source

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Call `func`, with the keys that it would otherwise take from the process."""
        name, keys = func.__name__, {k: v for k, v in (kwargs or {}).items() if v is not None}
        ours = {
            **({"generator": self.source} if name in DRAW else {}),
            **({"dtype": torch.float32} if name in CREATE else {}),
        }
        return func(*args, **{**ours, **keys})


class Unfilled(TorchFunctionMode):
    """Inside, and in this thread alone, weights are float32 and not drawn: they are loaded afterwards.

    Args:
        most: tensors that may be created.
    """

    def __init__(self, most: int) -> None:
        super().__init__()
        self.left = most

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Call `func`, unless it only fills a tensor.

        Raises:
            ValueError: if there are too many tensors.
        """
        name, keys = func.__name__, {k: v for k, v in (kwargs or {}).items() if v is not None}
        if name in DRAW and name.endswith("_"):
            return args[0] if args else keys["tensor"]
        func = torch.empty if name in ("rand", "randn") else func
        self.left -= name in CREATE
        if self.left < 0:
            raise ValueError("they ask for more tensors than there are weights")
        return func(*args, **({"dtype": torch.float32} if name in CREATE else {}) | keys)


def own_dropout(model: nn.Module, source: torch.Generator) -> None:
    """From now on the model's dropout draws from `source`: on a CPU, the bits of torch's own from the same seed."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.forward = partial(_dropout, module, source)  # type: ignore[method-assign]


def _dropout(module: nn.Dropout, source: torch.Generator, x: Tensor) -> Tensor:
    """Srivastava et al. (2014): each number is 0 with probability p; what stays is divided by 1 - p."""
    if not module.training or module.p == 0:
        return x
    if module.p == 1:
        return torch.zeros_like(x)
    return x * torch.empty_like(x).bernoulli_(1 - module.p, generator=source).div_(1 - module.p)


@contextmanager
def isolated(seed: int) -> Iterator[None]:
    """Inside, torch's global CPU generator is this block's own; afterwards it is as before. Not beside threads."""
    with torch.random.fork_rng([]):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would seed the generators of GPUs, too
        yield


class RowsGenerator(torch.Generator):
    """A generator of a process that has rows first ... first + count - 1 of a batch of `total`, and no others.

    Inside `rows`, torch draws from it the numbers of the whole batch and keeps those of these rows, so that they do not
    depend on how a batch is divided. A scalar is drawn for all.
    """

    first, count, total = 0, 0, 0
    is_shared = False  # whether numbers are drawn that are no image's

    @contextmanager
    def rows(self, first: int, count: int, total: int) -> Iterator[None]:
        """Inside, numbers are those of some rows of a batch."""
        self.first, self.count, self.total = first, count, total
        with _OwnRows():
            yield

    def of_batch(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of the whole batch, of that of the rows.

        Raises:
            UserError: the first dimension does not count the rows.
        """
        if shape[0] != self.count:
            raise UserError(
                f"a loss draws numbers of the shape {shape} for {self.count} images: those of one process among others "
                "are only known where the first dimension counts the images, or there is none; train it in one process"
            )
        return (self.total, *shape[1:])

    def own(self, whole: Tensor) -> Tensor:
        """The rows of this process, of numbers of the whole batch."""
        return whole[self.first : self.first + self.count]


def place_in_batch(n: int, rng: torch.Generator) -> tuple[int, int]:
    """Where n images for which numbers are drawn lie in their batch: the first, and how many the batch has."""
    return (rng.first, rng.total) if isinstance(rng, RowsGenerator) else (0, n)


@contextmanager
def for_all_rows(rng: torch.Generator) -> Iterator[None]:
    """Inside, numbers are drawn that belong to no image of a batch: the same in all processes that have parts of it."""
    if not isinstance(rng, RowsGenerator):
        yield
        return
    rng.is_shared = True
    try:
        yield
    finally:
        rng.is_shared = False


class _OwnRows(TorchFunctionMode):
    """Inside, and in this thread alone, what is drawn from a `RowsGenerator` is for its rows."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Call `func`, for the whole batch where it draws.

        Raises:
            UserError: it is not known what the numbers of the whole batch would be.
        """
        keys = dict(kwargs or {})
        generator, name = keys.get("generator"), func.__name__
        if not isinstance(generator, RowsGenerator) or generator.is_shared:
            return func(*args, **keys)
        if name.endswith("_") and not any(isinstance(value, Tensor) for value in args[1:]):
            part, *bounds = args
            if not part.ndim:
                return func(*args, **keys)
            return part.copy_(generator.own(func(_whole_like(part, generator), *bounds, **keys)))
        if name in ("rand", "randn", "randint"):
            bounds, shape = _shape_of(args, keys, n_bounds=len(args) - 1 if name == "randint" else 0)
            whole = generator.of_batch(shape) if shape else shape
            numbers = func(*bounds, whole, **keys)
            return generator.own(numbers) if shape else numbers
        raise UserError(f"a loss draws by torch.{name}, which is not known for some rows of a batch; use one process")


def _shape_of(args: tuple[Any, ...], keys: dict[str, Any], *, n_bounds: int) -> tuple[tuple[Any, ...], tuple[int, ...]]:
    """The arguments of a function that draws a new tensor: the bounds that stand before its shape, and the shape, which
    may be one of its keys and is no longer after that."""
    if "size" in keys:
        return args, tuple(keys.pop("size"))
    bounds, shape = args[:n_bounds], args[n_bounds:]
    return bounds, tuple(shape[0]) if len(shape) == 1 and not isinstance(shape[0], int) else shape


def _whole_like(part: Tensor, generator: RowsGenerator) -> Tensor:
    """An empty tensor for the whole batch, laid out in memory as that of the rows."""
    shape = generator.of_batch(tuple(part.shape))
    order = [0, *sorted(range(1, part.ndim), key=lambda k: (-part.stride(k), k))]
    place = [order.index(k) for k in range(part.ndim)]
    return torch.empty([shape[k] for k in order], dtype=part.dtype, device=part.device).permute(place)


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
