"""Repositories of a hub of our own on 127.0.0.1: resolved, downloaded, checked, and then used without any call."""

import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections import namedtuple

import pytest
import torch
from pretrained.folders import make_folder
from pretrained.hub import COMMIT, TOKEN, contents, git_id, publishing
from safetensors.torch import save

from trilemma.errors import UserError
from trilemma.pretrained.fetch import locate, locate_adapter, needed_files
from trilemma.pretrained.safety import check_folder
from trilemma.pretrained.table import CHECKPOINTS
from trilemma.progress import Display
from trilemma.verbs import VERBS
from trilemma.words import size_in_words

NAME = "owner/tiny"
UNET = "unet/diffusion_pytorch_model.safetensors"


@pytest.fixture
def hub(tmp_path, monkeypatch):
    pytest.importorskip("huggingface_hub")
    with publishing(make_folder(tmp_path / "source"), NAME, tmp_path / "home" / "hub", monkeypatch) as hub:
        yield hub


def blocked(*_):
    raise AssertionError("a call to another machine")


def test_a_repository_is_resolved_downloaded_and_recorded(hub, tmp_path, capsys):
    place = locate(NAME)
    assert (place.repository, place.commit, place.licence) == (NAME, COMMIT, "openrail++")
    assert hub.asked[0] == ("GET", f"/api/models/{NAME}?blobs=true")
    check_folder(place.folder, place.within)
    assert contents(place.folder) == hub.files[NAME]
    record = json.loads((tmp_path / "cache" / "pretrained" / "owner--tiny.json").read_text("utf-8"))
    assert record["commit"] == COMMIT and record["files"] == {k: len(v) for k, v in hub.files[NAME].items()}
    said = capsys.readouterr().err
    assert said.count("licence openrail++") == 1 and f"/{NAME}" in said and f"commit {COMMIT[:12]}" in said
    total = sum(len(content) for name, content in hub.files[NAME].items() if name != "model_index.json")  # read before
    assert f"downloading {total / 1e3:.3g} kB" in said or f"downloading {total:,} bytes" in said


def test_the_second_use_makes_no_call_and_says_nothing(hub, monkeypatch, capsys):
    first = locate(NAME)
    capsys.readouterr()
    hub.asked.clear()
    monkeypatch.setattr(socket.socket, "connect", blocked)
    assert locate(NAME) == first and not hub.asked and capsys.readouterr().err == ""


def test_what_the_cache_of_the_hub_has_is_not_downloaded(hub, tmp_path, capsys):
    place = locate(NAME)
    shutil.rmtree(tmp_path / "cache")
    capsys.readouterr()
    hub.asked.clear()
    assert locate(NAME) == place and not [path for _, path in hub.asked if "resolve" in path]
    assert f"nothing to download, commit {COMMIT[:12]}" in capsys.readouterr().err


def test_a_file_that_went_missing_is_fetched_again(hub):
    place = locate(NAME)
    (place.folder / UNET).resolve().unlink()
    (place.folder / UNET).unlink()
    hub.asked.clear()
    assert locate(NAME) == place and (place.folder / UNET).is_file()
    assert {path.rpartition("/")[2] for method, path in hub.asked if method == "GET" and "resolve" in path} == {
        "diffusion_pytorch_model.safetensors"
    }


