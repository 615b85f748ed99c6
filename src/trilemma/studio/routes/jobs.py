"""The queue: what waits, what runs, what became of it, and its news."""

import asyncio
import hashlib
import re
import threading
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Request  # pyright: ignore[reportMissingImports]
from fastapi.concurrency import run_in_threadpool  # pyright: ignore[reportMissingImports]
from fastapi.responses import Response  # pyright: ignore[reportMissingImports]
from starlette.responses import StreamingResponse  # pyright: ignore[reportMissingImports]

from trilemma.studio.curves import plots_of, range_inputs, thinned
from trilemma.studio.described import ACTIONS, form, text
from trilemma.studio.jobs import OUTPUT, Job, State, output_of
from trilemma.studio.library import PICTURES, StudioRun
from trilemma.studio.live_report import partial_file
from trilemma.studio.logs import log_of
from trilemma.studio.maps import ways_of
from trilemma.studio.pages import file_answer, first, form_fields, go, render
from trilemma.studio.place import NO_PAGE, Missing
from trilemma.studio.report import report_policy
from trilemma.studio.service import READ, Result, Studio
from trilemma.verbs import default_of, find

NEWS_S, GROWTH_S, PING_S = 0.5, 2.0, 15.0  # seconds between two looks, at what a job writes, and signs of life
LATEST = 12  # warnings, and pictures of samples
MOVES = {"up": -1, "down": 1}  # places in the queue
BACK = text("jobs, to go back to the queue")
Fields = Annotated[dict[str, list[str]], Depends(form_fields)]


def add(app: FastAPI, studio: Studio) -> None:
    """The routes of jobs."""
    news = News(studio)

    @app.get("/jobs", summary="The queue")
    def jobs(request: Request) -> Response:
        return render(request, "jobs.html", **queue_context(studio))

    @app.get("/jobs/live", summary="The queue, as a part of a page")
    def jobs_live(request: Request) -> Response:
        return render(request, "queue.html", **queue_context(studio))

    @app.post("/jobs/pause", summary="Start no further job, or start them again")
    def pause() -> Response:
        studio.queue.pause(not studio.queue.paused)
        return go("/jobs")

    @app.post("/jobs/stop", summary="Stop all jobs that run, and cancel those that wait")
    def stop() -> Response:
        studio.queue.stop_all()
        return go("/jobs")

    @app.get("/jobs/{ident}", summary="A job")
    def job(request: Request, ident: str) -> Response:
        return render(request, "job.html", **job_context(studio, studio.queue.job(ident)))

    @app.get("/jobs/{ident}/live", summary="A job, as a part of a page")
    def job_live(request: Request, ident: str) -> Response:
        return render(request, "job_live.html", **job_context(studio, studio.queue.job(ident)))

    @app.post("/jobs/{ident}/{action}", summary=ACTIONS["jobs"], openapi_extra=form({"back": BACK}))
    def act(ident: str, action: str, fields: Fields) -> Response:
        back = "/jobs" if first(fields).get("back") == "jobs" else f"/jobs/{ident}"
        if action in MOVES:
            studio.queue.move(ident, MOVES[action])
        elif action == "cancel":
            studio.queue.cancel(ident)
        elif action == "now":
            studio.queue.start_now(ident)
        elif action == "first":
            studio.queue.first(ident)
        elif action == "again":
            return go(f"/jobs/{studio.queue.again(ident)}")
        elif action == "start":
            return go(f"/jobs/{studio.queue.adopt(ident)}")
        else:
            raise Missing(NO_PAGE)
        return go(back)

    @app.get("/jobs/{ident}/results/{number}", summary="A file that a job left")
    def result(ident: str, number: int) -> Response:
        results = studio.results(studio.queue.job(ident))
        if not 0 <= number < len(results) or results[number].kind == "run":
            raise Missing("Result not found. Run the job again.")
        path = results[number].path
        policy = report_policy() if path.suffix == ".html" else ""
        return file_answer(path, {**PICTURES, **READ}[path.suffix], policy=policy)

    @app.get("/events", include_in_schema=False)
    async def events() -> Response:
        return StreamingResponse(_events(news), media_type="text/event-stream")


def queue_context(studio: Studio) -> dict[str, Any]:
    """What runs and waits, and what is wrong; where the jobs cannot be read, that is all there is to say."""
    try:
        jobs, fault = studio.queue.jobs(), studio.queue.fault
    except OSError as error:
        jobs, fault = [], str(error)
    of = {state: [job for job in jobs if job.state is state] for state in State}
    waiting = sorted(of[State.QUEUED], key=lambda job: job.order)
    context = {"running": of[State.RUNNING], "waiting": waiting, "foreign": of[State.FOREIGN], "fault": fault}
    return {**context, "paused": studio.queue.paused, "ended": [job for job in reversed(jobs) if job.has_ended][:200]}


