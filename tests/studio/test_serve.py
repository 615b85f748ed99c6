"""`trilemma studio`: mistakes are answered before anything listens, and one folder has one studio."""

import errno
import os
import re
import signal
import socket
import stat
import subprocess
import sys
import time
import webbrowser
from contextlib import closing, suppress
from pathlib import Path
from threading import Thread
from types import SimpleNamespace

import httpx
import pytest
from processes import free_port
from studio.server import serving

from trilemma import UserError, open_studio
from trilemma.extras import install_line
from trilemma.studio import serve
from trilemma.studio.access import Access
from trilemma.studio.jobs import State
from trilemma.studio.place import OWN, hold
from trilemma.studio.queue import Queue
from trilemma.studio.serve import LAST_PORT, PASSWORD, PORT, listen, password_for, require_extra


def test_a_folder_that_is_none_is_refused(tmp_path):
    with pytest.raises(UserError, match=f"folder {tmp_path}/no not found"):
        open_studio(tmp_path / "no", open=False)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="is not a folder"):
        open_studio(tmp_path / "file", open=False)
    with pytest.raises(UserError, match="port"):
        open_studio(tmp_path, port=80)


def test_a_port_that_is_taken_is_named_with_another():
    with closing(listen("127.0.0.1", free_port())) as first:
        port = first.getsockname()[1]
        with pytest.raises(UserError, match=f"port {port} is taken.*port={port + 1}"):
            listen("127.0.0.1", port)
    with pytest.raises(UserError, match=r"cannot listen at host=192\.0\.2\.1"):  # an address of no machine (RFC 5737)
        listen("192.0.2.1", free_port())


@pytest.mark.parametrize("port", [1024, LAST_PORT])
def test_the_port_that_is_named_in_place_of_a_taken_one_can_be_given(monkeypatch, port):
    def refuse(*_):
        raise OSError(errno.EADDRINUSE, "Address already in use")

    taken = SimpleNamespace(setsockopt=lambda *_: None, bind=refuse, close=lambda: None)
    monkeypatch.setattr(serve.socket, "socket", lambda *_: taken)
    with pytest.raises(UserError) as error:
        listen("127.0.0.1", port)
    other = int(str(error.value).rpartition("port=")[2])
    assert 1024 <= other <= LAST_PORT and other != port


@pytest.mark.parametrize("host", ["::1", "[::1]"])
def test_this_machines_own_address_of_ipv6_needs_no_password_and_stands_in_brackets(tmp_path, monkeypatch, host):
    listened, served = [], []
    monkeypatch.delenv(PASSWORD, raising=False)
    monkeypatch.setattr(serve, "listen", lambda *address: listened.append(address) or socket.socket())
    monkeypatch.setattr(serve, "_serve", lambda place, access, *_, **__: served.append(access))
    open_studio(tmp_path, host=host, open=False)
    (access,) = served
    assert listened == [("::1", PORT)] and access.password is None
    assert access.address == f"http://[::1]:{PORT}/enter?token={access.token}"
    assert access.is_own(f"[::1]:{PORT}") and not access.is_own(f"::1:{PORT}")
    assert Access("::", PORT, "long enough").address == f"http://[::]:{PORT}/enter"


def test_a_second_studio_of_a_folder_names_the_first(tmp_path):
    first = hold(tmp_path, "http://127.0.0.1:9")
    with pytest.raises(UserError, match=rf"already open in a studio \(http://127.0.0.1:9, process {os.getpid()}\)"):
        hold(tmp_path, "http://127.0.0.1:10")
    first.close()
    hold(tmp_path, "http://127.0.0.1:10").close()
    (tmp_path / "other" / OWN).mkdir(parents=True)
    (tmp_path / "other" / OWN / "lock").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UserError, match="is a link"):
        hold(tmp_path / "other", "")


def test_others_are_let_in_by_a_password_alone(monkeypatch):
    monkeypatch.delenv(PASSWORD, raising=False)
    assert password_for("127.0.0.1") is None
    for text in ("", "short"):
        monkeypatch.setenv(PASSWORD, text)
        with pytest.raises(UserError, match="password of 8 letters"):
            password_for("0.0.0.0")
    monkeypatch.setenv(PASSWORD, "long enough")
    assert password_for("0.0.0.0") == "long enough"
    access = Access("0.0.0.0", 8421, "long enough")
    assert access.token not in access.address and access.is_password("long enough") and not access.is_password("")
    assert not Access("127.0.0.1", 8421).is_password("")


def test_no_command_line_of_a_browser_holds_the_token(tmp_path, monkeypatch):
    """It is given a file that only this user can read, for a while."""
    opened, access = [], Access("127.0.0.1", 8421)
    monkeypatch.setattr(serve, "show", opened.append)
    (tmp_path / serve.OPENING).symlink_to(tmp_path / "elsewhere")
    with serve.shown(access, tmp_path):
        (file,) = tmp_path.iterdir()
        assert opened == [file.as_uri()] and not file.is_symlink() and stat.S_IMODE(file.stat().st_mode) == 0o600
        assert f'content="0;url={access.address}"' in file.read_text() and access.token in access.address
    assert not [*tmp_path.iterdir()]
    monkeypatch.setattr(serve, "OPENING_S", 0.01)
    with serve.shown(access, tmp_path):
        until(lambda: not [*tmp_path.iterdir()])
    shared = Access("0.0.0.0", 8421, "long enough")
    with serve.shown(shared, tmp_path):
        assert opened[2:] == [shared.address] and shared.token not in shared.address


def test_a_missing_extra_is_answered_by_the_line_that_installs_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    with pytest.raises(UserError) as error:
        require_extra()
    assert str(error.value) == f"the studio needs uvicorn, which is not installed: {install_line('studio')}"


