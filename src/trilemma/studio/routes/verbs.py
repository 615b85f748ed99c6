"""Forms of the verbs: train a model, use a run, compare. A job shows the command line that it is."""

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Query, Request  # pyright: ignore[reportMissingImports]
from fastapi.responses import Response  # pyright: ignore[reportMissingImports]

from trilemma import errors, vocabulary
from trilemma.errors import UserError
from trilemma.studio.described import SOURCE, families, form, several, tool_form, training
from trilemma.studio.estimate import TrainingEstimate
from trilemma.studio.forms import IMAGE_KEYS, fields_of, varied_keys
from trilemma.studio.jobs import State
from trilemma.studio.library import StudioRun
from trilemma.studio.marks import title_of
from trilemma.studio.pages import first, form_fields, go, language_of, render
from trilemma.studio.place import NO_PAGE, Missing
from trilemma.studio.routes.runs import rows_of
from trilemma.studio.routes.thresholds import threshold_context
from trilemma.studio.sections import TOOLS, Tool
from trilemma.studio.service import GIB, Studio
from trilemma.studio.sources import own_sources, source_word, sources
from trilemma.verbs import Verb, find

Fields = Annotated[dict[str, list[str]], Depends(form_fields)]
Several = Annotated[list[str] | None, Query()]
MOST_COMPARED = 20
SHOWN_COMPARISONS = 5
SHOWN_KEYS = ("detection", "stop")  # of what is shown below a form, and not of the form
COMPARED = {"run": several("ids of runs"), "images": several("ids of data in the folder"), "against": SOURCE}


def add(app: FastAPI, studio: Studio) -> None:
    """The routes of forms."""
    _add_train(app, studio)
    _add_compare(app, studio)
    for tool in TOOLS:
        _add_tool(app, studio, tool)


def _add_train(app: FastAPI, studio: Studio) -> None:
    @app.get("/train", summary="The form of a training")
    def train(request: Request) -> Response:
        return _train_page(request, studio, dict(request.query_params))

    @app.post("/train", summary="Train a model", openapi_extra=training())
    def start(request: Request, fields: Fields) -> Response:
        try:
            return go(f"/jobs/{studio.queue.add(_training(studio, first(fields)))}")
        except UserError as error:
            return _train_page(request, studio, first(fields), str(error))

    @app.post("/train/lines", summary="The command line that trains a model", openapi_extra=training())
    def lines(request: Request, fields: Fields) -> Response:
        return render(request, "lines.html", **lines_of(studio, lambda: _training(studio, first(fields))))

    @app.post("/train/estimate", summary="Time and memory of a training", openapi_extra=training())
    def estimate(request: Request, fields: Fields) -> Response:
        values = first(fields)
        try:
            model, data = values.pop("model", ""), values.pop("data", "")
            return _train_page(request, studio, first(fields), estimate=studio.estimate(model, data, values))
        except UserError as error:
            return _train_page(request, studio, first(fields), unknown=str(error))


def _training(studio: Studio, values: dict[str, str]) -> list[str]:
    """The words of the training that a form describes; raises UserError if it does not fit."""
    return studio.train_words(values.pop("model", ""), values.pop("data", ""), values)


def lines_of(studio: Studio, words: Callable[[], Sequence[str]]) -> dict[str, Any]:
    """The command line and the line of Python of a form, for the templates; or why there are none yet.

    Args:
        words: gives the words of the command line, or raises UserError or Missing.
    """
    try:
        command, python = studio.lines(words())
    except (UserError, Missing) as error:
        return {"command": "", "python": "", "lacking": str(error)}
    return {"command": command, "python": python, "lacking": ""}


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
        raise Missing(str(errors.unknown("model", model[:40], vocabulary.models())))
    context = {"model": model, "facts": vocabulary.model_entry(model)["facts"], "models": vocabulary.models()}
    fields = studio.fields(find("train"), values, model)
    choices = {"sources": sources(studio.library), "data": values.get("data", "digits")}
    choices |= lines_of(studio, lambda: _training(studio, {"data": "digits", **values, "model": model}))
    status, free = 400 if error else 200, studio.machine().memory_free
    context |= {"estimate": estimate, "unknown": unknown, "free": None if free is None else free * GIB}
    return render(request, "train.html", status, **context, **choices, fields=fields, error=error)


def _add_tool(app: FastAPI, studio: Studio, tool: Tool) -> None:
    verbs = ", ".join(tool.verbs)

    @app.get(tool.path, name=tool.title, summary=f"The forms of {verbs}")
    def page(request: Request) -> Response:
        return _tool_page(request, studio, tool, dict(request.query_params))

    @app.post(tool.path, name=f"{tool.title} now", summary=f"Run {verbs}", openapi_extra=tool_form(tool))
    def start(request: Request, fields: Fields) -> Response:
        try:
            return go(f"/jobs/{studio.queue.add(_use(studio, tool, first(fields)))}")
        except UserError as error:
            return _tool_page(request, studio, tool, first(fields), str(error))

    @app.post(f"{tool.path}/lines", summary=f"The command line of {verbs}", openapi_extra=tool_form(tool))
    def lines(request: Request, fields: Fields) -> Response:
        return render(request, "lines.html", **lines_of(studio, lambda: _use(studio, tool, first(fields))))


def _use(studio: Studio, tool: Tool, values: dict[str, str]) -> list[str]:
    """The words of the use of a run that a form describes; raises UserError if it does not fit."""
    run, verb = studio.library.run(values.pop("run", "")), verb_of(tool, values.pop("verb", ""))
    return studio.run_words(find(verb), run, values)


