"""Runs to a hub of our own on 127.0.0.1, and back: the same samples, nothing of this machine in what is uploaded."""

import getpass
import json
import platform
import shutil
import socket
from collections import namedtuple
from pathlib import Path

import pytest
import torch
from PIL import Image
from presets import small
from pretrained.hub import COMMIT, TOKEN, Hub, serving
from safetensors.torch import load_file, save_file

import trilemma
from trilemma.cli import main as cli
from trilemma.errors import UserError
from trilemma.metrics.receipt import score_of, write_score
from trilemma.pictures.png import read_metadata
from trilemma.run.hub import GRID, SHARED
from trilemma.sharing.hub_card import task_of
from trilemma.sharing.push import MANIFEST

NAME = "owner/tiny"
UPLOADED = {*SHARED, MANIFEST}


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """A folder of images whose path says who owns it."""
    folder = tmp_path_factory.mktemp("somebody") / "secret-user" / "secret-photos"
    for name in ("cats", "dogs"):
        (folder / name).mkdir(parents=True)
        for k in range(12):
            Image.new("L", (8, 8), 20 * k).save(folder / name / f"IMG-secret-{k}.png")
    return folder


@pytest.fixture(scope="module")
def trained(photos, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "secret-run"
    run = trilemma.train("ae-stacked", photos, steps=2, batch=8, out=out, device="cpu", quiet=True)
    protocol = "recall_12_valid"
    score = score_of("recall", protocol, 0.125, data=str(photos), weights=run.weights_id)
    write_score(run.path / "metrics", score)
    old = score_of("recall", "recall_old", 0.75, weights="f" * 16)
    write_score(run.path / "metrics", old)
    summary = json.loads((run.path / "summary.json").read_text("utf-8"))
    summary["warnings"] = [f"the sample picture {run.path}/last.png was not written", "the loss rose"]
    (run.path / "summary.json").write_text(json.dumps(summary), "utf-8")
    return run.path


@pytest.fixture
def hub(tmp_path, monkeypatch):
    constants = pytest.importorskip("huggingface_hub.constants")
    hub = Hub()
    monkeypatch.setenv("TRILEMMA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "home" / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)  # whose servers there is no stand-in for
    monkeypatch.chdir(tmp_path)
    with serving(hub) as address:
        monkeypatch.setenv("HF_ENDPOINT", address)
        yield hub


def blocked(*_):
    raise AssertionError("a call to another machine")


def test_a_run_comes_back_as_it_was(hub, trained, monkeypatch, capsys):
    pushed = trilemma.push(trained, NAME)
    assert (pushed.run, pushed.commit) == (f"hf:{NAME}", COMMIT) and pushed.page.endswith(f"/{NAME}")
    assert set(hub.files[NAME]) == set(pushed.files) == UPLOADED and hub.private[NAME] is False
    assert hub.files[NAME]["weights.safetensors"] == (trained / "weights.safetensors").read_bytes()
    assert f"/{NAME}: " in capsys.readouterr().err
    other, own = trilemma.load(f"hf:{NAME}"), trilemma.load(trained)
    assert torch.equal(other.sample(3, seed=1), own.sample(3, seed=1))
    assert other.weights_id == own.weights_id and other.classes == ("cats", "dogs")
    hub.asked.clear()
    monkeypatch.setattr(socket.socket, "connect", blocked)
    assert torch.equal(trilemma.load(f"hf:{NAME}").sample(2), own.sample(2)) and not hub.asked


TINY = {  # of each model and of what it is trained on: keys; and how an image is asked for
    "diffusion-latent": ("digits", {"autoencoder.steps": 2, "autoencoder.batch": 8, "check": False}, {}),
    "diffusion-text": ("scenes:24", {"size": 16}, {"caption": "two small red circles"}),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", TINY)
def test_a_model_of_parts_and_one_of_words_come_back_as_they_were(hub, name, tmp_path, monkeypatch):
    """With its own part, its statistics of codes, and its vocabulary."""
    data, keys, asked = TINY[name]
    keys = {**small(name), **keys, "steps": 2, "batch": 8, "out": tmp_path / "run", "device": "cpu", "quiet": True}
    own = trilemma.train(name, data, **keys)
    trilemma.push(own, NAME)
    other = trilemma.load(f"hf:{NAME}")
    assert torch.equal(other.sample(2, seed=1, **asked), own.sample(2, seed=1, **asked))
    assert other.weights_id == own.weights_id
    hub.asked.clear()
    monkeypatch.setattr(socket.socket, "connect", blocked)
    assert torch.equal(trilemma.load(f"hf:{NAME}").sample(1, **asked), own.sample(1, **asked)) and not hub.asked


def test_nothing_of_this_machine_is_uploaded(hub, trained, photos):
    trilemma.push(trained, NAME)
    names = [getpass.getuser(), platform.node(), "secret", "somebody"]
    places = [Path.home(), Path.cwd(), trained, trained.parent, photos, photos.parent, Path(trilemma.__file__).parent]
    for name, content in hub.files[NAME].items():
        text = content.decode("latin-1").replace("\\\\", "\\")
        assert not [place for place in map(str, places) if place in text], name
        assert not [word for word in names if f"/{word}" in text or f"{word}/" in text or "secret" in text], name
    with Image.open(trained / "samples/last.png") as one:
        (trained / "copy.png").write_bytes(hub.files[NAME]["samples/last.png"])
        with Image.open(trained / "copy.png") as other:
            assert one.tobytes() == other.tobytes() and other.info == {}
    assert read_metadata(trained / "samples/last.png")  # while the run's own says how it was made
    (trained / "copy.png").unlink()
    config = json.loads(hub.files[NAME]["config.json"])
    assert config["data"] == "private images" and config["command"].startswith("trilemma train ae-stacked IMAGES ")
    assert json.loads(hub.files[NAME]["summary.json"])["warnings"] == ["the loss rose"]
    assert set(json.loads(hub.files[NAME]["environment.json"])) <= {
        "python",
        "torch",
        "device",
        "device_name",
        "precision",
    }
    with pytest.raises(UserError, match=r"names no images that can be found here .*; give data="):
        _ = trilemma.load(f"hf:{NAME}").data


def test_the_card_has_scores_samples_and_the_line_that_draws(hub, trained):
    trilemma.push(trained, NAME)
    card = hub.files[NAME]["README.md"].decode()
    head = "library_name: trilemma\npipeline_tag: unconditional-image-generation\ntags:\n- trilemma\n- autoencoder\n"
    assert card.startswith(f"---\n{head}---\n") and "\n# ae-stacked on private images\n" in card
    assert "| recall | 0.125 |" in card and "recall_12_valid" in card.replace("\\", "")
    assert "0.75" not in card  # of other weights
    assert "![samples](samples/last.png)" in card and f"trilemma sample hf:{NAME} n=64" in card
    assert "checkpoints" not in card and "log.jsonl" not in card


@pytest.mark.parametrize(
    ("name", "keys", "task"),
    [
        ("vae", {}, "unconditional-image-generation"),
        ("diffusion-text", small("diffusion-text"), "text-to-image"),
        ("diffusion-upscale", small("diffusion-upscale"), "image-to-image"),
        ("vae-vq", {"prior": False}, None),
    ],
)
def test_the_task_on_the_card_is_what_the_model_does(name, keys, task):
    assert task_of(trilemma.create(name, shape=(1, 8, 8), **keys)) == task


def test_data_known_by_name_is_named(hub, tmp_path):
    run = trilemma.train("ae-linear", "digits", steps=1, batch=16, out=tmp_path / "run", device="cpu", quiet=True)
    run.config["notes"] += [f"read from {tmp_path}/digits"]
    trilemma.push(run, NAME)
    config = json.loads(hub.files[NAME]["config.json"])
    assert config["notes"] == run.config["notes"][:-1] and config["notes"]
    assert config["data"] == "digits" and config["command"] == run.config["command"]
    assert trilemma.load(f"hf:{NAME}").data.fingerprint == run.data.fingerprint


def test_a_public_repository_is_refused_where_private_was_asked(hub, trained):
    trilemma.push(trained, NAME)
    public = dict(hub.files[NAME])
    with pytest.raises(UserError, match="is public; choose another name"):
        trilemma.push(trained, NAME, private=True, update=True)
    assert hub.files[NAME] == public and hub.asked[-1][0] == "GET"  # nothing was uploaded
    assert trilemma.push(trained, NAME, update=True).run == f"hf:{NAME}"


def without_grid(trained, folder):
    """The run without its last picture, as of a model that draws no images."""
    run = shutil.copytree(trained, folder)
    (run / GRID).unlink()
    return run


def test_an_update_deletes_what_it_no_longer_has(hub, trained, tmp_path):
    trilemma.push(trained, NAME)
    hub.files[NAME] |= {"notes.txt": b"mine", "samples/own.png": b"mine", ".gitattributes": b""}
    pushed = trilemma.push(without_grid(trained, tmp_path / "copy"), NAME, update=True)
    assert pushed.deleted == (GRID,)
    assert set(hub.files[NAME]) == UPLOADED - {GRID} | {"notes.txt", "samples/own.png", ".gitattributes"}
    assert GRID not in json.loads(hub.files[NAME][MANIFEST])["files"]
    assert trilemma.load(f"hf:{NAME}").sample(1).shape == (1, 1, 8, 8)
    hub.files[NAME][GRID] = b"of the owner, who put it there since"
    assert trilemma.push(tmp_path / "copy", NAME, update=True).deleted == () and GRID in hub.files[NAME]


@pytest.mark.parametrize(
    "content", [None, b"", b"[]", b"{", b'{"format": 1}', b'{"format": 2, "files": ["notes.txt"]}', b" " * (1 << 17)]
)
def test_without_a_list_of_uploaded_files_nothing_is_deleted(hub, trained, tmp_path, capsys, content):
    trilemma.push(trained, NAME)
    hub.files[NAME] |= {"notes.txt": b"mine", MANIFEST: content}
    hub.files[NAME] = {name: content for name, content in hub.files[NAME].items() if content is not None}
    assert trilemma.push(without_grid(trained, tmp_path / "copy"), NAME, update=True).deleted == ()
    assert set(hub.files[NAME]) == UPLOADED | {"notes.txt"}
    assert ("is not a list of uploaded files; no file" in capsys.readouterr().err) == (content is not None)


@pytest.mark.parametrize("names", [["/etc/passwd", "../x", "absent", 3, None, ["README.md"], {}], [], {"a": 1}, "x"])
def test_a_list_that_names_anything_deletes_only_files_that_are_there(hub, trained, names):
    trilemma.push(trained, NAME)
    hub.files[NAME][MANIFEST] = json.dumps({"format": 1, "files": names}).encode()
    assert trilemma.push(trained, NAME, update=True).deleted == () and set(hub.files[NAME]) == UPLOADED


def test_the_command_line_says_what_an_update_deletes(hub, trained, tmp_path, capsys):
    trilemma.push(trained, NAME)
    without_grid(trained, tmp_path / "copy")
    capsys.readouterr()
    assert cli.main(["push", str(tmp_path / "copy"), NAME, "update=true"]) == 0
    assert f"deleted  {GRID}" in capsys.readouterr().out


def test_the_command_line_pushes_and_draws(hub, trained, tmp_path, capsys):
    assert cli.main(["push", str(trained), NAME, "private=true"]) == 0
    said = capsys.readouterr()
    assert f"hf:{NAME}" in said.out and COMMIT in said.out and hub.private[NAME] is True
    assert "deleted" not in said.out
    assert cli.main(["sample", f"hf:{NAME}", "n=2", "out=o"]) == 0
    assert sorted(path.name for path in (tmp_path / "o").iterdir()) == ["00000.png", "00001.png"]
    assert "licence openrail++" in capsys.readouterr().err
    assert cli.main(["evaluate", "hf:owner/absent"]) == 2
    assert "owner/absent not found at" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["tiny", "owner/", "owner/na me", "a/b/c", "", "../x/y", "hf:tiny"])
def test_a_name_of_another_form_is_refused(hub, trained, name):
    with pytest.raises(UserError, match=r"is not the name of a repository; write OWNER/NAME"):
        trilemma.push(trained, name)
    with pytest.raises(UserError, match=r"is not a run of the hub; write hf:OWNER/NAME"):
        trilemma.load(f"hf:{name.removeprefix('hf:')}")
    assert not hub.asked


def test_what_the_hub_refuses_is_one_sentence(hub, trained, monkeypatch):
    hub.files[NAME] = {"README.md": b"mine"}
    hub.refusals["strange/tiny"] = (403, "")
    for name, words in (
        (NAME, "owner/tiny exists; choose another name, or update=true"),
        ("strange/tiny", "your token may not write to strange/tiny: choose an owner other than strange"),
    ):
        with pytest.raises(UserError, match=words) as caught:
            trilemma.push(trained, name)
        assert "\n" not in str(caught.value)
    assert hub.files[NAME] == {"README.md": b"mine"}
    trilemma.push(trained, NAME, update=True)
    assert set(hub.files[NAME]) == UPLOADED
    monkeypatch.setenv("HF_TOKEN", "hf_other")
    with pytest.raises(UserError, match="the hub does not accept your token: make a token"):
        trilemma.push(trained, "owner/other")


def test_without_a_token_nothing_is_sent(hub, trained, monkeypatch):
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub, "get_token", lambda: None)
    with pytest.raises(UserError, match=r"a token of the hub is needed: .* hf auth login"):
        trilemma.push(trained, NAME)
    assert not hub.asked


def test_an_unfinished_run_is_not_uploaded(hub, trained, tmp_path):
    run = shutil.copytree(trained, tmp_path / "copy")
    (run / "weights.safetensors").unlink()
    with pytest.raises(UserError, match="not finished"):
        trilemma.push(run, NAME)
    assert not hub.asked


@pytest.mark.parametrize("place", ["{here}/x", "C:\\\\Users\\\\{user}\\\\photos", "of {node}", "home/{user}/photos"])
def test_a_text_that_names_a_place_here_is_not_uploaded(hub, trained, tmp_path, place):
    run = shutil.copytree(trained, tmp_path / "other")
    config = json.loads((run / "config.json").read_text("utf-8"))
    words = {"here": tmp_path, "user": getpass.getuser(), "node": platform.node()}
    (run / "config.json").write_text(json.dumps({**config, "classes": ["cats", place.format(**words)]}), "utf-8")
    with pytest.raises(UserError, match=r'config\.json would say ".*", which is of this machine; nothing was uploaded'):
        trilemma.push(run, NAME)
    assert not hub.asked


def strangers(hub, trained, changes):
    """A repository with other files than a run has."""
    trilemma.push(trained, NAME)
    files = {**hub.files[NAME], **changes}
    hub.files[NAME] = {name: content for name, content in files.items() if content is not None}
    hub.asked.clear()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"config.json": None}, r"owner/tiny does not hold a run of trilemma: it has no config\.json"),
        ({"weights.safetensors": None, "weights.pt": b"pickle"}, r"it has no weights\.safetensors"),
        ({"model.py": b"import os"}, r"owner/tiny holds code \(model\.py\)"),
        ({"summary.json": b" " * ((16 << 20) + 1)}, r"summary\.json has 16,777,217 bytes, more than a run's"),
    ],
)
def test_what_is_no_run_is_refused_before_anything_is_fetched(hub, trained, changes, words):
    strangers(hub, trained, changes)
    with pytest.raises(UserError, match=words):
        trilemma.load(f"hf:{NAME}")
    assert [path for _, path in hub.asked] == [f"/api/models/{NAME}?blobs=true"]


