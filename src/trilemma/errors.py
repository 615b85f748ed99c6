"""Errors that are the user's to mend: what came, what is allowed, what to do. The command line shows no trace."""

import difflib
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


class UserError(ValueError):
    """Something in the request, the data or the machine, with a message a user can act on."""


def nearest(word: str, choices: Iterable[str]) -> str | None:
    """The choice most like `word`, or None where nothing is alike."""
    found = difflib.get_close_matches(word.lower(), [str(c) for c in choices], n=1, cutoff=0.6)
    return found[0] if found else None


def unknown(kind: str, word: str, choices: Iterable[str]) -> UserError:
    """The error for a name that is not in a list: it shows the list and the nearest entry.

    >>> str(unknown("sampler", "huen", ["ddim", "heun"]))
    'unknown sampler "huen"; choose one of ddim, heun (did you mean "heun"?)'
    """
    names = [str(c) for c in choices]
    text = f'unknown {kind} "{word}"; choose one of {", ".join(names) or "nothing: there is none"}'
    return UserError(with_hint(text, word, names))


def with_hint(text: str, word: str, choices: Iterable[str]) -> str:
    """A message about a wrong word, with the nearest of the right ones where there is one.

    >>> with_hint("unknown key", "stpes", ["steps", "lr"])
    'unknown key (did you mean "steps"?)'
    """
    hint = nearest(word, choices)
    return f'{text} (did you mean "{hint}"?)' if hint else text


def refuse_labels(labels: object) -> None:
    """For models that draw no classes.

    Raises:
        UserError: if there are labels.
    """
    if labels is not None:
        raise UserError("this model was trained without labels and cannot draw a class; leave the label out")


def check_labels(labels: "Tensor | None", n_classes: int) -> None:
    """For models that may draw classes, 0 to n_classes - 1; with n_classes=0 there are none.

    Raises:
        UserError: if a label, int64 (B,), is none of them.
    """
    if not n_classes:
        refuse_labels(labels)
    elif labels is not None and not bool(((labels >= 0) & (labels < n_classes)).all()):
        raise UserError(f"labels {labels.unique().tolist()}: they go from 0 to {n_classes - 1}")
