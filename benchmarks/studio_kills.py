"""Is a job lost, or run twice, when the studio is killed?

    python benchmarks/studio_kills.py [--kills 100] [--seed 0]

`trilemma studio` works in a temporary folder and is used over HTTP, as its pages use it: at random a training or a
picture of samples is queued, a job that waits is put first or cancelled, one that runs is stopped, a training that was
stopped is resumed, the queue is paused or resumed. At a random moment, also within a request, the studio is ended by
SIGKILL and started again, until as many kills as asked for have met a job that ran. Then it works off what waits.

- Each job whose request was answered is there once, in the order of the requests. One whose request was cut by a kill
  is there once or not at all.
- Each has finished, and has run once; or it was stopped or cancelled where that was asked for.
- No two trainings, and no two other jobs, ran at the same time.
- What a page calls running has a process that lives. The queue is paused after a start if it was before.
- At least one kill in three met a job that ran.

A figure that breaks one of these makes the exit code 1.
"""

import argparse
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from threading import Timer
from typing import Any

import httpx
from serving import serving

from trilemma.studio.jobs import END, ENDED, Job, State, folders, output_of, process_of, read_job
from trilemma.studio.library import Library
from trilemma.studio.place import OWN
from trilemma.studio.queue import JOBS

LIFE_S = 2.5  # seconds at most from the moment at which a studio says its address to its end
REST_S = 0.1  # seconds at most between two requests
MOST_TRIES = 3  # kills for each that has to meet a job that runs
MOST_WAITING = 4  # jobs, or the end would take long
WAIT_S = 300.0  # seconds for what waits at the end
STEPS = (20, 1500)  # of a training
ACTIONS = {"train": 6, "sample": 9, "first": 4, "cancel": 1, "stop": 1, "again": 2, "pause": 1}  # and how often
DONE = {"train": re.compile("^run ", re.MULTILINE), "sample": re.compile("^grid ", re.MULTILINE)}  # said once
RUNNING = re.compile(r'class="state running">.*?href="/jobs/([0-9a-f]{16})"', re.DOTALL)


@dataclass
class Asked:
    """What was asked of the studio, and what was wrong with it meanwhile.

    answered: ids of jobs, in the order in which their requests were answered; least, most: by the seed that a job has
    of its own, how often it was queued, by the requests that were answered, and by all; ended: ids of jobs that were to
    be cancelled or stopped; paused: whether the queue is, None where the answer was cut; cut: requests without an
    answer; met: kills while a job ran.
    """

    answered: list[str] = field(default_factory=list)
    least: Counter[str] = field(default_factory=Counter)
    most: Counter[str] = field(default_factory=Counter)
    ended: set[str] = field(default_factory=set)
    paused: bool | None = False
    cut: int = 0
    met: int = 0
    broken: list[str] = field(default_factory=list)


