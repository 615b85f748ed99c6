"""How `trilemma evaluate` prints: the scores, those of controls beside them, how each was measured, and notes."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from trilemma.cli.output import interval, number, say, table

if TYPE_CHECKING:
    from trilemma.metrics.controls import Control
    from trilemma.metrics.evaluate import Evaluation
    from trilemma.metrics.receipt import Score

COMPARED = ("density", "coverage", "kernel_distance")  # scores that are shown of the controls, too


def print_evaluation(result: "Evaluation") -> None:
    """Tables that fit 60 columns, then a line for each protocol and note."""
    table(("score", "value", "95% interval"), [(s.name, number(s.value), interval(s.interval)) for s in result.scores])
    print()
    own = ["these images", *(number(result[name].value) for name in COMPARED)]
    table(("compared with", *COMPARED), [own, *(_control(control) for control in result.controls)])
    print()
    for score in result.scores:
        say(f"{score.name}: {'; '.join(_receipt(score))}")
    if result.learned_nothing:
        print()
        say(f"warning: {warning(result)}")
    for text in result.notes:
        say(text)


def warning(result: "Evaluation") -> str:
    """Of a model that it learned nothing; images of a folder may have been made in any way."""
    text = result.learned_nothing or ""
    if any(score.weights for score in result.scores):
        return f"this model has {text}"
    return text.replace("learned nothing yet: its samples", "these images")


def _control(control: "Control") -> list[str]:
    values = {score.name: score.value for score in control.scores}
    return [control.title, *(number(values[name]) for name in COMPARED)]


def _receipt(score: "Score") -> Iterator[str]:
    """Unit, direction and protocol."""
    yield score.unit
    yield f"{score.better} is better"
    if score.rough:
        yield "rough: too few images"
    yield score.refused if score.refused else score.protocol
