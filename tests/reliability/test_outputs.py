"""A user's files: every verb that writes, at and around files of others, through links, and killed on the way."""

import os
import re
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from PIL import Image

import trilemma
from trilemma import files
from trilemma.errors import UserError
from trilemma.explore.sample import sample
from trilemma.pictures.png import read_metadata, save_png
from trilemma.results import Results, with_keys
from trilemma.run.run import Run

KILL = Path(__file__).parents[2] / "benchmarks"
LEFT = f".tmp-{0:032x}"  # as a killed process leaves
AROUND = ("notes.txt", ".foo.tmp", ".tmp-thesis/draft.txt", ".tmp-0123", f".tmp-{0:031x}g")


class Verb(NamedTuple):
    """call: of the runs, and of a folder to write into; writes: the files there, apart from further PNGs of a kind."""

    call: Callable[[dict[str, Run], Path], Any]
    writes: tuple[str, ...]


FLAT = ("o.png", "o.json")
DETECT = {"score": "error", "against": "shapes:40", "n": 40, "false_alarms": 0.1}
DETECTED = ("o/figures.json", "o/scores.csv", "o/thresholds.csv", "o/report.html", "o/histogram.png", "o/heatmaps.png")
DETECTED += ("o/flagged.png",)
PROJECTOR = [f"o-projector/{name}" for name in ("vectors.tsv", "metadata.tsv", "sprite.png")]
PROJECTOR += [f"o-projector/projector_config.{kind}" for kind in ("json", "pbtxt")]
INTERACTIVE = [f"o-interactive/{name}" for name in ("points.json", "thumbnails.png")]
MAP = {"how": "pca", "n": 8, "thumbnails": False, "projector": True, "interactive": True}

VERBS = {
    "sample": Verb(lambda r, o: sample(r["vae"], n=2, out=o / "o"), ("o.png", "o/00000.png", "o/00001.png")),
    "again": Verb(lambda r, o: trilemma.again(r["drawn"].path / "d.png", run=r["vae"], out=o / "o.png"), ("o.png",)),
    "reconstruct": Verb(lambda r, o: trilemma.reconstruct(r["vae"], n=2, out=o / "o.png"), FLAT),
    "interpolate": Verb(
        lambda r, o: trilemma.interpolate(r["vae"], 1, 2, frames=2, out=o / "o.png"), ("o.png", "o.gif")
    ),
    "invert": Verb(lambda r, o: trilemma.invert(r["gan"], n=1, steps=1, out=o / "o.png"), ("o.png", "o.npz", "o.json")),
    "traverse": Verb(lambda r, o: trilemma.traverse(r["vae"], units=0, steps=2, out=o / "o.png"), ("o.png",)),
    "denoise": Verb(
        lambda r, o: trilemma.denoise(r["denoiser"], steps=2, frames=2, out=o / "o.png"), ("o.png", "o.gif")
    ),
    "edit": Verb(lambda r, o: trilemma.edit(r["vae"], 1, towards="3", steps=2, out=o / "o.png"), ("o.png", "o.npy")),
    "compress": Verb(lambda r, o: trilemma.compress(r["vae"], n=2, out=o / "o.png"), FLAT),
    "disentangle": Verb(lambda r, o: trilemma.disentangle(r["vae"], n=250, quiet=True, out=o / "o.png"), FLAT),
    "map": Verb(
        lambda r, o: trilemma.latent_map(r["vae"], out=o / "o.png", **MAP),
        ("o.png", "o.csv", "o-neighbours.png", *PROJECTOR, *INTERACTIVE),
    ),
    "detect": Verb(lambda r, o: trilemma.detect(r["vae"], out=o / "o", **DETECT), DETECTED),
    "augment": Verb(
        lambda r, o: trilemma.augment(r["named"], n=10, verdict=False, archive=True, quiet=True, out=o / "o"),
        ("o.png", "o.zip", "o/metadata.csv", "o/verdict.json", *(f"o/{k}-/{k:05d}.png" for k in range(10))),
    ),
    "figure": Verb(lambda r, o: trilemma.figure("kl-penalty", out=o / "o.png"), ("o.png",)),
    "show": Verb(lambda r, o: trilemma.show(r["vae"].data, n=2, out=o / "o.png"), ("o.png",)),
    "check": Verb(lambda r, o: trilemma.check(r["vae"].data, out=o / "o.txt"), ("o.txt",)),
    "evaluate": Verb(
        lambda r, o: trilemma.evaluate(moved(r["vae"], o), n=100, bound_samples=0), ("metrics/recall_digits.json",)
    ),
    "compare": Verb(
        lambda r, o: trilemma.compare(r["vae"], n=100, quiet=True, out=o / "o"),
        ("o/request.json", "o/report.json", "o/report.html", "o/triangle.png", "o/partial.json", "o/lock"),
    ),
    "train": Verb(
        lambda r, o: trilemma.train("vae", "digits", steps=1, batch=16, device="cpu", quiet=True, out=o / "o"),
        ("o/config.json", "o/lock", "o/log.jsonl", "o/weights.safetensors", "o/README.md", "o/checkpoints/x"),
    ),
}
LONG = ("disentangle", "compare", "train", "evaluate", "detect", "map")