def _tool_page(request: Request, studio: Studio, tool: Tool, values: Mapping[str, str], error: str = "") -> Response:
    """The form of a verb for a run, with what was filled in."""
    runs = studio.library.runs()
    verb = find(verb_of(tool, values.get("verb", "")))
    run = studio.library.run(values["run"]) if values.get("run") else next(iter(runs), None)
    fields = studio.fields(verb, values, run.model if run else "")
    context = {"tool": tool, "verb": verb, "run": run, "runs": runs, "fields": fields, "error": error}
    context |= {"sources": sources(studio.library), "values": values, "titles": _titles(studio, runs)}
    context |= {"image_keys": IMAGE_KEYS.get(verb.name, ())}
    context |= {"varied": varied_keys(verb, run.model if run else ""), "detections": []}
    if run is not None:
        context |= lines_of(studio, lambda: _use(studio, tool, _shown(verb, run, values)))
    if verb.name == "detect":
        context |= threshold_context(studio, run, values.get("detection", ""), values.get("stop", ""))
    return render(request, "tool.html", 400 if error else 200, **context)


def _shown(verb: Verb, run: StudioRun, values: Mapping[str, str]) -> dict[str, str]:
    """What the form of a verb sends as it is shown, with these values in it."""
    filled = {key: text for key, text in values.items() if key not in SHOWN_KEYS}
    return {**({"image": "0"} if "image" in verb.required else {}), **filled, "run": run.id, "verb": verb.name}


def verb_of(tool: Tool, name: str) -> str:
    """The verb that is shown: the one that was asked for, else the first.

    Raises:
        Missing: it is not one of the page.
    """
    if name and name not in tool.verbs:
        raise Missing(NO_PAGE)
    return name or tool.verbs[0]


def _add_compare(app: FastAPI, studio: Studio) -> None:
    @app.get("/compare", summary="The forms of a comparison")
    def compare(request: Request, run: Several = None, images: Several = None) -> Response:
        return _compare_page(request, studio, run or [], dict(request.query_params), images=images or [])

    @app.post("/compare", summary="Compare runs and images", openapi_extra=form(COMPARED))
    def start(request: Request, fields: Fields) -> Response:
        runs, images, against = _compared(fields)
        try:
            return go(f"/jobs/{studio.queue.add(_comparison(studio, request, runs, images, against))}")
        except UserError as error:
            return _compare_page(request, studio, runs, {"against": against}, str(error), images)

    @app.post("/compare/lines", summary="The command line that compares them", openapi_extra=form(COMPARED))
    def lines(request: Request, fields: Fields) -> Response:
        things = _compared(fields)
        return render(request, "lines.html", **lines_of(studio, lambda: _comparison(studio, request, *things)))

    @app.get("/compare/live", summary="The newest comparisons, as a part of a page")
    def live(request: Request) -> Response:
        return render(request, "compare_live.html", comparisons=_comparisons(studio))

    @app.post("/compare/train", summary="Train a model of each family, and compare", openapi_extra=families())
    def train(request: Request, fields: Fields) -> Response:
        try:
            return go(f"/jobs/{studio.queue.add(_families(studio, first(fields)))}")
        except UserError as error:
            return _compare_page(request, studio, [], first(fields), str(error))

    @app.post("/compare/train/lines", summary="The command line that does both", openapi_extra=families())
    def train_lines(request: Request, fields: Fields) -> Response:
        return render(request, "lines.html", **lines_of(studio, lambda: _families(studio, first(fields))))


def _compared(fields: dict[str, list[str]]) -> tuple[list[str], list[str], str]:
    """The ids of runs, of images, and of real images to measure by, that a form has."""
    runs, images = (fields.get(name, [])[:MOST_COMPARED] for name in ("run", "images"))
    return runs, images, first(fields).get("against", "")


def _comparison(
    studio: Studio, request: Request, runs: Sequence[str], images: Sequence[str], against: str
) -> list[str]:
    """The words of a comparison of what was chosen by ids; raises UserError if it does not fit."""
    chosen = [studio.library.run(ident) for ident in runs]
    return studio.comparison_words(chosen, images, against, language_of(request))


def _families(studio: Studio, values: dict[str, str]) -> list[str]:
    """The words of a comparison that trains a model of each family; raises UserError if it does not fit."""
    chosen = {"data": source_word(studio.library, values.pop("data", ""))}
    return studio.words(find("compare"), chosen, values)


def _compare_page(
    request: Request,
    studio: Studio,
    chosen: Sequence[str],
    values: Mapping[str, str],
    error: str = "",
    images: Sequence[str] = (),
) -> Response:
    rows, against = rows_of(studio, studio.library.runs()), values.get("against", "")
    filled = {"lang": language_of(request), **(values if "data" in values else {})}  # of the form that trains
    context: dict[str, Any] = {"rows": rows, "chosen": chosen, "error": error, "sources": sources(studio.library)}
    context |= {"own": own_sources(studio.library), "images": images, "against": against}
    context |= {"comparisons": _comparisons(studio), "data": values.get("data", "digits")}
    context["chosen_lines"] = lines_of(studio, lambda: _comparison(studio, request, chosen, images, against))
    context["train_lines"] = lines_of(studio, lambda: _families(studio, {"data": "digits", **filled}))
    fields = fields_of(find("compare"), filled)
    return render(request, "compare.html", 400 if error else 200, **context, fields=fields)


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
    marks = studio.marks.all()
    return {run.id: title_of(run, marks.get(run.name, {})) for run in runs}
