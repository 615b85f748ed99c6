"""The tables of a report for a terminal, in the layout that fits its width: a word is never broken.

Models are rows where that fits, else columns; where the intervals do not fit either, they are left to the report and
that is said; then there is one row for each value of each model, and on the narrowest terminals one line of text.
The controls stand under the models, dim. The last lines are the answer: which model to use, and what went wrong.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from textwrap import fill
from typing import TYPE_CHECKING

from trilemma.comparison.cells import (
    Cell,
    Row,
    add_row,
    cost_cells,
    cost_heads,
    dimmed,
    full_name,
    lines_of,
    marked_name,
    meanings,
    narrow,
    score_cell,
    stacked,
    value_cell,
)
from trilemma.comparison.content import Column, Control, Document, Model
from trilemma.comparison.document import further_scores
from trilemma.language import in_language, translated
from trilemma.text import printable

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType
    from rich.table import Table
    from rich.text import Text

    from trilemma.metrics.receipt import Score

_WORD = re.compile(r"""(?:\$'(?:\\.|[^'])*'|'[^']*'|"[^"]*"|\S)+""")  # of a command line, with its quotes
UNBOUNDED = 100_000  # letters: a width at which nothing has to give way
WRAPS = (UNBOUNDED, 40, 28, 20)  # letters of a line of a title in the table of further values
HEADS = ("Metric", "Value", "95% interval")  # heads of the lists of values
NO_INTERVALS = "The 95% intervals do not fit this width; they are in the report."


Layout = Callable[[], "RenderableType"]  # makes a table or a text


