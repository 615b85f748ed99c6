"""Errors that are the user's to mend: what was given, what is allowed, what to do. The command line shows no trace."""

import difflib
import os
from collections.abc import Iterable, Mapping, Sequence
from contextvars import ContextVar
from typing import TYPE_CHECKING, TypeVar

from trilemma.text import printable

if TYPE_CHECKING:
    from torch import Tensor


HALF_LEVEL = 0.5 / 255
ELSEWHERE = {  # words that other tools have for keys of this one
    "learning_rate": "lr",
    "image_size": "size",
    "resolution": "size",
    "output_dir": "out",
    "outdir": "out",
    "z_dim": "latent",
    "num_samples": "n",
    "n_samples": "n",
    "amp": "precision",
    "truncation": "temperature",  # of z, where a model has no styles to be truncated
}

DEBUG: ContextVar[bool] = ContextVar("DEBUG", default=False)  # set by --debug


def shows_tracebacks() -> bool:
    """Whether an error is to be shown with where it happened: --debug, or TRILEMMA_DEBUG in the environment."""
    return DEBUG.get() or os.environ.get("TRILEMMA_DEBUG", "0") not in ("", "0")


T = TypeVar("T")
AnyError = TypeVar("AnyError", bound=Exception)


class UserError(ValueError):
    """Something in the request, the data or the machine, with a message a user can act on.

    It may quote what files say, and a trace shows it: what a terminal would obey is escaped.
    """

    def __str__(self) -> str:
        return printable(super().__str__(), lines=True)


class Diverged(UserError):
    """A training whose numbers stopped being finite; what it was asked for is right, so the exit code is 1."""


class Disconnected(UserError):
    """A process of a training that lost the others; what it was asked for is right, so the exit code is 1."""


class ReportedElsewhere(UserError):
    """An error of another process, which reports it."""


def of_process(error: AnyError, rank: int, size: int) -> AnyError:
    """An error that says in which process it happened, and is printed there; the first prints its own anyway."""
    if rank > 0 and not hasattr(error, "__notes__"):
        error.add_note(f"process {rank} of {size}")
    return error


def nearest(word: str, choices: Iterable[str]) -> str | None:
    """The choice that other tools call `word`, or that is most like it; None if nothing is alike.

    >>> nearest("learning_rate", ["lr", "steps"]), nearest("stpes", ["lr", "steps"]), nearest("12", ["2"])
    ('lr', 'steps', None)
    """
    names = [str(c) for c in choices]
    if (ours := ELSEWHERE.get(word.lower())) in names:
        return ours
    if word.isdigit():  # 12 is not a slip of 2
        return None
    matches = difflib.get_close_matches(word.lower(), names, n=1, cutoff=0.65)
    return matches[0] if matches else None


def unknown(kind: str, word: str, choices: Iterable[str]) -> UserError:
    """The error for a name that is not in a list: it shows the list and the nearest entry.

    >>> str(unknown("sampler", "huen", ["ddim", "heun"]))
    'unknown sampler "huen"; choose one of ddim, heun (did you mean "heun"?)'
    """
    names = [str(c) for c in choices]
    text = f'unknown {kind} "{word}"; ' + (f"choose one of {', '.join(names)}" if names else f"no {kind} exists")
    return UserError(with_hint(text, word, names))


def named(kind: str, word: str, choices: Mapping[str, T]) -> T:
    """The choice of that name.

    Raises:
        UserError: with the nearest name.
    """
    if word not in choices:
        raise unknown(kind, word, choices)
    return choices[word]


