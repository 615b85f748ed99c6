"""Every text of a report in every language, with the same names in braces."""

import ast
import json
import re
from pathlib import Path

import pytest

from trilemma.comparison import cells, terminal
from trilemma.comparison.answer import NO_COST, NONE_YET, ONE_TRAINING_CAVEAT, WORDS
from trilemma.comparison.images import UNKNOWN_TRAINING
from trilemma.comparison.rows import NOTES
from trilemma.comparison.triangle import AXES
from trilemma.healthy import BETTER_THAN_LINEAR, BETTER_THAN_MEAN, HEALTHY
from trilemma.language import FOLDER, in_language, language, translated
from trilemma.metrics.catalogue import CATALOGUE
from trilemma.metrics.controls import NOTHING, TITLES, nothing_text
from trilemma.metrics.reals import AMONG, FEW, ROLES, SEEN, UNKNOWN_ROLE
from trilemma.studio.jobs import State
from trilemma.studio.sections import COMPARED_STATES, RUN_STATES, SECTIONS, SORTS, TOOLS
from trilemma.words import counted, listed, span

SOURCE = Path(__file__).parents[1] / "src" / "trilemma"
FILES = sorted(FOLDER.glob("*.json"))


def in_templates() -> set[str]:
    """The texts that the templates of reports and studio show: every quoted text at the beginning of a call of `_`."""
    folders = [SOURCE / part / "templates" for part in ("comparison", "studio")]
    pages = [path.read_text("utf-8") for folder in folders for path in folder.glob("*.html")]
    plain = {text for page in pages for text in re.findall(r'_\("([^"]*)"[,)]', page)}
    either = [pair for page in pages for pair in re.findall(r'_\("([^"]*)" if [^"]*? else "([^"]*)"', page)]
    return plain | {text for pair in either for text in pair}


def in_code() -> set[str]:
    """The texts that stand in calls of `translated`, and those with names in braces that are chosen before."""
    texts = set()
    folders = [*(SOURCE / "comparison").glob("*.py"), *(SOURCE / "studio").rglob("*.py")]
    folders += (SOURCE / "course").glob("*.py")
    for path in [SOURCE / "words.py", SOURCE / "cli" / "self_test.py", *folders]:
        tree = ast.parse(path.read_text("utf-8"))
        calls = [n for n in ast.walk(tree) if isinstance(n, ast.Call) and ast.unparse(n.func) == "translated"]
        inside = [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef)] if calls else []
        chosen = [n.value for function in inside for n in ast.walk(function) if isinstance(n, ast.Assign)]
        for part in (p for node in [*(c.args[0] for c in calls), *chosen] for p in ast.walk(node)):
            if isinstance(part, ast.Constant) and isinstance(part.value, str):
                is_text = part.value.count(" ") > 0 and (node_is_call(part, calls) or re.search(r"\{\w+\}", part.value))
                texts |= {part.value} if is_text else set()
    return {text for text in texts if not text.startswith(("For {kind}", ":")) and text != "For "}


def node_is_call(part: ast.AST, calls: list[ast.Call]) -> bool:
    """Whether a constant stands in the first argument of one of some calls."""
    return any(part in ast.walk(call.args[0]) for call in calls)


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
    answers |= {"lower is better", "higher is better"}
    answers |= {nothing_text(control, name) for control, scores in NOTHING.items() for name in scores}
    answers |= {SEEN, AMONG, FEW, UNKNOWN_ROLE, UNKNOWN_TRAINING}
    answers |= {
        *dict(SECTIONS).values(),
        *SORTS.values(),
        *RUN_STATES,
        *COMPARED_STATES,
        *State,
        *(tool.title for tool in TOOLS),
    }
    answers |= {BETTER_THAN_MEAN, BETTER_THAN_LINEAR}
    answers |= {*cells.SPENT, cells.NOTHING, *terminal.HEADS, terminal.NO_INTERVALS}
    answers |= {"failed", "refused", "none", "next:", "Further values", "Unit"}
    return metrics | axes | answers | {*HEALTHY.values(), *NOTES.values(), *TITLES.values(), *ROLES.values()}


def names(text: str) -> list[str]:
    return sorted(re.findall(r"\{(\w+)\}", text))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_text_is_there_with_its_names(path: Path) -> None:
    texts = json.loads(path.read_text("utf-8"))
    wanted = in_templates() | in_code() | declared()
    assert len(wanted) > 150
    assert not {text for text in wanted if text not in texts}
    assert {text for text, other in texts.items() if names(text) != names(other)} == set()


def test_a_text_is_said_in_the_language_of_the_moment() -> None:
    assert translated("{name} failed. {why}", name="vae", why="x") == "vae failed. x" and language() == "en"
    with in_language("vi"):
        assert translated("{name} failed. {why}", name="vae", why="x") == "vae thất bại. x"
        assert translated("a text of nobody") == "a text of nobody"
        assert (
            counted(3, "second") == "3 giây" and listed(["a", "b"]) == "a và b" and span(1, (0.5, 1.5)) == "0.5 đến 1.5"
        )
    assert counted(3, "second") == "3 seconds" and language() == "en"
