"""The checks of the machine, each against a machine made up for it."""

import os

import pytest
import torch

from trilemma import checkup, hardware
from trilemma.errors import UserError


def only(checks, name):
    (found,) = [check for check in checks if check.name == name]
    return found


def test_this_machine_passes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    checks = checkup.doctor()
    names = [check.name for check in checks]
    assert len(set(names)) == len(names)
    assert {"python", "torch", "numpy", "pillow", "device", "fast bf16", "cores", "memory", "free disk", "write"} <= {
        *names
    }
    assert [check for check in checks if check.status == "problem"] == []
    assert only(checks, "torch").found == torch.__version__
    assert list(tmp_path.iterdir()) == []  # the write test leaves nothing behind


@pytest.mark.parametrize(
    ("found", "status"),
    [("2.9.1", "problem"), ("2.10.0", "ok"), ("2.13.0+cpu", "ok"), ("3.0", "ok"), (None, "problem")],
)
def test_torch_has_a_floor(monkeypatch, found, status):
    monkeypatch.setattr(checkup, "installed", lambda name: found if name == "torch" else "99")
    check = only(checkup.check_packages(), "torch")
    assert check.status == status
    assert ("pip install" in check.advice) == (status == "problem")


@pytest.mark.parametrize(("found", "status"), [("12.2.9", "problem"), ("12.3.0", "ok"), ("13.0.0", "ok")])
def test_pillow_has_a_floor(monkeypatch, found, status):
    monkeypatch.setattr(checkup, "installed", lambda name: found)
    assert only(checkup.check_packages(), "pillow").status == status


def test_a_bad_release_is_a_problem(monkeypatch):
    have = {"lightning": "2.6.2", "transformers": "5.2.0", "diffusers": "0.40.0"}
    monkeypatch.setattr(checkup, "installed", have.get)
    assert {check.name: check.status for check in checkup.check_releases()} == {
        "lightning": "problem",
        "transformers": "problem",
    }


def test_an_absent_extra_names_its_pip_line(monkeypatch):
    monkeypatch.setattr(checkup, "installed", lambda name: None if name == "datasets" else "1")
    checks = {check.name: check for check in checkup.check_extras()}
    assert checks["extra hub"].status == "note"
    assert checks["extra hub"].advice == 'pip install "trilemma[hub]"'
    assert "datasets" in checks["extra hub"].found
    assert checks["extra export"].status == "ok"


def test_extras_are_those_of_the_project():
    import re
    import tomllib
    from pathlib import Path

    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text("utf-8"))["project"]
    extras = {
        extra: tuple(re.split(r"[\[<>=]", line)[0] for line in lines)
        for extra, lines in project["optional-dependencies"].items()
        if extra != "dev"
    }
    assert extras == checkup.EXTRAS
    assert {f"{name}>={floor}" for name, floor in checkup.FLOORS.items()} <= set(project["dependencies"])


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written_is_a_problem(tmp_path):
    tmp_path.chmod(0o500)
    assert only(checkup.check_disk(tmp_path), "write").status == "problem"


def test_little_room_is_a_problem(tmp_path, monkeypatch):
    monkeypatch.setattr(checkup, "DISK_FLOOR", 1 << 62)
    assert only(checkup.check_disk(tmp_path), "free disk").status == "problem"
    monkeypatch.setattr(checkup, "DISK_FLOOR", 1)
    assert only(checkup.check_disk(tmp_path), "free disk").status == "ok"


def test_a_check_that_breaks_is_a_problem(monkeypatch):
    def broken():
        raise ImportError("libtorch.so")

    monkeypatch.setattr(checkup, "check_device", broken)
    broken.__name__ = "check_device"
    check = only(checkup.doctor(), "device")
    assert check.status == "problem"
    assert "libtorch.so" in check.found


def test_a_data_folder_that_is_not_there_is_a_problem(tmp_path, monkeypatch):
    monkeypatch.setenv("TRILEMMA_DATA", str(tmp_path / "nowhere"))
    check = only(checkup.check_data(), "TRILEMMA_DATA")
    assert check.status == "problem"
    assert "nowhere" in check.found


def test_device_by_name():
    assert hardware.pick_device("cpu") == torch.device("cpu")
    assert (hardware.pick_device("auto").type == "cuda") == torch.cuda.is_available()
    with pytest.raises(UserError, match=r"gpu.*choose one of auto.*cpu"):
        hardware.pick_device("gpu")


@pytest.mark.parametrize(
    ("flags", "fast"), [("fpu avx512f", False), ("avx512_bf16", True), ("sse amx_bf16", True), ("", False)]
)
def test_bf16_by_processor_flags(monkeypatch, flags, fast):
    monkeypatch.setattr(hardware, "_processor", lambda key: flags)
    assert hardware.supports_fast_bf16("cpu") is fast


def test_description_is_plain(monkeypatch):
    import json

    about = hardware.describe()
    assert json.loads(json.dumps(about)) == about
    assert {"python", "torch", "platform", "device", "device_name", "cores", "memory_gib"} <= set(about)
    assert about["cores"] >= 1
