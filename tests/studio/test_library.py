"""What lies in the folder is found without a look at more of it than is needed."""

import os
from contextlib import contextmanager

import pytest

from trilemma.studio import library as library_module
from trilemma.studio.library import folders_below
from trilemma.studio.sources import LOOKED_AT, LOOKED_AT_OF_CLASS, own_sources


@pytest.fixture
def scanned(monkeypatch):
    """How many entries of each folder were read, by its name."""
    counts, scandir = {}, os.scandir

    @contextmanager
    def counting(folder):
        def entries(listing):
            for entry in listing:
                counts[os.path.basename(folder)] += 1
                yield entry

        counts.setdefault(os.path.basename(folder), 0)
        with scandir(folder) as listing:
            yield entries(listing)

    monkeypatch.setattr(library_module.os, "scandir", counting)
    return counts


def touch(folder, count, suffix=".png"):
    folder.mkdir(parents=True)
    for k in range(count):
        (folder / f"{k}{suffix}").touch()


def test_a_run_is_found_without_a_look_into_the_folders_of_images(studio, scanned):
    touch(studio.folder / "photos", 20)
    touch(studio.folder / "runs" / "a", 1)
    (studio.folder / "runs" / "a" / "config.json").write_text('{"model": "vae"}')
    scanned.clear()
    assert studio.library.run_at("runs/a").name == "runs/a"
    assert studio.library.run(studio.library.id_of(studio.folder / "runs" / "a")).name == "runs/a"
    assert {*scanned} == {studio.folder.name, "runs"}
    assert [run.name for run in studio.library.runs()] == ["runs/a"] and scanned["photos"] == 20


def test_of_data_a_few_entries_are_looked_at(studio, scanned):
    touch(studio.folder / "photos", 200)
    touch(studio.folder / "notes", 200, ".txt")
    for kind in ("cat", "dog"):
        touch(studio.folder / "data" / "pets" / kind, 20)
    touch(studio.folder / "data" / "letters" / "a", 20, ".txt")
    (studio.folder / "all.zip").touch()
    (studio.folder / "link").symlink_to(studio.folder / "photos")
    (studio.folder / ".hidden").mkdir()
    scanned.clear()
    assert [source.word for source in own_sources(studio.library)] == ["all.zip", "photos", "data/pets"]
    assert scanned["photos"] == scanned["notes"] == LOOKED_AT
    (pet,) = {"cat", "dog"} & {*scanned}  # the first image is enough
    assert scanned[pet] == scanned["a"] == LOOKED_AT_OF_CLASS


def test_folders_are_listed_in_layers_by_name_up_to_a_bound(tmp_path, monkeypatch):
    for name in ("b/inner", "runs/x", "a/deep/er", ".hidden/x"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path / "a")

    def listed(deepest, enters=lambda path: True):
        return [path.relative_to(tmp_path).as_posix() for path in folders_below(tmp_path, deepest, enters)]

    assert listed(3) == ["runs", "a", "b", "runs/x", "a/deep", "b/inner", "a/deep/er"]
    assert listed(2, lambda path: path.name != "a") == ["runs", "a", "b", "runs/x", "b/inner"]
    monkeypatch.setattr(library_module, "MOST_FOLDERS", 4)
    assert listed(3) == ["runs", "a", "b", "runs/x"]
    assert [*folders_below(tmp_path / "none", 3, bool)] == []
