"""The checks of the machine, each against a machine made up for it."""

import os
import re
import sys
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from trilemma import checkup, extras, hardware
from trilemma.errors import UserError
from trilemma.metrics.catalogue import CATALOGUE
from trilemma.metrics.self_test import UNTESTED


def only(checks, name):
    (result,) = [check for check in checks if check.name == name]
    return result


def test_this_machine_passes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    checks = checkup.doctor()
    names = [check.name for check in checks]
    assert len(set(names)) == len(names)
    assert {"python", "torch", "numpy", "pillow", "device", "fast bf16", "cores", "memory", "free disk", "write"} <= {
        *names
    }
    assert [check for check in checks if check.status == "problem"] == []
    assert only(checks, "torch").value == torch.__version__
    assert list(tmp_path.iterdir()) == []  # the write test leaves nothing behind


@pytest.mark.parametrize(
    ("version", "status"),
    [("2.10.0", "problem"), ("2.11.0", "ok"), ("2.13.0+cpu", "ok"), ("3.0", "ok"), (None, "problem")],
)
def test_torch_has_a_floor(monkeypatch, version, status):
    monkeypatch.setattr(checkup, "installed", lambda name: version if name == "torch" else "99")
    check = only(checkup.check_packages(), "torch")
    assert check.status == status
    assert ("pip install" in check.advice) == (status == "problem")


@pytest.mark.parametrize(("version", "status"), [("12.2.9", "problem"), ("12.3.0", "ok"), ("13.0.0", "ok")])
def test_pillow_has_a_floor(monkeypatch, version, status):
    monkeypatch.setattr(checkup, "installed", lambda name: version)
    assert only(checkup.check_packages(), "pillow").status == status


def test_a_bad_release_is_a_problem(monkeypatch):
    have = {"lightning": "2.6.2", "ultralytics": "8.4.0", "pyarrow": "23.0.0"}
    monkeypatch.setattr(checkup, "installed", have.get)
    checks = {check.name: check for check in checkup.check_releases()}
    assert {name: check.status for name, check in checks.items()} == {"lightning": "problem", "pyarrow": "problem"}
    assert "pyarrow>=23.0.1" in checks["pyarrow"].advice


def test_an_absent_extra_names_a_line_that_works(monkeypatch, tmp_path):
    monkeypatch.setattr(checkup, "installed", lambda name: None if name == "datasets" else "1")
    check = next(check for check in checkup.check_extras() if check.name == "extra hub")
    assert (check.name, check.status, check.value) == ("extra hub", "note", "not installed: datasets")
    project = Path(__file__).parents[1]
    assert check.advice.endswith(f' install -e "{project}[hub]"')
    monkeypatch.setattr(extras, "__file__", str(tmp_path / "site-packages" / "trilemma" / "extras.py"))
    assert extras.install_line("hub").endswith(' install "datasets>=4" "pyarrow>=23.0.1" "transformers>=4.57"')


def test_the_pip_of_an_advice_is_that_of_this_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent))
    assert extras.pip() == "pip"
    monkeypatch.setenv("PATH", str(tmp_path))
    assert extras.pip() == f"{sys.executable} -m pip"


def test_extras_are_those_of_the_project_and_the_code_uses_them():
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text("utf-8"))["project"]
    of_tests = {"dev", "slow"}
    declared = {name: tuple(lines) for name, lines in project["optional-dependencies"].items() if name not in of_tests}
    assert declared == extras.EXTRAS
    assert {f"{name}>={floor}" for name, floor in checkup.FLOORS.items()} <= set(project["dependencies"])
    code = "\n".join(path.read_text("utf-8") for path in Path(extras.__file__).parent.rglob("*.py"))
    for packages in extras.EXTRAS.values():
        for package in packages:
            module = package.partition(">=")[0].replace("-", "_")
            assert re.search(rf"^ +import {module}", code, re.MULTILINE), package


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
    assert "libtorch.so" in check.value


def test_a_data_folder_that_is_not_there_is_a_problem(tmp_path, monkeypatch):
    monkeypatch.setenv("TRILEMMA_DATA", str(tmp_path / "nowhere"))
    check = only(checkup.check_data(), "TRILEMMA_DATA")
    assert check.status == "problem"
    assert "nowhere" in check.value


def test_device_by_name():
    assert hardware.pick_device("cpu") == torch.device("cpu")
    assert (hardware.pick_device("auto").type == "cuda") == torch.cuda.is_available()
    with pytest.raises(UserError, match=r"gpu.*choose one of auto.*cpu"):
        hardware.pick_device("gpu")


