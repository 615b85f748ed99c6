"""What stands in the cells of the tables for a terminal: names, values with their intervals, and lines of both."""

from collections.abc import Iterable
from textwrap import fill
from typing import TYPE_CHECKING, NamedTuple

from trilemma.comparison.content import Column, Control, Model
from trilemma.language import translated
from trilemma.words import number, span

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

    from trilemma.metrics.receipt import Score

SPENT = ("Parameters", "Training\nseconds")


class Cell(NamedTuple):
    """A value and its interval in words."""

    value: str
    interval: str = ""


NOTHING = "learned nothing yet"
Row = tuple[str, str, Cell, str]  # model, title, value, unit


def value_cell(row: Model | Control, column: Column) -> Cell:
    """The value of a model or a control."""
    failed = isinstance(row, Model) and row.error
    return Cell(translated("failed")) if failed else score_cell(row.scores.get(column.name))


def meanings(controls: Iterable[Control]) -> str:
    """What each control is there for."""
    return "; ".join(f"{control.title}: {control.note}" for control in controls)


def full_name(model: Model) -> str:
    return f"{model.name}, {translated(NOTHING)}" if model.learned_nothing else model.name


def marked_name(model: Model) -> "Text":
    """The name, and below it that a control beats the model."""
    from rich.text import Text

    return Text.assemble(model.name, (f"\n{narrow(translated(NOTHING))}" if model.learned_nothing else "", "dim"))


def narrow(text: str) -> str:
    """Words under each other that fit a column of values."""
    return fill(text, 14, break_long_words=False, break_on_hyphens=False)


def dimmed(text: "Text") -> "Text":
    text.stylize("dim")
    return text


def score_cell(score: "Score | None") -> Cell:
    if score is None:
        return Cell("")
    if score.value is None:
        return Cell(translated("refused"))
    return Cell(number(score.value, score.interval), span(score.value, score.interval))


def cost_heads() -> list[str]:
    """Of the columns of `cost_cells`."""
    return [translated(head) for head in SPENT]


def cost_cells(model: Model) -> list[Cell]:
    """Parameters and training seconds; empty where they are not known."""
    spent = [model.trained.parameters, model.trained.seconds] if model.trained else [None for _ in SPENT]
    return [Cell("" if value is None else number(value)) for value in spent]


def stacked(cell: Cell) -> "Text":
    """The interval below its value."""
    from rich.text import Text

    return Text.assemble(cell.value, "\n" if cell.interval else "", (cell.interval, "dim"))


def add_row(table: "Table", *cells: "str | Text") -> None:
    """A row of texts as they are: a name may hold what rich would take for markup."""
    from rich.text import Text

    table.add_row(*(Text(cell) if isinstance(cell, str) else cell for cell in cells))


def lines_of(rows: "Iterable[Row]") -> "Text":
    """Lines of text, which are wrapped between words."""
    from rich.text import Text

    none = translated("none")
    lines = (
        f"{title}, {model}: {cell.value or none}" + (f" ({cell.interval})" if cell.interval else "") + f" {unit}"
        for model, title, cell, unit in rows
    )
    return Text("\n".join(line.rstrip() for line in lines))