class Moved(Run):
    """A run that writes into another folder, where its weights are not."""

    weights_id = "0" * 16


def moved(run: Run, to: Path) -> Run:
    other = Moved.__new__(Moved)
    other.__dict__.update(run.__dict__, _given=to, _place=to)
    return other


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    base = tmp_path_factory.mktemp("outputs")

    def short(model: str, **keys: Any) -> Run:
        short_training = {"steps": 2, "batch": 16, "out": base / model, "device": "cpu", "quiet": True}
        path = trilemma.train(model, "digits", **short_training, **keys).path
        return trilemma.load(path, device="cpu")

    vae, named = short("vae"), short("vae-conditional")
    named.data = vae.data
    named.config = {**named.config, "classes": [f"{k}/" for k in range(10)]}  # which no folder can be called
    sample(vae, n=1, out=base / "d", singles=False)
    denoiser = short("diffusion-small", widths=(8, 8))
    gan = short("gan", width=4, latent=4)
    return {"vae": vae, "named": named, "drawn": moved(vae, base), "denoiser": denoiser, "gan": gan}


def foreign(path: Path) -> None:
    """A file of somebody else, of the kind that its name says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".png":
        Image.new("L", (2, 2)).save(path)
    else:
        path.write_text('{"mine": 1}' if path.suffix == ".json" else "mine,1\n")


def content(folder: Path) -> dict[str, bytes | str]:
    """Every file and link below a folder."""
    paths = sorted(path for path in folder.rglob("*") if path.is_symlink() or not path.is_dir())
    return {p.relative_to(folder).as_posix(): os.readlink(p) if p.is_symlink() else p.read_bytes() for p in paths}


# Files of others, at the place of what would be written


@pytest.mark.parametrize("name", VERBS)
def test_a_file_of_others_is_refused_before_any_work(runs: dict[str, Run], tmp_path: Path, name: str) -> None:
    for k, file in enumerate(VERBS[name].writes):
        folder = tmp_path / str(k)
        foreign(folder / file)
        before = content(folder)
        with pytest.raises(UserError, match=r"choose another out=") as error:
            VERBS[name].call(runs, folder)
        assert str(folder) in str(error.value), file
        assert content(folder) == before, file


def no_data(run: Run) -> None:
    raise AssertionError("the images are read")


VERDICT = Verb(lambda r, o: trilemma.augment(r["named"], n=10, quiet=True, out=o / "o"), ("o.png",))
READS_ITS_RUN = ("reconstruct", "interpolate", "invert", "traverse", "edit", "compress", "map", "detect")


@pytest.mark.parametrize("verb", [*(VERBS[name] for name in READS_ITS_RUN), VERDICT], ids=[*READS_ITS_RUN, "augment"])
def test_files_of_others_are_found_before_any_image_is_read(
    runs: dict[str, Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, verb: Verb
) -> None:
    monkeypatch.setattr(Run, "data", property(no_data))
    with pytest.raises(AssertionError, match="the images are read"):
        verb.call(runs, tmp_path)
    foreign(tmp_path / verb.writes[0])
    if verb is VERBS["detect"]:
        foreign(tmp_path / "o" / "figures.json")
    with pytest.raises(UserError, match="choose another out="):
        verb.call(runs, tmp_path)


@pytest.mark.parametrize("out", ["", ".", "..", os.sep])
def test_a_place_without_a_name_is_refused(
    runs: dict[str, Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, out: str
) -> None:
    monkeypatch.chdir(tmp_path)
    vae, named, drawn = runs["vae"], runs["named"], runs["drawn"].path / "d.png"
    calls: list[Callable[[], Any]] = [
        lambda: sample(vae, n=1, out=out),
        lambda: trilemma.again(drawn, run=vae, out=out),
        lambda: trilemma.reconstruct(vae, n=1, out=out),
        lambda: trilemma.interpolate(vae, 1, 2, out=out),
        lambda: trilemma.traverse(vae, out=out),
        lambda: trilemma.edit(vae, 1, towards="3", out=out),
        lambda: trilemma.compress(vae, n=1, out=out),
        lambda: trilemma.disentangle(vae, quiet=True, out=out),
        lambda: trilemma.latent_map(vae, how="pca", n=8, out=out),
        lambda: trilemma.augment(named, n=10, verdict=False, quiet=True, out=out),
        lambda: trilemma.figure("kl-penalty", out=out),
        lambda: trilemma.show(vae.data, n=1, out=out),
        lambda: trilemma.check(vae.data, out=out),
    ]
    for call in calls:
        with pytest.raises(UserError, match=f'^out="{re.escape(out)}" has no name; give the name of what to write'):
            call()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", VERBS)
def test_nothing_is_written_through_a_link(runs: dict[str, Run], tmp_path: Path, name: str) -> None:
    """At the place of a file: to a picture of ours, or to none."""
    for k, file in enumerate(VERBS[name].writes):
        folder = tmp_path / str(k)
        link, target = folder / file, folder / "elsewhere"
        link.parent.mkdir(parents=True)
        if k % 2 == 0:
            save_png(Image.new("L", (2, 2)), target, {"n": 1})
        link.symlink_to(target)
        before = content(folder)
        with pytest.raises(UserError, match=r"choose another out="):
            VERBS[name].call(runs, folder)
        assert content(folder) == before, file


@pytest.mark.parametrize(
    ("name", "linked"), [("map", "o-projector"), ("augment", "o/0-"), ("train", "o/samples"), ("evaluate", "metrics")]
)
def test_no_folder_below_is_a_link(runs: dict[str, Run], tmp_path: Path, name: str, linked: str) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    folder = tmp_path / "f"
    (folder / linked).parent.mkdir(parents=True)
    (folder / linked).symlink_to(elsewhere)
    with pytest.raises(UserError, match=r"choose another out="):
        VERBS[name].call(runs, folder)
    assert not list(elsewhere.iterdir())


@pytest.mark.parametrize("name", ["samples", "detect-n-40", "metrics", "synthetic"])
def test_a_link_in_a_run_folder_leads_no_verb_elsewhere(runs: dict[str, Run], tmp_path: Path, name: str) -> None:
    elsewhere, folder = tmp_path / "elsewhere", tmp_path / "run"
    elsewhere.mkdir()
    folder.mkdir()
    (folder / name).symlink_to(elsewhere)
    run, named = moved(runs["vae"], folder), moved(runs["named"], folder)
    calls: dict[str, Callable[[], Any]] = {
        "samples": lambda: sample(run, n=1),
        "detect-n-40": lambda: trilemma.detect(run, n=40),
        "metrics": lambda: trilemma.evaluate(run, n=100),
        "synthetic": lambda: trilemma.augment(named, n=10, verdict=False, quiet=True),
    }
    with pytest.raises(UserError, match=rf"{name} is a link"):
        calls[name]()
    assert not list(elsewhere.iterdir())


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
@pytest.mark.parametrize("name", ["sample", "reconstruct", "check", "compare"])
def test_a_pipe_or_a_folder_in_the_place_of_a_file(runs: dict[str, Run], tmp_path: Path, name: str) -> None:
    for k, make in enumerate((os.mkfifo, os.mkdir)):
        path = tmp_path / str(k) / VERBS[name].writes[-1]
        path.parent.mkdir(parents=True)
        make(path)
        with pytest.raises(UserError, match="choose another out="):
            VERBS[name].call(runs, tmp_path / str(k))


def test_a_file_in_the_place_of_a_folder(runs: dict[str, Run], tmp_path: Path) -> None:
    (tmp_path / "o").write_text("mine")
    for name in ("sample", "detect", "augment", "train", "compare"):
        with pytest.raises(UserError, match=r"o is not a folder|holds files"):
            VERBS[name].call(runs, tmp_path)
    assert content(tmp_path) == {"o": b"mine"}


# Files of others around


@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.slow] if n in LONG else []) for n in VERBS])
def test_files_around_stay_and_what_is_ours_is_replaced(runs: dict[str, Run], tmp_path: Path, name: str) -> None:
    """Also: the table of what a verb writes is whole, and a leftover of a killed process goes."""
    verb = VERBS[name]
    parents = {(tmp_path / file).parent for file in verb.writes if not file.startswith(("o/checkpoints", "o-proj"))}
    free = name in ("train", "compare")  # which begin in a folder that is empty, or theirs
    around = [parent / file for parent in parents for file in AROUND if not free]
    for path in (*around, *(parent / LEFT for parent in parents)):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("mine")
    verb.call(runs, tmp_path)
    first = content(tmp_path)
    verb.call(runs, tmp_path)
    again = content(tmp_path)
    assert first.keys() == again.keys() and not any(LEFT in file for file in again)
    assert all(path.read_text() == "mine" for path in around)
    if not free:
        ours = {file for file in again if tmp_path / file not in around}
        optional = {"o/verdict.json", "metrics/recall_digits.json"}
        assert {f for f in ours if not f.startswith("metrics")} == {*verb.writes} - optional


def test_what_was_changed_since_is_not_replaced(runs: dict[str, Run], tmp_path: Path) -> None:
    for name, file in (("reconstruct", "o.json"), ("edit", "o.npy"), ("augment", "o.zip")):
        VERBS[name].call(runs, tmp_path / name)
        path = tmp_path / name / file
        path.write_bytes(path.read_bytes() + b" ")
        before = content(tmp_path)
        with pytest.raises(UserError, match=r"changed since; choose another out="):
            VERBS[name].call(runs, tmp_path / name)
        assert content(tmp_path) == before


def test_a_picture_of_an_earlier_version_stands_for_the_files_of_its_verb(runs: dict[str, Run], tmp_path: Path) -> None:
    picture, beside = tmp_path / "o.png", tmp_path / "o.json"
    for verb, ours in (("reconstruct", True), ("traverse", False)):
        save_png(Image.new("L", (2, 2)), picture, {"trilemma": "0.1", "verb": verb})
        beside.write_text("{}")
        if ours:
            VERBS["reconstruct"].call(runs, tmp_path)
            assert read_metadata(picture)["files"].keys() == {"o.json"}
        else:
            with pytest.raises(UserError, match=r"o\.json exists"):
                VERBS["reconstruct"].call(runs, tmp_path)


@pytest.mark.parametrize("entry", [{"files": 3}, {"files": {"o.json": 5}}, {"files": {}, "what": []}, {"what": []}])
def test_an_entry_that_is_none_of_ours_makes_no_file_ours(tmp_path: Path, entry: dict[str, Any]) -> None:
    picture, beside = tmp_path / "o.png", tmp_path / "o.json"
    save_png(Image.new("L", (2, 2)), picture, entry)
    Results(picture, [beside], verb="reconstruct", within=tmp_path)
    beside.write_text("{}")
    with pytest.raises(UserError, match=r"o\.json exists"):
        Results(picture, [beside], verb="reconstruct", within=tmp_path)


def test_two_files_of_one_name(runs: dict[str, Run], tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r'end out= in "\.png"'):
        trilemma.reconstruct(runs["vae"], n=2, out=tmp_path / "o.json")


def test_a_file_that_is_being_written_is_no_leftover(tmp_path: Path) -> None:
    for name in (LEFT, LEFT.replace("0", "1")):
        (tmp_path / name).write_text("half")
    with open(tmp_path / LEFT, "rb") as held:
        files.lock(held)
        files.remove_leftovers(tmp_path)
        assert [path.name for path in tmp_path.iterdir()] == [LEFT]
    files.remove_leftovers(tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_new_file_that_was_taken_for_a_leftover_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process removes it between its making and its locking."""
    lock, taken = files.lock, []

    def late(file: Any, *, wait: bool = False) -> None:
        if wait and not taken:
            taken.append(file)
            files.remove_leftovers(tmp_path)
        lock(file, wait=wait)

    monkeypatch.setattr(files, "lock", late)
    assert files.write_atomic(tmp_path / "a", "whole").read_text() == "whole"
    assert taken and [path.name for path in tmp_path.iterdir()] == ["a"]