def test_a_motion_adapter_is_its_settings_and_its_weights(hub, monkeypatch):
    weights = {name: save({"a": torch.ones(2)}) for name in ("m.safetensors", "m.fp16.safetensors")}
    hub.files["owner/motion"] = {"config.json": b"{}", "README.md": b"x", "more/m.safetensors": b"x", **weights}
    place = locate_adapter("owner/motion")
    assert (place.repository, place.commit) == ("owner/motion", COMMIT)
    assert set(contents(place.folder)) == {"config.json", "m.safetensors"}
    hub.asked.clear()
    monkeypatch.setattr(socket.socket, "connect", blocked)
    assert locate_adapter("owner/motion", download=False) == place and not hub.asked


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"m.safetensors": None, "m.bin": b"x"}, "is not a motion adapter: it has no config.json beside weights"),
        ({"config.json": None}, "is not a motion adapter"),
        ({"code/run.py": b"x"}, "holds code"),
    ],
)
def test_a_repository_that_is_no_motion_adapter_is_refused(hub, changes, words):
    files = {"config.json": b"{}", "m.safetensors": b"x", **changes}
    hub.files["owner/motion"] = {name: content for name, content in files.items() if content is not None}
    with pytest.raises(UserError, match=f"owner/motion {words}"):
        locate_adapter("owner/motion")
    with pytest.raises(UserError, match="owner/motion was not downloaded here"):
        locate_adapter("owner/motion", download=False)
    assert not [path for _, path in hub.asked if "/resolve/" in path]


def test_contents_that_repositories_share_are_taken(hub, tmp_path):
    """huggingface_hub keeps them in CACHE/blobs, and the blobs of a repository are then links to them."""
    place = locate(NAME)
    blob, shared = (place.folder / UNET).resolve(), tmp_path / "home" / "hub" / "blobs" / "ab" / "content"
    shared.parent.mkdir(parents=True)
    blob.rename(shared)
    blob.symlink_to(os.path.relpath(shared, blob.parent))
    assert locate(NAME) == place
    check_folder(place.folder, place.within)
    with pytest.raises(UserError, match="is a link that leads out of"):
        check_folder(place.folder, place.folder.parents[1])


def test_what_is_not_needed_is_not_fetched(hub):
    extra = ["README.md", "all.safetensors", "unet/diffusion_pytorch_model.bin", "safety_checker/model.safetensors"]
    extra += ["unet/diffusion_pytorch_model.fp16.safetensors", "vae_1_0/diffusion_pytorch_model.safetensors", "a.png"]
    needed = set(hub.files[NAME])
    hub.files[NAME] |= dict.fromkeys(extra, b"large")
    assert set(contents(locate(NAME).folder)) == needed
    assert not [path for _, path in hub.asked if path.endswith(tuple(extra))]


def test_half_precision_is_fetched_where_a_part_has_nothing_else():
    names = ["model_index.json", "unet/config.json", "unet/model.fp16.safetensors", "unet/model.non_ema.safetensors"]
    names += ["vae/model.safetensors", "vae/model.fp16.safetensors", "vae/deep/model.safetensors"]
    assert needed_files(NAME, names, {"unet", "vae"}) == [
        "model_index.json",
        "unet/config.json",
        "unet/model.fp16.safetensors",
        "vae/model.safetensors",
    ]


@pytest.mark.parametrize("name", [UNET, "unet/config.json", "model_index.json"])
def test_a_flipped_bit_is_detected_and_the_next_try_works(hub, name):
    hub.flips = {name}
    with pytest.raises(UserError, match=f"{name} is not the file it should be: it has other content than the hub"):
        locate(NAME)
    hub.flips = set()
    assert contents(locate(NAME).folder) == hub.files[NAME]


def test_a_download_that_breaks_off_is_resumed_where_it_was(hub):
    content = save({"weight": torch.arange(50_000.0)})
    hub.files[NAME][UNET], hub.cuts = content, {UNET}
    assert (locate(NAME).folder / UNET).read_bytes() == content
    assert hub.ranges == [len(content) // 2]


def test_a_download_that_was_interrupted_is_resumed_by_the_next_command(hub, tmp_path, monkeypatch, capsys):
    content = save({"weight": torch.arange(400_000.0)})  # more than is read at once
    hub.files[NAME][UNET] = content

    def interrupted(self, progress, text):
        if text.endswith(UNET):
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Display, "update", interrupted)
        with pytest.raises(KeyboardInterrupt):
            locate(NAME)
    (part,) = (tmp_path / "home").rglob("*.part")
    have = part.stat().st_size
    assert 0 < have < len(content)
    capsys.readouterr()
    assert contents(locate(NAME).folder) == hub.files[NAME]
    assert hub.ranges == [have] and not part.exists()
    left = sum(len(content) for name, content in hub.files[NAME].items() if name >= UNET) - have
    assert f"downloading {size_in_words(left)}, commit" in capsys.readouterr().err


