"""The queue: starts jobs in their order, one heavy and one light job at a time, and changes what is asked.

All it knows lies in files (`jobs.py`), so a server that was killed goes on where it was. The jobs are processes of
their own sessions: they outlive the server and Ctrl-C in its terminal. Only what this user made on this machine is
started. After an error, of the disk for instance, the queue tries again, after pauses that grow.
"""

import json
import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from trilemma.errors import UserError
from trilemma.files import remove, write_atomic, write_json
from trilemma.studio.guard import report
from trilemma.studio.jobs import CANCEL, JOB, START, Job, State, folders, new_job, process_of, read_job, write_record
from trilemma.studio.owner import Owner
from trilemma.studio.place import Missing
from trilemma.studio.processes import start

JOBS, PAUSED = "jobs", "paused"
MOST_QUEUED, MOST_RUNNING, MOST_ENDED = 200, 6, 1_000  # jobs that wait, run, and are kept once they have ended
TICK_S, LONGEST_PAUSE_S = 0.2, 30.0  # seconds between two looks, and at most, after errors
STARTING_S = 30.0  # seconds after which a process that has not begun is given up


class Queue:
    """The jobs of a folder.

    Args:
        folder: in which the commands run.
        own: the studio's own folder in it.
    """

    def __init__(self, folder: Path, own: Path) -> None:
        self.folder, self.jobs_folder, self._pause = folder, own / JOBS, own / PAUSED
        self._ended: dict[str, Job] = {}  # by folder name: these change no more
        self._starting: dict[str, tuple[subprocess.Popen[bytes], float]] = {}  # by id, until they have ended
        self._owner, self._failures = Owner(folder), 0
        self.fault = ""  # why no job can be started now
        self._guard = threading.RLock()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True)

    def open(self) -> None:
        """Start jobs from now on."""
        self._thread.start()

    def close(self) -> None:
        """Start no more jobs; those that run go on."""
        self._closed.set()
        if self._thread.is_alive():
            self._thread.join()

    def add(self, words: Sequence[str]) -> str:
        """Put a command behind all others, and give its id.

        Raises:
            UserError: the queue is full, or the disk refuses.
        """
        with self._guard:
            jobs = self.jobs()
            if sum(job.state is State.QUEUED for job in jobs) >= MOST_QUEUED:
                raise UserError(f"{MOST_QUEUED} jobs are waiting, which is the most; cancel some, or wait")
            self._forget(jobs)
            return new_job(self.jobs_folder, words, self._owner.signature)

    def jobs(self) -> list[Job]:
        """All jobs, the oldest first."""
        with self._guard:
            return [job for place in folders(self.jobs_folder) if (job := self._job_at(place)) is not None]

    def job(self, ident: str) -> Job:
        """The job of that id.

        Raises:
            Missing: there is none.
        """
        with self._guard:
            for place in folders(self.jobs_folder):
                if place.name.endswith(f"-{ident}") and (job := self._job_at(place)) is not None:
                    return job
        raise Missing("Job not found. The page Jobs lists all jobs.")

    def waiting(self) -> list[Job]:
        """The jobs that have not begun, in the order in which they will."""
        return sorted((job for job in self.jobs() if job.state is State.QUEUED), key=lambda job: job.order)

    def cancel(self, ident: str) -> None:
        """A job that waits is not run; one that runs is asked to end, and keeps what it has made."""
        job = self.job(ident)
        if not job.has_ended and not (job.place / CANCEL).exists():
            write_json(job.place / CANCEL, {"time": time.time()})
            self._interrupt(ident)

    def first(self, ident: str) -> None:
        """Put a job that waits before all others."""
        with self._guard:
            waiting = self.waiting()
            job = self.job(ident)
            if job.state is State.QUEUED and waiting[0].id != ident:
                write_record(job.place, job.words, waiting[0].order - 1.0, job.signature, job.created)

    def move(self, ident: str, places: int) -> None:
        """Put a job that waits so many places later, or earlier for a number below 0."""
        with self._guard:
            waiting = self.waiting()
            at = next((k for k, job in enumerate(waiting) if job.id == ident), None)
            if at is None:
                return
            first = waiting[0].order
            waiting.insert(max(0, at + places), waiting.pop(at))
            for k, job in enumerate(waiting):
                if job.order != first + k:
                    write_record(job.place, job.words, first + k, job.signature, job.created)

    def start_now(self, ident: str) -> None:
        """Start a job that waits, beside those that run and also in a queue that is paused.

        Raises:
            UserError: as many jobs run as may.
        """
        with self._guard:
            running = sum(job.state is State.RUNNING or job.id in self._starting for job in self.jobs())
            if self.job(ident).state is not State.QUEUED or ident in self._starting:
                return
            if running >= MOST_RUNNING:
                raise UserError(f"{running} jobs are running, which is the most; stop one, or wait")
            self._start(self.job(ident))

    def stop_all(self) -> None:
        """Cancel the jobs that wait, and stop those that run, which keep what they have made."""
        with self._guard:
            for job in self.jobs():
                if job.state in (State.QUEUED, State.RUNNING):
                    self.cancel(job.id)

    def stop_running(self) -> None:
        """Stop the jobs that run, and those that are about to; those that wait keep their places. After `close`."""
        until = time.monotonic() + STARTING_S
        while True:
            living = [ident for ident, (process, _) in self._starting.items() if process.poll() is None]
            begins = any(self.job(ident).state is State.QUEUED for ident in living)
            for job in self.jobs():
                if job.state is State.RUNNING:
                    self.cancel(job.id)
            if not begins or time.monotonic() > until:
                return
            time.sleep(TICK_S)

    def again(self, ident: str) -> str:
        """Put the same command into the queue again, and give the id of the new job. A training resumes by it."""
        return self.add(self.job(ident).words)

    def adopt(self, ident: str) -> str:
        """Put the command of a job that somebody else made into the queue, and give the id of the new job.

        The new one has a folder of its own, so nothing that lies in the other's is used; that one is cancelled.

        Raises:
            Missing: there is no such job, or it does not wait any more.
            UserError: as `add`.
        """
        with self._guard:
            if self.job(ident).state is not State.FOREIGN:
                raise Missing("This job does not wait to be started any more. The page Jobs says what became of it.")
            new = self.again(ident)
            self.cancel(ident)
            return new

    @property
    def paused(self) -> bool:
        """Whether no further job is started."""
        return self._pause.exists()

    def pause(self, on: bool) -> None:
        """Start no further job, or start them again."""
        write_atomic(self._pause, "") if on else remove(self._pause)

    def _forget(self, jobs: Sequence[Job]) -> None:
        """Remove the oldest of the jobs that have ended, of which `MOST_ENDED` are kept; what they made stays."""
        for job in [job for job in jobs if job.has_ended][:-MOST_ENDED]:
            remove(job.place / JOB)  # first: what is left of its folder is no job
            shutil.rmtree(job.place, ignore_errors=True)
            self._ended.pop(job.place.name, None)

    def _job_at(self, place: Path) -> Job | None:
        if place.name in self._ended:
            return self._ended[place.name]
        job = read_job(place)
        if job is not None and not self._owner.made(place.name, job.words, job.signature):
            job = replace(job, foreign=True, state=State.FOREIGN if job.state is State.QUEUED else job.state)
        if job is not None and job.has_ended:
            self._ended[place.name] = job
        return job

    def _work(self) -> None:
        while not self._closed.wait(self.pause_s):
            self.try_tick()

    @property
    def pause_s(self) -> float:
        """Seconds until the next look: twice as many after each error, up to a limit."""
        return min(TICK_S * 2 ** min(self._failures, 20), LONGEST_PAUSE_S)

    def try_tick(self) -> None:
        """`tick`; whatever goes wrong is kept in `fault` until a look succeeds, and no start is left uncertain."""
        try:
            self.tick()
            if not self._is_starting():
                self._failures, self.fault = 0, ""
        except Exception as error:  # of the disk, of a file of a job: the queue must not end by it
            self._failures += 1
            self.fault = str(error) or type(error).__name__
            if not isinstance(error, OSError | UserError | Missing):
                report(error)

    def tick(self) -> None:
        """Look once: see which have ended, start what can be started, interrupt what began while it was cancelled."""
        with self._guard:
            self._reap()
            jobs = [job for job in self.jobs() if not job.has_ended]
            for job in jobs:
                if job.state is State.RUNNING and (job.place / CANCEL).exists():
                    self._interrupt(job.id)
            if self.paused:
                return
            for heavy in (True, False):
                lane = [job for job in jobs if job.is_heavy is heavy and job.state is not State.FOREIGN]
                busy = any(job.state is State.RUNNING or job.id in self._starting for job in lane)
                if lane and not busy:
                    self._start(min(lane, key=lambda job: job.order))

    def _is_starting(self) -> bool:
        """Whether it is not known yet if a process that was started begins its job."""
        return any(self.job(ident).state is State.QUEUED for ident in self._starting)

    def _reap(self) -> None:
        """Forget processes that have ended, and end those that never begin.

        Raises:
            UserError: one has ended without having begun its job.
        """
        for ident, (process, since) in [*self._starting.items()]:
            if (code := process.poll()) is not None:
                del self._starting[ident]
                if (job := self.job(ident)).state is State.QUEUED:
                    raise UserError(
                        f"the process of {job.command} ended with code {code} before it began; {self._room()}"
                    )
            elif time.monotonic() - since > STARTING_S and self.job(ident).state is State.QUEUED:
                process.kill()

    def _room(self) -> str:
        """Bytes that are free in the folder, in words: a full disk is the usual reason."""
        return f"{shutil.disk_usage(self.folder).free:,} bytes are free in {self.folder}"

    def _start(self, job: Job) -> None:
        """Start the process of a job. It is told the words that were checked: its file may be another one by now."""
        process = start("child", str(job.place), folder=self.folder, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
        self._starting[job.id] = process, time.monotonic()
        assert process.stdin is not None
        with suppress(OSError), process.stdin:  # one that has ended is seen by `_reap`
            process.stdin.write(json.dumps([*job.words]).encode())

    def _interrupt(self, ident: str) -> None:
        """Send Ctrl-C to a job that runs, once: a second one would not wait for its checkpoint."""
        with self._guard:
            job = self.job(ident)
            sent = job.place / "signal.json"
            if job.state is not State.RUNNING or sent.exists():
                return
            if (process := process_of(job.place)) is None:
                raise UserError(f"{job.place / START} does not name the process of {job.command}")
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGINT)
            write_json(sent, {"time": time.time()})