class Tables:
    """The values of a report, its caveats and its verdict; printed by rich.

    `box` is the `rich.box` the tables are drawn with; None draws no lines.
    """

    def __init__(self, document: Document) -> None:
        from rich import box

        self.box: box.Box | None = box.HORIZONTALS
        self.document = document
        self.columns = [c for c in document.columns if c.shared and not c.refused]
        self.measured = [c for c in self.columns if any(c.name in x.scores for x in document.controls)]

    def __rich_console__(self, console: "Console", options: "ConsoleOptions") -> "Iterator[RenderableType]":
        with in_language(self.document.language):
            parts = list(self._parts(console, options))
        yield from parts

    def _parts(self, console: "Console", options: "ConsoleOptions") -> "Iterator[RenderableType]":
        from rich.text import Text

        short = partial(self._models_across, intervals=False)
        layouts = [self._models_down, self._models_across, short, self._list, lambda: lines_of(self._by_metric())]
        yield (chosen := _first_that_fits(layouts, console, options))()
        lines = [translated(NO_INTERVALS)] if chosen is short else []
        if rows := further_scores(self.document):
            lists = [(m.name, c.title, score_cell(score), translated(score.unit)) for m, c, score in rows]
            tables = [*(partial(self._further, lists, wrap) for wrap in WRAPS), lambda: lines_of(lists)]
            yield Text("\n" + translated("Further values"), style="bold")
            yield _first_that_fits(tables, console, options)()
        yield Text("\n".join(["", *map(printable, [*lines, *self._refused(rows), *self._notes()]), ""]))
        for item in self.document.answer:
            yield Text(printable(item.text))
            if item.command:
                yield Text(_typed(item.command, options.max_width), overflow="fold")

    def _models_down(self) -> "Table":
        """A row for each model, then for each control."""
        from rich.text import Text

        table = self._table([translated("Model"), *(c.head for c in self.columns), *cost_heads()])
        for model in self.document.models:
            add_row(table, marked_name(model), *map(stacked, [*self._values(model), *cost_cells(model)]))
        for control in self.document.controls:
            add_row(table, Text(control.title, style="dim"), *map(dimmed, map(stacked, self._values(control))))
        return table

    def _models_across(self, *, intervals: bool = True) -> "RenderableType":
        """A column for each model; under them a table with one for each control."""
        from rich.console import Group

        models, controls = self.document.models, self.document.controls
        table = self._across(models, [marked_name(model) for model in models], self.columns, intervals=intervals)
        costs = zip(*(cost_cells(model) for model in models), strict=True)
        for head, cells in zip(cost_heads(), costs, strict=True):
            add_row(table, head if intervals else head.replace("\n", " "), *(cell.value for cell in cells))
        if not self.measured:
            return table
        heads = [narrow(control.title) for control in controls]
        below = self._across(controls, heads, self.measured, intervals=intervals)
        below.style = "dim"
        return Group(table, "", below)

    def _across(
        self,
        rows: Sequence[Model] | Sequence[Control],
        heads: "Sequence[str | Text]",
        columns: Sequence[Column],
        *,
        intervals: bool,
    ) -> "Table":
        """Models or controls as columns, metrics as rows."""
        table = self._table(["", *heads], leading=int(intervals))
        for column in columns:
            cells = [value_cell(row, column) for row in rows]
            texts = map(stacked, cells) if intervals else (cell.value for cell in cells)
            add_row(table, column.head if intervals else column.title, *texts)
        return table

    def _list(self) -> "Table":
        """A row for each value of each model and control, under the title of the metric."""
        from rich.text import Text

        table, last = self._table([translated(head) for head in HEADS]), None
        controls = {control.title for control in self.document.controls}
        for name, title, cell, _ in self._by_metric():
            if title != last:
                add_row(table, last := title)
            style = "dim" if name in controls else ""
            add_row(table, *(Text(text, style) for text in (f"  {name}", *cell)))
        return table

    def _by_metric(self) -> "Iterator[Row]":
        """The values of the table, metric by metric, of the models and then of the controls."""
        models, controls = self.document.models, self.document.controls
        for column in self.columns:
            yield from ((full_name(m), column.title, value_cell(m, column), "") for m in models)
            if column in self.measured:
                yield from ((c.title, column.title, value_cell(c, column), "") for c in controls)
        for k, head in enumerate(cost_heads()):
            yield from ((full_name(m), head.replace("\n", " "), cost_cells(m)[k], "") for m in models)

    def _further(self, rows: "Iterable[Row]", wrap: int) -> "Table":
        table = self._table([translated(head) for head in ("Model", *HEADS, "Unit")], left=(0, 1, 4))
        for model, title, cell, unit in rows:
            wrapped = (fill(text, wrap, break_long_words=False, break_on_hyphens=False) for text in (title, unit))
            add_row(table, model, next(wrapped), *cell, next(wrapped))
        return table

    def _table(self, heads: "Sequence[str | Text]", *, leading: int = 0, left: Sequence[int] = (0,)) -> "Table":
        """An empty table whose lines end where a cell says so and nowhere else."""
        from rich.table import Table
        from rich.text import Text

        table = Table(box=self.box, show_edge=False, pad_edge=False, collapse_padding=True, leading=leading)
        for k, head in enumerate(heads):
            table.add_column(
                Text(head) if isinstance(head, str) else head, justify="left" if k in left else "right", no_wrap=True
            )
        return table

    def _values(self, row: Model | Control) -> list[Cell]:
        return [value_cell(row, column) for column in self.columns]

    def _refused(self, rows: "Iterable[tuple[Model, Column, Score]]") -> Iterator[str]:
        """Why a value is missing: the table itself has no room for reasons."""
        for column in self.document.columns:
            if column.shared and column.refused:
                yield translated("{title} refused: {reason}", title=column.title, reason=column.refused) + "."
        single = [(m, c, m.scores.get(c.name)) for m in self.document.models for c in self.columns]
        for model, column, score in [*single, *rows]:
            if score and score.refused:
                values = {"title": column.title, "model": model.name, "reason": score.refused}
                yield translated("{title} of {model} refused: {reason}", **values) + "."

    def _notes(self) -> Iterator[str]:
        yield from (translated("Note: {text}.", text=text) for text in self.document.caveats)
        if controls := self.document.controls:
            yield translated("Controls: {texts}.", texts=meanings(controls))


def _typed(command: str, width: int) -> str:
    """The command after "next:", continued as a shell does where it does not fit.

    >>> print(_typed("trilemma compare data='my photos' minutes=2", 36))
      next: trilemma compare \\
        data='my photos' minutes=2
    """
    lines = [head := f"  {translated('next:')}"]
    for word in _WORD.findall(command):
        if len(lines[-1]) + len(word) + 3 > width and lines[-1] != head:
            lines.append("   ")
        lines[-1] += f" {word}"
    return " \\\n".join(lines)


def _first_that_fits(layouts: "Sequence[Layout]", console: "Console", options: "ConsoleOptions") -> "Layout":
    """The first layout whose widest line fits where nothing is broken, else the last."""
    from rich.measure import Measurement

    unbounded = options.update(width=UNBOUNDED)
    fits = (f for f in layouts if Measurement.get(console, unbounded, f()).maximum <= options.max_width)
    return next(fits, layouts[-1])
