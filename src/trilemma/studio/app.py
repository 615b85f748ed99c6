"""The routes of the studio in one app, which answers a mistake with a short page."""

import asyncio
from html import escape
from urllib.parse import parse_qs

from fastapi import FastAPI, Request  # pyright: ignore[reportMissingImports]
from fastapi.exceptions import RequestValidationError  # pyright: ignore[reportMissingImports]
from fastapi.responses import HTMLResponse, Response  # pyright: ignore[reportMissingImports]
from starlette.exceptions import HTTPException  # pyright: ignore[reportMissingImports]
from starlette.requests import ClientDisconnect  # pyright: ignore[reportMissingImports]

from trilemma import __version__
from trilemma.errors import UserError
from trilemma.studio.access import ENTRY, NO_METHOD, PASSWORD, Access, Refusal
from trilemma.studio.described import form, text
from trilemma.studio.guard import TooMuch, refused_by, short_page
from trilemma.studio.pages import LANGUAGE, LANGUAGES, STATIC, first, form_fields, go, render
from trilemma.studio.place import NO_PAGE, Missing
from trilemma.studio.routes import data, jobs, maps, runs, sliders, thresholds, verbs
from trilemma.studio.service import Studio

WRONG_S = 0.5  # seconds that a wrong password costs, one after the other
FORM = (
    f'<form method="post" action="{ENTRY}"><label>Password <input name="password" type="password" required autofocus>'
    "</label> <button>Open</button></form>"
)
TEXTS = {404: NO_PAGE, 405: NO_METHOD}
VANISHED = "What this page shows was moved or deleted meanwhile. Go back, and load that page again."
UNREADABLE = "The form could not be read. Go back, load its page again, and send it again."


def create_app(studio: Studio, access: Access) -> FastAPI:
    """The app of a folder; it has to stand behind a `Guard`."""
    app = FastAPI(title="trilemma studio", version=__version__, docs_url=None, redoc_url=None)
    _add_entry(app, access)
    _add_errors(app)
    _add_static(app)
    for part in (jobs, runs, data, sliders, maps, thresholds, verbs):
        part.add(app, studio)
    return app


def _add_static(app: FastAPI) -> None:
    """The look, the script, the language, and the list of routes."""

    @app.get("/static/{name}", include_in_schema=False)
    def static(name: str) -> Response:
        if name not in STATIC:
            raise Missing(NO_PAGE)
        path, kind = STATIC[name]
        return Response(path.read_bytes(), media_type=kind)

    @app.post("/language", summary="Choose the language", openapi_extra=form({"language": text("code", *LANGUAGES)}))
    async def choose_language(request: Request) -> Response:
        code = first(await form_fields(request)).get("language", "")
        response = go("/")
        if code in LANGUAGES:
            response.set_cookie(LANGUAGE, code, httponly=True, samesite="strict", max_age=10**8)
        return response

    @app.get("/api", summary="This list of routes")
    def api(request: Request) -> Response:
        rows = [
            (path, method.upper(), route.get("summary", ""))
            for path, methods in app.openapi()["paths"].items()
            for method, route in methods.items()
        ]
        return render(request, "api.html", rows=rows)


def _add_entry(app: FastAPI, access: Access) -> None:
    """The page that lets a browser in: by the token of the address, or by the password."""
    turn = asyncio.Lock()

    def let_in() -> Response:
        response = HTMLResponse(
            short_page('<p><a href="/">Open</a></p>', '<meta http-equiv="refresh" content="0;url=/">')
        )
        response.set_cookie(access.cookie, access.token, httponly=True, samesite="strict")
        return response

    @app.get(ENTRY, include_in_schema=False)
    def enter(token: str = "") -> Response:
        if access.is_token(token):
            return let_in()
        if access.password is not None:
            return HTMLResponse(short_page(FORM))
        raise HTTPException(401, "Open the address that the terminal shows; it lets this browser in.")

    @app.post(ENTRY, include_in_schema=False)
    async def enter_by_password(request: Request) -> Response:
        fields = parse_qs((await request.body()).decode("utf-8", "replace"))
        async with turn:  # so that nobody tries many at once
            if access.is_password(fields.get("password", [""])[0]):
                return let_in()
            await asyncio.sleep(WRONG_S)
        raise HTTPException(401, f"This is not the password. Go back, and give the one in {PASSWORD} of the studio.")


def _add_errors(app: FastAPI) -> None:
    """Short pages for what goes wrong; none shows a trace."""

    def of_mistake(request: Request, error: Exception) -> Response:
        if (refusal := refused_by(error)) is not None:  # its body was cut, which the framework may call something else
            return page(refusal)
        if isinstance(error, RequestValidationError):
            return page(Refusal(422, incomplete(error)))
        assert isinstance(error, HTTPException)
        status, text = error.status_code, str(error.detail)
        return page(Refusal(status, text if text.endswith(".") else TEXTS.get(status, UNREADABLE)))

    def of_absence(request: Request, error: Exception) -> Response:
        return Response(status_code=400)  # which nobody reads: the browser left while it sent

    def of_defect(request: Request, error: Exception) -> Response:
        return page(Refusal(500, "This did not work, which is a defect. The terminal of the studio says more."))

    def of_vanished(request: Request, error: Exception) -> Response:
        return render(request, "error.html", 404, text=VANISHED)

    def of_user(request: Request, error: Exception) -> Response:
        missing = isinstance(error, Missing)
        return render(request, "error.html", 404 if missing else 400, text=str(error))

    for kind in (UserError, Missing):
        app.add_exception_handler(kind, of_user)
    app.add_exception_handler(FileNotFoundError, of_vanished)
    for kind in (HTTPException, RequestValidationError, TooMuch):
        app.add_exception_handler(kind, of_mistake)
    app.add_exception_handler(ClientDisconnect, of_absence)
    app.add_exception_handler(Exception, of_defect)


def incomplete(error: RequestValidationError) -> str:
    """What is missing in an address, or does not fit."""
    first = error.errors()[0]
    name, reason = first["loc"][-1], first["msg"]
    return f"The address does not fit its page. {name}: {reason}. Go back, and follow a link of the page."


def page(refusal: Refusal) -> Response:
    """A short page for a request that is not carried out."""
    return HTMLResponse(short_page(f"<p>{escape(refusal.text)}</p>"), refusal.status)
