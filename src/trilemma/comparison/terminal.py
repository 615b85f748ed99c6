"""The tables of a report for a terminal, in the layout that fits its width: a word is never broken.

Models are rows where that fits, else columns; where the intervals do not fit either, they are left to the report and
that is said; then there is one row for each figure of each model, and on the narrowest terminals one line of text.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from textwrap import fill
from typing import TYPE_CHECKING, Any, NamedTuple

from trilemma.comparison.document import further
from trilemma.comparison.words import number, span

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType
    from rich.table import Table
    from rich.text import Text

UNBOUNDED = 100_000  # letters: a width at which nothing has to give way
SPENT = (("parameters", "Parameters"), ("seconds", "Training\nseconds"))
WRAPS = (UNBOUNDED, 40, 28, 20)  # letters of a line of a title in the table of further figures
FURTHER = "\nFurther figures, of some models only"
NO_INTERVALS = "The 95% intervals do not fit this width; they are in the report."


class Cell(NamedTuple):
    """A figure and its interval in words."""

    value: str
    interval: str = ""


Row = tuple[str, str, Cell, str]  # model, title, figure, unit
Layout = Callable[[], Any]  # makes a table or a text


class Tables:
    """The figures of a report, its caveats and its verdict; printed by rich.

    `box` is the `rich.box` the tables are drawn with; None draws no lines.
    """

    def __init__(self, values: Mapping[str, Any]) -> None:
        from rich import box

        self.box: box.Box | None = box.HORIZONTALS
        self.values = values
        self.columns = [c for c in values["columns"] if c["shared"] and not c["refused"]]

    def __rich_console__(self, console: "Console", options: "ConsoleOptions") -> "Iterator[RenderableType]":
        from rich.text import Text

        short = partial(self._models_across, intervals=False)
        layouts = [self._models_down, self._models_across, short, self._list, lambda: _plain(self._by_figure())]
        yield (chosen := _first_that_fits(layouts, console, options))()
        lines = [NO_INTERVALS] if chosen is short else []
        if rows := further(self.values):
            lists = [(m["name"], c["title"], _cell(score), score["unit"]) for m, c, score in rows]
            tables = [*(partial(self._further, lists, wrap) for wrap in WRAPS), lambda: _plain(lists)]
            yield Text(FURTHER, style="bold")
            yield _first_that_fits(tables, console, options)()
        yield Text("\n".join(["", *lines, *self._refused(rows), *self._said()]))

    def _models_down(self) -> "Table":
        """A row for each model."""
        table = self._table(["Model", *(c["head"] for c in self.columns), *(head for _, head in SPENT)])
        for model in self.values["models"]:
            _add(table, model["name"], *map(_stacked, [*self._figures(model), *_costs(model)]))
        return table

    def _models_across(self, *, intervals: bool = True) -> "Table":
        """A column for each model."""
        models = self.values["models"]
        table = self._table(["", *(m["name"] for m in models)], leading=int(intervals))
        rows = zip(*(self._figures(model) for model in models), strict=True)
        for column, cells in zip(self.columns, rows, strict=True):
            shown = map(_stacked, cells) if intervals else (cell.value for cell in cells)
            _add(table, column["head"] if intervals else column["title"], *shown)
        costs = zip(*(_costs(model) for model in models), strict=True)
        for (_, head), cells in zip(SPENT, costs, strict=True):
            _add(table, head if intervals else head.replace("\n", " "), *(cell.value for cell in cells))
        return table

    def _list(self) -> "Table":
        """A row for each figure of each model, under the title of the figure."""
        table, last = self._table(["Figure", "Value", "95% interval"]), None
        for model, title, cell, _ in self._by_figure():
            if title != last:
                _add(table, last := title)
            _add(table, f"  {model}", *cell)
        return table

    def _by_figure(self) -> "Iterator[Row]":
        """The figures of the table, figure by figure."""
        models = self.values["models"]
        for k, column in enumerate(self.columns):
            yield from ((m["name"], column["title"], self._figures(m)[k], "") for m in models)
        for k, (_, head) in enumerate(SPENT):
            yield from ((m["name"], head.replace("\n", " "), _costs(m)[k], "") for m in models)

    def _further(self, rows: "Iterable[Row]", wrap: int) -> "Table":
        table = self._table(["Model", "Figure", "Value", "95% interval", "Unit"], left=(0, 1, 4))
        for model, title, cell, unit in rows:
            shown = (fill(text, wrap, break_long_words=False, break_on_hyphens=False) for text in (title, unit))
            _add(table, model, next(shown), *cell, next(shown))
        return table

    def _table(self, heads: Sequence[str], *, leading: int = 0, left: Sequence[int] = (0,)) -> "Table":
        """An empty table whose lines end where a cell says so and nowhere else."""
        from rich.table import Table
        from rich.text import Text

        table = Table(box=self.box, show_edge=False, pad_edge=False, collapse_padding=True, leading=leading)
        for k, head in enumerate(heads):
            table.add_column(Text(head), justify="left" if k in left else "right", no_wrap=True)
        return table

    def _figures(self, model: Mapping[str, Any]) -> list[Cell]:
        if model["error"]:
            return [Cell("failed")] * len(self.columns)
        return [_cell(model["scores"].get(column["name"])) for column in self.columns]

    def _refused(self, rows: Iterable[tuple[Any, Any, Any]]) -> Iterator[str]:
        """Why a figure is missing: the table itself has no room for reasons."""
        for column in self.values["columns"]:
            if column["shared"] and column["refused"]:
                yield f"{column['title']} refused: {column['refused']}."
        single = [(m, c, m["scores"].get(c["name"])) for m in self.values["models"] for c in self.columns]
        for model, column, score in [*single, *rows]:
            if score and score["refused"]:
                yield f"{column['title']} of {model['name']} refused: {score['refused']}."
        for model in self.values["models"]:
            if model["error"]:
                yield f"{model['name']} failed: {model['error']}."

    def _said(self) -> Iterator[str]:
        yield from (f"Note: {text}." for text in self.values["caveats"])
        yield self.values["verdict"]["text"]


def _cell(score: Mapping[str, Any] | None) -> Cell:
    if score is None:
        return Cell("")
    if score["value"] is None:
        return Cell("refused")
    return Cell(number(score["value"], score["interval"]), span(score["value"], score["interval"]))


def _costs(model: Mapping[str, Any]) -> list[Cell]:
    return [Cell(number(model[key]) if key in model else "") for key, _ in SPENT]


def _stacked(cell: Cell) -> "Text":
    """The interval below its value."""
    from rich.text import Text

    return Text.assemble(cell.value, "\n" if cell.interval else "", (cell.interval, "dim"))


def _add(table: "Table", *cells: "str | Text") -> None:
    """A row of texts as they are: a name may hold what rich would take for markup."""
    from rich.text import Text

    table.add_row(*(Text(cell) if isinstance(cell, str) else cell for cell in cells))


def _plain(rows: "Iterable[Row]") -> "Text":
    """Lines of text, which are wrapped between words."""
    from rich.text import Text

    lines = (
        f"{title}, {model}: {cell.value or 'none'}" + (f" ({cell.interval})" if cell.interval else "") + f" {unit}"
        for model, title, cell, unit in rows
    )
    return Text("\n".join(line.rstrip() for line in lines))


def _first_that_fits(layouts: "Sequence[Layout]", console: "Console", options: "ConsoleOptions") -> "Layout":
    """The first layout whose widest line fits where nothing is broken, else the last."""
    from rich.measure import Measurement

    unbounded = options.update(width=UNBOUNDED)
    fits = (f for f in layouts if Measurement.get(console, unbounded, f()).maximum <= options.max_width)
    return next(fits, layouts[-1])
