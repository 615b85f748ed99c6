"""A hub of our own on 127.0.0.1 that answers as huggingface_hub asks: model information, files by commit, and for an
upload a new repository, how each file is to be sent, large files, and a commit."""

import base64
import hashlib
import json
import threading
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

COMMIT = "0123456789abcdef0123456789abcdef01234567"
TOKEN = "hf_ours"  # of an upload
JSON = {"Content-Type": "application/json"}


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
    transfers were asked to begin, where that is not the start; private: of the repositories that were made; stored:
    large files by their sum; gated: repositories that describe themselves to anyone and give files to TOKEN alone."""

    def __init__(self):
        self.files, self.refusals, self.flips, self.asked, self.card = {}, {}, set(), [], {"license": "openrail++"}
        self.cuts, self.ranges, self.gated = set(), [], set()
        self.private, self.stored, self.address = {}, {}, ""

    def information(self, repository):
        siblings = [sibling_of(name, content) for name, content in self.files[repository].items()]
        about = {"id": repository, "modelId": repository, "sha": COMMIT, "private": self.private.get(repository, False)}
        return {**about, "siblings": siblings, "cardData": self.card}

    def content(self, repository, name):
        content = self.files[repository][name]
        return bytes([content[0] ^ 1]) + content[1:] if name in self.flips else content


def answer(hub, path, token=None):
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
        return 200, JSON, json.dumps(hub.information(repository)).encode()
    if repository in hub.gated and token != f"Bearer {TOKEN}":
        return 403, {"X-Error-Code": "GatedRepo"}, b""
    assert words[2:4] == ["resolve", COMMIT], path
    name = "/".join(words[4:])
    entry = sibling_of(name, hub.files[repository][name])
    etag = entry["lfs"]["sha256"] if "lfs" in entry else entry["blobId"]
    return 200, {"ETag": f'"{etag}"', "X-Repo-Commit": COMMIT}, hub.content(repository, name)


def take(hub, path, content, token):
    """Status and answer to what is sent: a new repository, questions about files, a large file, or a commit."""
    words = path.partition("?")[0].strip("/").split("/")
    if words[0] == "large":  # where a large file is sent to, without the token
        hub.stored[words[1]] = content
        return 200, {}
    if token != f"Bearer {TOKEN}":
        return 401, {"error": "Invalid username or password."}
    if words[:2] == ["api", "validate-yaml"]:
        return 200, {"errors": [], "warnings": []}
    if words[:3] == ["api", "repos", "create"]:
        return create(hub, json.loads(content))
    repository = "/".join(words[2:4])
    if words[4:] == ["preupload", "main"]:
        files = [
            {"path": file["path"], "shouldIgnore": False, "uploadMode": mode_of(file["path"])}
            for file in json.loads(content)["files"]
        ]
        return 200, {"files": files}
    if words[2:] == ["info", "lfs", "objects", "batch"]:
        return 200, {"transfer": "basic", "objects": [place_of(hub, one) for one in json.loads(content)["objects"]]}
    assert words[4:] == ["commit", "main"], path
    commit(hub, repository, [json.loads(line) for line in content.splitlines()])
    return 200, {"commitUrl": f"{hub.address}/{repository}/commit/{COMMIT}", "commitOid": COMMIT}


def contents(folder):
    """The files of a folder, by name."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@contextmanager
def publishing(folder, repository, home, monkeypatch):
    """A hub that has the files of a folder as a repository; what is downloaded from it lies in `home`."""
    hub = Hub()
    hub.files[repository] = contents(folder)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(home))
    with serving(hub) as address:
        monkeypatch.setenv("HF_ENDPOINT", address)
        yield hub


def mode_of(name):
    return "lfs" if name.endswith((".safetensors", ".png")) else "regular"


def create(hub, asked):
    repository = f"{asked['organization']}/{asked['name']}"
    if repository in hub.refusals:
        return hub.refusals[repository][0], {
            "error": "You don't have the rights to create a model under this namespace"
        }
    if repository in hub.files:
        return 409, {"error": "You already created this model repo", "url": f"{hub.address}/{repository}"}
    hub.files[repository], hub.private[repository] = {}, asked.get("visibility") == "private"
    return 200, {"url": f"{hub.address}/{repository}", "name": repository, "id": "1"}


def place_of(hub, entry):
    return {**entry, "actions": {"upload": {"href": f"{hub.address}/large/{entry['oid']}", "header": {}}}}


def commit(hub, repository, lines):
    """Every line but the header is a file: its content, the sum of a large one, or one to be deleted."""
    for line in lines[1:]:
        value = line["value"]
        if line["key"] == "file":
            hub.files[repository][value["path"]] = base64.b64decode(value["content"])
        elif line["key"] == "deletedFile":
            del hub.files[repository][value["path"]]
        else:
            assert line["key"] == "lfsFile", line
            hub.files[repository][value["path"]] = hub.stored[value["oid"]]


@contextmanager
def serving(hub):
    """The address of a hub."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            hub.asked.append((self.command, self.path))
            status, headers, content = answer(hub, self.path, self.headers.get("Authorization"))
            first = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").partition("-")[0])
            if first:
                hub.ranges.append(first)
                status, headers["Content-Range"] = 206, f"bytes {first}-{len(content) - 1}/{len(content)}"
                content = content[first:]
            self.reply(status, headers, content)

        do_HEAD = do_GET

        def do_POST(self):
            hub.asked.append((self.command, self.path))
            content = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            status, values = take(hub, self.path, content, self.headers.get("Authorization"))
            self.reply(status, JSON, json.dumps(values).encode())

        do_PUT = do_POST

        def reply(self, status, headers, content):
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(content))}.items():
                self.send_header(name, value)
            self.end_headers()
            cut = self.command == "GET" and any(self.path.endswith(name) for name in hub.cuts)
            if self.command != "HEAD":
                with suppress(ConnectionError):  # the client was interrupted
                    self.wfile.write(content[: len(content) // 2] if cut else content)
            if cut:
                hub.cuts.clear()
                self.close_connection = True

        def log_message(self, *_):
            pass

    host = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=host.serve_forever, args=[0.01], daemon=True).start()
    hub.address = f"http://127.0.0.1:{host.server_port}"
    try:
        yield hub.address
    finally:
        host.shutdown()
        host.server_close()
