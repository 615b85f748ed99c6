"""Jobs run once, in their order, and what is said of them is true; kills of the server are in test_kills.py."""

import io
import json
import os
import stat
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from trilemma import UserError
from trilemma.files import lock
from trilemma.studio import child, processes
from trilemma.studio import queue as queue_module
from trilemma.studio.child import claim
from trilemma.studio.jobs import (
    CANCEL,
    END,
    HEAVY,
    JOB,
    LOCK,
    OUTPUT,
    START,
    State,
    is_held,
    open_lock,
    output_of,
    process_of,
    read_job,
    write_record,
)
from trilemma.studio.owner import LENGTH, SECRET, Owner
from trilemma.studio.place import Missing
from trilemma.studio.queue import Queue

WAIT_S = 60.0


@pytest.fixture
def queue(tmp_path):
    one = Queue(tmp_path, tmp_path / "own")
    yield one
    one.close()


def until(condition, limit_s=WAIT_S):
    """Wait until something is true."""
    end = time.monotonic() + limit_s
    while not (value := condition()):
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)
    return value


def ended(queue):
    return all(job.has_ended for job in queue.jobs())


def written(queue, ident, **files):
    """Write files of a job as its process does, in place of one; a file of None is removed."""
    place = queue.job(ident).place
    for name, value in files.items():
        (place / f"{name}.json").write_text(json.dumps(value))
    return place


def test_a_job_runs_the_command_line_and_says_how_it_ended(queue):
    queue.open()
    good, bad = queue.add(["list", "vae"]), queue.add(["list", "no-such-model"])
    until(lambda: ended(queue))
    assert (queue.job(good).state, queue.job(good).code) == (State.FINISHED, 0)
    assert (queue.job(bad).state, queue.job(bad).code) == (State.FAILED, 2)
    done = subprocess.run([sys.executable, "-m", "trilemma", "list", "vae"], capture_output=True, text=True)
    assert output_of(queue.job(good).place, 1 << 20) == done.stdout
    assert 'unknown model "no-such-model"' in output_of(queue.job(bad).place)
    job = queue.job(good)
    assert job.created <= job.started <= job.ended and job.command == "trilemma list vae"


def test_no_module_of_the_folder_is_imported(queue, tmp_path):
    """Somebody else's folder may hold a file of the name of a package."""
    for name in ("typer", "trilemma", "rich", "json"):
        (tmp_path / f"{name}.py").write_text("from pathlib import Path; Path('canary').touch()")
    queue.open()
    ident = queue.add(["list", "vae"])
    until(lambda: ended(queue))
    assert queue.job(ident).state is State.FINISHED and not (tmp_path / "canary").exists()


