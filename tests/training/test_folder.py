"""Run folders: who gets which name, and one writer at a time."""

import multiprocessing
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from trilemma.errors import UserError
from trilemma.run.folder import LOCK_S, differences, open_run_folder


def config(**training: Any) -> dict[str, Any]:
    return {
        "format": 2,
        "model": "vae",
        "data": "digits",
        "fingerprint": "ab",
        "model_config": {"latent": 2},
        "data_config": {"size": [8, 8]},
        "parts": {},
        "training": {"seed": 0, "steps": 10, **training},
    }


@pytest.fixture(autouse=True)
def in_tmp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def open_and_close(*args: Any) -> Path:
    folder = open_run_folder(*args)
    folder.close()
    return folder.path


def test_the_same_training_continues_and_another_gets_the_next_number() -> None:
    assert open_and_close("vae-digits", config(), None) == Path("runs/vae-digits")
    assert open_and_close("vae-digits", config(), None) == Path("runs/vae-digits")
    assert open_and_close("vae-digits", config(seed=1), None) == Path("runs/vae-digits-2")
    assert open_and_close("vae-digits", config(seed=1), None) == Path("runs/vae-digits-2")


def test_the_length_may_change_on_continuing() -> None:
    open_and_close("a", config(), None)
    assert open_and_close("a", config(steps=99), None) == Path("runs/a")


def test_a_run_belongs_to_its_images_wherever_they_lie() -> None:
    open_and_close("a", {**config(), "data": "/here/photos"}, None)
    assert open_and_close("a", {**config(), "data": "/there/photos"}, None) == Path("runs/a")


def test_differences_are_said_in_words() -> None:
    then = {**config(), "n_images": 1060, "data": "/a"}
    assert differences(then, {**config(steps=99, device="cuda"), "n_images": 1060}) == []
    assert differences(then, {**then, "model_config": {"latent": 7}}) == ["latent 2 then, 7 now"]
    assert differences(then, {**then, "fingerprint": "cd", "n_images": 70, **{"model": "gan"}}) == [
        "its images differ: 1,060 then, 70 now",
        "model vae then, gan now",
    ]
    other = {**config(), "fingerprint": "cd", "data": "/b", "n_images": 70}
    assert differences(then, other) == ["its images differ: 1,060 of /a then, 70 of /b now"]
    del then["n_images"]  # as earlier versions wrote it
    assert differences(then, {**other, "data": "/a"}) == ["its images differ: 70 now"]


def test_other_captions_are_another_training() -> None:
    """Those of the config of an earlier version, and of a model that reads none, are not known."""
    then = {**config(), "captions_fingerprint": "ab"}
    now = {**then, "captions_fingerprint": "cd"}
    assert differences(then, now) == ["its captions differ"]
    assert differences(then, {**now, "model_config": {"latent": 7}}) == ["its captions differ", "latent 2 then, 7 now"]
    assert differences(then, {**now, "fingerprint": "cd"}) == ["its images differ"]
    assert differences(config(), now) == differences(then, config()) == []


def test_one_key_of_model_and_training_is_compared_in_both() -> None:
    def both(network: str, rate: str) -> dict[str, Any]:
        return {**config(schedule=rate), "model_config": {"schedule": network}}

    assert differences(both("cosine", "linear"), both("edm", "linear")) == ["schedule cosine then, edm now"]
    assert differences(both("cosine", "linear"), both("cosine", "plateau")) == ["schedule linear then, plateau now"]


def test_settings_that_an_earlier_version_did_not_have_are_at_their_defaults() -> None:
    then = {**config(), "model": "gan", "model_config": {"latent": 32}}
    same = {"latent": 32, "penalty": "none", "critic_steps": 1, "n_classes": 10}  # the last one is of the images
    assert differences(then, {**then, "model_config": same}) == []
    assert differences(then, {**then, "model_config": {**same, "penalty": "r1"}}) == ["penalty none then, r1 now"]
    assert differences(then, {**then, "model_config": {**same, "critic_steps": 5}}) == ["critic_steps 1 then, 5 now"]
    then = {**then, "model": "diffusion", "model_config": {"width": 16}}
    assert differences(then, {**then, "model_config": {"width": 16, "data_mean": -0.4}}) == []  # it is of the images


