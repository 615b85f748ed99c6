"""The self-test: ten questions with four answers each, of which one is right; questions.json has them by language."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from trilemma.errors import UserError
from trilemma.files import read_json
from trilemma.language import language, translated
from trilemma.values import shown

FILE = Path(__file__).with_name("questions.json")
COUNT = 10
LETTERS = "abcd"


@dataclass(frozen=True)
class Question:
    """right: the letter of the right choice; why: what explains it."""

    number: int
    text: str
    choices: tuple[str, ...]
    right: str
    why: str

    def __str__(self) -> str:
        """As it is asked.

        >>> print(Question(1, "Is it?", ("Yes.", "No."), "a", ""))
        1. Is it?
           a) Yes.
           b) No.
        """
        choices = [f"   {letter}) {text}" for letter, text in zip(LETTERS, self.choices, strict=False)]
        return "\n".join([f"{self.number}. {self.text}", *choices])

    def marked(self, letter: str) -> str:
        """What is said of an answer, with the explanation."""
        if letter == self.right:
            verdict = translated("{number}. {letter} is right.", number=self.number, letter=letter)
        else:
            verdict = translated(
                "{number}. {letter} is wrong, {right} is right: {text}",
                number=self.number,
                letter=letter,
                right=self.right,
                text=self.choices[LETTERS.index(self.right)],
            )
        return f"{verdict}\n   {self.why}"


def questions(number: int | None = None) -> list[Question]:
    """All questions, or the one of a number, in the language of the moment."""
    entries, own = read_json(FILE), language()
    every = [
        Question(k, entry[own]["question"], tuple(entry[own]["choices"]), entry["right"], entry[own]["why"])
        for k, entry in enumerate(entries, 1)
    ]
    return every if number is None else [every[number - 1]]


def check_letters(answers: Sequence[str], count: int) -> list[str]:
    """The letters of some answers, in small letters.

    >>> check_letters(["B", "a"], 2)
    ['b', 'a']

    Raises:
        UserError: if one is not a letter of a choice, or they are not one for each question.
    """
    letters = [check_letter(answer) for answer in answers]
    if len(letters) != count:
        example = ",".join(LETTERS[:2])
        wanted = f"{count}, as answers={example},..." if count > 1 else "1, as answers=a"
        raise UserError(f"answers={shown(tuple(answers))} has {len(letters)} of them; give {wanted}")
    return letters


def check_letter(answer: str) -> str:
    """One of the letters, in small.

    Raises:
        UserError: if it is something else.
    """
    letter = answer.strip().lower()
    if len(letter) != 1 or letter not in LETTERS:
        raise UserError(f'"{shown(answer)}" is not an answer; give one of the letters {", ".join(LETTERS)}')
    return letter