def test_a_job_runs_the_code_of_the_server(tmp_path, monkeypatch):
    """Whatever the paths in the environment are relative to."""
    calls = {}
    monkeypatch.setattr(processes.subprocess, "Popen", lambda words, **keys: calls.update(keys, words=words))
    monkeypatch.setenv("PYTHONPATH", "src")
    processes.start("child", "x", folder=tmp_path, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
    assert calls["stdout"] == subprocess.PIPE
    assert calls["env"]["PYTHONPATH"].split(os.pathsep) == [str(processes.ROOT), str(Path("src").absolute())]
    assert (processes.ROOT / "trilemma" / "studio" / "child.py").is_file() and calls["cwd"] == tmp_path
    assert calls["words"] == [sys.executable, "-P", "-m", "trilemma.studio.child", "x"]


def test_a_state_is_what_the_files_and_the_lock_say(queue):
    """Each line of the table: files, whether the lock is held, state."""
    start, good, bad, ctrl_c, cancel = (
        {"time": 1.0},
        {"time": 2.0, "code": 0},
        {"time": 2.0, "code": 1},
        {"code": 130},
        {},
    )
    table = [
        ({}, False, State.QUEUED),
        ({"cancel": cancel}, False, State.CANCELLED),
        ({"cancel": cancel}, True, State.QUEUED),  # its process may have looked before it was cancelled
        ({"start": start}, True, State.RUNNING),
        ({"start": start}, False, State.LOST),
        ({"start": start, "cancel": cancel}, True, State.RUNNING),
        ({"start": start, "cancel": cancel}, False, State.STOPPED),
        ({"start": start, "end": good}, False, State.FINISHED),
        ({"start": start, "end": good}, True, State.FINISHED),
        ({"start": start, "end": bad}, False, State.FAILED),
        ({"start": start, "end": ctrl_c}, False, State.STOPPED),
        ({"start": start, "end": good, "cancel": cancel}, False, State.FINISHED),
    ]
    for files, holds, state in table:
        place = written(queue, queue.add(["list"]), **files)
        held = claim_anyway(place) if holds else None
        assert read_job(place).state is state, (files, holds)
        if held:
            held.close()


def claim_anyway(place):
    """The lock of a job, held, whatever its files say."""
    held = open_lock(place)
    lock(held)
    return held


def test_a_job_is_claimed_once(queue, monkeypatch):
    monkeypatch.setattr(child, "WAIT_S", 0.1)
    place = queue.job(queue.add(["list"])).place
    first = claim(place)
    assert first is not None and claim(place) is None
    first.close()
    again = claim(place)
    assert again is not None
    again.close()
    for name in (START, END, CANCEL):
        (place / name).write_text("{}")
        assert claim(place) is None
        (place / name).unlink()


def test_order_is_changed_and_cancelled_jobs_do_not_run(queue):
    queue.pause(True)
    a, b, c = (
        queue.add(
            [
                "list",
                "vae",
            ]
        )
        for _ in range(3)
    )
    assert [job.id for job in queue.waiting()] == [a, b, c]
    queue.first(c)
    queue.cancel(a)
    assert [job.id for job in queue.waiting()] == [c, b]
    queue.tick()
    assert queue.paused and [queue.job(x).state for x in (a, b, c)] == [State.CANCELLED, State.QUEUED, State.QUEUED]
    queue.pause(False)
    queue.open()
    until(lambda: ended(queue))
    assert queue.job(c).started < queue.job(b).started
    assert queue.job(a).state is State.CANCELLED and not (queue.job(a).place / OUTPUT).exists()
    d = queue.again(b)
    assert queue.job(d).words == queue.job(b).words and d not in (a, b, c)


def test_one_long_job_at_a_time_and_beside_it_a_short_one(queue, monkeypatch):
    begun = []
    monkeypatch.setattr(queue, "_start", lambda job: begun.append(job.id))
    train, again, sample, other = (queue.add([verb]) for verb in ("train", "compare", "sample", "denoise"))
    queue.tick()
    assert begun == [train, sample]
    held = [claim_anyway(written(queue, ident, start={"time": 1.0})) for ident in (train, sample)]
    queue.tick()
    assert begun == [train, sample]
    for one in held:
        one.close()
    queue.tick()
    assert begun == [train, sample, again, other]


def test_long_jobs_wait_for_each_other(queue, monkeypatch):
    begun = []
    monkeypatch.setattr(queue, "_start", lambda job: begun.append(job.verb))
    held = claim_anyway(written(queue, queue.add(["train", "vae"]), start={"time": 1.0}))
    for verb in (*HEAVY, "traverse"):
        queue.add([verb])
    queue.tick()
    assert begun == ["traverse"] and {"evaluate", "augment", "map", "disentangle", "invert"} < {*HEAVY}
    held.close()


def test_a_job_is_started_beside_others_if_it_is_asked_for(queue, monkeypatch):
    begun = []

    def start(job):
        begun.append(job.id)
        queue._starting[job.id] = SimpleNamespace(poll=lambda: None), time.monotonic()

    monkeypatch.setattr(queue, "_start", start)
    monkeypatch.setattr(queue_module, "MOST_RUNNING", 2)
    train, measure, third = (queue.add([verb]) for verb in ("train", "evaluate", "evaluate"))
    queue.tick()
    assert begun == [train]
    queue.pause(True)
    queue.start_now(measure)
    queue.start_now(measure)
    assert begun == [train, measure]
    with pytest.raises(UserError, match="2 jobs are running, which is the most; stop one, or wait"):
        queue.start_now(third)
    with pytest.raises(Missing):
        queue.start_now("0123456789abcdef")


def test_a_job_that_is_started_by_itself_runs_in_a_queue_that_is_paused(queue):
    queue.pause(True)
    first, second = queue.add(["list", "vae"]), queue.add(["list", "vae"])
    queue.start_now(second)
    until(lambda: queue.job(second).has_ended)
    assert [queue.job(ident).state for ident in (first, second)] == [State.QUEUED, State.FINISHED]


def test_jobs_are_moved_up_and_down(queue):
    queue.pause(True)
    a, b, c = (queue.add(["list", name]) for name in "abc")

    def order():
        assert len({job.order for job in queue.waiting()}) == len(queue.waiting())
        return [job.id for job in queue.waiting()]

    for ident, places, wanted in [
        (c, -1, [a, c, b]),
        (a, 1, [c, a, b]),
        (c, -1, [c, a, b]),
        (b, 1, [c, a, b]),
        ("0123456789abcdef", 1, [c, a, b]),
    ]:
        queue.move(ident, places)
        assert order() == wanted
    for _ in range(30):
        queue.move(a, 1), queue.move(a, -1)  # places do not run out
    assert order() == [c, a, b]
    queue.first(b)
    d = queue.add(["list", "d"])
    queue.move(d, -1)
    assert order() == [b, c, d, a] and [job.words[1] for job in queue.waiting()] == [*"bcda"]
    for job in queue.waiting():  # as a killed server may leave two of them
        write_record(job.place, job.words, 1.0, job.signature, job.created)
    queue.move(c, -1)
    assert order() == [a, c, b, d]


def test_all_jobs_are_stopped_and_cancelled(queue):
    queue.pause(True)
    waits, runs, over = (queue.add(["list"]) for _ in range(3))
    held = claim_anyway(written(queue, runs, start={"time": 1.0, "process": 2**22 + 1}))  # no process has this number
    written(queue, over, start={"time": 1.0}, end={"code": 0})
    queue.stop_all()
    held.close()
    assert [queue.job(x).state for x in (waits, runs, over)] == [State.CANCELLED, State.STOPPED, State.FINISHED]


@pytest.mark.slow
def test_jobs_that_run_or_begin_are_stopped_at_the_end_if_it_is_asked_for(queue):
    first, second = queue.add(["doctor"]), queue.add(["doctor"])
    queue.tick()  # its process begins; the queue looks no more
    queue.stop_running()
    until(lambda: queue.job(first).has_ended)
    assert [queue.job(x).state for x in (first, second)] == [State.STOPPED, State.QUEUED]


def test_the_oldest_ended_jobs_are_forgotten(queue, monkeypatch, tmp_path):
    monkeypatch.setattr(queue_module, "MOST_ENDED", 2)
    ended = [queue.add(["list"]) for _ in range(4)]
    waits = queue.add(["list"])
    for ident in ended:
        written(queue, ident, start={"time": 1.0}, end={"code": 0})
    outside = tmp_path / "outside"
    outside.mkdir()
    for name in (JOB, START, END):
        (outside / name).write_text(json.dumps({"words": ["list"], "code": 0}))
    (queue.jobs_folder / "00000000-0123456789abcdef").symlink_to(outside)
    new = queue.add(["list"])
    assert [job.id for job in queue.jobs()] == [*ended[2:], waits, new]
    assert len([*queue.jobs_folder.iterdir()]) == 5 and len([*outside.iterdir()]) == 3
    assert queue.job(new).place.name.startswith("00000006-")


def received(queue, words, **more):
    """A waiting job as a folder of somebody else has it; its id."""
    place = queue.jobs_folder / "00000007-0123456789abcdef"
    place.mkdir(parents=True)
    (place / JOB).write_text(json.dumps({"words": words, "order": 0.0, "created": 1.0, **more}))
    return place


def test_a_job_of_somebody_else_waits_until_it_is_started_by_hand(queue, tmp_path, monkeypatch):
    begun = []
    monkeypatch.setattr(queue, "_start", lambda job: begun.append(job.id))
    place = received(queue, ["train", "vae", "digits"])
    (place / OUTPUT).symlink_to(tmp_path / "elsewhere")
    (foreign,) = queue.jobs()
    own = queue.add(["list"])
    queue.tick()
    assert begun == [own] and foreign.state is State.FOREIGN
    assert [job.id for job in queue.waiting()] == [own]
    new = queue.adopt(foreign.id)
    queue.tick()
    assert begun[1:] == [new, own]  # the training first, and again the other, as nothing is started here
    assert queue.job(foreign.id).state is State.CANCELLED
    assert queue.job(new).words == foreign.words and not (queue.job(new).place / OUTPUT).is_symlink()
    for ident in (foreign.id, own):
        with pytest.raises(Missing):
            queue.adopt(ident)


def test_a_job_of_somebody_else_is_foreign_whatever_became_of_it(queue):
    """Shipped as interrupted it could be resumed, which runs its words."""
    place, own = received(queue, ["train", "vae", "digits"]), queue.add(["list"])
    (start, end), states = ({"time": 1.0}, {"time": 2.0, "code": 0}), []
    for files in ({}, {START: start}, {START: start, END: end}):
        for name, value in files.items():
            (place / name).write_text(json.dumps(value))
        job = next(job for job in queue.jobs() if job.id != own)
        assert job.foreign and not queue.job(own).foreign
        states.append(job.state)
        queue._ended.clear()
    assert states == [State.FOREIGN, State.LOST, State.FINISHED]
    written(queue, own, start=start)
    assert queue.job(own).state is State.LOST and not queue.job(own).foreign


def test_the_words_that_were_checked_are_those_that_run(queue, monkeypatch):
    """The file may be another one when the process begins."""
    place, sent, ran = queue.job(queue.add(["list", "vae"])).place, [], []

    class Pipe(io.BytesIO):
        def write(self, content):
            sent.append(content)

    def start(*words, **keys):
        (place / JOB).write_text(json.dumps({"words": ["--import=evil.py"]}))
        return SimpleNamespace(stdin=Pipe(), poll=lambda: None)

    monkeypatch.setattr(queue_module, "start", start)
    monkeypatch.setattr(child, "run", lambda words, output: ran.append(words) or 0)
    queue.tick()
    child.main(place, json.loads(b"".join(sent)))
    assert ran == [["list", "vae"]] and (place / END).exists()


@pytest.mark.parametrize("process", [None, True, 0, 1, -1, 1.5, "12345", [12345], 2**70])
def test_a_process_is_a_number_in_a_small_plain_file(queue, tmp_path, process):
    place = queue.job(queue.add(["list"])).place
    assert process_of(place) is None
    (place / START).write_text(json.dumps({"process": process}))
    assert process_of(place) is None
    (place / START).write_text(json.dumps({"process": 12345}))
    assert process_of(place) == 12345
    (place / START).rename(tmp_path / "other.json")
    (place / START).symlink_to(tmp_path / "other.json")
    assert process_of(place) is None
    (place / START).unlink()
    os.mkfifo(place / START)
    assert process_of(place) is None


def test_who_looks_at_a_job_is_not_taken_for_its_process(queue):
    place = queue.job(queue.add(["list"])).place
    assert not is_held(place)
    with open_lock(place) as looker, open_lock(place) as process:
        lock(looker, shared=True)
        assert not is_held(place)
        looker.close()
        lock(process)
        assert is_held(place)
    assert not is_held(place)


def test_a_signature_holds_for_one_job_with_its_words_in_its_folder(queue, tmp_path):
    job = queue.job(queue.add(["list", "vae"]))
    signed = {"words": ["list", "vae"], "signature": job.signature}
    assert job.state is State.QUEUED

    def state(folder, name, **record):
        place = folder / "jobs" / name
        place.mkdir(parents=True, exist_ok=True)
        (place / JOB).write_text(json.dumps({"order": 1.0, "created": 1.0, **signed, **record}))
        return next(one.state for one in Queue(folder.parent, folder).jobs() if one.place == place)

    own, name = queue.jobs_folder.parent, job.place.name
    assert state(own, name) is State.QUEUED and state(own, name, order=-3.0) is State.QUEUED
    for words in (["list"], ["list", "gan"], ["list vae"], ["list", "vae", "x"]):
        assert state(own, name, words=words) is State.FOREIGN
    for signature in ("", None, job.signature[:-1], "\u00e9", "\ud800"):
        assert state(own, name, signature=signature) is State.FOREIGN
    assert state(own, "00000001-0123456789abcdef") is State.FOREIGN  # a copy would run it twice
    assert state(tmp_path / "other" / "own", name) is State.FOREIGN  # in another folder


def test_the_secret_is_the_users_alone_and_kept(tmp_path, monkeypatch):
    monkeypatch.setenv("TRILEMMA_CACHE", str(tmp_path / "cache"))
    first, second = Owner(tmp_path), Owner(tmp_path)
    assert first.made("a", ["x"], second.signature("a", ["x"]))
    file = tmp_path / "cache" / SECRET
    assert stat.S_IMODE(file.stat().st_mode) == 0o600 and len(file.read_bytes()) == LENGTH
    file.chmod(0o644)  # others could have read it
    assert not Owner(tmp_path).made("a", ["x"], first.signature("a", ["x"]))
    monkeypatch.setenv("TRILEMMA_CACHE", str(file))  # not a folder: it holds for this process
    alone = Owner(tmp_path)
    assert alone.made("a", ["x"], alone.signature("a", ["x"]))


@pytest.mark.parametrize("words", [[], "list", None, [1], ["\ud800"], ["no-such-verb"]])
def test_a_received_job_of_any_content_does_no_harm(queue, words):
    place = received(queue, words, order=float("inf"), created="x")
    (place / LOCK).symlink_to("/dev/zero")
    (place / CANCEL).write_text("{}")
    queue.tick()
    assert all(job.state is State.CANCELLED for job in queue.jobs()) and not queue.fault


def test_the_queue_goes_on_after_errors_of_the_disk_with_pauses_that_grow(queue, monkeypatch):
    monkeypatch.setattr(queue_module, "TICK_S", 0.001)
    pauses, begun, errors = [], [], [OSError(28, "No space left on device"), KeyError("process"), Missing("gone")]
    queue.add(["list"])

    def start(job):
        pauses.append(queue.pause_s)
        if errors:
            raise errors.pop(0)
        begun.append(job.id)
        queue.cancel(job.id)

    monkeypatch.setattr(queue, "_start", start)
    queue.try_tick()
    assert "No space left on device" in queue.fault
    queue.open()
    until(lambda: begun and not queue.fault)
    assert pauses == [0.001, 0.002, 0.004, 0.008] and queue._thread.is_alive() and queue.pause_s == 0.001
    queue._failures = 10**6
    assert queue.pause_s == queue_module.LONGEST_PAUSE_S


def test_a_process_that_ends_before_its_job_begins_is_not_started_in_haste(queue, monkeypatch):
    """As on a full disk, where it cannot write that it began."""

    class Ended:
        def __init__(self):
            self.stdin = io.BytesIO()

        def poll(self):
            return 1

    started = []
    monkeypatch.setattr(queue_module, "start", lambda *words, **keys: started.append(words) or Ended())
    ident = queue.add(["list", "vae"])
    pauses = [queue.pause_s]
    for k in range(1, 4):
        queue.try_tick()  # starts it
        assert len(started) == k
        queue.try_tick()  # sees that it ended
        pauses.append(queue.pause_s)
        assert "trilemma list vae ended with code 1 before it began" in queue.fault and "bytes are free" in queue.fault
    assert pauses == [queue_module.TICK_S * 2**k for k in range(4)]
    queue.cancel(ident)
    queue.try_tick()
    assert not queue.fault and queue.pause_s == queue_module.TICK_S


def test_a_full_queue_is_said(queue, monkeypatch):
    monkeypatch.setattr(queue_module, "MOST_QUEUED", 2)
    queue.add(["list"]), queue.add(["list"])
    with pytest.raises(UserError, match="2 jobs are waiting"):
        queue.add(["list"])
    with pytest.raises(Missing):
        queue.job("0123456789abcdef")


def test_a_job_that_runs_is_stopped_by_one_signal(queue, tmp_path):
    """`doctor` loads torch first, for a second or more."""
    queue.open()
    ident = queue.add(["doctor"])
    until(lambda: queue.job(ident).state is State.RUNNING)
    queue.cancel(ident)
    queue.cancel(ident)
    until(lambda: ended(queue))
    assert queue.job(ident).state is State.STOPPED


def test_a_broken_job_does_not_stop_the_others(queue):
    place = queue.job(queue.add(["list", "vae"])).place
    (place / JOB).write_text("{")
    (queue.jobs_folder / "notes.txt").write_text("not a job")
    queue.open()
    ident = queue.add(["list", "vae"])
    until(lambda: ended(queue))
    assert [job.id for job in queue.jobs()] == [ident] and queue.job(ident).state is State.FINISHED
