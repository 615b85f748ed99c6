r"""Text from outside (names of files and classes, what a run folder says) made safe for the place where it is shown.

`printable` is for terminals and pages, `quoted` for a command line to paste, `markdown` for the card, `csv_text` for
tables that a spreadsheet may open. HTML is escaped by the templates.
"""

import csv
import io
import os
import re
import shlex
import sys
from collections.abc import Iterable, Sequence
from typing import TypeVar

T = TypeVar("T")

_HIDDEN = re.compile(  # controls (C0, C1), marks of direction, invisible letters, line separators, lone surrogates
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\U000e0000-\U000e007f\ud800-\udfff]"
)
_FORMULA = tuple("=+-@\t\r\uff1d\uff0b\uff0d\uff20")  # what a cell that a spreadsheet computes begins with
_MARKDOWN = re.compile(r"([\\`*_\[\]<>#|!&~])")
_PLAIN_WORD = re.compile(r"[\w@+=:,./\\-]+")


def printable(text: str, *, lines: bool = False) -> str:
    r"""Text with an escape such as \x1b for each character that a terminal obeys, or that hides or turns others.

    Args:
        lines: ends of lines and tabs stay.

    >>> print(printable("a\x1b[2J\nb\u202ec"), printable("a\n\tb", lines=True) == "a\n\tb")
    a\x1b[2J\nb\u202ec True
    """
    text = _HIDDEN.sub(_escape, text)
    return text if lines else re.sub("[\n\t]", _escape, text)


def is_unicode(text: str) -> bool:
    r"""Whether a text has bytes: no half of a letter is in it (a surrogate), as of a byte that could not be decoded.

    >>> is_unicode("\U0001f600"), is_unicode("\ud83d"), is_unicode(b"\xff".decode(errors="surrogateescape"))
    (True, False, False)
    """
    return not re.search("[\ud800-\udfff]", text)


def note(text: str) -> None:
    """One line on standard error, with "?" for letters that its encoding lacks."""
    print(encodable(printable(text), sys.stderr), file=sys.stderr)


def encodable(text: str, stream: object) -> str:
    """The text with "?" for letters that the encoding of a stream lacks."""
    encoding = getattr(stream, "encoding", None) or "utf-8"
    return text.encode(encoding, "replace").decode(encoding)


def shown(value: T) -> T:
    """A value for a page: a text, or escaped text, as `printable` with its lines; anything else as it is."""
    return type(value)(printable(value, lines=True)) if isinstance(value, str) else value


def paragraph(text: str) -> str:
    r"""`printable` with its lines, all but the first indented, so that none passes for a line of ours.

    >>> print(paragraph("it is bad\nnext: sh"))
    it is bad
      next: sh
    """
    return "\n  ".join(map(printable, text.split("\n")))


def _escape(match: re.Match[str]) -> str:
    code = ord(match[0])
    if code < 0x80:
        return match[0].encode("unicode_escape").decode("ascii")
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"  # for a shell, \x9b would be a byte


def quoted(words: Iterable[str]) -> str:
    r"""A command line to paste into a shell that takes every word as it is; it has one line and nothing hidden.

    >>> print(quoted(["trilemma", "sample", "my runs/$(x)"]))
    trilemma sample 'my runs/$(x)'
    """
    return " ".join(map(_for_windows if os.name == "nt" else _for_posix, words))


def _for_posix(word: str) -> str:
    r"""
    >>> print(_for_posix("it's"), _for_posix("a\x1bb'"))
    'it'"'"'s' $'a\x1bb\''
    """
    if printable(word) == word:
        return shlex.quote(word)
    escaped = word.replace("\\", "\\\\").replace("'", "\\'")
    return f"$'{printable(escaped)}'"


def _for_windows(word: str) -> str:
    r"""In double quotes, which cmd and PowerShell share; a name there has no double quote in it.

    >>> print(_for_windows("C:\\runs\\vae"), _for_windows("my runs & $x"))
    C:\runs\vae "my runs & `$x"
    """
    if _PLAIN_WORD.fullmatch(word):
        return word
    return '"' + re.sub(r"([$`])", r"`\1", printable(word).replace('"', "?")) + '"'


def markdown(text: str) -> str:
    r"""Text that Markdown shows as it is, in one line.

    >>> markdown("a_b <img> # 1\n")
    'a\\_b \\<img\\> \\# 1 '
    """
    return _MARKDOWN.sub(r"\\\1", printable(re.sub(r"\s", " ", text)))


def csv_text(rows: Iterable[Sequence[object]]) -> str:
    r"""A table as CSV. Numbers stay numbers, and no text is a formula.

    >>> csv_text([("name", "score"), ("=1+1", -2.5), ("+5", "-1e-3")])
    "name,score\n'=1+1,-2.5\n+5,-1e-3\n"
    """
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([csv_cell(cell) for cell in row] for row in rows)
    return text.getvalue()


def csv_cell(value: object) -> object:
    """A value for a cell: an apostrophe is put before a text that a spreadsheet would compute."""
    if not isinstance(value, str):
        return value
    return f"'{printable(value)}" if value.startswith(_FORMULA) and not _is_number(value) else printable(value)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return "_" not in text
