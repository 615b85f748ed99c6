"""Data: look at them, check them, bring images."""

import os
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import IO, Annotated, Any
from urllib.parse import urlencode

from fastapi import Depends, FastAPI, Request  # pyright: ignore[reportMissingImports]
from fastapi.concurrency import run_in_threadpool  # pyright: ignore[reportMissingImports]
from fastapi.responses import Response  # pyright: ignore[reportMissingImports]
from starlette.datastructures import FormData, UploadFile  # pyright: ignore[reportMissingImports]

from trilemma.errors import UserError
from trilemma.files import disk_errors
from trilemma.pictures.png import read_metadata
from trilemma.studio.described import FILE, RUN, SOURCE, form, text
from trilemma.studio.images import IMAGE
from trilemma.studio.pages import file_answer, first, form_fields, go, render
from trilemma.studio.place import NO_PAGE, Missing
from trilemma.studio.service import DATA, DROPPED, Studio
from trilemma.studio.sources import own_sources, source_word, sources
from trilemma.studio.uploads import LARGEST_IMAGE, checked_name, receive
from trilemma.verbs import find

MOST_FILES = 2_000
ACTIONS: dict[str, tuple[str, dict[str, str]]] = {
    "show": ("data show", {}),
    "names": ("data show", {"names": "true"}),
    "check": ("data check", {}),
}
Fields = Annotated[dict[str, list[str]], Depends(form_fields)]
ABOUT_ACTIONS = "Look at data (show), name what they show (names), or check them (check)"
NAMED = text("of the new folder in data/: small letters, digits and hyphens")
BRING = form({"name": NAMED, "files": {"type": "array", "items": FILE}}, ["name", "files"], files=True)
ONE_PICTURE = form({"picture": FILE}, ["picture"], files=True)
TO_EDIT = form({"run": RUN, "verb": text("of the page"), "picture": FILE}, ["run", "picture"], files=True)


def add(app: FastAPI, studio: Studio) -> None:
    """The routes of data."""

    _add_images(app, studio)

    @app.get("/data", summary="The data")
    def data(request: Request) -> Response:
        return _page(request, studio)

    @app.post("/data/{action}/run", summary=ABOUT_ACTIONS, openapi_extra=form({"source": SOURCE}, ["source"]))
    def act(request: Request, action: str, fields: Fields) -> Response:
        if action not in ACTIONS:
            raise Missing(NO_PAGE)
        try:
            word = source_word(studio.library, first(fields).get("source", ""))
            verb, values = ACTIONS[action]
            words = studio.words(find(verb), {"source": word}, values)
            return go(f"/jobs/{studio.queue.add(words)}")
        except UserError as error:
            return _page(request, studio, str(error))

    @app.post("/data/upload", summary="Bring images", openapi_extra=BRING)
    async def upload(request: Request) -> Response:
        async with form_of(request, max_files=MOST_FILES, max_fields=10) as form:
            files = [(file.filename or "", file.file) for file in form.getlist("files") if isinstance(file, UploadFile)]
            try:
                result = await run_in_threadpool(_receive, studio, str(form.get("name", "")), files)
            except UserError as error:
                return _page(request, studio, str(error))
        return await run_in_threadpool(_page, request, studio, "", result)

    @app.post("/sample/receipt", summary="How a picture was made that is sent", openapi_extra=ONE_PICTURE)
    async def receipt(request: Request) -> Response:
        async with form_of(request, max_files=1, max_fields=1) as form:
            file = form.get("picture")
            content = await file.read(LARGEST_IMAGE) if isinstance(file, UploadFile) else b""
        return await run_in_threadpool(_receipt_page, request, studio, content)


def _add_images(app: FastAPI, studio: Studio) -> None:
    """Single images, to be edited."""

    @app.post("/edit/image", summary="Bring an image to edit", openapi_extra=TO_EDIT)
    async def bring(request: Request) -> Response:
        async with form_of(request, max_files=1, max_fields=5) as form:
            file, run, verb = form.get("picture"), str(form.get("run", "")), str(form.get("verb", ""))
            content = await file.read(LARGEST_IMAGE) if isinstance(file, UploadFile) else b""
        ident = await run_in_threadpool(studio.images.keep, content)
        return go(f"/edit?{urlencode({'run': run, 'verb': verb, 'image': IMAGE + ident})}")

    @app.get("/edit/images/{ident}", summary="An image that was brought")
    def image(ident: str) -> Response:
        return file_answer(studio.images.path(ident), "image/png")


@asynccontextmanager
async def form_of(request: Request, *, max_files: int, max_fields: int) -> AsyncIterator[FormData]:
    """The fields and files of a form, which are let go afterwards.

    Raises:
        UserError: the disk that holds the files meanwhile refuses.
    """
    with disk_errors(tempfile.gettempdir()):
        async with request.form(max_files=max_files, max_fields=max_fields) as form:
            yield form


def _receive(studio: Studio, name: str, files: Sequence[tuple[str, IO[bytes]]]) -> str:
    """Write what was sent, and say what it was."""
    upload = receive(files, studio.folder / DATA / checked_name(name))
    skipped = f"; skipped: {', '.join(upload.skipped[:5])}" if upload.skipped else ""
    return f"{studio.library.name_of(upload.folder)}: {upload.images:,} images{skipped}"


def _page(request: Request, studio: Studio, error: str = "", result: str = "") -> Response:
    own = own_sources(studio.library)
    words = [source for source in sources(studio.library) if source not in own]
    first_word = (own or words)[0].word
    commands = [studio.words(find(verb), {"source": first_word}, values) for verb, values in ACTIONS.values()]
    context = {"own": own, "words": words, "error": error, "result": result, **studio.joined_lines(*commands)}
    return render(request, "data.html", 400 if error else 200, **context)


def _receipt_in(file: Path) -> dict[str, Any]:
    """What a picture says of how it was made; {} if nothing."""
    try:
        return read_metadata(file)
    except UserError:
        return {}


def _receipt_page(request: Request, studio: Studio, content: bytes) -> Response:
    """How a picture that was dropped was made, and its run, if it lies here."""
    file = studio.own / f"{DROPPED}{os.urandom(8).hex()}.png"
    try:
        with disk_errors(file):
            file.write_bytes(content)
        receipt = _receipt_in(file)
    finally:
        file.unlink(missing_ok=True)
    run = studio.library.run_of(receipt)
    return render(request, "receipt.html", 200 if receipt else 400, receipt=receipt, run=run)
