"""Run folders: who gets which name, and one writer at a time."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from trilemma.errors import UserError
from trilemma.training.folder import open_run_folder


def config(**training: Any) -> dict[str, Any]:
    return {
        "format": 1,
        "model": "vae",
        "data": "digits",
        "fingerprint": "ab",
        "model_config": {"latent": 2},
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


def test_out_with_other_content_is_refused_and_left_alone(tmp_path: Path) -> None:
    open_and_close("a", config(), "there")
    with pytest.raises(UserError, match="holds another training"):
        open_run_folder("a", config(seed=1), "there")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    with pytest.raises(UserError, match="files that are no run"):
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


def test_sixteen_starts_of_one_name_get_sixteen_folders() -> None:
    code = (
        "import json, sys; from trilemma.training.folder import open_run_folder\n"
        "held = open_run_folder('a', json.loads(sys.argv[1]), None); print(held.path, flush=True); sys.stdin.read()"
    )
    argv = [sys.executable, "-c", code, json.dumps(config())]
    started = [subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(16)]
    paths = [process.stdout.readline().strip() for process in started if process.stdout]
    for process in started:
        process.communicate("")
    assert len(set(paths)) == 16
