"""Pages: templates of HTML in which every text is escaped, in the language and the look of the reports."""

import time
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

from fastapi import Request  # pyright: ignore[reportMissingImports]
from fastapi.responses import HTMLResponse, RedirectResponse, Response  # pyright: ignore[reportMissingImports]

from trilemma.language import ENGLISH, FOLDER, in_language, translated
from trilemma.pictures.page import template
from trilemma.studio.sections import SECTIONS
from trilemma.words import counted, duration, number, size_in_words

if TYPE_CHECKING:
    from jinja2 import Template

LANGUAGE = "trilemma-language"  # cookie
LANGUAGES = {ENGLISH: "English", "vi": "Tiếng Việt"}
OURS = Path(__file__).parent
STATIC = {  # name -> file and type
    "report.css": (OURS.parent / "comparison" / "templates" / "report.css", "text/css"),
    "studio.css": (OURS / "static" / "studio.css", "text/css"),
    "studio.js": (OURS / "static" / "studio.js", "text/javascript"),
    "map.js": (OURS / "static" / "map.js", "text/javascript"),
    "icon.svg": (OURS / "static" / "icon.svg", "image/svg+xml"),
}
MOST_FIELDS = 300


def render(request: Request, name: str, status: int = 200, **context: Any) -> HTMLResponse:
    """A page in the language of its reader."""
    language = language_of(request)
    with in_language(language):
        here = "/" + request.url.path.split("/")[1]
        common = {"_": translated, "language": language, "languages": LANGUAGES, "sections": SECTIONS, "here": here}
        return HTMLResponse(_template(name).render(**common, now=time.time(), **context), status)


def language_of(request: Request) -> str:
    """The language that was chosen, else the first that the browser asks for and that is there."""
    wanted = [request.cookies.get(LANGUAGE, "")]
    wanted += [part.split(";")[0].strip()[:2] for part in request.headers.get("accept-language", "").split(",")]
    return next(
        (code for code in wanted if code in LANGUAGES and (code == ENGLISH or (FOLDER / f"{code}.json").exists())),
        ENGLISH,
    )


def go(place: str) -> Response:
    """To another page, after something was done."""
    return RedirectResponse(place, 303)


async def form_fields(request: Request) -> dict[str, list[str]]:
    """The fields of a form by name, each with its values."""
    text = (await request.body()).decode("utf-8", "replace")
    try:
        return parse_qs(text, keep_blank_values=True, max_num_fields=MOST_FIELDS)
    except ValueError:
        return {}


def first(fields: dict[str, list[str]]) -> dict[str, str]:
    """The last value of each field: of a box and the hidden field before it, that of the box."""
    return {name: values[-1] for name, values in fields.items()}


def file_answer(path: Path, kind: str, *, policy: str = "") -> Response:
    """A file; with a policy of its own in place of that of the pages."""
    headers = {"content-security-policy": policy} if policy else {}
    return Response(path.read_bytes(), media_type=kind, headers=headers)


def _ago(then: float | None) -> str:
    """How long ago something was, in words."""
    return "" if then is None else translated("{time} ago", time=duration(whole(time.time() - then)))


def whole(seconds: float) -> float:
    """Seconds in whole units of those that they are shown in.

    >>> whole(0.2), whole(61.4), whole(665.0), whole(7900.0)
    (1.0, 61.0, 660.0, 7200.0)
    """
    unit = next((unit for unit in (3600, 60) if seconds >= 2 * unit), 1)
    return float(max(1, round(seconds / unit)) * unit)


@cache
def _template(name: str) -> "Template":
    return template(
        name,
        ("studio",),
        {
            "number": number,
            "counted": counted,
            "duration": lambda seconds: duration(whole(seconds)),
            "ago": _ago,
            "size": size_in_words,
        },
    )
