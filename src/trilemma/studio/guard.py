"""Stands before every route: refuses what `access` refuses, bounds what is sent, and answers with strict headers."""

import asyncio
import base64
import hashlib
import sys
import time
import traceback
from collections.abc import Awaitable, Callable, MutableMapping
from html import escape
from typing import Any

from trilemma.errors import shows_tracebacks
from trilemma.studio.access import LARGEST_FORM, Access, Refusal, largest_body, too_large
from trilemma.text import note, printable

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]

SLOWEST_S = 30.0  # seconds without a byte of a body, after which it is dropped
SLOWEST_RATE = 64 << 10  # bytes a second that a body has to come with, after as many seconds
LARGEST_HELD = 1 << 30  # bytes of all bodies that are read at once, in memory or on the disk
STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:34rem;margin:4rem auto;padding:0 1rem;color-scheme:light dark}"
)
OWN_STYLE = f"sha256-{base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()}"
POLICY = (
    f"default-src 'none'; img-src 'self' blob:; style-src 'self' '{OWN_STYLE}'; script-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "same-origin",  # with no-referrer a browser would send "Origin: null" with our own forms
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}


class TooMuch(Exception):
    """More was sent than a route takes, or too slowly."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.text)
        self.refusal = refusal


class Guard:
    """The app, behind the checks.

    Args:
        access: what is answered.
    """

    def __init__(self, app: App, access: Access) -> None:
        self.app, self.access, self.held = app, access, Held()

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            return await self.app(scope, receive, send)
        if scope["type"] != "http":
            return await send({"type": "websocket.close", "code": 1008})
        headers: dict[str, list[str]] = {}
        for name, value in scope["headers"]:
            headers.setdefault(name.decode("latin-1").lower(), []).append(value.decode("latin-1"))
        path = scope.get("raw_path") or scope["path"].encode()
        refusal = self.access.refusal(scope["method"], path, scope["query_string"], headers)
        if refusal is not None:
            return await answer(refusal, send)
        await self._call(scope, receive, send)

    async def _call(self, scope: Message, receive: Receive, send: Send) -> None:
        """The app's answer; an error that it did not expect is said in the terminal, after its short page."""

        async def sending(message: Message) -> None:
            await send(with_headers(message))

        bodies = Held(self.held)
        try:
            await self.app(scope, bounded(receive, largest_body(scope["path"]), bodies), sending)
        except Exception as error:
            report(error)
        finally:
            bodies.release()


class Held:
    """Bytes that were received and are not let go yet.

    Args:
        whole: of all requests together, for those of one.
    """

    def __init__(self, whole: "Held | None" = None) -> None:
        self.whole, self.count = whole, 0

    def add(self, count: int) -> None:
        """More bytes have come.

        Raises:
            TooMuch: those of all requests are more than `LARGEST_HELD`.
        """
        if self.whole is not None:
            if self.count + count > LARGEST_FORM and self.whole.count + count > LARGEST_HELD:  # a form always has room
                raise TooMuch(Refusal(503, "Other images are being sent. Try again when they have arrived."))
            self.whole.count += count
        self.count += count

    def release(self) -> None:
        """The request is over, with the files that held its body."""
        if self.whole is not None:
            self.whole.count -= self.count
        self.count = 0


def refused_by(error: BaseException | None) -> Refusal | None:
    """The refusal behind an error, which the framework may have wrapped in another."""
    while error is not None:
        if isinstance(error, TooMuch):
            return error.refusal
        error = error.__cause__ or error.__context__
    return None


def report(error: Exception) -> None:
    """Say a defect in the terminal, in a line; with --debug, where it happened."""
    note(f"error: {type(error).__name__}: {error}")
    if shows_tracebacks():
        print(printable("".join(traceback.format_exception(error)), lines=True), file=sys.stderr)


def bounded(receive: Receive, most: int, held: Held | None = None) -> Receive:
    """What is received, up to so many bytes, none of which may be long in coming, nor all of them together.

    Args:
        held: counts the bytes.
    """
    counted, whole, since = held or Held(), False, None

    def left_s() -> float:
        """Seconds that the next part may take."""
        nonlocal since
        since = time.monotonic() if since is None else since
        return min(SLOWEST_S, since + SLOWEST_S + counted.count / SLOWEST_RATE - time.monotonic())

    async def receiving() -> Message:
        nonlocal whole
        try:
            message = await asyncio.wait_for(receive(), None if whole else left_s())  # a browser may leave at any time
        except TimeoutError:
            raise TooMuch(Refusal(408, "The request was sent too slowly. Send fewer files at a time.")) from None
        counted.add(len(message.get("body", b"")))
        whole = not message.get("more_body")
        if counted.count > most:
            raise TooMuch(too_large(most))
        return message

    return receiving


def with_headers(message: Message) -> Message:
    """The begin of an answer with our headers, in place of which a route may have stricter ones of its own."""
    if message["type"] != "http.response.start":
        return message
    own = list(message.get("headers", ()))
    names = {name.lower() for name, _ in own}
    more = [(name.encode(), value.encode()) for name, value in HEADERS.items() if name.encode() not in names]
    return {**message, "headers": [*own, *more]}


async def answer(refusal: Refusal, send: Send) -> None:
    """A short page."""
    content = short_page(f"<p>{escape(refusal.text)}</p>").encode()
    headers = [(b"content-type", b"text/html; charset=utf-8"), (b"content-length", str(len(content)).encode())]
    await send(with_headers({"type": "http.response.start", "status": refusal.status, "headers": headers}))
    await send({"type": "http.response.body", "body": content})


def short_page(body: str, head: str = "") -> str:
    """A page that needs no other file, for those who are not let in (yet); the parts are HTML."""
    return (
        '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1"><link rel="icon" href="/static/icon.svg">'
        f"<title>trilemma studio</title><style>{STYLE}</style>{head}</head>"
        f"<body><h1>trilemma studio</h1>{body}</body></html>"
    )