def job_context(studio: Studio, job: Job) -> dict[str, Any]:
    """A job with its output, its results, and the run that it trains."""
    run = studio.run_of(job)
    command, python = studio.lines(job.words)
    output, results = output_of(job.place), studio.results(job)
    return {
        "job": job,
        "run": run,
        "command": command,
        "python": python,
        "output": output,
        "results": results,
        "report": studio.live_report(job),
        "map": map_made(run, job) if run is not None else "",
        **edited(studio, job, run, results),
        **training_context(studio, run if job.verb == "train" else None, output),
    }


def training_context(studio: Studio, run: StudioRun | None, output: str) -> dict[str, Any]:
    """What is known so far of a run that a job trains; None where it trains none, or there is none yet."""
    if run is None:
        return {"plots": [], "cut_bytes": None, "warnings": [], "pictures": []}
    log = log_of(run)
    return {
        "plots": plots_of(log.series, range_inputs(run, output)),
        "cut_bytes": log.cut_bytes,
        "warnings": log.warnings[-LATEST:],
        "pictures": thinned(studio.library.samples(run), LATEST),
    }


def edited(studio: Studio, job: Job, run: StudioRun | None, results: Sequence[Result]) -> dict[str, Any]:
    """The id of the image that a job has edited, and the pictures of the images that it made of it, one by one."""
    pictures = [result.path for result in results if result.kind == "picture"]
    if run is None or not pictures or not (before := studio.edited_image(job)):
        return {"before": "", "after": []}
    names = re.compile("|".join(rf"{re.escape(path.stem)}-[0-9]+\.png" for path in pictures))
    after = [picture for picture in studio.library.pictures(run) if names.fullmatch(picture.name)]
    return {"before": before, "after": sorted(after, key=lambda picture: (len(picture.name), picture.name))}


def map_made(run: StudioRun, job: Job) -> str:
    """The method of the map that a job has made for the page of maps; "" if it has made none."""
    if job.verb != "map" or "interactive=true" not in job.words or job.state is not State.FINISHED:
        return ""
    chosen = [word.removeprefix("how=") for word in job.words if word.startswith("how=")]
    how = chosen[-1] if chosen else default_of(find("map"), "how")
    return how if how in ways_of(run) else ""


class News:
    """Whether jobs, or the logs of runs that they train, have changed: looked at once for all pages that are open."""

    def __init__(self, studio: Studio) -> None:
        self.studio, self._last, self._since, self._turn = studio, "", -NEWS_S, threading.Lock()
        self._logs: dict[str, Path] = {}  # of the runs that are trained, by the id of the job
        self._partials: dict[str, Path] = {}  # of comparisons, likewise
        self._growths: dict[str, tuple[float, list[int]]] = {}  # of jobs that run: when they were looked at

    def get(self) -> str:
        """A few digits, which are not those of before if something changed; at most NEWS_S old."""
        with self._turn:
            if time.monotonic() - self._since >= NEWS_S:
                self._last = hashlib.sha256(repr(self._look()).encode("utf-8", "replace")).hexdigest()[:16]
                self._since = time.monotonic()
            return self._last

    def _look(self) -> list[object]:
        try:
            jobs = self.studio.queue.jobs()
        except OSError as error:
            return [str(error)]
        rows = [(job.id, job.state, job.order, self._growth(job)) for job in jobs]
        return [rows, self.studio.queue.paused, self.studio.queue.fault]

    def _growth(self, job: Job) -> list[int]:
        """How far what a job writes has grown. While it runs, at most GROWTH_S old: a training writes dozens of lines a
        second, and each page that is made anew takes time from it."""
        since, growth = self._growths.get(job.id, (-GROWTH_S, []))
        if job.state is State.RUNNING and time.monotonic() - since < GROWTH_S:
            return growth
        growth = [_size(job.place / OUTPUT), self._logged(job), self._reported(job)]
        self._growths[job.id] = time.monotonic(), growth
        return growth

    def _logged(self, job: Job) -> int:
        """Bytes in the log of the run that a job trains."""
        if job.state is not State.RUNNING or job.verb != "train":
            return 0
        if job.id not in self._logs and (run := self.studio.run_of(job)) is not None:
            self._logs[job.id] = run.path / "log.jsonl"
        return _size(self._logs[job.id]) if job.id in self._logs else 0

    def _reported(self, job: Job) -> int:
        """When the file was written in which a comparison says what it knows, in ns since 1970."""
        if job.state is not State.RUNNING or job.verb != "compare":
            return 0
        if job.id not in self._partials and (path := partial_file(self.studio.library, job)) is not None:
            self._partials[job.id] = path
        return _written(self._partials[job.id]) if job.id in self._partials else 0


async def _events(news: News) -> AsyncIterator[str]:
    """An event whenever something changed; it is cancelled when the page is left."""
    before, silent_s = "", 0.0
    while True:
        now = await run_in_threadpool(news.get)
        if now != before:
            yield f"event: news\ndata: {now}\n\n"
            before, silent_s = now, 0.0
        elif silent_s >= PING_S:
            yield ": still here\n\n"
            silent_s = 0.0
        await asyncio.sleep(NEWS_S)
        silent_s += NEWS_S


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _written(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0
