"""The folder of an export: whole, or as it was before."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from trilemma.errors import UserError
from trilemma.sharing.folder import RECORD, claim_export, write_export

RUN = SimpleNamespace(recipe=SimpleNamespace(name="ae-linear"), weights_id="0" * 16, shape=(1, 8, 8))


def writer(text):
    def write(folder):
        (folder / "weights").write_text(text)
        return {}

    return write


def contents(folder):
    return {path.name: path.read_text() for path in folder.iterdir()}


def test_an_export_that_cannot_be_put_in_place_leaves_the_earlier_one(tmp_path, monkeypatch):
    folder = tmp_path / "onnx"
    write_export(folder, RUN, "onnx", writer("first"))
    before = contents(folder)
    rename = Path.rename

    def fails(path, target):
        if (path / "weights").read_text() == "second":
            raise OSError(5, "Input/output error")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", fails)
    with pytest.raises((UserError, OSError), match=r"(?i)input/output error"):
        write_export(folder, RUN, "onnx", writer("second"))
    monkeypatch.undo()
    assert contents(folder) == before and [path.name for path in tmp_path.iterdir()] == ["onnx"]
    write_export(folder, RUN, "onnx", writer("second"))
    assert contents(folder)["weights"] == "second" and RECORD in contents(folder)


def test_files_that_arrive_during_the_conversion_stay(tmp_path):
    folder = claim_export(tmp_path / "onnx", RUN, "onnx")

    def write(scratch):
        folder.mkdir()
        (folder / "mine").write_text("mine")
        return writer("ours")(scratch)

    with pytest.raises(UserError, match="was not written by trilemma export"):
        write_export(folder, RUN, "onnx", write)
    assert contents(folder) == {"mine": "mine"} and [path.name for path in tmp_path.iterdir()] == ["onnx"]
