"""What a run folder names is read only if the user has named it himself."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import trilemma
from trilemma import UserError
from trilemma.data.sources import builtin, consent
from trilemma.data.sources.consent import is_allowed, note_source
from trilemma.data.sources.mnist import FILES
from trilemma.explore.images import load
from trilemma.run import stored


@pytest.fixture(autouse=True)
def stranger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A user who has named nothing yet."""
    forget(monkeypatch)
    monkeypatch.setattr(consent, "cache_dir", lambda: tmp_path / "cache")
    monkeypatch.delenv("TRILEMMA_DATA", raising=False)


def forget(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a new process."""
    monkeypatch.setattr(consent, "_named", set())


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of images in `photos` beside it."""
    place = tmp_path_factory.mktemp("consent")
    (place / "photos").mkdir()
    for k in range(12):
        Image.fromarray(np.random.default_rng(k).integers(0, 256, (8, 8), np.uint8)).save(place / f"photos/{k}.png")
    trilemma.train("ae-linear", place / "photos", steps=1, out=place / "run", device="cpu", quiet=True)
    return place


def changed(trained: Path, into: Path, **config: Any) -> trilemma.Run:
    """A copy of the run whose config.json says something else."""
    shutil.copytree(trained / "run", into)
    document = json.loads((into / "config.json").read_text("utf-8"))
    (into / "config.json").write_text(json.dumps({**document, **config}), "utf-8")
    return trilemma.load(into)


def test_a_strangers_run_is_sampled_and_its_source_is_not_touched(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stored, "load_data", lambda *_, **__: pytest.fail("it is read"))
    run = trilemma.load(trained / "run")
    assert run.sample(2).shape == (2, 1, 8, 8)
    with pytest.raises(UserError, match=f"To allow it, type: trilemma data check {trained / 'photos'}$"):
        _ = run.data
    with pytest.raises(UserError, match="not read"):
        trilemma.reconstruct(run, n=1, out=tmp_path / "x.png")


@pytest.mark.parametrize("way", ["check", "load_data", "data=", "train"])
def test_naming_the_source_once_is_enough(way: str, trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    photos = trained / "photos"
    {
        "check": lambda: trilemma.check(photos),
        "load_data": lambda: trilemma.load_data(photos),
        "data=": lambda: load(trilemma.load(trained / "run"), photos),
        "train": lambda: trilemma.train("ae-linear", photos, steps=1, out=trained / "run", device="cpu", quiet=True),
    }[way]()
    assert len(trilemma.load(trained / "run").data.train) > 1
    forget(monkeypatch)
    assert len(trilemma.load(trained / "run").data.train) > 1
    assert json.loads((consent.cache_dir() / "sources.jsonl").read_text()) == str(photos)  # one line


@pytest.mark.parametrize("source", ["--out=x", "photos", "", 3, None, ["digits"], "../photos"])
def test_what_is_no_source_of_ours_gives_no_advice_to_type(source: Any, trained: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"give data=|data must be text") as caught:
        _ = changed(trained, tmp_path / "run", data=source).data
    assert "trilemma data check" not in str(caught.value)


def test_data_that_would_be_fetched_are_asked_for(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(builtin, "places", lambda name: [tmp_path / name])
    for source in ("mnist", "cifar10", "hf:someone/something"):
        assert not is_allowed(source)
        with pytest.raises(UserError, match=f"trilemma data check {source}$"):
            _ = changed(trained, tmp_path / f"run-{source.partition('/')[0]}", data=source).data
    assert is_allowed("digits") and is_allowed("shapes:500")
    (tmp_path / "mnist").mkdir()
    for file in FILES:
        (tmp_path / "mnist" / file).touch()
    assert is_allowed("mnist")


def test_what_lies_in_the_folder_for_data_is_allowed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRILEMMA_DATA", str(tmp_path / "data"))
    assert is_allowed(str(tmp_path / "data" / "photos.zip"))
    for source in (f"{tmp_path}/data/../photos", f"{tmp_path}/data2/photos", "photos", "hf:a/b"):
        assert not is_allowed(source)
    note_source(f"{tmp_path}/data/photos")
    forget(monkeypatch)
    monkeypatch.delenv("TRILEMMA_DATA")
    assert is_allowed(f"{tmp_path}/data/photos")


def test_a_cache_that_cannot_be_written_or_read_costs_the_memory_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setattr(consent, "cache_dir", lambda: tmp_path / "file" / "cache")
    note_source("/photos")
    assert is_allowed("/photos")
    forget(monkeypatch)
    assert not is_allowed("/photos")
    monkeypatch.setattr(consent, "cache_dir", lambda: tmp_path)
    (tmp_path / "sources.jsonl").write_bytes(b"\xff\0")
    assert not is_allowed("/photos")