def test_each_process_of_a_machine_has_a_gpu_of_its_own(monkeypatch):
    """Under torchrun that of its number; where a batch system shows it one alone, that one."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setenv("LOCAL_RANK", "1")
    cases = [(4, True, 1), (4, False, 1), (1, True, None), (1, False, 0)]
    for count, by_torchrun, own in cases:
        monkeypatch.setattr(torch.cuda, "device_count", lambda count=count: count)
        monkeypatch.setenv("TORCHELASTIC_RUN_ID", "x")
        if not by_torchrun:
            monkeypatch.delenv("TORCHELASTIC_RUN_ID")
        assert hardware.own_gpu() == own
        for word in ("auto", "cuda"):
            if own is None:
                with pytest.raises(UserError, match=r"process 1 of this machine has no GPU .* or give device=cpu"):
                    hardware.pick_device(word)
            else:
                assert hardware.pick_device(word) == torch.device(f"cuda:{own}")
        assert hardware.describe(torch.device("cpu"))["device"] == "cpu"


def test_several_processes_do_not_compute_on_one_gpu(monkeypatch):
    """The number of its own may be given: parts of a training are asked for on the device of the whole."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("LOCAL_RANK", "1")
    for word in ("cuda:0", "cuda:1"):
        assert hardware.pick_device(word) == torch.device(word)
    for name, value in {"RANK": "1", "WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    assert hardware.pick_device("cuda:1") == torch.device("cuda:1")
    with pytest.raises(UserError, match="each of several processes has a GPU of its own; give device=cuda"):
        hardware.pick_device("cuda:0")


def test_several_processes_without_numbers_on_their_machine_do_not_share_a_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    assert hardware.pick_device() == torch.device("cuda")
    for name, value in {"RANK": "1", "WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    for word in ("auto", "cuda", "cuda:0"):
        with pytest.raises(UserError, match=r"LOCAL_RANK is not set.* or give device=cpu"):
            hardware.pick_device(word)
    assert hardware.own_gpu() is None
    assert hardware.pick_device("cpu") == torch.device("cpu")


@pytest.mark.parametrize("text", ["", "one", "-1"])
def test_a_number_of_a_process_that_is_none_is_explained(text, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("LOCAL_RANK", text)
    with pytest.raises(UserError, match=f"LOCAL_RANK={text} in the environment is not a whole number"):
        hardware.pick_device()


def test_several_processes_do_not_compute_on_mps(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert hardware.pick_device("auto") == hardware.pick_device("mps") == torch.device("mps")
    for name, value in {"RANK": "0", "WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    assert hardware.pick_device("auto") == torch.device("cpu")
    with pytest.raises(UserError, match="give device=cpu"):
        hardware.pick_device("mps")


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


def test_every_metric_shows_the_faults_that_it_must():
    checks = checkup.doctor("metrics")
    assert [check for check in checks if check.status != "ok"] == []
    names = {check.name.split(",")[0] for check in checks}
    assert {name for name, metric in CATALOGUE.items() if metric.needs not in UNTESTED} <= names
    assert set(UNTESTED) < {metric.needs for metric in CATALOGUE.values()} and all(UNTESTED.values())


@pytest.mark.slow
def test_a_density_that_counts_no_ball_of_the_image_itself_is_a_problem(monkeypatch):
    """Of the real images themselves it is 1 then, as of new images, and no other fault tells."""
    from trilemma.metrics import self_test

    original = self_test.neighbour_scores

    def without_itself(*, real, fake):
        scores = original(real=real, fake=fake)
        less = 0.2 if real.equal(fake) else 0.0
        return scores | {"density": replace(scores["density"], value=scores["density"].value - less)}

    monkeypatch.setattr(self_test, "neighbour_scores", without_itself)
    checks = checkup.doctor("metrics")
    assert [check.name for check in checks if check.status == "problem"] == ["density, real images"]


@pytest.mark.slow
def test_a_metric_that_does_not_move_is_a_problem(monkeypatch):
    """Recall and precision exchanged, as a library once had them."""
    from trilemma.metrics import self_test

    original = self_test.neighbour_scores

    def exchanged(*, real, fake):
        scores = original(real=real, fake=fake)
        return scores | {"precision": scores["recall"], "recall": scores["precision"]}

    monkeypatch.setattr(self_test, "neighbour_scores", exchanged)
    checks = checkup.doctor("metrics")
    problems = {check.name for check in checks if check.status == "problem"}
    assert problems == {"recall, one image", "recall, missing classes"}
    assert "does not show this fault" in only(checks, "recall, one image").advice


def test_an_unknown_part_is_refused():
    with pytest.raises(UserError, match="part=metric: give one of machine, metrics"):
        checkup.doctor("metric")
