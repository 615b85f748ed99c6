"""The threshold of a detection, moved by hand: what is above it, and how many false alarms it gives."""

from typing import Any

from fastapi import FastAPI, Request  # pyright: ignore[reportMissingImports]
from fastapi.responses import Response  # pyright: ignore[reportMissingImports]

from trilemma.studio.library import StudioRun
from trilemma.studio.pages import render
from trilemma.studio.service import Studio
from trilemma.studio.thresholds import StudioDetection, detection_of, detections_of


def add(app: FastAPI, studio: Studio) -> None:
    """The route of a threshold."""

    @app.get("/detect/threshold", summary="What a threshold of a detection gives, as a part of a page")
    def threshold(request: Request, run: str, detection: str = "", stop: str = "") -> Response:
        one = studio.library.run(run)
        detected = detection_of(studio.library, one, detection)
        return render(request, "threshold.html", **handle_context(studio, one, detected, stop))


def threshold_context(studio: Studio, run: StudioRun | None, detection: str, stop: str) -> dict[str, Any]:
    """What the page of `detect` shows of the detections of a run; {} where there are none."""
    detections = [] if run is None else detections_of(studio.library, run)
    if run is None or not detections:
        return {}
    one = next((one for one in detections if one.id == detection), detections[0])
    return {"detections": detections, **handle_context(studio, run, one, stop)}


def handle_context(studio: Studio, run: StudioRun, detection: StudioDetection, stop: str) -> dict[str, Any]:
    """A detection at one place of its handle, and the command line that sets this threshold, if one does."""
    number = detection.number_of(stop)
    threshold = detection.thresholds[number]
    words = ["detect", run.name, f"score={detection.score}", f"false_alarms={threshold.key}"]
    sets = studio.joined_lines(*([words] if threshold.key else []))
    return {"detection": detection, "stop": number, "threshold": threshold, "sets": sets}
