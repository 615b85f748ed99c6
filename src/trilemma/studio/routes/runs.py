"""Home, and the runs: search, sort, star, title, differences, bin, pictures."""

from collections.abc import Iterable, Mapping
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Query, Request  # pyright: ignore[reportMissingImports]
from fastapi.responses import Response  # pyright: ignore[reportMissingImports]

from trilemma.arguments import word
from trilemma.errors import UserError
from trilemma.pictures.png import read_metadata
from trilemma.studio.curves import plots_of, range_inputs
from trilemma.studio.described import ACTIONS, form, text
from trilemma.studio.library import PICTURES, Picture, StudioRun
from trilemma.studio.logs import log_of
from trilemma.studio.marks import title_of
from trilemma.studio.pages import file_answer, first, form_fields, go, render
from trilemma.studio.place import NO_PAGE, Missing
from trilemma.studio.routes.jobs import LATEST, queue_context
from trilemma.studio.sections import SORTS
from trilemma.studio.service import Studio
from trilemma.studio.sources import own_sources

NEWEST = 8
SHOWN_PICTURES = 60
OF_PIPELINES = ("edit", "interpolate", "upscale")  # verbs whose pictures `again` draws if a pipeline made them
Fields = Annotated[dict[str, list[str]], Depends(form_fields)]
MARK = {"on": text("1 to give the star"), "title": text("of the run"), "back": text("runs, to go back to the list")}


def add(app: FastAPI, studio: Studio) -> None:
    """The routes of runs."""
    library, marks = studio.library, studio.marks

    @app.get("/", summary="Home")
    def home(request: Request) -> Response:
        rows = rows_of(studio, library.runs()[:NEWEST])
        context = {"rows": rows, "machine": studio.machine(), "sources": own_sources(library), "folder": studio.folder}
        return render(request, "home.html", **context, **queue_context(studio))

    @app.get("/runs", summary="The runs")
    def runs(request: Request, q: str = "", sort: str = "newest", star: bool = False) -> Response:
        rows = rows_of(studio, library.runs())
        chosen = [row for row in rows if matches(row, q) and (row["star"] or not star)]
        context = {
            "rows": sort_rows(chosen, sort),
            "q": q,
            "sort": sort,
            "star": star,
            "sorts": SORTS,
            "all": len(rows),
        }
        return render(request, "runs.html", **context, removed=marks.in_bin(), error=marks.fault)

    @app.get("/runs/differences", summary="What differs between runs")
    def differences(request: Request, run: Annotated[list[str] | None, Query()] = None) -> Response:
        chosen = [library.run(ident) for ident in (run or [])[:20]]
        if len(chosen) < 2:
            raise UserError("choose two runs or more to see what differs between them")
        return render(request, "differences.html", runs=chosen, rows=differing(chosen))

    @app.post("/runs/restore/{ident}", summary="Take a run out of the bin")
    def restore(ident: str) -> Response:
        marks.restore(ident)
        return go("/runs")

    @app.get("/runs/{ident}", summary="A run")
    def run_page(request: Request, ident: str) -> Response:
        run = library.run(ident)
        pictures = library.pictures(run, SHOWN_PICTURES)
        log = log_of(run)
        (row,) = rows_of(studio, [run])
        context = {
            "run": run,
            "row": row,
            "pictures": pictures,
            "plots": plots_of(log.series, range_inputs(run)),
            "cut_bytes": log.cut_bytes,
            "warnings": log.warnings[-LATEST:] if run.is_training else run.warnings,
        }
        lines = studio.joined_lines(["sample", run.name], ["evaluate", run.name])
        return render(request, "run.html", **context, **lines, settings=shown_settings(run))

    @app.post("/runs/{ident}/{action}", summary=ACTIONS["runs"], openapi_extra=form(MARK))
    def act(ident: str, action: str, fields: Fields) -> Response:
        run, values = library.run(ident), first(fields)
        if action == "star":
            marks.star(run, values.get("on") == "1")
        elif action == "rename":
            marks.rename(run, values.get("title", ""))
        elif action == "remove":
            marks.remove(run)
            return go("/runs")
        else:
            raise Missing(NO_PAGE)
        return go("/runs" if values.get("back") == "runs" else f"/runs/{ident}")

    @app.get("/runs/{ident}/pictures/{picture}", summary="A picture of a run")
    def picture_file(ident: str, picture: str) -> Response:
        path = library.picture(library.run(ident), picture).path
        return file_answer(path, PICTURES[path.suffix])

    @app.get("/runs/{ident}/pictures/{picture}/about", summary="How a picture was made")
    def about(request: Request, ident: str, picture: str) -> Response:
        run = library.run(ident)
        one = library.picture(run, picture)
        receipt = receipt_of(one)
        again = [["again", library.name_of(one.path)]] if can_be_made_again(receipt) else []
        return render(request, "picture.html", run=run, picture=one, receipt=receipt, **studio.joined_lines(*again))


def rows_of(studio: Studio, runs: Iterable[StudioRun]) -> list[dict[str, Any]]:
    """Runs as the tables show them."""
    marks = studio.marks.all()
    return [_row(studio, run, marks.get(run.name, {})) for run in runs]


def _row(studio: Studio, run: StudioRun, mark: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "run": run,
        "title": title_of(run, mark),
        "star": bool(mark.get("star")),
        "score": run.score,
        "state": "training" if run.is_training else "finished" if run.has_weights else "not finished",
        "picture": studio.library.cover(run),
    }


def matches(row: dict[str, Any], text: str) -> bool:
    """Whether each word of a search is in the run's title, name, model or data."""
    run = row["run"]
    words = f"{row['title']} {run.name} {run.model} {run.data}".lower()
    return all(part in words for part in text.lower().split())


def sort_rows(rows: list[dict[str, Any]], by: str) -> list[dict[str, Any]]:
    """Runs in an order; those with a star first. Scores of one kind stand together, and runs without one are last."""
    keys = {
        "name": lambda row: row["title"].lower(),
        "model": lambda row: row["run"].model,
        "data": lambda row: row["run"].data,
        "score": lambda row: (row["score"] is None, row["score"] or ()),
    }
    ordered = sorted(rows, key=keys[by]) if by in keys else rows
    return sorted(ordered, key=lambda row: not row["star"])


def differing(runs: list[StudioRun]) -> list[tuple[str, list[str]]]:
    """The settings and scores that are not the same in all of some runs, each with its values."""
    tables = [{**run.settings, **{k: v for k, v in run.summary.items() if isinstance(v, int | float)}} for run in runs]
    keys = dict.fromkeys(key for table in tables for key in table)
    rows = [(key, [word(table.get(key)) for table in tables]) for key in keys]
    return [(key, values) for key, values in rows if len({*values}) > 1]


def shown_settings(run: StudioRun) -> list[tuple[str, str]]:
    """The settings of a run as they are typed."""
    return [(key, word(value)) for key, value in run.settings.items() if value is not None]


def receipt_of(picture: Picture) -> dict[str, Any]:
    """How a picture was made, as it says; {} if it does not."""
    try:
        return read_metadata(picture.path) if picture.path.suffix == ".png" else {}
    except UserError:
        return {}


def can_be_made_again(receipt: dict[str, Any]) -> bool:
    """Whether a picture says that `sample` or `imagine` drew it, or a pipeline in another verb, as `again` asks."""
    verb = receipt.get("verb")
    if verb is None:
        return receipt.get("seed") is not None
    return verb == "imagine" or (verb in OF_PIPELINES and "pipeline" in receipt)
