"""`trilemma quiz` in a terminal: questions are asked one by one; elsewhere, and with answers, the result is printed."""

import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import typer

import trilemma
from trilemma.cli.output import wrapped
from trilemma.errors import UserError
from trilemma.language import ENGLISH, in_language, translated
from trilemma.text import printable

if TYPE_CHECKING:
    from trilemma.course.questions import Question


def self_test(given: Mapping[str, Any]) -> None:
    """Ask, or print what the verb returns; leaves with 1 if the answer to an exercise is not right."""
    if not {"part", "exercise", "answer", "answers"} & {*given} and sys.stdin.isatty() and sys.stdout.isatty():
        from trilemma.course.questions import questions

        with in_language(given.get("lang", ENGLISH)):
            return _ask_all(questions(given.get("question")))
    result = trilemma.quiz(**given)
    _show(result.text)
    if given.get("part") == "check" and result.right == 0:
        raise typer.Exit(1)


def _ask_all(asked: "list[Question]") -> None:
    """Ask questions one by one, mark each answer, and say how many were right; ends early at the end of the input."""
    from trilemma.course.quiz import score_text

    letters = []
    for question in asked:
        _show(str(question))
        if (letter := _read_letter()) is None:
            break
        letters.append(letter)
        _show(f"{question.marked(letter)}\n")
    right = sum(question.right == letter for question, letter in zip(asked, letters, strict=False))
    _show(score_text(right, len(letters)))


def _read_letter() -> str | None:
    """A letter that is typed; asks again for anything else. None at the end of the input."""
    from trilemma.course.questions import check_letter

    while True:
        try:
            return check_letter(input(translated("your answer: ")))
        except UserError as error:
            _show(str(error))
        except EOFError:
            print()
            return None


def _show(text: str) -> None:
    """A text of several lines, each wrapped behind its own margin."""
    for line in text.split("\n"):
        words = line.lstrip(" ")
        indent = len(line) - len(words)
        print(" " * indent + wrapped(printable(words), indent))
