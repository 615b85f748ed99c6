"""Downloads against a local server that breaks, stalls, lies or repeats; nothing goes beyond this machine."""

import gzip
import hashlib
import math
import os
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from trilemma.data import load_data
from trilemma.data.sources import download as module
from trilemma.data.sources import mnist
from trilemma.data.sources.builtin import where_is
from trilemma.data.sources.download import check_hash, download
from trilemma.errors import UserError

CONTENT = bytes(range(256)) * 4000  # 1,024,000 bytes
GOOD = check_hash(hashlib.sha256(CONTENT).hexdigest(), decompress=False)


@contextmanager
def server(answer):
    """A host whose GET is answer(handler, first byte asked for); yields its address and the ranges asked for."""
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            value = self.headers.get("Range", "bytes=0-")
            asked.append(int(value.removeprefix("bytes=").removesuffix("-")))
            answer(self, asked[-1])

        def log_message(self, *_):
            pass

    host = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    host.daemon_threads = True
    host.handle_error = lambda *_: None  # a client that hangs up is what some tests are about
    threading.Thread(target=host.serve_forever, args=[0.01], daemon=True).start()
    try:
        yield f"http://127.0.0.1:{host.server_port}/file", asked
    finally:
        host.shutdown()
        host.server_close()


def send(handler, first, content=CONTENT, stop=None, ranges=True):
    """Sends content[first:stop] but promises all of it."""
    first = first if ranges else 0
    if first and first >= len(content):
        handler.send_response(416)
        handler.send_header("Content-Range", f"bytes */{len(content)}")
        handler.end_headers()
        return
    handler.send_response(206 if first else 200)
    handler.send_header("Content-Length", str(len(content) - first))
    handler.end_headers()
    handler.wfile.write(content[first:stop])


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(module, "PAUSE_S", 0.0)


def test_whole_file(tmp_path, capsys):
    seen = []
    with server(send) as (url, asked):
        path = download(url, tmp_path / "new" / "file", check=GOOD, progress=lambda *p: seen.append(p))
        assert download(url, path, check=GOOD) == path  # the second time nothing is asked
    assert path.read_bytes() == CONTENT
    assert asked == [0]
    assert os.listdir(path.parent) == ["file"]
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)


def test_progress_is_printed(tmp_path, capsys):
    with server(send) as (url, _):
        download(url, tmp_path / "file")
    assert "1.0 MB of 1.0 MB" in capsys.readouterr().err


def test_goes_on_after_a_broken_connection(tmp_path):
    with server(lambda handler, first: send(handler, first, stop=first + 300_000)) as (url, asked):
        path = download(url, tmp_path / "file", check=GOOD, tries=1)
    assert path.read_bytes() == CONTENT
    assert asked == [0, 300_000, 600_000, 900_000]


def test_goes_on_in_the_next_call(tmp_path):
    path = tmp_path / "file"
    broken = server(lambda handler, first: send(handler, first, stop=300_000))
    with broken as (url, _), pytest.raises(UserError, match="resumes at 300,000 bytes"):
        download(url, path, check=GOOD, tries=2)
    assert not path.exists()
    with server(send) as (url, asked):
        download(url, path, check=GOOD)
    assert asked == [300_000]
    assert path.read_bytes() == CONTENT
    assert os.listdir(tmp_path) == ["file"]


def test_a_host_without_ranges_begins_again(tmp_path):
    (tmp_path / "file.part").write_bytes(b"x" * 5000)
    with server(lambda handler, first: send(handler, first, ranges=False)) as (url, _):
        assert download(url, tmp_path / "file", check=GOOD).read_bytes() == CONTENT


def test_a_whole_part_needs_no_more_bytes(tmp_path):
    (tmp_path / "file.part").write_bytes(CONTENT)
    with server(send) as (url, asked):
        assert download(url, tmp_path / "file", check=GOOD).read_bytes() == CONTENT
    assert asked == [len(CONTENT)]


def test_a_part_of_a_longer_file_is_thrown_away(tmp_path):
    (tmp_path / "file.part").write_bytes(CONTENT + b"more")
    with server(send) as (url, asked):
        assert download(url, tmp_path / "file", check=GOOD).read_bytes() == CONTENT
    assert asked == [len(CONTENT) + 4, 0]


def test_wrong_bytes_are_refused_and_nothing_is_left(tmp_path):
    flipped = CONTENT[:500] + bytes([CONTENT[500] ^ 1]) + CONTENT[501:]
    other = server(lambda handler, first: send(handler, first, flipped))
    with other as (url, _), pytest.raises(UserError, match=r"sha256 .* instead of .*nothing was kept"):
        download(url, tmp_path / "file", check=GOOD)
    assert os.listdir(tmp_path) == []


def test_the_hash_is_of_the_decompressed_bytes(tmp_path):
    check = check_hash(hashlib.sha256(CONTENT).hexdigest())
    for level in (1, 9):  # two wrappers of the same bytes
        content = gzip.compress(CONTENT, level)
        with server(lambda handler, first, content=content: send(handler, first, content)) as (url, _):
            download(url, tmp_path / f"{level}.gz", check=check)
    for content in (gzip.compress(CONTENT)[:-20], CONTENT, b""):
        bad = server(lambda handler, first, content=content: send(handler, first, content))
        with bad as (url, _), pytest.raises(UserError, match="nothing was kept"):
            download(url, tmp_path / "bad.gz", check=check)
    assert sorted(os.listdir(tmp_path)) == ["1.gz", "9.gz"]


