"""The self-test and the exercises as one verb: `quiz` asks and marks ten questions, `quiz check` marks an exercise."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from trilemma.course.exercises import exercises, find_exercise
from trilemma.course.questions import COUNT, check_letters, questions
from trilemma.errors import UserError
from trilemma.language import ENGLISH, in_language, language, translated
from trilemma.values import checked_call

Lang = Literal["en", "vi"]


@dataclass(frozen=True)
class Result:
    """What is to be read: questions, exercises, or how answers were marked.

    right: how many of `count` answers are right; None where no answers were given.
    """

    text: str
    right: int | None = None
    count: int = 0

    def __str__(self) -> str:
        return self.text


@checked_call
def quiz(
    part: Annotated[
        Literal["questions", "check"],
        Field(description="the ten questions of the self-test, or check: the exercises of the course"),
    ] = "questions",
    exercise: Annotated[str | None, Field(description="after check: the name of an exercise (default: all)")] = None,
    answer: Annotated[
        str | float | Path | None,
        Field(description="your answer to it: a number, a word or the folder of a run (default: show the exercise)"),
    ] = None,
    *,
    question: Annotated[
        int | None, Field(ge=1, le=COUNT, description="number of a single question (default: all)")
    ] = None,
    answers: Annotated[
        Sequence[str] | None,
        Field(description="your answers, one letter for each question, comma-separated (default: ask in a terminal)"),
    ] = None,
    lang: Annotated[Lang, Field(description="language: English or Vietnamese")] = "en",
) -> Result:
    """Ask the questions of the self-test and mark answers to them, or show and check the exercises of the course.

    Args:
        part: questions, or check for exercises.
        exercise: of the course, by its name.
        answer: to the exercise.
        question: only this one.
        answers: one letter for each question that is asked.
        lang: of questions, exercises and explanations; errors stay English.
    Returns:
        The text to read, and how many answers are right.
    Raises:
        UserError: an unknown exercise, or answers of another kind or number than is asked for.
    """
    with in_language(lang):
        if part == "check":
            _refuse("check", question=question, answers=answers)
            return _exercises() if exercise is None else _checked(exercise, answer)
        _refuse("the self-test", exercise=exercise, answer=answer)
        return _asked(question) if answers is None else _marked(question, answers)


def _refuse(what: str, **keys: object) -> None:
    """Raises UserError if a key of the other part was given."""
    for name, value in keys.items():
        if value is not None:
            raise UserError(f"{name}= is not a key of {what}; `trilemma help quiz` shows the keys of each part")


def _asked(number: int | None) -> Result:
    """The questions, and how to answer them."""
    keys = "answers=b,a,d,..." if number is None else f"question={number} answers=b"
    how = translated("To have answers marked: {command}", command=_command(keys))
    return Result("\n\n".join([*map(str, questions(number)), how]))


def _marked(number: int | None, answers: Sequence[str]) -> Result:
    """Answers to the questions, marked and explained."""
    asked = questions(number)
    letters = check_letters(answers, len(asked))
    right = sum(question.right == letter for question, letter in zip(asked, letters, strict=True))
    marks = [question.marked(letter) for question, letter in zip(asked, letters, strict=True)]
    return Result("\n".join([*marks, score_text(right, len(asked))]), right, len(asked))


def score_text(right: int, count: int) -> str:
    """How many answers are right, in the language of the moment."""
    return translated("{right} of {count} right", right=right, count=count)


def _exercises() -> Result:
    """The names of all exercises with what they ask."""
    parts = [f"{own.name} ({translated('page {page}', page=own.page)})\n   {own.task}" for own in exercises()]
    how = translated("To have an answer checked: {command}", command=_command("check divergence 0.5"))
    return Result("\n".join([*parts, how]))


def _command(words: str) -> str:
    """A command of this verb, in the language of the moment."""
    return f"trilemma quiz {words}" + ("" if language() == ENGLISH else f" lang={language()}")


def _checked(name: str, answer: str | float | Path | None) -> Result:
    """An exercise, or how an answer to it was marked."""
    exercise = find_exercise(name)
    if answer is None:
        return Result(exercise.task)
    right, text = exercise.check(answer)
    return Result(text, int(right), 1)
