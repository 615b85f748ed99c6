"""Weights in a safetensors file: looked at before anything is allocated for them.

The file begins with a header that names each tensor with its type and shape. It is compared with the network that the
settings describe, built on the meta device, where a tensor has no memory; only what agrees is read.
"""

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from trilemma.errors import UserError
from trilemma.files import open_plain

LARGEST_HEADER = 2 << 20  # bytes; that of the largest network here has 60,000
LATER = (".likelihood.weight", ".vector_mean", ".vector_std")  # ends of names: see `is_later`
TYPES = {
    torch.float32: "F32",
    torch.float64: "F64",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
Form = tuple[str, tuple[int, ...]]  # type and shape


def read_forms(path: Path) -> dict[str, Form]:
    """Type and shape of each tensor in a file, of which no more than the header is read.

    Raises:
        UserError: it is not a plain file, or not a safetensors file.
        OSError: as `open`.
    """
    with open_plain(path) as file:
        size = int.from_bytes(file.read(8), "little")
    if size > LARGEST_HEADER:
        raise UserError(f"{path} is not a weights file: its header says that it has {size:,} bytes")
    try:
        with safe_open(path, "pt") as file:
            parts = {name: file.get_slice(name) for name in set(file.keys())}
            return {name: (part.get_dtype(), tuple(part.get_shape())) for name, part in parts.items()}
    except SafetensorError as error:
        raise UserError(f"{path} is not a weights file: {error}") from None


def forms_of(tensors: Mapping[str, Tensor]) -> dict[str, Form]:
    """Type and shape of tensors, as a file of them says."""
    return {name: (TYPES.get(t.dtype, str(t.dtype)), tuple(t.shape)) for name, t in tensors.items()}


def is_later(name: str) -> bool:
    """Whether a tensor is a buffer that earlier versions did not write; its module fills it in.

    >>> is_later("vector_std"), is_later("autoencoder.vector_std"), is_later("decoder.weight")
    (True, True, False)
    """
    return f".{name}".endswith(LATER)


def difference(forms: Mapping[str, Form], expected: Mapping[str, Form]) -> str | None:
    """The first way in which tensors are not those expected, in words; None where they are, or lack what is later."""
    if missing := sorted(name for name in expected.keys() - forms.keys() if not is_later(name)):
        return f"{_first(missing)} missing"
    if more := sorted(forms.keys() - expected.keys()):
        return f"{_first(more)} too many"
    for name, form in forms.items():
        if form != expected[name]:
            (kind, shape), (kind_expected, shape_expected) = form, expected[name]
            return f"{name} is {kind} {shape}, not {kind_expected} {shape_expected}"
    return None


def _first(names: list[str]) -> str:
    """One name, and how many follow."""
    name = names[0][:80]
    return f"{name} is" if len(names) == 1 else f"{name} and {len(names) - 1:,} more are"


def load_tensors(path: Path) -> dict[str, Tensor]:
    """All tensors of a file whose forms are known, on the CPU.

    Raises:
        UserError: it cannot be read.
    """
    try:
        with safe_open(path, "pt") as file:
            return {name: file.get_tensor(name) for name in set(file.keys())}
    except SafetensorError as error:
        raise UserError(f"{path} is not a weights file: {error}") from None