class Person:
    """Uses a studio at random.

    Args:
        run: id of the run whose samples are drawn.
    """

    def __init__(self, folder: Path, run: str, seed: int) -> None:
        self.folder, self.run, self.dice, self.asked = folder, run, random.Random(seed), Asked()

    def act(self, client: httpx.Client) -> None:
        """One request, as far as there is something to ask for."""
        jobs = jobs_of(self.folder)
        kind = "pause" if self.asked.paused else self.dice.choices([*ACTIONS], [*ACTIONS.values()])[0]
        if kind == "pause":
            return self.pause(client)
        waiting = [job for job in jobs if job.state is State.QUEUED]
        if kind in ("train", "sample", "again") and len(waiting) >= MOST_WAITING:
            return None
        if kind in ("train", "sample"):
            return self._queue(client, kind)
        newest = {seed_of(job): job for job in jobs}.values()
        chosen = {
            "first": waiting,
            "cancel": waiting,
            "stop": [job for job in jobs if job.state is State.RUNNING],
            "again": [job for job in newest if job.state is State.STOPPED and job.verb == "train"],
        }[kind]
        if chosen:
            self._change(client, kind, self.dice.choice(chosen))

    def _queue(self, client: httpx.Client, kind: str) -> None:
        seed = str(len(self.asked.most) + 1)
        fields = {"run": self.run, "verb": "sample", "n": "1", "seed": seed}
        if kind == "train":
            steps = str(self.dice.randint(*STEPS))
            fields = {"model": "vae", "data": "digits", "hidden": "8", "latent": "2", "steps": steps, "seed": seed}
        self._submit(client, f"/{kind}", fields, seed)

    def _change(self, client: httpx.Client, kind: str, job: Job) -> None:
        if kind == "again":
            return self._submit(client, f"/jobs/{job.id}/again", {}, seed_of(job))
        if kind in ("cancel", "stop"):
            self.asked.ended.add(job.id)
        self._send(client, f"/jobs/{job.id}/{'first' if kind == 'first' else 'cancel'}", {})

    def pause(self, client: httpx.Client) -> None:
        """Pause the queue, or resume it."""
        before = self.asked.paused
        answer = self._send(client, "/jobs/pause", {})
        self.asked.paused = None if answer is None else not before

    def _submit(self, client: httpx.Client, path: str, fields: dict[str, str], seed: str) -> None:
        self.asked.most[seed] += 1
        place = self._send(client, path, fields)
        if place is not None:
            self.asked.least[seed] += 1
            self.asked.answered.append(place.removeprefix("/jobs/"))

    def _send(self, client: httpx.Client, path: str, fields: dict[str, str]) -> str | None:
        """Where a request leads; None where its answer was cut."""
        try:
            answer = client.post(path, data=fields)
        except httpx.TransportError:
            self.asked.cut += 1
            return None
        if answer.status_code != 303:
            self.asked.broken.append(f"{path} answers {answer.status_code}")
        return answer.headers.get("location", "")

    def look(self, client: httpx.Client) -> None:
        """See what the page of all jobs says after a start."""
        text = client.get("/jobs").text
        paused, before = "The queue is paused" in text, self.asked.paused
        if before is not None and paused is not before:
            self.asked.broken.append(f"the queue is {'' if paused else 'not '}paused after a start")
        self.asked.paused = paused
        self.asked.broken += [f"job {ident} does not run" for ident in RUNNING.findall(text) if not self._runs(ident)]

    def see_kill(self) -> None:
        """See what the files say when no server is there."""
        running = [job for job in jobs_of(self.folder) if job.state is State.RUNNING]
        self.asked.met += bool(running)
        self.asked.broken += [f"job {job.id} does not run" for job in running if not self._runs(job.id)]

    def _runs(self, ident: str) -> bool:
        """Whether a job that was said to run has a process, or has ended since."""
        (place,) = (self.folder / OWN / JOBS).glob(f"*-{ident}")
        process = process_of(place)
        return (place / END).exists() or (process is not None and is_there(process))


def jobs_of(folder: Path) -> list[Job]:
    """All jobs of a folder, the oldest first, as their files say."""
    return [job for place in folders(folder / OWN / JOBS) if (job := read_job(place)) is not None]


