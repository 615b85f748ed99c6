"""Requests that no page of the studio sends: none is answered, and nothing outside the folder is touched."""

import random
import re
import signal
import socket
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from itertools import chain, cycle, product, repeat
from pathlib import Path
from urllib.parse import quote

import anyio
import httpx
import pytest
from fastapi.routing import APIRoute
from studio.map_files import write_map

from trilemma.studio.access import ENTRY, LARGEST, LARGEST_FORM, Access
from trilemma.studio.guard import HEADERS

PORT = 8421
OUTSIDE = ("../../etc/passwd", "/../etc/passwd", "../secret.txt", "x/../secret.txt", "runs/../../secret.txt")
FORMS = (  # of a path, as attackers write it
    lambda path: path,
    lambda path: quote(path, safe=""),
    lambda path: quote(quote(path, safe=""), safe=""),
    lambda path: path.replace("/", "\\"),
    lambda path: path.replace("/", "%5c"),
    lambda path: path.replace("..", "%2e%2e"),
    lambda path: path.replace("..", "..."),
    lambda path: path.replace("../", "....//"),
    lambda path: f"{path}%00.png",
    lambda path: f"{path}/.",
    lambda path: f"file://{path}",
    lambda path: f"//server/share/{path}",
    lambda path: f"C:\\{path}",
    lambda path: f"~/{path}",
    lambda path: path.replace(".", "\uff0e"),
    lambda path: path.replace("/", "\u2215"),
    lambda path: f"cafe\u0301/{path}",
    lambda path: f"{'a/' * 300}{path}",
    lambda path: path.upper(),
    lambda path: f";{path}",
    lambda path: f"http://169.254.169.254/{path}",
    lambda path: f"{path}?x=1",
    lambda path: f"$(cat {path})",
    lambda path: f"{path}\t",
)
PATHS = [form(path) for form in FORMS for path in OUTSIDE]
SECRET = "it is a secret"
REFUSED = (400, 404, 405, 414, 422)
SHOWN = {  # pages that show or leave out a value that names nothing
    ("/compare", "run"), ("/train", "data"), ("/edit", "image"), ("/detect", "detection"), ("/detect", "stop"),
    ("/explore/map", "how"), ("/detect/threshold", "stop"), ("/train/estimate", "data"),
}  # fmt: skip
READ = {  # pages, and what names something in their query
    "/compare": ("run",),
    "/detect": ("run", "detection", "stop"),
    "/detect/threshold": ("run", "detection", "stop"),
    "/edit": ("run", "verb", "image"),
    "/explore": ("run", "verb"),
    "/explore/map": ("run", "how", "image"),
    "/explore/map/nearest": ("run", "how", "row"),
    "/explore/map/points": ("run", "how"),
    "/explore/map/thumbnails": ("run", "how"),
    "/explore/sliders": ("run",),
    "/explore/sliders/axes": ("run",),
    "/explore/sliders/picture": ("run",),
    "/measure": ("run", "verb"),
    "/runs/differences": ("run",),
    "/sample": ("run", "verb"),
    "/train": ("model", "data"),
}
SENT = {  # forms, and what names something in them
    "/compare": ("run", "images", "against"),
    "/compare/train": ("data",),
    "/data/check/run": ("source",),
    "/detect": ("run", "verb", "against_id"),
    "/edit": ("run", "verb", "image", "mask", "mask_png"),
    "/explore": ("run", "verb"),
    "/explore/map/chosen": ("run", "how", "rows"),
    "/measure": ("run", "verb", "against_id"),
    "/sample": ("run", "verb"),
    "/train": ("model", "data"),
    "/train/estimate": ("model", "data"),
}
FOREIGN = (
    "http://evil.example",
    f"http://evil.example:{PORT}",
    "null",
    f"https://127.0.0.1:{PORT}",
    "http://127.0.0.1",
    f"http://127.0.0.1:{PORT + 1}",
    f"http://localhost:{PORT}",  # of this machine, but not where the request goes
    f"http://127.0.0.1:{PORT}.evil.example",
    f"http://evil@127.0.0.1:{PORT}",
    f"http://127.0.0.1:{PORT}/",
    f"http://[::1]:{PORT}:80",
    "http://[",
    "file://",
    "",
)
HOSTS = (
    "evil.example",
    f"evil.example:{PORT}",
    "127.0.0.1",
    f"127.0.0.1:{PORT}.evil.example",
    f"127.1:{PORT}",
    "",
    f"192.0.2.1:{PORT}",
)


