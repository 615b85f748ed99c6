"""Stars, titles and the bin: nothing that was noted or removed is lost. The runs here are a config.json alone."""

import errno
import json
import shutil
import threading
from pathlib import Path

import pytest

from trilemma import UserError
from trilemma.files import lock
from trilemma.studio import marks as marks_module
from trilemma.studio.place import Missing

SAID = '<p class="error" role="alert" lang="en">stars and titles are not available: '


@pytest.fixture
def make(studio):
    """Makes a run, whose weights may have a sum."""

    def run_named(name, weights=None):
        place = studio.folder / name
        place.mkdir(parents=True)
        (place / "config.json").write_text(json.dumps({"model": "vae", "name": name}))
        (place / "summary.json").write_text(json.dumps({"weights_sha256": weights}))
        return studio.library.run_at(name)

    return run_named


@pytest.mark.parametrize("content", ["{", "[]", '{"a": ', "\xff"])
def test_stars_that_cannot_be_read_are_not_written_over(browser, studio, make, content):
    a = make("a")
    studio.marks.star(a, True)
    file = studio.own / marks_module.MARKS
    file.write_text(content, "latin-1")
    with pytest.raises(UserError, match="nothing was changed"):
        studio.marks.star(a, False)
    assert browser.post(f"/runs/{a.id}/rename", {"title": "x"}).status_code == 400
    page = browser.get("/runs")
    assert page.status_code == 200 and f"{SAID}{file}" in page.text
    assert file.read_text("latin-1") == content
    file.unlink()
    studio.marks.star(a, True)
    assert studio.marks.all() == {"a": {"star": True}} and SAID not in browser.get("/runs").text


