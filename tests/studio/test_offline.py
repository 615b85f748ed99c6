"""Neither the server nor a job of it connects to another machine, nor looks one up."""

import os
import re
import subprocess
import sys
import time

import httpx
import pytest
from studio.server import serving

from trilemma.studio.sections import SECTIONS

WATCH = """
import os, sys

def watch(event, args):
    if event in ("socket.connect", "socket.sendto", "socket.sendmsg"):
        host = args[1][0] if isinstance(args[1], tuple) else ""
    elif event in ("socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr", "socket.getnameinfo"):
        host = args[0][0] if isinstance(args[0], tuple) else args[0]
    else:
        return
    if host not in ("", None, "127.0.0.1", b"127.0.0.1"):
        write(f"{event} {host}")
        raise OSError("no network in this test")

def write(text):
    with open(os.environ["WATCHED"], "a") as file:
        file.write(f"{text} | {' '.join(sys.orig_argv[1:])}\\n")

write("watched")
sys.addaudithook(watch)
"""


@pytest.fixture
def watched(tmp_path, monkeypatch):
    """The file into which processes write that they are watched, and what they reach for."""
    (tmp_path / "watch").mkdir()
    (tmp_path / "watch" / "sitecustomize.py").write_text(WATCH)
    path = os.environ.get("PYTHONPATH", "")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path / "watch"), *filter(None, [path])]))
    monkeypatch.setenv("WATCHED", str(tmp_path / "watched.txt"))
    return tmp_path / "watched.txt"


@pytest.mark.slow
@pytest.mark.parametrize("call", ["getaddrinfo('example.org', 80)", "create_connection(('192.0.2.1', 9), timeout=1)"])
def test_a_process_that_reaches_for_another_machine_would_be_seen(watched, call):
    done = subprocess.run([sys.executable, "-c", f"import socket; socket.{call}"], capture_output=True, text=True)
    assert "no network in this test" in done.stderr
    assert re.search(r"^socket\.\w+ (example\.org|192\.0\.2\.1) \| -c import socket", watched.read_text(), re.MULTILINE)


@pytest.mark.slow
def test_the_server_and_its_jobs_ask_no_other_machine(watched, tmp_path):
    """A training with its estimate, and jobs of all kinds on its run: with the pages, the sliders and the map."""
    (tmp_path / "work").mkdir()
    with serving(tmp_path / "work") as (address, _):
        use(address)
    lines = watched.read_text().splitlines()
    assert {text for text in lines if not text.startswith("watched | ")} == set()
    for name in ("trilemma studio", "trilemma.studio.child", "trilemma.studio.slider_worker", "trilemma.studio.pacer"):
        assert any(name in text for text in lines), name


def use(address):
    """What a person does with a studio, as far as it starts processes."""
    base = address.split("/enter")[0]
    with httpx.Client(trust_env=False, headers={"origin": base}, base_url=base, timeout=120) as client:
        client.get(address)
        training = {"model": "vae", "data": "digits", "steps": "20"}
        assert client.post("/train/estimate", data=training).status_code == 200
        finish(client, "/train", training)
        (run,) = {*re.findall('"/runs/([0-9a-f]{16})"', client.get("/runs").text)}
        assert client.get(f"/explore/sliders/axes?run={run}").status_code == 200
        for path, verb in (("/sample", "sample"), ("/measure", "evaluate"), ("/explore", "map"), ("/detect", "detect")):
            finish(client, path, {"run": run, "verb": verb})
        finish(client, "/data/check/run", {"source": "digits"})
        for path, _ in SECTIONS:
            assert client.get(path).status_code == 200


def finish(client, path, fields):
    """Start a job, and wait until it has finished."""
    answer = client.post(path, data=fields)
    assert answer.status_code == 303, answer.text
    end = time.monotonic() + 120
    while "state finished" not in (text := client.get(f"{answer.headers['location']}/live").text):
        assert time.monotonic() < end and "state failed" not in text, text
        time.sleep(0.1)
