"""The exercises of the course: exercises.json has their texts, this module what answers them.

An answer is a number (`values` and `decimals`), a word (`words`), or the folder of a run (`run`). A number is right
where it lies within half a unit of its last decimal of the value of the closed form; a whole number is exact.
"""

import math
import unicodedata
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from trilemma.course.closed_forms import FORMULAS
from trilemma.course.runs import check_run
from trilemma.errors import UserError, named
from trilemma.files import read_json
from trilemma.language import language, translated
from trilemma.values import shown

FILE = Path(__file__).with_name("exercises.json")
ROUNDING = 1e-9  # of the computation


@dataclass(frozen=True)
class Exercise:
    """An exercise by its name, as its entry in exercises.json has it."""

    name: str
    entry: dict[str, Any]

    @property
    def page(self) -> int:
        """The number of its page in the course."""
        return self.entry["page"]

    @cached_property
    def values(self) -> dict[str, Any]:
        """The numbers of its text."""
        return self.entry.get("values", {})

    @property
    def task(self) -> str:
        """What is asked, in the language of the moment."""
        return self.text("task")

    def text(self, part: str, **more: float) -> str:
        """The task, the hint or the reason, with its numbers filled in."""
        return self.entry[language()][part].format(**self.values, **more)

    def check(self, answer: str | float | Path) -> tuple[bool, str]:
        """Whether an answer is right, and what is said of it.

        Raises:
            UserError: if it is not an answer of the kind that is asked for.
        """
        more = {}
        if "words" in self.entry:
            right = folded(str(answer)) in map(folded, self.entry["words"])
        elif "run" in self.entry:
            from trilemma.run.run import Run

            right, more = check_run(self.name, Run(str(answer)), self.values)
        else:
            right = abs(number_of(answer) - self.solution) <= self.tolerance
        return right, f"{self._verdict(right, shown(answer))} {self.text('why' if right else 'hint', **more)}"

    def _verdict(self, right: bool, answer: str) -> str:
        """Whether an answer is right, in words."""
        if "run" in self.entry and right:
            return translated("{answer} meets the condition.", answer=answer)
        if "run" in self.entry:
            return translated("{answer} does not meet the condition yet.", answer=answer)
        return translated("{answer} is right." if right else "{answer} is not right.", answer=answer)

    @property
    def solution(self) -> float:
        """The number that is asked for."""
        return FORMULAS[self.name](**self.values)

    @property
    def tolerance(self) -> float:
        """Half a unit of the last decimal that is asked for; none for a whole number."""
        decimals = self.entry["decimals"]
        return ROUNDING + (0.5 * 10.0**-decimals if decimals else 0)


def exercises() -> list[Exercise]:
    """All exercises, in the order of the pages."""
    return [Exercise(name, entry) for name, entry in read_json(FILE).items()]


def find_exercise(name: str) -> Exercise:
    """The exercise of a name.

    Raises:
        UserError: with the nearest name.
    """
    return named("exercise", name, {exercise.name: exercise for exercise in exercises()})


def number_of(answer: str | float | Path) -> float:
    """The number of an answer, with a point or a comma before the decimals.

    >>> number_of("0,5"), number_of("-2"), number_of(1)
    (0.5, -2.0, 1.0)

    Raises:
        UserError: if it is not a number.
    """
    text = str(answer).strip()
    try:
        value = float(text if "." in text else text.replace(",", ".", 1))
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise UserError(f"answer={shown(answer)}: the exercise asks for a number, as 0.25")
    return value


def folded(text: str) -> str:
    """A word without accents, capitals and hyphens, so that ways to type it are equal.

    >>> folded(" U-Net "), folded("Độ đa dạng")
    ('u net', 'do da dang')
    """
    plain = unicodedata.normalize("NFD", text.lower().replace("đ", "d"))
    letters = "".join(letter for letter in plain if not unicodedata.combining(letter))
    return " ".join(letters.replace("-", " ").split())