def test_a_new_folder_is_never_begun_without_a_reason() -> None:
    messages: list[str] = []
    for seed, batch in ((0, 1), (1, 1), (0, 1), (1, 2)):
        open_run_folder("a", config(seed=seed, batch=batch), None, messages.append).close()
    held = open_run_folder("b", config(), None, messages.append)
    open_run_folder("b", config(), None, messages.append).close()
    held.close()
    assert messages == [
        "runs/a-2 is a new training, because runs/a already holds a different training: seed 0 then, 1 now",
        "runs/a-3 is a new training, because runs/a-2 already holds a different training: batch 1 then, 2 now",
        "runs/b-2 is a new training, because runs/b is being trained by another process",
    ]


def test_out_with_other_content_is_refused_and_left_alone(tmp_path: Path) -> None:
    open_and_close("a", config(), "there")
    with pytest.raises(UserError, match="there already holds a different training: seed 0 then, 1 now; choose"):
        open_run_folder("a", config(seed=1), "there")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    with pytest.raises(UserError, match="files that are not a run"):
        open_run_folder("a", config(), "mine")
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["letter.txt"]


def test_a_second_writer_is_refused_by_name_or_gets_its_own_folder() -> None:
    held = open_run_folder("a", config(), None)
    with pytest.raises(UserError, match="is being trained by process"):
        open_run_folder("a", config(), "runs/a")
    other = open_run_folder("a", config(), None)
    assert other.path == Path("runs/a-2")
    held.close()
    other.close()
    open_run_folder("a", config(), "runs/a").close()


HOLD = """
import fcntl, sys, time
file = open(sys.argv[1], "a+")
fcntl.flock(file, fcntl.LOCK_SH if sys.argv[2] == "shared" else fcntl.LOCK_EX)
print(flush=True)
time.sleep(float(sys.argv[3]))
"""


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="locks of POSIX")
@pytest.mark.parametrize("kind", ["shared", "exclusive"])
def test_a_lock_that_becomes_free_in_a_moment_is_waited_for(kind: str, tmp_path: Path) -> None:
    """One that looks has it shared; of one that was killed, the process that the lock names has ended."""
    open_run_folder("a", config(), tmp_path / "a").close()
    path = tmp_path / "a" / "lock"
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    path.write_text(f"process {dead.pid if kind == 'exclusive' else os.getpid()} on {socket.gethostname()}")
    words = [sys.executable, "-c", HOLD, str(path), kind]
    with subprocess.Popen([*words, "0.5"], stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == b"\n"
        open_run_folder("a", config(), tmp_path / "a").close()
    path.write_text(f"process {os.getpid()} on {socket.gethostname()}")
    with subprocess.Popen([*words, "60"], stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == b"\n"
        began = time.monotonic()
        with pytest.raises(UserError, match="is being trained by process"):
            open_run_folder("a", config(), tmp_path / "a")
        waited = time.monotonic() - began
        holder.kill()
    assert waited < LOCK_S if kind == "exclusive" else waited >= LOCK_S  # that one trains; the other might let it go


def start(all_there: Any, paths: Any, counted: Any) -> None:
    all_there.wait()
    held = open_run_folder("a", config(), None)
    paths.put(held.path)
    counted.wait()
    held.close()


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="forked, so that sixteen processes start within milliseconds")
def test_sixteen_starts_of_one_name_get_sixteen_folders() -> None:
    fork = multiprocessing.get_context("fork")
    all_there, paths, counted = fork.Barrier(16), fork.Queue(), fork.Event()
    started = [fork.Process(target=start, args=(all_there, paths, counted)) for _ in range(16)]
    for process in started:
        process.start()
    assert len({paths.get(timeout=60) for _ in started}) == 16
    counted.set()
    for process in started:
        process.join()