def test_only_the_files_of_a_run_are_fetched(hub, trained, tmp_path):
    strangers(
        hub, trained, {"checkpoints/1.safetensors": b"x", "log.jsonl": b"{}", ".gitattributes": b"", "a.bin": b"x"}
    )
    trilemma.load(f"hf:{NAME}")
    asked = {path.partition(f"{COMMIT}/")[2] for _, path in hub.asked if "/resolve/" in path}
    assert asked == set(SHARED)
    folder = tmp_path / "cache" / "runs" / "owner--tiny" / COMMIT
    assert {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()} - {
        path.relative_to(folder).as_posix() for path in (folder / ".cache").rglob("*")
    } == set(SHARED)


@pytest.mark.filterwarnings("ignore:Not enough free disk space")
def test_room_is_needed_where_the_run_is_put(hub, trained, tmp_path, monkeypatch):
    trilemma.push(trained, NAME)
    cache, home = tmp_path / "cache", tmp_path / "home"
    cache.mkdir()
    home.mkdir()
    free = {cache: 10, home: 1 << 30}

    def disk_usage(path):
        (count,) = (count for place, count in free.items() if Path(path).is_relative_to(place))
        return namedtuple("Usage", "total used free")(1 << 31, 0, count)

    monkeypatch.setattr(shutil, "disk_usage", disk_usage)
    with pytest.raises(UserError, match=r"10 bytes are free in .*cache; make room, or set TRILEMMA_CACHE to"):
        trilemma.load(f"hf:{NAME}")
    assert not [path for _, path in hub.asked if "/resolve/" in path]
    free |= {cache: 1 << 30, home: 10}
    assert trilemma.load(f"hf:{NAME}").sample(1).shape == (1, 1, 8, 8)