# A training's own folder


@pytest.mark.parametrize("mine", [".tmp-thesis/a", "lock", ".foo.tmp", LEFT + "/a"])
def test_a_folder_with_something_of_the_user_is_not_free(runs: dict[str, Run], tmp_path: Path, mine: str) -> None:
    foreign(tmp_path / "o" / mine)
    before = content(tmp_path)
    for name in ("train", "compare"):
        with pytest.raises(UserError, match="choose another out="):
            VERBS[name].call(runs, tmp_path)
    assert content(tmp_path) == before


def test_a_lock_cut_short_by_a_kill_needs_no_repair(runs: dict[str, Run], tmp_path: Path) -> None:
    for text in ("", "proc", "process 12", "process 12 on ho"):
        (tmp_path / "o").mkdir(exist_ok=True)
        (tmp_path / "o" / "lock").write_text(text)
        VERBS["train"].call(runs, tmp_path)


# Killed on the way


OTHERS = ("interpolate", "edit", "compress")


class Killed(BaseException):
    """The process ends here."""


def killed_at(k: int, call: Callable[[], Any], monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether `call` was ended before its k-th file event, of opening, flushing and renaming; nothing is tidied."""
    count = 0

    def before(real: Callable[..., Any]) -> Callable[..., Any]:
        def event(*args: Any, **keys: Any) -> Any:
            nonlocal count
            count += 1
            if count >= k:
                raise Killed
            return real(*args, **keys)

        return event

    with monkeypatch.context() as patch:
        for name in ("fsync", "replace"):
            patch.setattr(os, name, before(getattr(os, name)))
        patch.setattr(files, "_locked", before(files._locked))
        patch.setattr(files, "remove", lambda path: None)
        try:
            call()
        except Killed:
            return True
    return False


@pytest.mark.parametrize("name", ["reconstruct", *(pytest.param(n, marks=pytest.mark.slow) for n in OTHERS)])
def test_a_verb_that_was_killed_needs_no_repair(
    runs: dict[str, Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Whether its files were there before, with other content, or not."""
    other = {
        "reconstruct": lambda o: trilemma.reconstruct(runs["vae"], n=1, out=o / "o.png"),
        "interpolate": lambda o: trilemma.interpolate(runs["vae"], 1, 3, frames=2, out=o / "o.png"),
        "edit": lambda o: trilemma.edit(runs["vae"], 1, towards="4", steps=2, out=o / "o.png"),
        "compress": lambda o: trilemma.compress(runs["vae"], n=3, out=o / "o.png"),
    }[name]
    for there in (True, False):
        k = 1
        while True:
            folder = tmp_path / f"{k}{there}"
            folder.mkdir()
            if there:
                other(folder)
            killed = killed_at(k, lambda o=folder: VERBS[name].call(runs, o), monkeypatch)
            VERBS[name].call(runs, folder)
            assert set(content(folder)) == {*VERBS[name].writes}
            if not killed:
                break
            k += 1
        assert k == 1 + 3 * len(VERBS[name].writes)


@pytest.mark.slow
@pytest.mark.skipif(not (hasattr(os, "fork") and KILL.exists()), reason="needs os.fork and benchmarks/")
@pytest.mark.parametrize("name", [name for name in VERBS if name not in ("train", "disentangle")])
def test_sigkill_at_each_file_event(runs: dict[str, Run], tmp_path: Path, name: str) -> None:
    """A process is ended at every event of its own; the next one, a whole one, leaves what it would have left alone."""
    verb = VERBS[name]
    (tmp_path / "whole").mkdir()
    verb.call(runs, tmp_path / "whole")
    expected, k, stride = set(content(tmp_path / "whole")), 1, 5 if name in LONG else 1
    while True:
        folder = tmp_path / str(k)
        folder.mkdir()
        foreign(folder / ".foo.tmp")
        if not forked(lambda o=folder: verb.call(runs, o), k):
            break
        verb.call(runs, folder)
        assert set(content(folder)) == {*expected, ".foo.tmp"}, k
        k += stride
    assert k > 3


def forked(call: Callable[[], Any], k: int) -> bool:
    """Whether a process of its own was killed at its k-th file event."""
    pid = os.fork()
    if not pid:
        sys.path.insert(0, str(KILL))
        import kill

        torch.set_num_threads(1)
        kill.Killer(k).install()
        try:
            call()
        finally:
            os._exit(0)
    _, status = os.waitpid(pid, 0)
    return os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL


# Names


def test_labels_have_folders_of_their_own(runs: dict[str, Run], tmp_path: Path) -> None:
    run = moved(runs["named"], tmp_path)
    classes = ["猫", "狗", "a b", "a+b", "Shirt", "shirt", "é", "e\u0301", "x", "x" * 300]
    run.config = {**run.config, "classes": classes}
    folders = {label: sample(run, n=1, label=label).images[0].parent.name for label in classes}
    assert len({name.casefold() for name in folders.values()}) == len(classes)
    assert folders["猫"] == "seed-0_label-猫" and folders["x"] == "seed-0_label-x"
    assert all(read_metadata(tmp_path / "samples" / f"{folders[c]}.png")["label"] == c for c in classes)


def test_other_keys_make_other_names() -> None:
    """Also lists of words: two of them may differ from three in the place of a comma alone."""
    labels: list[Any] = ["a b", "a-b", "a=b", "a,b", "a", ["a", "b"], "a-units-0", "", "0,4", "0-4", (0, 4.5), "猫"]
    names = {with_keys("t", {"label": label}, {}) for label in labels}
    assert len(names) == len(labels) - 1  # "a,b" and ["a", "b"] are the same on a command line
    assert {"t-label-a", "t-label-0-4", "t-label-0-4.5", "t-label-猫"} <= names
    assert with_keys("t", {"label": "a-units-0"}, {}) != with_keys("t", {"label": "a", "units": 0}, {})


@pytest.mark.parametrize("name", ["sample", "map", "detect", "augment", "show", "evaluate", "train", "compare", "data"])
def test_a_negative_seed_is_refused(runs: dict[str, Run], tmp_path: Path, name: str) -> None:
    run, out = runs["vae"], tmp_path / "o"
    calls: dict[str, Callable[[], Any]] = {
        "sample": lambda: sample(run, n=1, seed=-1, out=out),
        "map": lambda: trilemma.latent_map(run, n=8, seed=-1, out=out),
        "detect": lambda: trilemma.detect(run, seed=-1, out=out, **DETECT),
        "augment": lambda: trilemma.augment(runs["named"], n=10, seed=-1, verdict=False, quiet=True, out=out),
        "show": lambda: trilemma.show(run.data, n=2, seed=-1, out=out),
        "evaluate": lambda: trilemma.evaluate(moved(run, out), n=100, seed=-1, bound_samples=0),
        "train": lambda: trilemma.train("vae", "digits", steps=1, seed=-1, quiet=True, out=out),
        "compare": lambda: trilemma.compare(run, n=100, seed=-1, quiet=True, out=out),
        "data": lambda: trilemma.load_data("digits", seed=-1),
    }
    with pytest.raises(UserError, match=r"seed=-1: a seed is a whole number, 0 or more"):
        calls[name]()
    assert not content(tmp_path)
