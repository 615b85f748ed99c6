"""Signals end a training after its step and its save; a second one at once; a lost terminal or reader ends nothing."""

import io
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import trilemma
from trilemma.progress import Display
from trilemma.run.checkpoint import list_checkpoints, read_checkpoint
from trilemma.run.log import read_log
from trilemma.training import loop, results
from trilemma.training.guard import Guard
from trilemma.training.in_use import ModelInUse
from trilemma.training.loop import Trainer
from trilemma.training.saving import Saver
from trilemma.training.signals import Stopped

pytestmark = pytest.mark.skipif(os.name == "nt", reason="signals are sent another way on Windows")
COMMAND = [sys.executable, "-m", "trilemma", "train", "vae", "digits", "out=r", "device=cpu"]


@pytest.fixture(autouse=True)
def in_tmp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def hangup() -> Any:
    """SIGHUP as a shell leaves it to a program, also where the tests run under nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


def send(patch: pytest.MonkeyPatch, *signums: int, at: int = 3) -> list[str]:
    """Signals in the middle of a step; what is passed after each of them is returned."""
    one_step, passed = Trainer.take_step, []

    def step(trainer: Trainer) -> None:
        if trainer.calendar.step == at:
            for signum in signums:
                signal.raise_signal(signum)
                passed.append(signal.Signals(signum).name)
        one_step(trainer)

    patch.setattr(Trainer, "take_step", step)
    return passed


def train(steps: int = 8, out: str = "r") -> trilemma.Run:
    keys = {"batch": 16, "save_every": 16, "sample_every": 10**6, "device": "cpu"}
    return trilemma.train("vae", "digits", steps=steps, out=out, quiet=True, **keys)


def saved_step() -> int:
    return read_checkpoint(list_checkpoints(Path("r/checkpoints"))[-1]).values["step"]


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
@pytest.mark.usefixtures("hangup")
def test_one_signal_finishes_the_step_saves_and_tells_its_code(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    signum = getattr(signal, name)
    send(monkeypatch, signum)
    with pytest.raises(Stopped, match="the state is saved") as stopped:
        train()
    assert stopped.value.code == 128 + signum and saved_step() == 4


def test_a_second_signal_leaves_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    passed = send(monkeypatch, signal.SIGINT, signal.SIGINT)
    with pytest.raises(KeyboardInterrupt) as left:
        train()
    assert not isinstance(left.value, Stopped)
    assert passed == ["SIGINT"] and saved_step() == 3  # in the middle of step 3: it is neither finished nor saved


@pytest.mark.parametrize(("count", "saved"), [(1, True), (2, False)])
def test_a_signal_after_one_to_another_process_is_the_first_one_here(
    count: int, saved: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a batch system sends it to all processes, and they agree on the stop before it has reached each of them."""
    agree, save_last = loop.agree, Saver.save_last
    monkeypatch.setattr(loop, "agree", lambda team, own: replace(agree(team, own), stop=signal.SIGTERM))

    def late(saver: Saver, unfinished: Any) -> None:
        for _ in range(count):
            signal.raise_signal(signal.SIGTERM)
        save_last(saver, unfinished)

    monkeypatch.setattr(Saver, "save_last", late)
    with pytest.raises(KeyboardInterrupt) as left:
        train()
    assert isinstance(left.value, Stopped) == saved
    assert Path(f"r/checkpoints/{0:012d}").exists() == saved  # before the first step


def test_a_second_signal_in_a_save_leaves_the_old_one(monkeypatch: pytest.MonkeyPatch) -> None:
    from trilemma.run import tensor_files

    send(monkeypatch, signal.SIGTERM)
    write = tensor_files.save_file

    def slow(tensors: Any, path: Path) -> None:
        write(tensors, path)
        if f"{4 * 16:012d}" in str(path):
            signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(tensor_files, "save_file", slow)
    with pytest.raises(KeyboardInterrupt):
        train()
    assert saved_step() == 3 and not list(Path("r").rglob("*.tmp"))


