"""Requests that no page of the studio sends: none is answered, and nothing outside the folder is touched."""

import random
import socket
from urllib.parse import quote

import pytest
from fastapi.routing import APIRoute

from trilemma.studio.access import ENTRY, LARGEST_FORM, Access
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
PLACES = ("/", "/runs/", "/files/", "/static/", "/jobs/", "/data/")
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


@pytest.mark.parametrize("place", PLACES)
def test_hostile_paths_find_nothing(browser, folder, place):
    (folder.parent / "secret.txt").write_text("it is a secret")
    (folder / "secret.txt").write_text("it is a secret")
    (folder / "link.png").symlink_to(folder.parent / "secret.txt")
    for path in [*PATHS, "/etc/passwd", "secret.txt", "link.png"]:
        status, text = browser.raw(place + path)
        assert status in (404, 405, 414), path
        assert "it is a secret" not in text and "root:" not in text
    assert sorted(p.name for p in folder.parent.iterdir()) == ["images", "secret.txt"]


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


@pytest.mark.parametrize("count", [100, pytest.param(1000, marks=pytest.mark.slow)])
def test_malformed_requests_are_answered_without_a_trace(browser, capfd, count):
    dice, paths = random.Random(0), [filled(path) for path, _ in routes(browser)]
    statuses = []
    for _ in range(count):
        method, path, headers, body = malformed(dice, paths)
        status, text = browser.raw(path, method=method, headers=headers, body=body)
        assert "Traceback" not in text and ".py" not in text
        statuses.append(status)
    assert not [status for status in statuses if status >= 500] and {401, 404, 405} <= {*statuses}
    assert "error" not in capfd.readouterr().err


def test_a_defect_is_a_short_page_and_a_line_in_the_terminal(browser, capfd):
    @browser.app.app.get("/broken")
    def broken():
        raise RuntimeError("the inside")

    answer = browser.get("/broken")
    assert answer.status_code == 500 and "the inside" not in answer.text and "Traceback" not in answer.text
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert capfd.readouterr().err == "error: RuntimeError: the inside\n"