def routes(browser):
    """The routes of the app and their methods."""
    return [
        (route.path, method)
        for route in browser.app.app.routes
        if isinstance(route, APIRoute)
        for method in route.methods
    ]


def filled(path):
    """A path of a route with ids in its places."""
    return "/".join("0123456789abcdef" if part.startswith("{") else part for part in path.split("/"))


def test_there_are_120_hostile_paths():
    assert len(set(PATHS)) == 120


@pytest.fixture
def valid(studio):
    """Ids and words that name what is there, by the names of parameters and fields."""
    write_map(studio.folder / "runs" / "vae", 9, side=1)
    (run,) = studio.library.runs()
    (run.path / "detect").mkdir()
    (run.path / "detect" / "figures.json").write_text('{"score": "error", "threshold": 1, "counted": 1, "counts": {}}')
    (run.path / "detect" / "thresholds.csv").write_text("threshold,false_alarm_rate,low,high,false_alarms\n1,,,,\n")
    (picture,) = [one for one in studio.library.pictures(run) if one.path.name == "thumbnails.png"]
    image = studio.images.keep(picture.path.read_bytes())
    ids = {"run": run.id, "picture": picture.id, "job": studio.queue.add(["list"]), "edit": image}
    words = {"how": "pca", "row": "0", "rows": "0", "image": "0", "model": "vae", "data": "digits", "source": "digits"}
    return {**ids, **words, "number": "0", "name": "studio.js", "stop": "0"}


def in_paths(browser, valid):
    """For each parameter in the path of a route: the method, and what stands before and after it in the path."""
    names = {"runs": valid["run"], "jobs": valid["job"], "edit": valid["edit"]}
    actions = {"runs": "star", "jobs": "first", "data": "check"}
    for path, method in routes(browser):
        parts, section = path.split("/"), path.split("/")[1]
        good = {**valid, "ident": names.get(section, ""), "action": actions.get(section, "")}
        whole = [good[part[1:-1]] if part.startswith("{") else part for part in parts]
        for k, part in enumerate(parts):
            if part.startswith("{"):
                yield method, "/".join([*whole[:k], ""]), "".join(f"/{one}" for one in whole[k + 1 :])


def in_fields(valid):
    """For each field of a page or form that names something: method, path, field, and what the others have."""
    for method, places in (("GET", READ), ("POST", SENT)):
        for path, names in places.items():
            for name in names:
                has_several = path in ("/compare", "/runs/differences")
                yield method, path, name, {k: valid[k] for k in names if k in valid and (k != name or has_several)}


def ask_path(browser, method, before, after, text):
    """The answer to a path with a text in it."""
    return browser.raw(before + text + after, method=method)


def ask_field(browser, method, path, name, others, text):
    """The answer to a page or form with a text in one of its fields."""
    fields = {**others, name: [others[name], text] if name in others else text}
    answer = browser.send(method, path, **{"params" if method == "GET" else "data": fields})
    return answer.status_code, answer.text