def test_a_download_says_how_far_it_is(hub, monkeypatch, capsys):
    hub.files[NAME][UNET] = save({"weight": torch.zeros(2, 3)})  # another content than that of vae
    monkeypatch.setattr("trilemma.progress.PLAIN_EVERY_S", 0.0)
    locate(NAME)
    lines = capsys.readouterr().err.splitlines()[2:]  # below the licence, and the size of the whole
    total = size_in_words(sum(map(len, hub.files[NAME].values())))
    shares = [int(line.removeprefix("downloading").partition("%")[0]) for line in lines]
    assert shares == sorted(shares) and shares[-1] == 100 and len(shares) >= len(hub.files[NAME]) - 1
    assert lines[-1].endswith(f"{total} of {total}, vae/diffusion_pytorch_model.safetensors")


def test_a_file_without_a_stated_checksum_is_not_fetched(hub, monkeypatch):
    described = hub.information

    def without_checksums(repository):
        about = described(repository)
        return {**about, "siblings": [{**one, "blobId": None} for one in about["siblings"]]}

    monkeypatch.setattr(hub, "information", without_checksums)
    with pytest.raises(UserError, match=r"owner/tiny: the hub states no checksum of model_index\.json; choose another"):
        locate(NAME)
    assert not [path for method, path in hub.asked if method == "GET" and "/resolve/" in path]


def test_gated_and_missing_repositories_are_explained(hub, monkeypatch):
    hub.files["owner/gated"], hub.gated = hub.files[NAME], {"owner/gated"}
    with pytest.raises(UserError, match=r"asks you to accept its terms: do so at http.*owner/gated.*hf auth login"):
        locate("owner/gated")
    with pytest.raises(UserError, match=r"owner/absent not found at http.*; check the name"):
        locate("owner/absent")
    monkeypatch.setenv("HF_TOKEN", TOKEN)  # of someone who has accepted the terms
    assert contents(locate("owner/gated").folder) == hub.files[NAME]


def test_code_pickles_and_other_repositories_are_refused_before_anything_is_fetched(hub):
    for name, change, words in (
        ("owner/code", {"pipeline.py": b""}, r"holds code \(pipeline\.py\)"),
        ("owner/other", {"model_index.json": None}, "not a pipeline of diffusers"),
        ("owner/pickles", {UNET: None, "unet/model.bin": b""}, "unet has no weights as safetensors"),
        ("owner/class", {"model_index.json": b'{"_class_name": ["a", "B"]}'}, "names no pipeline"),
    ):
        files = {**hub.files[NAME], **change}
        hub.files[name] = {key: value for key, value in files.items() if value is not None}
        hub.asked.clear()
        with pytest.raises(UserError, match=words):
            locate(name)
        assert {path.rpartition("/")[2] for _, path in hub.asked[1:]} <= {"model_index.json"}


