"""Which class an image has, by what stands beside it: one rule for tables, parquet, the hub and arrays.

A label is one value per image: a text, a whole number (1.0 is 1), True or False. Nothing, NaN and "" are not a label;
nor is -1 beside other whole numbers, as the hub marks images whose class is not published. Values of another kind, and
numbers beyond the names of the classes, are skipped and named. Where classes are named, a whole number is the position
of a name, from 0.
"""

import math
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from trilemma.text import is_unicode

LABEL = ("label", "labels", "class", "cls", "category", "class_name", "target", "targets", "y")
CAPTION = ("text", "caption", "captions", "prompt", "description")
UNLABELLED = "-1"
UNUSED = "classes are not used"
WHOLE, DECIMAL = re.compile(r"-?\d+"), re.compile(r"[-+]?(\d+\.\d*|\.\d+|\d+)([eE][-+]?\d+)?")


Words = list[str | None]  # per row, None for nothing
Wrong = list[tuple[int, str]]  # row, from 0, and what is wrong with its value


class Columns(NamedTuple):
    """labels, captions: a word per row, None where no column has them; wrong: what is wrong with labels, by row; note:
    which columns were used, in words; label: the column of the labels."""

    labels: Words | None
    captions: Words | None
    wrong: Wrong
    note: str
    label: str = ""


def named(columns: Iterable[str], words: Sequence[str]) -> list[str]:
    """The columns that are called by one of the words, in any case, in the order of the words."""
    matches = [column for column in columns if column.lower() in words]
    return sorted(matches, key=lambda column: words.index(column.lower()))


def read_columns(table: Mapping[str, Sequence[Any]], names: Mapping[str, Sequence[str]] | None = None) -> Columns:
    """Labels and captions of a table, from the first column of each kind that can be used; named classes go first.

    Args:
        table: values by column; names: of the classes, by column of the table, where its numbers stand for names.
    """
    by_name, unused = names or {}, {}
    columns = dict.fromkeys([*named(by_name, LABEL), *by_name, *named(table, LABEL)])
    label = _first(columns, unused, lambda column: read_labels(table[column], by_name.get(column)))
    caption = _first(named(table, CAPTION), unused, lambda column: _read_captions(table[column]))
    words = [f"classes from the column {label[0]}" if label else "no column of classes"]
    words += [f"captions from {caption[0]}"] if caption else []
    unused_words = ", ".join(f"{column} ({why})" for column, why in unused.items())
    words += [f"not used: {unused_words}"] if unused else []
    name, (labels, wrong) = label or ("", (None, []))
    return Columns(labels, caption[1][0] if caption else None, wrong, "; ".join(words), name)


def _first(
    columns: Iterable[str], unused: dict[str, str], read: Callable[[str], tuple[Words, Wrong] | str]
) -> tuple[str, tuple[Words, Wrong]] | None:
    """The first column that can be read, and its values; why others are not used goes into `unused`."""
    used = None
    for column in columns:
        values = f"{used[0]} is used" if used else read(column)
        if isinstance(values, str):
            unused[column] = values
        else:
            used = column, values
    return used


def read_labels(values: Sequence[Any], names: Sequence[str] | None = None) -> tuple[Words, Wrong] | str:
    """A class per value, None for no class, and what is wrong with values; or why no value is a class.

    Args:
        names: what whole numbers stand for, from 0.
    """
    words, wrong = [], []
    for row, value in enumerate(values):
        word = _word(value)
        why = ""
        if word is None and not _empty(value):
            why = "not Unicode text" if isinstance(value, str) else "several values, not one"
        if names is not None and word is not None:
            word, why = _name(value, word, names)
        words.append(word)
        wrong += [(row, why)] if why else []
    labels = {word for word in words if word is not None}
    if not labels:
        return wrong[0][1] if wrong else "no value"
    if names is None and all(map(DECIMAL.fullmatch, labels)):
        if not all(float(word).is_integer() for word in labels):
            return "numbers with a fraction"
        words = [word and re.sub(r"\.0*$", "", word) for word in words]
    return words, wrong


def _word(value: Any) -> str | None:
    """One value as text; None for nothing, for several values, and for what is not Unicode text."""
    if _empty(value) or not isinstance(value, (str, bytes, bool, int, float)):
        return None
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace").strip()
    text = f"{value:.0f}" if isinstance(value, float) and value.is_integer() else str(value).strip()
    return text if is_unicode(text) else None


def _empty(value: Any) -> bool:
    """Whether a value says nothing: None, NaN, a blank text."""
    return (
        value is None or (isinstance(value, float) and math.isnan(value)) or value in ("", b"") or str(value).isspace()
    )


def _name(value: Any, word: str, names: Sequence[str]) -> tuple[str | None, str]:
    """The name that a label stands for, None for no class; and what is wrong with it."""
    if isinstance(value, str) and word in names:
        return word, ""
    whole = not isinstance(value, bytes) and (isinstance(value, bool) or WHOLE.fullmatch(word))
    number = int(value) if whole else None
    if number is not None and 0 <= number < len(names):
        return names[number], ""
    return None, "" if word == UNLABELLED else f"label {word}, where classes go from 0 to {len(names) - 1}"


def _read_captions(values: Sequence[Any]) -> tuple[Words, Wrong] | str:
    """A text per value; of a list of texts the first."""
    words = [_word(value[0] if isinstance(value, (list, tuple)) and value else value) for value in values]
    return (words, []) if any(words) else "no text"


def marks_unlabelled(words: Collection[str | None]) -> bool:
    """Whether "-1" means "no class" among these labels: beside other whole numbers, unless all are -1 and 1.

    >>> marks_unlabelled(["0", "1", "-1"]), marks_unlabelled(["-1"]), marks_unlabelled(["1", "-1"])
    (True, True, False)
    >>> marks_unlabelled(["cat", "-1"])
    False
    """
    others = {word for word in words if word is not None} - {UNLABELLED}
    return UNLABELLED in words and all(map(str.isdecimal, others)) and others != {"1"}


def labelled_splits(total: Mapping[str, int], without: Mapping[str, int]) -> tuple[set[str], str]:
    """The splits whose labels are used, and in words what is not: training and validation need a class for each image.

    Args:
        total, without: images by split; those of them without a class.

    >>> labelled_splits({"train": 20, "test": 9}, {"test": 9})
    ({'train'}, '9 of the 9 test images have no class')
    """
    if sum(without.values()) == sum(total.values()):
        return set(), ""
    lacking = [f"{n:,} of the {total[split]:,} {split} images" for split, n in without.items() if n]
    words = f"{' and '.join(lacking)} have no class" if lacking else ""
    if any(without.get(split) for split in ("train", "valid")) or "train" not in total:
        return set(), f"{words}: {UNUSED}"
    return {split for split in total if not without.get(split)}, words


def class_number(word: object, classes: Sequence[str]) -> int | None:
    """The number of a class by its name, or by its position from 0 where not all names are numbers; else None.

    >>> class_number("bag", ["shoe", "bag"]), class_number(0, ["shoe", "bag"]), class_number("2", ["shoe", "bag"])
    (1, 0, None)
    >>> class_number(1, ["1", "2"]), class_number(0, ["1", "2"])
    (0, None)
    """
    text = str(word)
    if text in classes:
        return list(classes).index(text)
    numbers = all(WHOLE.fullmatch(name) for name in classes)
    return int(text) if not numbers and text.isdecimal() and int(text) < len(classes) else None