def test_stars_of_two_pages_at_once_are_both_kept(studio, make, monkeypatch):
    """Each reads the file before either has written it, if nothing keeps them apart."""
    read, a, b = marks_module.read_json, make("a"), make("b")
    studio.marks.star(a, False)
    both = threading.Barrier(2)

    def slowly(path):
        content = read(path)
        try:
            both.wait(0.05)
        except threading.BrokenBarrierError:
            both.reset()
        return content

    monkeypatch.setattr(marks_module, "read_json", slowly)
    threads = [threading.Thread(target=studio.marks.star, args=(run, True)) for run in (a, b)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    monkeypatch.setattr(marks_module, "read_json", read)
    assert studio.marks.all() == {"a": {"star": True}, "b": {"star": True}}


def test_runs_of_one_name_lie_side_by_side_in_the_bin(browser, studio, make):
    ident = make("a", "first").id
    assert browser.post(f"/runs/{ident}/remove").status_code == 303
    again = make("a", "second")
    assert browser.post(f"/runs/{ident}/remove").status_code == 303
    assert [*studio.marks.in_bin().values()] == ["a", "a"]
    with pytest.raises(Missing):
        studio.marks.remove(again)
    sums = []
    for name in [*studio.marks.in_bin()]:
        assert f"/runs/restore/{name}" in browser.get("/runs").text
        assert browser.post(f"/runs/restore/{name}").status_code == 303
        sums.append(studio.library.run_at("a").summary["weights_sha256"])
        studio.marks.remove(studio.library.run_at("a"))
    assert sums == ["first", "second"] and len(studio.marks.in_bin()) == 2


@pytest.fixture
def removed(studio):
    """Puts a run into the bin by hand, under a name that its file says."""

    def removed_as(name, path=None):
        ident = studio.library.id_of(studio.folder / (name if path is None else path))
        place = studio.marks.bin_folder / ident
        (place / "run").mkdir(parents=True)
        (place / "name.json").write_text(json.dumps(name))
        return place

    return removed_as


def test_a_run_comes_back_to_no_place_outside_or_hidden(browser, studio, removed, tmp_path):
    (tmp_path / "outside").mkdir()
    for link, target in (("link", tmp_path / "outside"), ("own", studio.own), ("inner", studio.folder)):
        (studio.folder / link).symlink_to(target)
    for name in ("link/x", "own/x", "inner/x", ".studio/x", ".hidden", "a/.hidden/x", "a/../x", "../x", "", "a\0b"):
        removed(name)
    for name in (str(tmp_path / "outside"), "/", str(studio.folder / "x")):
        removed(name, path=f"as-{len(name)}")
    good = removed("vae..2")
    removed("b").rename(tmp_path / "b")
    (studio.marks.bin_folder / studio.library.id_of(studio.folder / "b")).symlink_to(tmp_path / "b")
    page = browser.get("/runs")
    assert page.status_code == 200 and [*studio.marks.in_bin().values()] == ["vae..2"]
    for place in studio.marks.bin_folder.iterdir():
        assert browser.post(f"/runs/restore/{place.name}").status_code in (303, 404)
    assert (
        not [*(tmp_path / "outside").iterdir()] and (studio.folder / "vae..2").is_dir() and not (good / "run").exists()
    )
    assert {path.name for path in studio.folder.iterdir()} == {"link", "own", "inner", ".studio", "vae..2"}


@pytest.mark.parametrize("call", ["mkdir", "rename"])
def test_a_full_disk_is_said_by_the_bin(browser, studio, make, monkeypatch, call):
    def refuse(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    run = make("a")
    with monkeypatch.context() as patch:
        patch.setattr(marks_module.Path if call == "mkdir" else marks_module.os, call, refuse)
        answer = browser.post(f"/runs/{run.id}/remove")
        assert answer.status_code == 400 and "the disk is full" in answer.text and run.path.is_dir()
    studio.marks.remove(run)
    with monkeypatch.context() as patch:
        patch.setattr(marks_module.Path if call == "mkdir" else marks_module.os, call, refuse)
        answer = browser.post(f"/runs/restore/{run.id}")
        assert answer.status_code == 400 and "the disk is full" in answer.text and studio.marks.in_bin()


def test_a_file_in_the_place_of_a_folder_is_named(browser, studio, make):
    for name, file in (("a/b", "a"), ("c/d/e", "c")):
        run = make(name)
        studio.marks.remove(run)
        shutil.rmtree(studio.folder / file)
        (studio.folder / file).write_text("mine")
        answer = browser.post(f"/runs/restore/{run.id}")
        assert answer.status_code == 400 and f"of the folder of {name}" in answer.text
        assert (studio.folder / file).read_text() == "mine" and run.id in studio.marks.in_bin()


def test_a_receipt_knows_a_run_by_its_whole_sum_alone(studio, make):
    digits = "0123456789abcdef" * 4
    run = make("a", digits)
    make("b")
    for told in (digits, digits[:16]):
        assert studio.library.run_of({"run": "/elsewhere", "weights": told}) == run
    for told in (digits[:1], digits[:15], digits[:17], digits[:63], digits[:15] + "0", digits[:63] + "0", digits + "0",
                 "", None, "None"):  # fmt: skip
        assert studio.library.run_of({"run": "/elsewhere", "weights": told}) is None


def test_a_run_that_is_trained_further_is_not_put_into_the_bin(browser, make):
    """Its weights are there already; that it is trained is what the lock says."""
    run = make("a")
    (run.path / "weights.safetensors").write_bytes(b"")
    (run.path / "lock").write_text("process 1 on a machine")
    assert ">finished<" in browser.get("/runs").text
    with (run.path / "lock").open("rb") as held:
        lock(held)
        assert ">training<" in browser.get("/runs").text
        answer = browser.post(f"/runs/{run.id}/remove")
        assert answer.status_code == 400 and "a is being trained; stop it first" in answer.text and run.path.is_dir()
    assert browser.post(f"/runs/{run.id}/remove").status_code == 303 and not run.path.exists()


def test_a_run_whose_lock_can_only_be_read_is_finished(browser, make, monkeypatch):
    """It may be of another user."""
    run, opened = make("a"), Path.open
    (run.path / "weights.safetensors").write_bytes(b"")
    (run.path / "lock").write_text("process 1 on a machine")

    def open_to_read(path, mode="r", **keys):
        if path.name == "lock" and mode not in ("r", "rb"):
            raise PermissionError(errno.EACCES, "Permission denied")
        return opened(path, mode, **keys)

    monkeypatch.setattr(Path, "open", open_to_read)
    assert ">finished<" in browser.get("/runs").text
