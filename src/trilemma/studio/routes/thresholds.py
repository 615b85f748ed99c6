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
        one = detection_of(studio.library, studio.library.run(run), detection)
        return render(request, "threshold.html", **at(one, stop))


def threshold_context(studio: Studio, run: StudioRun | None, detection: str, stop: str) -> dict[str, Any]:
    """What the page of `detect` shows of the detections of a run; {} where there are none."""
    detections = [] if run is None else detections_of(studio.library, run)
    if not detections:
        return {}
    one = next((one for one in detections if one.id == detection), detections[0])
    return {"detections": detections, **at(one, stop)}


def at(detection: StudioDetection, stop: str) -> dict[str, Any]:
    """A detection at one of its thresholds."""
    number = detection.at(stop)
    return {"detection": detection, "stop": number, "threshold": detection.thresholds[number]}
