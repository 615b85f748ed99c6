"""The map of the codes of a run: its points and thumbnails for the canvas, and the nearest neighbours of an image."""

import re
from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Request  # pyright: ignore[reportMissingImports]
from fastapi.responses import Response  # pyright: ignore[reportMissingImports]

from trilemma.errors import UserError
from trilemma.studio.described import RUN, form, text
from trilemma.studio.library import StudioRun
from trilemma.studio.maps import WAYS, CodeMap, map_of, ways_of
from trilemma.studio.pages import file_answer, first, form_fields, render
from trilemma.studio.service import Studio
from trilemma.text import csv_text

SIZES = (500, 2000, 10_000)  # images that the form offers
Fields = Annotated[dict[str, list[str]], Depends(form_fields)]
CHOSEN = form({"run": RUN, "how": text("method of the map", *WAYS), "rows": text("rows of the map, as 3,17,4")})


def add(app: FastAPI, studio: Studio) -> None:
    """The routes of the map."""
    library = studio.library

    @app.get("/explore/map", summary="The map of the codes of a run")
    def page(request: Request, run: str, how: str = "", image: int | None = None, row: int | None = None) -> Response:
        one = library.run(run)
        there = ways_of(one)
        shown = how if how in WAYS else next(iter(there), WAYS[0])
        codes = map_of(one, shown) if shown in there else None
        context: dict[str, Any] = {"run": one, "how": shown, "ways": WAYS, "there": there, "sizes": SIZES}
        context |= {"map": codes, **studio.joined_lines(["map", one.name, f"how={shown}", "interactive=true"])}
        if codes is not None and image is not None:
            row = codes.row_of(image)
        return render(request, "map.html", **context, **_nearest(one, codes, row))

    @app.get("/explore/map/points", summary="The points of a map, in JSON")
    def points(run: str, how: str) -> Response:
        return Response(map_of(library.run(run), how).text, media_type="application/json")

    @app.get("/explore/map/thumbnails", summary="The thumbnails of a map, as one PNG")
    def thumbnails(run: str, how: str) -> Response:
        return file_answer(map_of(library.run(run), how).thumbnails, "image/png")

    @app.get("/explore/map/nearest", summary="The nearest neighbours of an image, as a part of a page")
    def nearest(request: Request, run: str, how: str, row: int) -> Response:
        one = library.run(run)
        return render(request, "nearest.html", run=one, how=how, **_nearest(one, map_of(one, how), row))

    @app.post("/explore/map/chosen", summary="Images selected on a map, as CSV", openapi_extra=CHOSEN)
    def chosen(fields: Fields) -> Response:
        values = first(fields)
        codes = map_of(library.run(values.get("run", "")), values.get("how", ""))
        name = f"chosen-{codes.how}.csv"
        headers = {"content-disposition": f'attachment; filename="{name}"'}
        return Response(
            table_of(codes, rows_in(values.get("rows", ""), len(codes))), media_type="text/csv", headers=headers
        )


def rows_in(text: str, most: int) -> list[int]:
    """The rows of a map in a text such as 3,17,4.

    Raises:
        UserError: it names none, or one that is not on the map.
    """
    parts = text.split(",") if text else []
    if not parts or not all(re.fullmatch("[0-9]{1,6}", part) and int(part) < most for part in parts):
        raise UserError("choose images on the map first")
    return [int(part) for part in parts]


def table_of(codes: CodeMap, rows: list[int]) -> str:
    """CSV: of each row the number of its image, its class and its file, as far as images have them."""
    images = [codes.image(row) for row in dict.fromkeys(rows)]
    columns = ["index", *(["class"] if codes.content["class"] else []), *(["file"] if codes.content["file"] else [])]
    attributes = {"index": "index", "class": "kind", "file": "file"}
    return csv_text([columns, *([getattr(image, attributes[name]) for name in columns] for image in images)])


def _nearest(run: StudioRun, codes: CodeMap | None, row: int | None) -> Mapping[str, Any]:
    """An image of a map with those nearest to it, for the templates."""
    if codes is None or row is None:
        return {"image": None, "neighbours": []}
    return {"neighbours": codes.nearest(row), "image": codes.image(row), "own": codes.content.get("own") is True}
