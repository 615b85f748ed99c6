"""Texts of a report in the language of its readers.

A text is written in English where it is used, `translated("{name} failed.", name=name)`; languages/CODE.json holds it
in another one, with the same names in braces. A text that is not there stays English, as do receipts, warnings and
errors.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from pathlib import Path

ENGLISH = "en"
FOLDER = Path(__file__).parent / "languages"
_current: ContextVar[str] = ContextVar("language", default=ENGLISH)


def translated(text: str, /, **values: object) -> str:
    """The text in the language of the moment, with its names in braces filled in.

    >>> translated("{n} images", n=3)
    '3 images'
    """
    text = _texts(_current.get()).get(text, text)
    return text.format(**values) if values else text


def language() -> str:
    """The code of the language of the moment."""
    return _current.get()


@contextmanager
def in_language(code: str) -> Iterator[None]:
    """Inside, texts are in this language: ENGLISH, or one of languages/."""
    token = _current.set(code)
    try:
        yield
    finally:
        _current.reset(token)


@cache
def _texts(code: str) -> dict[str, str]:
    return {} if code == ENGLISH else json.loads((FOLDER / f"{code}.json").read_text("utf-8"))