@pytest.mark.parametrize("every", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_hostile_paths_find_nothing(browser, studio, valid, every):
    """In each place of a path, behind the guard and without it, and in each field that names something.

    The quick test has each path in one place, and each place with one path or more.
    """
    place, jobs = studio.folder.parent, studio.queue.jobs()
    (place / "secret.txt").write_text(SECRET)
    (studio.folder / "secret.txt").write_text(SECRET)
    (studio.folder / "link.png").symlink_to(place / "secret.txt")
    before, hostile = sorted(studio.folder.rglob("*")), [*PATHS, "/etc/passwd", "secret.txt", "link.png"]
    bare = type(browser)(browser.app.app, browser.access)
    targets = [partial(ask_path, one, *where) for where in in_paths(browser, valid) for one in (browser, bare)]
    targets += [partial(ask_field, browser, *where) for where in in_fields(valid)]
    assert len(targets) <= len(hostile)
    for ask, path in product(targets, hostile) if every else zip(cycle(targets), hostile, strict=False):
        status, text = ask(path)
        assert status in REFUSED or (status == 200 and ask.args[2:4] in SHOWN), (ask, path)
        assert SECRET not in text and "root:" not in text, (ask, path)
    assert sorted(path.name for path in place.iterdir()) == [studio.folder.name, "secret.txt"]
    assert sorted(studio.folder.rglob("*")) == before and studio.queue.jobs() == jobs


def test_every_route_needs_the_token_a_host_and_an_origin_of_its_own(browser):
    assert len(routes(browser)) >= 3
    for path, method in routes(browser):
        send = lambda **headers: browser.send(method, filled(path), headers=headers).status_code  # noqa: B023, E731
        if path != ENTRY:
            assert send(cookie=None) == 401
            for cookie in ("", "trilemma-8421=", "trilemma-8421=x", f"trilemma-1={browser.access.token}"):
                assert send(cookie=cookie) == 401
        assert {send(origin=origin) for origin in FOREIGN} == {403}
        assert {send(host=host) for host in HOSTS} == {403}
        sites = {send(**{"sec-fetch-site": site}) for site in ("cross-site", "same-site", "")}
        assert sites == {403} or (path == ENTRY and method == "GET")
        if method == "POST":
            assert send(origin=None) == 403


def test_no_websocket_is_opened(browser):
    """Neither for a page of somebody else nor for our own, as none has one."""
    messages = []

    async def send(message):
        messages.append(message)

    for origin in (browser.own["origin"], *FOREIGN):
        headers = [*(browser.own | {"origin": origin, "host": f"127.0.0.1:{PORT}"}).items()]
        lines = [(name.encode(), value.encode()) for name, value in headers]
        scope = {"type": "websocket", "path": "/events", "raw_path": b"/events", "query_string": b"", "headers": lines}
        anyio.run(browser.app, scope, None, send)
        assert messages.pop() == {"type": "websocket.close", "code": 1008} and not messages


def test_answers_have_strict_headers(browser):
    for answer in (browser.get("/"), browser.get("/", with_own=False), browser.get("/nothing")):
        assert {name: answer.headers[name] for name in HEADERS} == HEADERS
        assert (
            "unsafe" not in answer.headers["content-security-policy"]
            and "*" not in answer.headers["content-security-policy"]
        )


def test_a_browser_is_let_in_by_the_token_alone(browser):
    assert browser.get(ENTRY, with_own=False).status_code == 401
    assert browser.get(f"{ENTRY}?token={browser.access.token[:-1]}", with_own=False).status_code == 401
    answer = browser.get(
        f"{ENTRY}?token={browser.access.token}", with_own=False, headers={"sec-fetch-site": "cross-site"}
    )
    assert answer.status_code == 200 and answer.headers["set-cookie"].startswith(
        f"trilemma-{PORT}={browser.access.token};"
    )
    assert browser.post(ENTRY, {"password": ""}).status_code == 401  # there is none on this machine's own address


def test_others_reach_it_by_a_number_or_its_name():
    """A name of somebody else may point here; a number cannot, and with no password only this machine is served."""
    shared, own = Access("0.0.0.0", PORT, "a password"), Access("127.0.0.1", PORT)
    for name in ("192.0.2.7", "[2001:db8::1]", socket.gethostname()):
        assert shared.is_own(f"{name}:{PORT}") and not own.is_own(f"{name}:{PORT}")
    assert not shared.is_own(f"evil.example:{PORT}") and not shared.is_own(f"192.0.2.7:{PORT + 1}")


def test_what_is_too_large_is_cut(browser):
    assert browser.post(ENTRY, {"password": "x" * LARGEST_FORM}).status_code == 413

    async def endless():
        for _ in range(2 * LARGEST_FORM // 65536):
            yield b"x" * 65536

    assert browser.send("POST", ENTRY, content=endless()).status_code == 413
    assert browser.get(f"/?{'x' * 5000}").status_code == 414
    assert browser.send("POST", ENTRY, headers={"content-length": "-1"}, content=b"").status_code == 400


def malformed(dice, paths):
    """A request that nobody means: method, path, headers, body."""
    text = lambda n: "".join(chr(dice.randrange(32, 127)) for _ in range(dice.randrange(n)))  # noqa: E731
    method = dice.choice(["GET", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "X"])
    path = dice.choice([*paths, f"/{text(9)}", "/%00", "//"])
    types = [
        "application/json",
        "multipart/form-data; boundary=",
        "multipart/form-data; boundary=x",
        "text/plain",
        text(9),
    ]
    headers = {
        "content-type": dice.choice(types),
        dice.choice(["range", "cookie2", "accept", "if-none-match"]): text(30),
    }
    body = dice.choice(
        [b"", b"--x\r\n", b"{", b"\xff" * 30, text(200).encode(), b"--x\r\nContent-Disposition: form-data\r\n\r\n"]
    )
    return method, path, headers, body


def test_malformed_requests_are_answered_without_a_trace(browser, capfd):
    dice, paths = random.Random(0), [filled(path) for path, _ in routes(browser)]
    statuses = []
    for _ in range(100):
        method, path, headers, body = malformed(dice, paths)
        status, text = browser.raw(path, method=method, headers=headers, body=body)
        assert "Traceback" not in text and ".py" not in text
        statuses.append(status)
    assert not [status for status in statuses if status >= 500] and {401, 404, 405} <= {*statuses}
    assert "error" not in capfd.readouterr().err


def spoilt(dice, paths, own):
    """The bytes of a request with something in them that HTTP does not know, for a server that is asked by its own
    pages with the headers `own`."""
    method, path, headers, body = malformed(dice, paths)
    noise = bytes(dice.randrange(256) for _ in range(dice.randrange(300)))
    lengths = ["0", "-1", "1e3", "9" * 20, str(len(body) + 5), f"{len(body)}\r\nContent-Length: 7"]
    chunks = [b"zz\r\n", b"-1\r\n", b"FFFFFFFFFFFFFFFFF\r\n", b"5\r\nab", b"1\r\nx\r\n0\r\n\r\n", noise]
    lines = [f"{name}: {value}".encode("latin-1") for name, value in {**own, **headers}.items()]
    changes = {
        "first": lambda: (dice.choice([b"GET", b"", noise, b"GET / HTTP/9.9", b"GET  /\t HTTP/1.1"]), lines, body),
        "header": lambda: (b"", [*lines, dice.choice([b"no colon", b": x", b" folded", b"a: \0", noise])], body),
        "many": lambda: (b"", [*lines, *([b"a: " + b"x" * 90] * dice.choice([100, 1000]))], body),
        "host": lambda: (b"", [*lines, b"Host: evil.example"], body),
        "length": lambda: (b"", [*lines, f"Content-Length: {dice.choice(lengths)}".encode()], body),
        "chunks": lambda: (b"", [*lines, b"Transfer-Encoding: chunked"], dice.choice(chunks)),
        "nothing": lambda: (b"", [], noise),
    }
    first, lines, body = changes[dice.choice([*changes])]()
    return b"\r\n".join([first or f"{method} {path} HTTP/1.1".encode("latin-1"), *lines, b"", body])


def answer_to(port, parts):
    """What a server answers to parts of a request, which are sent until it answers, and the bytes that were sent."""
    sent, received = 0, bytearray()
    with socket.create_connection(("127.0.0.1", port), timeout=30) as one, ThreadPoolExecutor() as pool:
        reading = pool.submit(read_all, one, received)  # meanwhile: what is not read is lost when the server closes
        with suppress(OSError):
            for part in parts:
                if received:
                    break
                one.sendall(part)
                sent += len(part)
            one.shutdown(socket.SHUT_WR)
        reading.result()
    return bytes(received), sent


def read_all(one, received):
    """Add what comes until the other side closes."""
    with suppress(OSError):
        while part := one.recv(65536):
            received += part


@pytest.mark.slow
def test_1000_malformed_requests_over_a_socket_are_answered_without_a_trace(browser, server):
    """Half of them by somebody who was let in. The server answers afterwards as before, and says nothing."""
    address, process = server
    (base, token), dice = address.split("/enter?token="), random.Random(0)
    port, paths = int(base.rpartition(":")[2]), [filled(path) for path, _ in routes(browser)]
    own = {"Host": base.removeprefix("http://"), "Origin": base}
    statuses = Counter()
    for k in range(1000):
        cookie = {"Cookie": f"trilemma-{port}={token}"} if k % 2 else {}
        answer, _ = answer_to(port, [spoilt(dice, paths, own | cookie)])
        assert b"Traceback" not in answer and b'.py"' not in answer
        statuses[answer[9:12].decode()] += 1
    assert {"400", "401", "404", "405"} <= {*statuses} and not {"500", "502", "503"} & {*statuses}, statuses
    assert httpx.get(address, trust_env=False).status_code == 200
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=10)
    assert process.returncode == 0 and not out and "error" not in err and "Traceback" not in err


MOST_GROWTH = 64 << 20  # bytes by which the memory of the server may grow


def peak_bytes(process):
    """The most memory that a process has had."""
    return int(re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{process.pid}/status").read_text())[1]) << 10


@pytest.mark.slow
@pytest.mark.parametrize("path", LARGEST)
def test_ten_gigabytes_and_a_million_parts_are_cut_off(server, path):
    address, process = server
    base, token = address.split("/enter?token=")
    port = int(base.rpartition(":")[2])
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nOrigin: {base}\r\nCookie: trilemma-{port}={token}\r\n"
    head += "Content-Type: multipart/form-data; boundary=b\r\n"
    start = '--b\r\nContent-Disposition: form-data; name="x"; filename="a.png"\r\n\r\n'
    size, piece = 10 << 30, b"x" * (1 << 20)
    small = f"{head}Content-Length: {len(start)}\r\n\r\n{start}".encode()
    answer_to(port, [small])  # what it loads for its first form is no growth
    before = peak_bytes(process)
    chunk = b"%x\r\n%s\r\n" % (len(piece), piece)
    stated = [f"{head}Content-Length: {size}\r\n\r\n{start}".encode()]
    endless = [f"{head}Transfer-Encoding: chunked\r\n\r\n{len(start):x}\r\n{start}\r\n".encode()]
    answer, sent = answer_to(port, chain(stated, repeat(piece, size // len(piece))))
    assert sent < 64 << 20 and answer[9:12] == b"413"
    answer, sent = answer_to(port, chain(endless, repeat(chunk, size // len(piece))))
    assert sent < LARGEST[path] + (64 << 20) and answer[9:12] == b"413"
    for part in (start + "\r\n", '--b\r\nContent-Disposition: form-data; name="x"\r\n\r\n\r\n'):
        whole = (part * 10**6).encode()[: LARGEST[path] - 1000]
        pieces = (whole[k : k + len(piece)] for k in range(0, len(whole), len(piece)))
        answer, _ = answer_to(port, chain([f"{head}Content-Length: {len(whole)}\r\n\r\n".encode()], pieces))
        assert answer[9:12] == b"400"
    assert httpx.get(address, trust_env=False).status_code == 200
    assert peak_bytes(process) - before < MOST_GROWTH


def test_a_browser_that_leaves_while_it_sends_is_no_defect(browser, capfd):
    for path in ("/language", "/train", "/data/upload"):
        browser.raw(path, method="POST", body=b"language=", whole=False)
    assert not capfd.readouterr().err


def test_a_defect_is_a_short_page_and_a_line_in_the_terminal(browser, capfd):
    @browser.app.app.get("/broken")
    def broken():
        raise RuntimeError("the inside")

    answer = browser.get("/broken")
    assert answer.status_code == 500 and "the inside" not in answer.text and "Traceback" not in answer.text
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert capfd.readouterr().err == "error: RuntimeError: the inside\n"