def test_it_starts_lets_in_and_closes(server):
    address, process = server
    base, token = address.split("/enter?token=")
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+", base) and len(token) >= 43  # 32 bytes in base 64
    with httpx.Client(trust_env=False) as client:
        assert client.get(f"{base}/").status_code == 401
        assert client.get(f"{base}/enter?token=x").status_code == 401
        entry = client.get(address)
        assert entry.status_code == 200 and "HttpOnly" in entry.headers["set-cookie"]
        assert "SameSite=strict" in entry.headers["set-cookie"]
        home = client.get(f"{base}/")
        assert home.status_code == 200 and "server" not in home.headers
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=10)
    assert process.returncode == 0 and "Traceback" not in out + err


def test_it_closes_while_a_page_listens(server):
    address, process = server
    base = address.split("/enter")[0]
    with httpx.Client(trust_env=False) as client:
        client.get(address)
        with client.stream("GET", f"{base}/events") as events:
            assert next(events.iter_lines()) == "event: news"
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=10)
    assert process.returncode == 0 and "Traceback" not in out + err


@pytest.mark.slow
def test_jobs_go_on_when_it_closes(server, tmp_path):
    address, process = server
    base = address.split("/enter")[0]
    with httpx.Client(trust_env=False, headers={"origin": base}) as client:
        client.get(address)
        client.post(f"{base}/data/check/run", data={"source": "digits"})
    queue = Queue(tmp_path, tmp_path / OWN)
    until(lambda: queue.jobs()[0].state is State.RUNNING)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=10)
    assert "still running: trilemma data check digits" in err
    until(lambda: queue.jobs()[0].has_ended)
    assert queue.jobs()[0].state is State.FINISHED


def until(condition):
    """Wait until something is true."""
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.05)


@pytest.mark.slow
def test_it_closes_while_a_training_is_measured(server, tmp_path):
    address, process = server
    base = address.split("/enter")[0]

    def ask():
        with suppress(httpx.HTTPError), httpx.Client(trust_env=False, headers={"origin": base}, timeout=60) as client:
            client.get(address)
            client.post(f"{base}/train/estimate", data={"model": "vae", "data": "digits"})

    thread = Thread(target=ask)
    thread.start()
    until(lambda: [*(tmp_path / OWN).glob("pace-*")])
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=10)
    thread.join()
    assert process.returncode == 0 and "Traceback" not in out + err
    assert not [*(tmp_path / OWN).glob("pace-*")]


@pytest.mark.slow
def test_files_of_a_killed_studio_are_removed(tmp_path):
    (tmp_path / OWN / "pace-abc").mkdir(parents=True)
    with serving(tmp_path) as (_, process):
        process.kill()
    assert not [*(tmp_path / OWN).glob("pace-*")]


@pytest.mark.slow
def test_it_starts_in_a_second_and_a_half(tmp_path):
    """Seconds on the clock until the page Home has been answered, less those in which the process waited for a
    processor that others had; the least of five."""

    def seconds():
        begin = time.perf_counter()
        with serving(tmp_path) as (address, process):
            with httpx.Client(trust_env=False, follow_redirects=True) as client:
                client.get(address)
                assert client.get(address.split("/enter")[0]).status_code == 200
            took, waited = time.perf_counter() - begin, waited_s(process.pid)
            process.send_signal(signal.SIGINT)
            process.wait()
        print(f"from the command line to the page Home: {took:.2f} s, of which {waited:.2f} s waiting for a processor")
        return took - waited

    assert min(seconds() for _ in range(5)) < 1.5


def waited_s(process):
    """Seconds in which a process could run and had no processor, as Linux counts them; 0 on other systems."""
    files = Path(f"/proc/{process}/task").glob("*/schedstat")
    return sum(int(file.read_text().split()[1]) for file in files) / 1e9


def test_the_server_loads_no_torch():
    code = "import sys, trilemma.studio.app, trilemma.studio.guard; print({'torch', 'numpy'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


@pytest.mark.parametrize(
    ("display", "opens", "asked", "said"),
    [(None, True, 0, True), ("DISPLAY", False, 1, True), ("WAYLAND_DISPLAY", True, 1, False)],
)
def test_where_no_browser_opens_the_address_on_the_terminal_is_named(monkeypatch, capsys, display, opens, asked, said):
    addresses = []
    monkeypatch.setattr(sys, "platform", "linux")
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    if display:
        monkeypatch.setenv(display, ":0")
    monkeypatch.setattr(webbrowser, "open", lambda address: addresses.append(address) or opens)
    serve.show("http://127.0.0.1:8421/enter")
    assert addresses == ["http://127.0.0.1:8421/enter"] * asked
    assert ("no browser was opened; open the address above in one" in capsys.readouterr().err) is said


@pytest.mark.slow
def test_jobs_stop_with_it_if_it_is_asked_for(tmp_path):
    with serving(tmp_path, "jobs=stop", stderr=subprocess.PIPE) as (address, process):
        base, queue = address.split("/enter")[0], Queue(tmp_path, tmp_path / OWN)
        with httpx.Client(trust_env=False, headers={"origin": base}) as client:
            client.get(address)
            client.post(f"{base}/train", data={"model": "vae", "data": "digits", "minutes": "5"})
            client.post(f"{base}/train", data={"model": "vae", "data": "digits", "minutes": "6"})
        until(lambda: queue.jobs()[0].state is State.RUNNING)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert "stopping: trilemma train vae digits minutes=5" in err
    until(lambda: queue.jobs()[0].has_ended)
    assert [job.state for job in queue.jobs()] == [State.STOPPED, State.QUEUED]