@pytest.mark.slow
@pytest.mark.parametrize(
    "owner, function", [(ModelInUse, "finish"), (results, "write_tensors"), (results, "write_json")]
)
@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_after_the_last_step_says_how_to_go_on(
    owner: Any, function: str, signum: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    messages: list[str] = []
    monkeypatch.setattr(Display, "say", lambda display, text: messages.append(text))
    whole = train(out="whole")
    real = getattr(owner, function)

    def interrupted(*args: Any) -> Any:
        if str(args[0]).endswith(("config.json", "environment.json")):
            return real(*args)
        signal.raise_signal(signum)
        raise AssertionError("the signal was to end it")

    with monkeypatch.context() as patch:
        patch.setattr(owner, function, interrupted)
        with pytest.raises(Stopped) as stopped:
            train()
    assert stopped.value.code == 128 + signum and saved_step() == 8 and not Path("r/summary.json").exists()
    assert messages[-1].startswith(
        "stopped after 128 images; the state is saved. Resume with: trilemma train vae digits "
    )
    assert messages[-1].endswith(" save_every=16 sample_every=1000000 device=cpu out=r")
    again = train()
    assert (again.path / "weights.safetensors").read_bytes() == (whole.path / "weights.safetensors").read_bytes()


def test_keys_that_were_not_given_are_not_in_the_line_and_no_curves_are_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    messages, drawn = [], []
    monkeypatch.setattr(Display, "say", lambda display, text: messages.append(text))
    monkeypatch.setattr(results, "draw_curves", lambda *args: drawn.append(args))  # the import alone may take seconds
    send(monkeypatch, signal.SIGTERM)
    with pytest.raises(Stopped):
        trilemma.train("vae", "digits", steps=8, batch=16, out="r")
    assert re.search(r" seed=0 size=8x8 channels=1 variance=\S+ out=r$", messages[-1]) and not drawn


def test_the_signal_that_announces_the_end_saves_and_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    whole, saved = train(steps=8, out="whole"), []
    save = Saver.save

    def noted(saver: Saver, state: Any, **keys: Any) -> None:
        saved.append(saver.calendar.step)
        save(saver, state, **keys)

    monkeypatch.setattr(Saver, "save", noted)
    send(monkeypatch, signal.SIGUSR1)
    run = trilemma.train("vae", "digits", steps=8, batch=16, out="r", quiet=True, save_every=10**6, device="cpu")
    assert saved == [4, 8] and run.summary["steps"] == 8
    assert (run.path / "weights.safetensors").read_bytes() == (whole.path / "weights.safetensors").read_bytes()


def test_a_save_that_memory_is_short_for_is_not_asked_for_again_in_every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    sound, calls, messages = Guard.sound_state, list[int](), list[str]()

    def scarce(guard: Guard) -> Any:
        calls.append(guard.calendar.step)
        if guard.calendar.step in (4, 5, 6):
            raise MemoryError("out of memory")
        return sound(guard)

    monkeypatch.setattr(Guard, "sound_state", scarce)
    monkeypatch.setattr(Display, "say", lambda display, text: messages.append(text))
    send(monkeypatch, signal.SIGUSR1)
    run = trilemma.train("vae", "digits", steps=8, batch=16, out="r", quiet=True, save_every=10**6, device="cpu")
    assert [step for step in calls if 0 < step < 8] == [4] and run.summary["steps"] == 8
    assert sum("a checkpoint is skipped" in text for text in messages) == 1


def test_nohup_is_respected(monkeypatch: pytest.MonkeyPatch) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert send(monkeypatch, signal.SIGHUP) == []
        assert train().summary["steps"] == 8
    finally:
        signal.signal(signal.SIGHUP, before)


def test_the_handlers_of_the_caller_are_put_back() -> None:
    numbers = signal.SIGINT, signal.SIGTERM, signal.SIGHUP
    before = [signal.getsignal(number) for number in numbers]
    train(steps=1)
    assert [signal.getsignal(number) for number in numbers] == before


def rows_in(log: Path, least: int, process: subprocess.Popen) -> None:
    while process.poll() is None and len(read_log(log)) < least:
        time.sleep(0.02)


@pytest.mark.slow
def test_a_closed_terminal_saves_within_ten_seconds_and_leaves_with_129(tmp_path: Path) -> None:
    terminal, end = os.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", TAKE_TERMINAL, *COMMAND, "minutes=10"],
        cwd=tmp_path,
        stdin=end,
        stdout=end,
        stderr=end,
        start_new_session=True,
    )
    os.close(end)
    os.set_blocking(terminal, False)
    shown = b""
    while process.poll() is None and len(read_log(tmp_path / "r" / "log.jsonl")) < 2:
        shown += drain(terminal)
    os.close(terminal)
    begin = time.monotonic()
    assert process.wait(timeout=60) == 129, shown.decode(errors="replace")
    assert time.monotonic() - begin < 10
    assert saved_step() >= read_log(tmp_path / "r" / "log.jsonl")[-1]["step"] > 0


TAKE_TERMINAL = """
import fcntl, os, signal, sys, termios
signal.signal(signal.SIGHUP, signal.SIG_DFL)
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.argv[1], sys.argv[1:])
"""


def drain(terminal: int) -> bytes:
    """What was written to a terminal, read so that its buffer does not fill."""
    try:
        return os.read(terminal, 65536)
    except BlockingIOError:
        time.sleep(0.02)
        return b""


def test_a_reader_that_leaves_does_not_end_the_training(monkeypatch: pytest.MonkeyPatch) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with monkeypatch.context() as patch, os.fdopen(writer, "wb", buffering=0) as file:
        patch.setattr(sys, "stderr", io.TextIOWrapper(file, write_through=True))
        run = trilemma.train("vae", "digits", steps=3, batch=16, out="r", device="cpu")
        with pytest.raises(BrokenPipeError):
            print("anyone there?", file=sys.stderr)
    assert run.summary["steps"] == 3


def test_a_display_whose_file_is_gone_is_quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    class Gone:
        def write(self, text: str) -> int:
            raise OSError(5, "Input/output error")

        flush = isatty = lambda self: False

    display = Display("x")
    display.console.file = Gone()  # type: ignore[assignment]
    display.say("anyone there?")
    assert display.console.quiet
    display.close()
