"""Sliders over the codes of a run: a picture for each place of the handles, by a process that holds the model."""

import math
import re
from collections.abc import Mapping
from urllib.parse import urlencode

from fastapi import FastAPI, Request  # pyright: ignore[reportMissingImports]
from fastapi.responses import Response  # pyright: ignore[reportMissingImports]

from trilemma.errors import UserError
from trilemma.studio.pages import render
from trilemma.studio.service import Studio

UNIT = re.compile("u([0-9]{1,6})")
HOW = ("axes", "start", "label", "caption")  # what is moved, as `sliders_of` takes it
STYLES = ("truncation", "mix", "mix_from")  # keys of the sampler of a model with styles


def add(app: FastAPI, studio: Studio) -> None:
    """The routes of the sliders."""

    @app.get("/explore/sliders", summary="Sliders over the codes of a run")
    def page(request: Request, run: str) -> Response:
        one = studio.library.run(run)
        asked = asked_of(request.query_params)
        return render(request, "sliders.html", run=one, asked=asked, query=urlencode({"run": one.id, **asked}))

    @app.get("/explore/sliders/axes", summary="The sliders of a run, as a part of a page")
    def axes(request: Request, run: str) -> Response:
        one = studio.library.run(run)
        asked = asked_of(request.query_params)
        how = how_of(studio, asked)
        facts = studio.painter.axes(one.name, how)
        words = [f"{'image' if key == 'start' else key}={text}" for key, text in how.items()]
        words.append(f"units={','.join(str(axis['unit']) for axis in facts['axes'])}")
        lines = studio.joined_lines(["traverse", one.name, *words])
        query = urlencode({"run": one.id, **asked})
        return render(request, "axes.html", run=one, asked=asked, query=query, **facts, **lines)

    @app.get("/explore/sliders/picture", summary="The image of a code, with a value u0=, u1=, ... for each slider")
    def picture(request: Request, run: str) -> Response:
        query, one = dict(request.query_params), studio.library.run(run)
        values, styles = values_of(query), styles_of(query)
        content = studio.painter.picture(one.name, values, how_of(studio, asked_of(query)), styles)
        return Response(content, media_type="image/png")


def asked_of(query: Mapping[str, str]) -> dict[str, str]:
    """What was chosen of how the sliders are, as a page sends it."""
    return {key: text for key in HOW if (text := query.get(key, "").strip())}


def how_of(studio: Studio, asked: Mapping[str, str]) -> dict[str, str]:
    """The same as arguments of `sliders_of`: an image that was brought is named by its file."""
    start = {"start": studio.image_word("start", asked["start"], codes=True)} if "start" in asked else {}
    return {**asked, **start}


def values_of(query: Mapping[str, str]) -> dict[int, float]:
    """The value of each unit, from u3=1.5.

    Raises:
        UserError: one is not a finite number.
    """
    return {int(match[1]): _number(key, text) for key, text in query.items() if (match := UNIT.fullmatch(key))}


def styles_of(query: Mapping[str, str]) -> dict[str, float]:
    """The keys of a sampler of styles; a layer from which to mix has no effect, and is left out, without a second seed.

    Raises:
        UserError: one is not a number.
    """
    given = {key: _number(key, text) for key in STYLES if (text := query.get(key, ""))}
    if "mix" not in given:
        given.pop("mix_from", None)
    return {key: int(value) if value.is_integer() else value for key, value in given.items()}


def _number(key: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise UserError(f"{key}={text[:40]} is not a number; give one, as {key}=0.5")
    return value