def unknown_key(key: str, takes: Mapping[str, Iterable[str]], see: str = "", of: str = "") -> UserError:
    """The error for a key that nothing takes: it shows the nearest, or who takes which.

    Args:
        see: where all of them are shown; of: the other models that take this key, in words; it is then not misspelt.

    >>> str(unknown_key("stpes", {"training": ["steps", "lr"], "vae": []}, "see `trilemma list vae`"))
    'unknown key "stpes" (did you mean "steps"?); see `trilemma list vae`'
    >>> str(unknown_key("guidance", {"training": ["steps", "lr"], "vae": []}))
    'unknown key "guidance"; training takes steps, lr; vae takes nothing more'
    >>> str(unknown_key("truncation", {"drawing from gan": ["temperature"]}, of="gan-style"))
    'unknown key "truncation", which is for gan-style; drawing from gan takes temperature'
    >>> str(unknown_key("latent", {"training": ["steps", "lr"]}, "see `trilemma list gan`", of="vae"))
    'unknown key "latent", which is for vae; see `trilemma list gan`'
    """
    hint = None if of else nearest(key, [name for keys in takes.values() for name in keys])
    if hint:
        return UserError(f'unknown key "{key}" (did you mean "{hint}"?)' + (f"; {see}" if see else ""))
    elsewhere = f", which is for {of}" if of else ""
    named = [f"{who} takes {', '.join(keys) or 'nothing more'}" for who, keys in takes.items()]
    return UserError("; ".join([f'unknown key "{key}"{elsewhere}', *([see] if of and see else named)]))


def with_hint(text: str, word: str, choices: Iterable[str]) -> str:
    """A message about a wrong word, with the nearest of the right ones, if there is one.

    >>> with_hint("unknown key", "stpes", ["steps", "lr"])
    'unknown key (did you mean "steps"?)'
    """
    hint = nearest(word, choices)
    return f'{text} (did you mean "{hint}"?)' if hint else text


def check_images(image: "Tensor", shape: Sequence[int]) -> None:
    """For models of images of one shape (C, H, W). Looks at no values, so that a GPU is not waited for.

    Raises:
        UserError: if the images are not floats (B, C, H, W).
    """
    if image.ndim != 4 or tuple(image.shape[1:]) != tuple(shape):
        takes = ", ".join(map(str, shape))
        raise UserError(
            f"images were given as {form_of(image)}; this model takes (B, {takes}): images, channels, height, width. "
            "Resize them, or train a model of their size"
        )
    if not image.is_floating_point():
        raise UserError(
            f"images were given as {form_of(image)}; give floats in [0, 1]: divide levels of 0 to 255 by 255"
        )


def check_range(image: "Tensor") -> None:
    """For images that a user gives: refuses values outside of [0, 1] by more than half a level. NaN is not searched.

    Raises:
        UserError: if they lie in another range, as 0 to 255.
    """
    low, high = (float(end) for end in image.aminmax()) if image.numel() else (0.0, 0.0)
    if low < -HALF_LEVEL or high > 1 + HALF_LEVEL:
        raise UserError(f"images have values from {low:g} to {high:g}; give floats in [0, 1], levels / 255")


def check_finite(values: "Tensor", what: str, advice: str, first: int = 0) -> None:
    """For values whose first dimension counts images, codes or scores, the first of them number `first`.

    Raises:
        UserError: if one is NaN or infinite; it ends with the advice.
    """
    bad = ~values.isfinite().reshape(len(values), -1).all(1)
    if bad.any():
        raise UserError(
            f"{int(bad.sum())} of {len(values)} {what} hold NaN or infinite values (the first is number "
            f"{first + int(bad.nonzero()[0])}); {advice}"
        )


def check_codes(z: "Tensor", length: int) -> None:
    """For models whose codes have `length` numbers. Looks at no values, as `check_images`.

    Raises:
        UserError: if the codes are not floats (B, length).
    """
    if z.ndim != 2 or z.shape[1] != length or not z.is_floating_point():
        raise UserError(
            f"codes were given as {form_of(z)}; this model takes floats (B, {length}): {length} numbers each"
        )


def form_of(values: object) -> str:
    """Kind and shape of a tensor or an array, in words."""
    kind, shape = getattr(values, "dtype", type(values).__name__), getattr(values, "shape", None)
    return str(kind).removeprefix("torch.") + ("" if shape is None else f" {tuple(shape)}")