def is_there(process: int) -> bool:
    """Whether there is a process of that number."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def seed_of(job: Job) -> str:
    """The seed of a job, which tells it from all others but those that repeat it."""
    return next(word.removeprefix("seed=") for word in job.words if word.startswith("seed="))


@contextmanager
def studio(folder: Path) -> Iterator[tuple[subprocess.Popen[str], httpx.Client]]:
    """A studio of a folder, and a client that it lets in."""
    with serving(folder) as (process, address):
        base, _, token = address.partition("/enter?token=")
        headers = {"origin": base, "cookie": f"trilemma-{base.rpartition(':')[2]}={token}"}
        with httpx.Client(base_url=base, headers=headers, trust_env=False, timeout=60) as client:
            yield process, client


def use_and_kill(person: Person) -> None:
    """A life of a studio: used until it is killed."""
    with studio(person.folder) as (process, client):
        timer = Timer(person.dice.uniform(0, LIFE_S), process.send_signal, [signal.SIGKILL])
        timer.start()
        try:
            person.look(client)
            while process.poll() is None:
                person.act(client)
                time.sleep(person.dice.uniform(0, REST_S))
        except httpx.TransportError:  # killed before it showed the page
            pass
        finally:
            timer.join()
        if process.wait() != -signal.SIGKILL:
            person.asked.broken.append(f"the studio ended by itself, with {process.returncode}")
    person.see_kill()


def kill_until_met(person: Person, kills: int) -> int:
    """End studios until so many kills have met a job that ran, or `MOST_TRIES` times as many: how many it were."""
    for tries in range(MOST_TRIES * kills):
        if person.asked.met >= kills:
            return tries
        use_and_kill(person)
    return MOST_TRIES * kills


def work_off(person: Person) -> None:
    """Let the queue end what waits."""
    with studio(person.folder) as (_, client):
        person.look(client)
        if person.asked.paused:
            person.pause(client)
        until = time.monotonic() + WAIT_S
        while not all(job.has_ended for job in jobs_of(person.folder)):
            if time.monotonic() > until:
                return person.asked.broken.append(f"jobs have not ended after {WAIT_S:g} s")
            time.sleep(0.2)
        person.look(client)


def faults(asked: Asked, jobs: Sequence[Job]) -> list[str]:
    """What is wrong with a history, in words.

    Args:
        jobs: all that are there at the end, the oldest first.
    """
    there, counts = [job.id for job in jobs], Counter(map(seed_of, jobs))
    result = [f"job {ident} is lost" for ident in asked.answered if ident not in there]
    result += [f"the job of seed {seed} is lost" for seed, least in asked.least.items() if counts[seed] < least]
    result += [f"the job of seed {seed} is there {n} times" for seed, n in counts.items() if n > asked.most[seed]]
    if [ident for ident in there if ident in asked.answered] != [ident for ident in asked.answered if ident in there]:
        result.append("the jobs are in another order than their requests")
    for job in jobs:
        allowed = {State.FINISHED, *((State.CANCELLED, State.STOPPED) if job.id in asked.ended else ())}
        if job.state not in allowed:
            result.append(f"{job.command} is {job.state}")
        runs = len(DONE[job.verb].findall(output_of(job.place)))
        if runs != 1 and job.state is State.FINISHED:
            result.append(f"{job.command} ran {runs} times")
    for verb in DONE:
        spans = sorted((job.started, job.ended or 0.0) for job in jobs if job.verb == verb and job.started)
        overlaps = sum(end > begin for (_, end), (begin, _) in pairwise(spans))
        result += [f"{overlaps} of the jobs of {verb} began before another ended"] if overlaps else []
    return result


def figures(asked: Asked, jobs: Sequence[Job], kills: int) -> str:
    """What happened, in words."""
    states = Counter(job.state for job in jobs)
    kinds = Counter(job.verb for job in jobs)
    lines: dict[str, Any] = {
        "kills": f"{kills}, {asked.met} of them while a job ran; {asked.cut} requests were cut by one",
        "jobs": f"{len(jobs)}: {kinds['train']} trainings, {len(jobs) - len({*map(seed_of, jobs)})} of which resume "
        f"another, and {kinds['sample']} pictures",
        "ended": ", ".join(f"{states[state]} {state}" for state in ENDED if states[state]),
    }
    return "\n".join(f"{name:8}{text}" for name, text in lines.items())


def main(argv: Sequence[str]) -> int:
    """Do it, and print the figures; 1 if something is wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100, help="that have to meet a job that runs")
    parser.add_argument("--seed", type=int, default=0, help="of what is asked for, and of the times")
    asked = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="trilemma-studio-", ignore_cleanup_errors=True) as place:
        folder = Path(place).resolve()
        words = ["train", "vae", "digits", "steps=20", "hidden=8", "latent=2", "out=runs/first", "quiet=true"]
        subprocess.run([sys.executable, "-m", "trilemma", *words], cwd=folder, stdout=subprocess.DEVNULL, check=True)
        person = Person(folder, Library(folder).id_of(folder / "runs" / "first"), asked.seed)
        try:
            tries = kill_until_met(person, asked.kills)
            work_off(person)
        finally:
            end_jobs(folder)
        jobs = jobs_of(folder)
        broken = [*person.asked.broken, *faults(person.asked, jobs)]
        print(figures(person.asked, jobs, tries))
    if person.asked.met < asked.kills:
        broken.append(f"only {person.asked.met} of {tries} kills met a job that ran, and {asked.kills} have to")
    for text in broken:
        print(f"BROKEN PROMISE: {text}", file=sys.stderr)
    return int(bool(broken))


def end_jobs(folder: Path) -> None:
    """End the jobs that still run, where something has failed: they outlive the studio."""
    for job in jobs_of(folder):
        if job.state is State.RUNNING and (process := process_of(job.place)) is not None:
            os.kill(process, signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
