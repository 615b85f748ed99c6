"""Forms of the verbs: train a model, use a run, compare. A job shows the command line that it is."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Query, Request  # pyright: ignore[reportMissingImports]
from fastapi.responses import Response  # pyright: ignore[reportMissingImports]

from trilemma import vocabulary
from trilemma.errors import UserError
from trilemma.studio.estimate import TrainingEstimate
from trilemma.studio.forms import IMAGES, fields_of, varied_keys
from trilemma.studio.jobs import State
from trilemma.studio.library import StudioRun
from trilemma.studio.pages import first, form_fields, go, language_of, render
from trilemma.studio.place import Missing
from trilemma.studio.routes.runs import row_of
from trilemma.studio.routes.thresholds import threshold_context
from trilemma.studio.sections import TOOLS, Tool
from trilemma.studio.service import GIB, Studio
from trilemma.studio.sources import own_sources, source_word, sources
from trilemma.verbs import find

Fields = Annotated[dict[str, list[str]], Depends(form_fields)]
MOST_COMPARED = 20
SHOWN_COMPARISONS = 5


def add(app: FastAPI, studio: Studio) -> None:
    """The routes of forms."""
    _add_train(app, studio)
    _add_compare(app, studio)
    for tool in TOOLS:
        _add_tool(app, studio, tool)


def _add_train(app: FastAPI, studio: Studio) -> None:
    @app.get("/train")
    def train(request: Request) -> Response:
        return _train_page(request, studio, dict(request.query_params))

    @app.post("/train")
    def start(request: Request, fields: Fields) -> Response:
        values = first(fields)
        try:
            model, data = values.pop("model", ""), values.pop("data", "")
            return go(f"/jobs/{studio.train(model, data, values)}")
        except UserError as error:
            return _train_page(request, studio, first(fields), str(error))

    @app.post("/train/estimate")
    def estimate(request: Request, fields: Fields) -> Response:
        values = first(fields)
        try:
            model, data = values.pop("model", ""), values.pop("data", "")
            return _train_page(request, studio, first(fields), estimate=studio.estimate(model, data, values))
        except UserError as error:
            return _train_page(request, studio, first(fields), unknown=str(error))


def _train_page(
    request: Request,
    studio: Studio,
    values: Mapping[str, str],
    error: str = "",
    *,
    estimate: TrainingEstimate | None = None,
    unknown: str = "",
) -> Response:
    """The form of a model, with what was filled in.

    Args:
        estimate: time and memory of the training, if they were asked for; unknown: why they are not known.
    """
    model = values.get("model", "vae")
    if model not in vocabulary.models():
        raise Missing("This model is not known.")
    context = {"model": model, "facts": vocabulary.model_entry(model)["facts"], "models": vocabulary.models()}
    fields = fields_of(find("train"), values, model)
    choices = {"sources": sources(studio.library), "data": values.get("data", "digits")}
    status, free = 400 if error else 200, studio.machine().memory_free
    context |= {"estimate": estimate, "unknown": unknown, "free": None if free is None else free * GIB}
    return render(request, "train.html", status, **context, **choices, fields=fields, error=error)


def _add_tool(app: FastAPI, studio: Studio, tool: Tool) -> None:
    @app.get(tool.path, name=tool.title)
    def page(request: Request) -> Response:
        return _tool_page(request, studio, tool, dict(request.query_params))

    @app.post(tool.path, name=f"{tool.title} now")
    def start(request: Request, fields: Fields) -> Response:
        values = first(fields)
        run, verb = studio.library.run(values.pop("run", "")), verb_of(tool, values.pop("verb", ""))
        try:
            return go(f"/jobs/{studio.on_run(find(verb), run, values)}")
        except UserError as error:
            return _tool_page(request, studio, tool, first(fields), str(error))


def _tool_page(request: Request, studio: Studio, tool: Tool, values: Mapping[str, str], error: str = "") -> Response:
    """The form of a verb for a run, with what was filled in."""
    runs = studio.library.runs()
    verb = find(verb_of(tool, values.get("verb", "")))
    run = studio.library.run(values["run"]) if values.get("run") else next(iter(runs), None)
    fields = fields_of(verb, values, run.model if run else "")
    context = {"tool": tool, "verb": verb, "run": run, "runs": runs, "fields": fields, "error": error}
    context |= {"sources": sources(studio.library), "values": values, "titles": _titles(studio, runs)}
    context |= {"image_keys": IMAGES.get(verb.name, ())}
    context |= {"varied": varied_keys(verb, run.model if run else ""), "detections": []}
    if verb.name == "detect":
        context |= threshold_context(studio, run, values.get("detection", ""), values.get("stop", ""))
    return render(request, "tool.html", 400 if error else 200, **context)


def verb_of(tool: Tool, name: str) -> str:
    """The verb that is shown: the one that was asked for, else the first.

    Raises:
        Missing: it is not one of the page.
    """
    if name and name not in tool.verbs:
        raise Missing("Page not found.")
    return name or tool.verbs[0]


def _add_compare(app: FastAPI, studio: Studio) -> None:
    @app.get("/compare")
    def compare(request: Request, run: Annotated[list[str] | None, Query()] = None) -> Response:
        return _compare_page(request, studio, run or [], {})

    @app.post("/compare")
    def start(request: Request, fields: Fields) -> Response:
        chosen = fields.get("run", [])[:MOST_COMPARED]
        try:
            runs = [studio.library.run(ident) for ident in chosen]
            images, against = fields.get("images", [])[:MOST_COMPARED], first(fields).get("against", "")
            return go(f"/jobs/{studio.compare_things(runs, images, against, language_of(request))}")
        except UserError as error:
            return _compare_page(request, studio, chosen, first(fields), str(error), fields.get("images", []))

    @app.get("/compare/live")
    def live(request: Request) -> Response:
        return render(request, "compare_live.html", comparisons=_comparisons(studio))

    @app.post("/compare/train")
    def train(request: Request, fields: Fields) -> Response:
        values = first(fields)
        try:
            chosen = {"data": source_word(studio.library, values.pop("data", ""))}
            return go(f"/jobs/{studio.submit(find('compare'), chosen, values)}")
        except UserError as error:
            return _compare_page(request, studio, [], first(fields), str(error))


def _compare_page(
    request: Request,
    studio: Studio,
    chosen: Sequence[str],
    values: Mapping[str, str],
    error: str = "",
    images: Sequence[str] = (),
) -> Response:
    rows = [row_of(studio, run) for run in studio.library.runs()]
    context: dict[str, Any] = {"rows": rows, "chosen": chosen, "error": error, "sources": sources(studio.library)}
    context |= {"own": own_sources(studio.library), "images": images, "against": values.get("against", "")}
    context |= {"comparisons": _comparisons(studio)}
    fields = fields_of(find("compare"), {"lang": language_of(request), **values})
    return render(
        request, "compare.html", 400 if error else 200, **context, fields=fields, data=values.get("data", "digits")
    )


def _comparisons(studio: Studio) -> list[dict[str, Any]]:
    """The newest comparisons: their jobs, what those that run know so far, and where the reports of others are."""
    jobs = [job for job in reversed(studio.queue.jobs()) if job.verb == "compare"][:SHOWN_COMPARISONS]
    return [
        {
            "job": job,
            "report": studio.live_report(job) if job.state is State.RUNNING else None,
            "page": next((k for k, result in enumerate(studio.results(job)) if result.kind == "page"), None),
        }
        for job in jobs
    ]


def _titles(studio: Studio, runs: Sequence[StudioRun]) -> dict[str, str]:
    """The titles of runs, by id."""
    return {run.id: studio.marks.title(run) or run.name for run in runs}
