"""SIGKILL of the studio while its jobs run: benchmarks/studio_kills.py, and whether it would notice a loss."""

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from trilemma.studio.jobs import OUTPUT, Job, State

KILLS = Path(__file__).parents[2] / "benchmarks" / "studio_kills.py"
pytestmark = pytest.mark.skipif(not KILLS.exists(), reason="needs benchmarks/")


@pytest.fixture(scope="module")
def kills():
    sys.path.insert(0, str(KILLS.parent))  # for what it imports
    spec = importlib.util.spec_from_file_location("studio_kills", KILLS)
    module = importlib.util.module_from_spec(spec)
    sys.modules["studio_kills"] = module  # where its dataclasses are looked up
    spec.loader.exec_module(module)
    sys.path.remove(str(KILLS.parent))
    return module


@pytest.fixture
def history(kills, tmp_path):
    """What was asked for, and the jobs: two trainings, one of which was stopped, and a picture."""
    asked = kills.Asked(answered=["a", "b", "c"], ended={"b"})
    asked.least.update("123"), asked.most.update("123")

    def job(ident, verb, seed, state, begin, end):
        place = tmp_path / ident
        place.mkdir()
        (place / OUTPUT).write_text("run      runs/x\n" if verb == "train" else "grid    x.png\n")
        return Job(ident, place, [verb, f"seed={seed}"], 1.0, "", state, 0.0, begin, end)

    jobs = [job("a", "train", 1, State.FINISHED, 1.0, 2.0), job("b", "train", 2, State.STOPPED, 2.0, 3.0)]
    return asked, [*jobs, job("c", "sample", 3, State.FINISHED, 1.5, 9.0)]


def test_a_history_that_is_whole_has_no_fault(kills, history):
    assert kills.faults(*history) == []


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda asked, jobs: jobs.pop(), "job c is lost"),
        (lambda asked, jobs: asked.least.update("3"), "the job of seed 3 is lost"),
        (lambda asked, jobs: jobs.append(jobs[0]), "the job of seed 1 is there 2 times"),
        (lambda asked, jobs: jobs.reverse(), "another order"),
        (lambda asked, jobs: asked.ended.clear(), "trilemma train seed=2 is stopped"),
        (lambda asked, jobs: jobs[2].place.joinpath(OUTPUT).write_text("grid    x\n" * 2), "ran 2 times"),
        (lambda asked, jobs: jobs[0].place.joinpath(OUTPUT).write_text(""), "ran 0 times"),
        (lambda asked, jobs: object.__setattr__(jobs[1], "started", 1.9), "began before another ended"),
    ],
)
def test_a_loss_would_be_noticed(kills, history, change, fault):
    change(*history)
    assert any(fault in text for text in kills.faults(*history))


@pytest.mark.parametrize(("every", "tries"), [(1, 5), (2, 9), (100, 15)])
def test_kills_that_met_no_job_do_not_count(kills, monkeypatch, every, tries):
    """The first kill of `every` meets one; there is a bound on how many are tried."""
    asked, count = kills.Asked(), []

    def use_and_kill(person):
        person.asked.met += len(count) % every == 0
        count.append(person)

    monkeypatch.setattr(kills, "use_and_kill", use_and_kill)
    assert kills.kill_until_met(SimpleNamespace(asked=asked), 5) == len(count) == tries
    assert kills.figures(asked, [], tries).startswith(f"kills   {tries}, {asked.met} of them while a job ran")


@pytest.mark.slow
def test_nothing_is_lost_or_doubled_when_100_kills_meet_a_job():
    done = subprocess.run([sys.executable, str(KILLS), "--kills", "100"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert ", 100 of them while a job ran" in done.stdout
