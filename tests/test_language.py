"""Every text of a report in every language, with the same names in braces."""

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from trilemma.comparison.answer import NO_COST, NONE_YET, ONE_TRAINING_CAVEAT, WORDS
from trilemma.comparison.curves import HEALTHY
from trilemma.comparison.rows import NOTES
from trilemma.comparison.triangle import AXES
from trilemma.language import FOLDER, in_language, language, say
from trilemma.metrics.catalogue import CATALOGUE
from trilemma.metrics.controls import TITLES
from trilemma.metrics.reals import ROLES
from trilemma.words import counted, listed, span

SOURCE = Path(__file__).parents[1] / "src" / "trilemma"
FILES = sorted(FOLDER.glob("*.json"))
PRINTED = {"compare.py", "work.py", "folder.py"}  # whose `say` prints a line of progress


def in_templates() -> set[str]:
    """The texts that the templates of the report show."""
    pages = [path.read_text("utf-8") for path in (SOURCE / "comparison" / "templates").glob("*.html")]
    return {text for page in pages for text in re.findall(r'_\("([^"]*)"', page)}


def in_code() -> Iterator[str]:
    """The texts that stand in calls of `say`."""
    for path in [SOURCE / "words.py", *(SOURCE / "comparison").glob("*.py")]:
        if path.name in PRINTED:
            continue
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "say":
                for part in ast.walk(node.args[0]):
                    if isinstance(part, ast.Constant) and isinstance(part.value, str) and " " in part.value:
                        yield part.value


def declared() -> set[str]:
    """The texts that stand elsewhere and are shown in a report."""
    metrics = {text for m in CATALOGUE.values() for text in (m.title, m.short, m.unit)}
    axes = {text for axis in AXES for text in (axis.name, axis.name.capitalize(), axis.short)}
    answers = {
        NO_COST,
        NONE_YET,
        ONE_TRAINING_CAVEAT,
        *WORDS.values(),
        *(f"For {word}: {{text}}" for word in WORDS.values()),
    }
    return metrics | axes | answers | {*HEALTHY.values(), *NOTES.values(), *TITLES.values(), *ROLES.values()}


def names(text: str) -> list[str]:
    return sorted(re.findall(r"\{(\w+)\}", text))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_text_is_there_with_its_names(path: Path) -> None:
    texts = json.loads(path.read_text("utf-8"))
    wanted = in_templates() | {text for text in in_code() if not text.startswith("For ")} | declared()
    assert len(wanted) > 150
    assert not {text for text in wanted if text not in texts}
    assert {text for text, other in texts.items() if names(text) != names(other)} == set()


def test_a_text_is_said_in_the_language_of_the_moment() -> None:
    assert say("{name} failed. {why}", name="vae", why="x") == "vae failed. x" and language() == "en"
    with in_language("vi"):
        assert say("{name} failed. {why}", name="vae", why="x") == "vae thất bại. x"
        assert say("a text of nobody") == "a text of nobody"
        assert (
            counted(3, "second") == "3 giây" and listed(["a", "b"]) == "a và b" and span(1, (0.5, 1.5)) == "0.5 đến 1.5"
        )
    assert counted(3, "second") == "3 seconds" and language() == "en"