def test_what_a_strangers_files_hold_is_checked_as_of_any_run(hub, trained, tmp_path):
    weights = load_file(trained / "weights.safetensors")
    save_file({name: torch.zeros(1) for name in weights}, tmp_path / "w.safetensors")
    config = json.loads((trained / "config.json").read_text("utf-8"))
    for changes, words in (
        ({"weights.safetensors": (tmp_path / "w.safetensors").read_bytes()}, "does not hold the weights of ae-stacked"),
        ({"weights.safetensors": b"\x80\x04pickle" * 10}, "is not a weights file"),
        ({"config.json": b"[" * 100_000}, "is not valid"),
        ({"config.json": json.dumps({**config, "model": "os.system"}).encode()}, 'unknown model "os.system"'),
        ({"config.json": json.dumps({**config, "format": 99}).encode()}, "has format 99"),
    ):
        hub.files.pop(NAME, None)
        shutil.rmtree(tmp_path / "cache", ignore_errors=True)
        strangers(hub, trained, changes)
        with pytest.raises(UserError, match=words):
            trilemma.load(f"hf:{NAME}").sample(1)


def test_a_flipped_bit_is_detected_and_the_next_try_works(hub, trained):
    trilemma.push(trained, NAME)
    hub.flips = {"weights.safetensors"}
    with pytest.raises(UserError, match=r"weights\.safetensors is not the file it should be: it has other content"):
        trilemma.load(f"hf:{NAME}")
    hub.flips = set()
    assert trilemma.load(f"hf:{NAME}").sample(1).shape == (1, 1, 8, 8)
