"""A hub of our own on 127.0.0.1 that answers as huggingface_hub asks: model information, then files by commit."""

import hashlib
import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def git_id(content):
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def sha256(content):
    return hashlib.sha256(content).hexdigest()


def sibling_of(name, content):
    """As the hub describes a file: weights are in its large store."""
    entry = {"rfilename": name, "size": len(content), "blobId": git_id(content)}
    if name.endswith((".safetensors", ".bin")):
        entry["lfs"] = {"size": len(content), "sha256": sha256(content), "pointerSize": 130}
    return entry


class Hub:
    """files: contents by name of each repository; refusals: status and code instead; flips: names sent with one bit
    changed; cuts: names whose first transfer ends in the middle; asked: the requests that arrived; ranges: where
    transfers were asked to begin, where that is not the start."""

    def __init__(self):
        self.files, self.refusals, self.flips, self.asked, self.card = {}, {}, set(), [], {"license": "openrail++"}
        self.cuts, self.ranges = set(), []

    def information(self, repository):
        siblings = [sibling_of(name, content) for name, content in self.files[repository].items()]
        return {"id": repository, "modelId": repository, "sha": COMMIT, "siblings": siblings, "cardData": self.card}

    def content(self, repository, name):
        content = self.files[repository][name]
        return bytes([content[0] ^ 1]) + content[1:] if name in self.flips else content


def answer(hub, path):
    """Status, headers and content."""
    words = path.partition("?")[0].strip("/").split("/")
    api = words[:2] == ["api", "models"]
    repository = "/".join(words[2:4] if api else words[:2])
    if repository in hub.refusals:
        status, code = hub.refusals[repository]
        return status, {"X-Error-Code": code}, b""
    if repository not in hub.files:
        return 404, {"X-Error-Code": "RepoNotFound"}, b""
    if api:
        return 200, {"Content-Type": "application/json"}, json.dumps(hub.information(repository)).encode()
    assert words[2:4] == ["resolve", COMMIT], path
    name = "/".join(words[4:])
    entry = sibling_of(name, hub.files[repository][name])
    etag = entry["lfs"]["sha256"] if "lfs" in entry else entry["blobId"]
    return 200, {"ETag": f'"{etag}"', "X-Repo-Commit": COMMIT}, hub.content(repository, name)


@contextmanager
def serving(hub):
    """The address of a hub."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            hub.asked.append((self.command, self.path))
            status, headers, content = answer(hub, self.path)
            first = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").partition("-")[0])
            if first:
                hub.ranges.append(first)
                status, headers["Content-Range"] = 206, f"bytes {first}-{len(content) - 1}/{len(content)}"
                content = content[first:]
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(content))}.items():
                self.send_header(name, value)
            self.end_headers()
            cut = self.command == "GET" and any(self.path.endswith(name) for name in hub.cuts)
            if self.command == "GET":
                self.wfile.write(content[: len(content) // 2] if cut else content)
            if cut:
                hub.cuts.clear()
                self.close_connection = True

        do_HEAD = do_GET

        def log_message(self, *_):
            pass

    host = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=host.serve_forever, args=[0.01], daemon=True).start()
    try:
        yield f"http://127.0.0.1:{host.server_port}"
    finally:
        host.shutdown()
        host.server_close()