def test_what_cannot_be_read_is_not_called_compressed(tmp_path):
    (tmp_path / "cut.gz").write_bytes(gzip.compress(CONTENT)[:-20])
    (tmp_path / "plain.gz").write_bytes(CONTENT)
    for name in ("cut.gz", "plain.gz"):
        with pytest.raises(UserError, match=r"^not a whole compressed file \("):
            check_hash("0")(tmp_path / name)
    for decompress in (True, False):
        with pytest.raises(UserError, match=r"^it cannot be read \("):
            check_hash("0", decompress=decompress)(tmp_path)  # a folder


def test_silence_ends_with_a_time_out(tmp_path):
    def stall(handler, first):
        send(handler, first, stop=1000)
        handler.wfile.flush()
        time.sleep(3)

    start = time.monotonic()
    with server(stall) as (url, _):
        with pytest.raises(UserError, match="timed out"):
            download(url, tmp_path / "file", timeout_s=0.2, tries=1, limit_s=1.5)
        assert time.monotonic() - start < 2.5
    assert not (tmp_path / "file").exists()


def test_a_drip_ends_with_the_limit(tmp_path):
    def drip(handler, first):
        handler.send_response(200)
        handler.send_header("Content-Length", "1000000")
        handler.end_headers()
        for _ in range(50):
            handler.wfile.write(b"x")
            handler.wfile.flush()
            time.sleep(0.1)

    start = time.monotonic()
    with server(drip) as (url, _), pytest.raises(UserError, match=r"not done within 0\.5 s"):
        download(url, tmp_path / "file", limit_s=0.5)
    assert time.monotonic() - start < 3


def test_an_absent_file_is_not_asked_for_twice(tmp_path):
    absent = server(lambda handler, first: handler.send_error(404))
    with absent as (url, asked), pytest.raises(UserError, match="404"):
        download(url, tmp_path / "file")
    assert asked == [0]
    assert os.listdir(tmp_path) == []


def test_no_host(tmp_path):
    with server(send) as (url, _):
        pass
    with pytest.raises(UserError, match=r"cannot fetch .* put the file at"):
        download(url, tmp_path / "file")


def test_mnist_is_fetched_once_into_the_cache(tmp_path, monkeypatch):
    """The whole way with small files in the place of the published ones."""

    def idx(*shape):
        body = bytes(k % 10 for k in range(math.prod(shape)))
        return bytes([0, 0, 8, len(shape)]) + b"".join(n.to_bytes(4, "big") for n in shape) + body

    files = {
        "train-images-idx3-ubyte": idx(60, 4, 5),
        "train-labels-idx1-ubyte": idx(60),
        "t10k-images-idx3-ubyte": idx(10, 4, 5),
        "t10k-labels-idx1-ubyte": idx(10),
    }

    def answer(handler, first):
        name = handler.path.rsplit("/", 1)[1].removesuffix(".gz")
        send(handler, first, gzip.compress(files[name]))

    monkeypatch.delenv("TRILEMMA_DATA", raising=False)
    monkeypatch.setenv("TRILEMMA_CACHE", str(tmp_path))
    hashes = tuple(hashlib.sha256(files[name]).hexdigest() for name in mnist.FILES)
    monkeypatch.setitem(mnist.SHA256, "mnist", hashes)
    assert where_is("mnist") == "to be fetched (12 MB)"
    with server(answer) as (url, asked):
        monkeypatch.setitem(mnist.URLS, "mnist", url.removesuffix("file"))
        data = load_data("mnist", valid=0.1)
        again = load_data("mnist", valid=0.1)
    assert len(asked) == 4
    assert data.shape == (1, 4, 5)
    assert {key: len(split) for key, split in data.splits.items()} == {"train": 54, "valid": 6, "test": 10}
    assert data.fingerprint == again.fingerprint
    assert where_is("mnist") == f"in {tmp_path / 'mnist'}"
    assert sorted(os.listdir(tmp_path / "mnist")) == sorted(f"{name}.gz" for name in files)


def test_headers_stay_with_the_host(tmp_path):
    """Where it redirects within itself they are sent again; to another host they are not, while the range is."""
    seen = []

    def elsewhere(handler, first):
        seen.append(handler.headers.get("Authorization"))
        send(handler, first)

    with server(elsewhere) as (other, asked):

        def redirect(handler, first):
            seen.append(handler.headers.get("Authorization"))
            handler.send_response(307)
            handler.send_header("Location", "/moved" if handler.path == "/file" else other)
            handler.send_header("Content-Length", "0")
            handler.end_headers()

        (tmp_path / "file.part").write_bytes(CONTENT[:5000])
        with server(redirect) as (url, _):
            download(url, tmp_path / "file", check=GOOD, headers={"Authorization": "Bearer secret"})
    assert seen == ["Bearer secret", "Bearer secret", None] and asked == [5000]
