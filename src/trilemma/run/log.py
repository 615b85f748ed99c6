"""The log of a run, read back: log.jsonl, one JSON object per report."""

from pathlib import Path
from typing import Any

from trilemma.errors import UserError
from trilemma.files import parse_json, read_plain

LARGEST_LOG = 32 << 20  # bytes; 100,000 rows
LARGEST_NUMBER = float.fromhex("0x1.fffffep127")  # of single precision
PLACE = ("step", "images", "seconds")  # with which every row begins


def read_log(path: Path) -> list[dict[str, Any]]:
    """The rows of a log; a line that was cut off, or is none of ours, is skipped.

    Raises:
        UserError: if it is not a plain file, or too large.
    """
    try:
        return rows_in(read_plain(path, LARGEST_LOG))
    except FileNotFoundError:
        return []


def rows_in(content: bytes) -> list[dict[str, Any]]:
    """The rows in the content of a log; others are skipped."""
    return [row for line in content.split(b"\n") if line and (row := _row_in(line)) is not None]


def _row_in(line: bytes) -> dict[str, Any] | None:
    """The row of a line, with the place where the training was, numbers and texts; None if it is not one."""
    try:
        row = parse_json(line)
    except UserError:
        return None
    if not isinstance(row, dict) or not all(_is_number(row.get(key)) and row[key] >= 0 for key in PLACE):
        return None
    return {key: value for key, value in row.items() if isinstance(value, str) or _is_number(value)}


def _is_number(value: Any) -> bool:
    """Whether a value is a number that single precision, in which all of this is computed, can hold."""
    return type(value) in (int, float) and abs(value) <= LARGEST_NUMBER
