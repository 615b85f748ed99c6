"""Requests that come slowly, or many large ones at once, take no connection and no disk from others."""

import asyncio
import time
from types import SimpleNamespace

import anyio
import pytest
import uvicorn
from uvicorn.server import ServerState

from trilemma import UserError
from trilemma.studio import connection, guard
from trilemma.studio.guard import Held, TooMuch, bounded
from trilemma.studio.routes import data

LIMIT_S = 0.03
HEAD = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n"


async def refuse(scope, receive, send):
    """An app that answers without having read the body."""
    await send({"type": "http.response.start", "status": 403, "headers": [(b"content-length", b"0")]})
    await send({"type": "http.response.body", "body": b""})


async def read_then_answer(scope, receive, send):
    """An app that takes longer to answer than a head may take to come."""
    while (await receive())["more_body"]:
        pass
    await asyncio.sleep(2 * LIMIT_S)
    await refuse(scope, receive, send)


async def talk(app, parts, pause_s):
    """Send parts to the app with pauses between them; the answers, and the seconds until the connection was cut.

    It has to be cut long before the keep-alive of uvicorn ends, after 5 s.
    """
    config = uvicorn.Config(app, http=connection.TimedProtocol, ws="none", log_level="critical")
    config.load()
    server = await asyncio.get_running_loop().create_server(
        lambda: connection.TimedProtocol(config, ServerState(), {}), "127.0.0.1", 0
    )
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname()[:2])
    begin = time.monotonic()
    reading = asyncio.create_task(read_all(reader))
    for part in parts:
        writer.write(part)
        await asyncio.sleep(pause_s)
        if reading.done():
            break
    answers = await asyncio.wait_for(reading, 20 * LIMIT_S)
    seconds = time.monotonic() - begin
    writer.close()
    server.close()
    return answers, seconds


async def read_all(reader):
    content = b""
    try:
        while part := await reader.read(1000):
            content += part
    except ConnectionResetError:
        pass
    return content


@pytest.mark.parametrize(
    ("parts", "answered"),
    [
        ([], 0),  # silent
        ([b"GET "] + [b"x"] * 1000, 0),  # a head that never ends
        ([HEAD] + [b"x"] * 999, 1),  # a body that nobody reads, after the answer
        ([HEAD + b"x" * 1000, HEAD + b"x" * 1000, b"P"], 2),  # a second head after two whole requests
    ],
)
def test_a_connection_that_sends_slowly_is_cut(parts, answered, monkeypatch):
    monkeypatch.setattr(connection, "LONGEST_HEAD_S", LIMIT_S)
    answers, seconds = anyio.run(talk, refuse, parts, LIMIT_S / 10)
    assert answers.count(b"HTTP/1.1 403") == answered
    assert seconds >= LIMIT_S


def test_a_connection_is_not_cut_while_its_body_comes_and_is_answered(monkeypatch):
    """The body takes twice the time of a head, and its answer, too."""
    monkeypatch.setattr(connection, "LONGEST_HEAD_S", LIMIT_S)
    answers, seconds = anyio.run(talk, read_then_answer, [HEAD, *[b"x" * 100] * 10], LIMIT_S / 5)
    assert answers.count(b"HTTP/1.1 403") == 1 and seconds >= 5 * LIMIT_S


UPGRADE = """GET /static/icon.svg HTTP/1.1
Host: 127.0.0.1:8421
Origin: %s
Cookie: %s
Connection: Upgrade
Upgrade: websocket
Sec-WebSocket-Version: 13
Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==

"""


def test_no_request_becomes_a_websocket(browser, monkeypatch):
    """One of our own page is answered as if it did not ask for it."""
    monkeypatch.setattr(connection, "LONGEST_HEAD_S", LIMIT_S)
    for origin, status in ((browser.own["origin"], b"200"), ("http://evil.example", b"403")):
        request = (UPGRADE % (origin, browser.own["cookie"])).replace("\n", "\r\n")
        answers, _ = anyio.run(talk, browser.app, [request.encode()], LIMIT_S / 10)
        assert answers.startswith(b"HTTP/1.1 " + status) and answers.count(b"HTTP/1.1") == 1


def chunks(count, size):
    """What a body sends, in so many parts."""
    sent = iter(range(count))

    async def receive():
        return {"type": "http.request", "body": b"x" * size, "more_body": next(sent) < count - 1}

    return receive


async def received(receive):
    """The bytes of a body."""
    count, more = 0, True
    while more:
        message = await receive()
        count, more = count + len(message["body"]), message["more_body"]
    return count


@pytest.mark.parametrize(
    ("size", "pause_s", "passes"),
    [
        (1_000, 10.0, 3),  # within the first 30 s; a thousand bytes are no second more
        (1, 1.0, 30),
        (10 * 2**16 + 1, 10.0, 100),  # as fast as it has to be
        (10 * 2**16 - 2**15, 10.0, 41),  # part k + 1 has 30 - k / 2 seconds, which are fewer than 10 from k = 41 on
        (2**20, 31.0, 0),  # a pause
    ],
)
def test_a_body_has_to_come_at_a_least_rate(size, pause_s, passes, monkeypatch):
    """By a clock of the test's own, which each part of the body moves on."""
    assert (guard.SLOWEST_S, guard.SLOWEST_RATE) == (30.0, 2**16)
    clock_s, count, send = 1000.0, 0, chunks(100, size)

    async def wait_for(waiting, limit_s):
        nonlocal clock_s, count
        clock_s += pause_s
        message = await waiting
        if limit_s is not None and pause_s > limit_s:
            raise TimeoutError
        count += 1
        return message

    monkeypatch.setattr(guard, "time", SimpleNamespace(monotonic=lambda: clock_s))
    monkeypatch.setattr(guard, "asyncio", SimpleNamespace(wait_for=wait_for))
    if passes == 100:
        assert anyio.run(received, bounded(send, 2**30)) == 100 * size
    else:
        with pytest.raises(TooMuch, match="too slowly"):
            anyio.run(received, bounded(send, 2**30))
    assert count == passes


def test_what_all_requests_hold_is_counted(monkeypatch):
    monkeypatch.setattr(guard, "LARGEST_HELD", 1000)
    monkeypatch.setattr(guard, "LARGEST_FORM", 10)
    every = Held()
    first, second, third = (Held(every) for _ in range(3))
    assert anyio.run(received, bounded(chunks(6, 100), 10**6, first)) == 600
    with pytest.raises(TooMuch, match="Other images are being sent") as error:
        anyio.run(received, bounded(chunks(6, 100), 10**6, second))
    assert error.value.refusal.status == 503 and every.count == 1000
    assert anyio.run(received, bounded(chunks(1, 10), 10**6, third)) == 10  # a form has room
    for held in (first, second, third):
        held.release()
        held.release()
    assert every.count == 0
    assert anyio.run(received, bounded(chunks(10, 100), 10**6, Held(every))) == 1000


def test_bytes_are_held_until_the_request_is_over(browser, monkeypatch):
    counts = []

    def receive(*_):
        counts.append(browser.app.held.count)
        raise UserError("the disk is full")

    monkeypatch.setattr(data, "_receive", receive)
    for _ in range(2):
        browser.send("POST", "/data/upload", data={"name": "x"}, files=[("files", ("a.png", b"x" * 5000))])
        assert 5000 < counts.pop() < 6000 and browser.app.held.count == 0