@pytest.mark.filterwarnings("ignore:Not enough free disk space")
def test_no_room_is_said_before_the_download(hub, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", free(10))
    with pytest.raises(UserError, match=r"10 bytes are free in .*; make room, or set HF_HOME"):
        locate(NAME)
    assert not [path for _, path in hub.asked if path.endswith(".safetensors")]


def free(count):
    """What the disk says of its room, bytes."""
    return lambda _: namedtuple("Usage", "total used free")(10**9, 0, count)


def test_what_is_here_already_needs_no_room(hub, monkeypatch, capsys):
    place = locate(NAME)
    (place.folder / UNET).resolve().unlink()
    (place.folder / UNET).unlink()
    size = sum(len(content) for name, content in hub.files[NAME].items() if not (place.folder / name).is_file())
    assert 0 < size < sum(map(len, hub.files[NAME].values()))
    monkeypatch.setattr(shutil, "disk_usage", free(size))
    with pytest.raises(UserError, match=f"needs {size_in_words(1.05 * size)}, and {size_in_words(size)} are free"):
        locate(NAME)
    monkeypatch.setattr(shutil, "disk_usage", free(int(1.05 * size) + 1))
    capsys.readouterr()
    assert locate(NAME) == place and f"downloading {size_in_words(size)}, commit" in capsys.readouterr().err


def test_what_is_complete_and_was_not_put_in_its_place_needs_no_room(hub, tmp_path, monkeypatch, capsys):
    """A command was killed between the last byte of a file and its link."""
    place = locate(NAME)
    shutil.rmtree(tmp_path / "cache")
    (place.folder / UNET).unlink()  # the link, and not what it leads to
    monkeypatch.setattr(shutil, "disk_usage", free(10))
    capsys.readouterr()
    assert locate(NAME) == place and (place.folder / UNET).is_file()
    assert "nothing to download" in capsys.readouterr().err


def test_waiting_for_another_command_is_said(hub, tmp_path, monkeypatch, capsys):
    from filelock import FileLock

    monkeypatch.setattr("trilemma.pretrained.hub.NOTED_S", 0.02)
    locks, held = tmp_path / "home" / "hub" / ".locks" / "models--owner--tiny", threading.Event()
    locks.mkdir(parents=True)

    def fetch():
        with FileLock(locks / f"{git_id(hub.files[NAME]['model_index.json'])}.lock"):
            held.set()
            time.sleep(0.2)

    other = threading.Thread(target=fetch)
    other.start()
    held.wait()
    place = locate(NAME)
    other.join()
    assert contents(place.folder) == hub.files[NAME]
    said = capsys.readouterr().err
    assert said.count("owner/tiny: another command fetches model_index.json; waiting for it") == 1


def test_a_server_that_fails_is_one_sentence(hub):
    hub.refusals[NAME] = (400, "")
    with pytest.raises(UserError, match=r"cannot download owner/tiny: .*; check the connection") as caught:
        locate(NAME)
    assert "\n" not in str(caught.value)


def test_what_may_not_be_downloaded_is_not(hub):
    with pytest.raises(UserError, match="owner/tiny was not downloaded here"):
        locate(NAME, download=False)
    assert not hub.asked
    place = locate(NAME)
    assert locate(NAME, download=False) == place


@pytest.mark.parametrize("name", ["sd-turbbo", "/absent/folder", "owner/na me", "a/b/c", ""])
def test_a_name_of_nothing_is_refused_with_the_names(name):
    with pytest.raises(UserError, match='unknown model "') as caught:
        locate(name, download=False)
    assert "sd-turbo" in str(caught.value)


def test_a_folder_is_itself(tmp_path):
    place = locate(str(make_folder(tmp_path / "tiny")))
    assert (place.folder, place.within, place.commit) == (tmp_path / "tiny", tmp_path / "tiny", None)


def test_the_table_has_its_form():
    for name, row in CHECKPOINTS.items():
        assert name == name.lower() and row.repository.count("/") == 1 and row.about
        assert set(row.verbs) <= {verb.name for verb in VERBS}
        assert set(row.keys) <= {"steps", "guidance", "size"}
    assert len({row.repository for row in CHECKPOINTS.values()}) == len(CHECKPOINTS)


@pytest.mark.slow
def test_the_variables_of_the_library_are_obeyed(hub, tmp_path):
    code = f"from trilemma.pretrained.fetch import locate; print(locate({NAME!r}).folder)"
    env = {
        "HF_ENDPOINT": os.environ["HF_ENDPOINT"],
        "HF_HOME": str(tmp_path / "own"),
        "TRILEMMA_CACHE": str(tmp_path / "c"),
    }
    paths = {"PYTHONPATH": ":".join(sys.path), "PATH": ""}
    done = subprocess.run(
        [sys.executable, "-c", code], env={**env, **paths}, capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith(str(tmp_path / "own" / "hub"))
