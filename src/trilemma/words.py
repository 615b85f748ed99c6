"""Numbers, intervals and lists in words: the one place."""

import math
from collections.abc import Sequence

from trilemma.language import ENGLISH, language, translated

SHOWN = 5  # of a list of names


def counted(value: float, unit: str) -> str:
    """
    >>> counted(1.0, "second"), counted(30, "second"), counted(1.2, "second")
    ('1 second', '30 seconds', '1.20 seconds')
    """
    text = number(value)
    if language() != ENGLISH:
        return f"{text} {translated(unit)}"
    return f"{text} {unit}" if text == "1" else f"{text} {unit}s"


def duration(seconds: float) -> str:
    """Seconds, from two minutes on minutes, and from two hours on hours.

    >>> duration(90), duration(300), duration(5400), duration(7200)
    ('90 seconds', '5 minutes', '90 minutes', '2 hours')
    """
    for unit, length in (("hour", 3600), ("minute", 60)):
        if seconds >= 2 * length:
            return counted(seconds / length, unit)
    return counted(seconds, "second")


def size_in_words(size_bytes: float) -> str:
    """
    >>> size_in_words(512), size_in_words(204_800), size_in_words(5_214_000_000)
    ('512 bytes', '205 kB', '5.21 GB')
    """
    for unit, length in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size_bytes >= length:
            return f"{number(size_bytes / length)} {unit}"
    return f"{size_bytes:,.0f} bytes"


def number(value: float, interval: Sequence[float] | None = None) -> str:
    """The value with the digits its interval deserves (its width is 4 to 40 units of the last one), else three digits.

    >>> number(0.81234, (0.78, 0.84)), number(81234.5, (79000, 83000)), number(1437), number(0.00012345)
    ('0.81', '81,200', '1,437', '0.000123')
    """
    return _shown(value, _places(value, interval))


def ends(value: float, interval: Sequence[float]) -> list[str]:
    """Both ends of the interval, with the digits of its value."""
    return [_shown(end, _places(value, interval)) for end in interval]


def span(value: float, interval: Sequence[float] | None) -> str:
    """The interval as "0.79 to 0.83"; "exact" for a width of 0; empty without one."""
    if not interval:
        return ""
    return (
        translated("exact")
        if interval[0] == interval[1] == value
        else f" {translated('to')} ".join(ends(value, interval))
    )


def listed(words: Sequence[str]) -> str:
    """
    >>> listed(["a"]), listed(["a", "b"]), listed(["a", "b", "c"])
    ('a', 'a and b', 'a, b and c')
    """
    return f" {translated('and')} ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def names_counted(what: str, names: Sequence[str]) -> str:
    """How many, with the first few; "" for none.

    >>> names_counted("files skipped", ["a", "b", "c", "d", "e", "f"])
    '6 files skipped: a, b, c, d, e and 1 more'
    """
    return f"{len(names):,} {what}: {first_names(names)}" if names else ""


def first_names(names: Sequence[str]) -> str:
    """The first few of some names, and how many more there are."""
    more = f" and {len(names) - SHOWN:,} more" if len(names) > SHOWN else ""
    return f"{', '.join(names[:SHOWN])}{more}"


def _places(value: float, interval: Sequence[float] | None) -> int:
    """Digits after the point, negative for zeros before it. A lopsided interval counts as twice its shorter arm, or a
    quarter of its width if that is more."""
    if interval and interval[0] < interval[1]:
        width = interval[1] - interval[0]
        arm = min(value - interval[0], interval[1] - value)
        return 1 - _magnitude(2.5 * (max(2 * arm, width / 4) if arm > 0 else width))
    return 0 if float(value).is_integer() else 2 - _magnitude(value)


def _shown(value: float, places: int) -> str:
    if not math.isfinite(value):
        return "not a number"
    if value and not round(value, places):
        places = 1 - _magnitude(value)  # what is not zero is not shown as zero
    return f"{round(value, places):,.{max(places, 0)}f}" if places <= 7 else f"{value:.2e}"


def _magnitude(value: float) -> int:
    return math.floor(math.log10(abs(value))) if value and math.isfinite(value) else 0


def capital(text: str) -> str:
    """With a capital letter at the beginning."""
    return text[:1].upper() + text[1:]
