"""A studio in memory: the app behind its guard, asked as a browser asks it."""

import shutil
import subprocess
from urllib.parse import unquote

import anyio
import httpx
import pytest
from studio.server import serving

import trilemma
from trilemma.studio.access import Access
from trilemma.studio.app import create_app
from trilemma.studio.guard import Guard
from trilemma.studio.place import OWN
from trilemma.studio.service import Studio

PORT = 8421
BASE = f"http://127.0.0.1:{PORT}"


class Browser:
    """Sends requests to an app; `access` is the studio's."""

    def __init__(self, app, access):
        self.app, self.access = app, access
        self.own = {"cookie": f"{access.cookie}={access.token}", "origin": BASE, "sec-fetch-site": "same-origin"}

    def send(self, method, url, *, headers=None, with_own=True, **content):
        """The answer to a request; `headers` replace those of the studio's own pages, None leaves one out."""
        given = {**(self.own if with_own else {}), **(headers or {})}

        async def ask():
            transport = httpx.ASGITransport(app=self.app)
            async with httpx.AsyncClient(transport=transport, base_url=BASE, trust_env=False) as client:
                names = {name: value for name, value in given.items() if value is not None}
                return await client.request(method, url, headers=names, **content)

        return anyio.run(ask)

    def raw(self, path, *, method="GET", headers=None, body=b"", whole=True):
        """The answer (status, text) to a path that is sent as it is, which no client would do.

        Args:
            whole: whether the body is all that there is; else the client leaves within it.
        """
        target, _, query = path.encode("utf-8").partition(b"?")
        names = {**self.own, "host": f"127.0.0.1:{PORT}", **(headers or {})}
        lines = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in names.items()]
        scope = {"type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method, "scheme": "http",
                 "path": unquote(target.decode("utf-8")), "raw_path": target, "query_string": query, "root_path": "",
                 "headers": lines, "client": ("127.0.0.1", 1), "server": ("127.0.0.1", PORT)}  # fmt: skip
        messages, sent = [], iter([{"type": "http.request", "body": body, "more_body": not whole}])

        async def ask():
            async def receive():
                return next(sent, {"type": "http.disconnect"})

            async def send(message):
                messages.append(message)

            await self.app(scope, receive, send)

        anyio.run(ask)
        content = b"".join(message.get("body", b"") for message in messages)
        return messages[0]["status"], content.decode("utf-8", "replace")

    def get(self, url, **options):
        return self.send("GET", url, **options)

    def post(self, url, data=None, **options):
        return self.send("POST", url, data=data or {}, **options)


@pytest.fixture(autouse=True, scope="session")
def own_cache(tmp_path_factory):
    """The secret that signs jobs is one of the tests, in their processes, too."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRILEMMA_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture
def folder(tmp_path):
    place = tmp_path / "images"
    place.mkdir()
    return place


@pytest.fixture
def studio(folder):
    (folder / OWN).mkdir()
    return Studio(folder)


@pytest.fixture
def browser(studio):
    access = Access("127.0.0.1", PORT)
    return Browser(Guard(create_app(studio, access), access), access)


@pytest.fixture
def server(tmp_path):
    """A studio as a process: its address, with the token, and the process."""
    with serving(tmp_path, stderr=subprocess.PIPE) as (address, process):
        yield address, process


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """A run of a few steps, with samples."""
    place = tmp_path_factory.mktemp("trained")
    run = trilemma.train(
        "vae", "digits", steps=12, hidden=(8,), latent=2, batch=64, out=place / "vae-digits", quiet=True
    )
    trilemma.sample(run, n=4)
    return place / "vae-digits"


@pytest.fixture
def run(studio, trained):
    """It in the studio's folder."""
    shutil.copytree(trained, studio.folder / "runs" / "vae-digits")
    (one,) = studio.library.runs()
    return one
