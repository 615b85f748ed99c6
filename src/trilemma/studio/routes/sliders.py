"""Sliders over the codes of a run: a picture for each place of the handles, by a process that holds the model."""

import math
import re
from typing import Any

from fastapi import FastAPI, Request  # pyright: ignore[reportMissingImports]
from fastapi.responses import Response  # pyright: ignore[reportMissingImports]

from trilemma.errors import UserError
from trilemma.studio.pages import render
from trilemma.studio.service import Studio
from trilemma.text import quoted

UNIT = re.compile("u([0-9]{1,6})")


def add(app: FastAPI, studio: Studio) -> None:
    """The routes of the sliders."""

    @app.get("/explore/sliders", summary="Sliders over the codes of a run")
    def page(request: Request, run: str) -> Response:
        one = studio.library.run(run)
        return render(request, "sliders.html", run=one)

    @app.get("/explore/sliders/axes", summary="The sliders of a run, as a part of a page")
    def axes(request: Request, run: str) -> Response:
        one = studio.library.run(run)
        answer = studio.painter.axes(one.name)
        units = ",".join(str(axis["unit"]) for axis in answer["axes"])
        lines: dict[str, Any] = {
            "command": quoted(["trilemma", "traverse", one.name, f"units={units}"]),
            "python": f'trilemma.traverse("{one.name}", units=({units},))',
        }
        return render(request, "axes.html", run=one, **answer, **lines)

    @app.get("/explore/sliders/picture", summary="The image of a code, with a value u0=, u1=, ... for each slider")
    def picture(request: Request, run: str) -> Response:
        content = studio.painter.picture(studio.library.run(run).name, values_of(dict(request.query_params)))
        return Response(content, media_type="image/png")


def values_of(query: dict[str, str]) -> dict[int, float]:
    """The value of each unit, from u3=1.5.

    Raises:
        UserError: one is not a finite number.
    """
    values = {}
    for key, text in query.items():
        if match := UNIT.fullmatch(key):
            try:
                values[int(match[1])] = float(text)
            except ValueError:
                raise UserError(f"{key}={text[:40]} is not a number; give one, as {key}=1.5") from None
    if not all(math.isfinite(value) for value in values.values()):
        raise UserError("the places of the sliders are finite numbers; give such ones, as u0=1.5")
    return values
