"""Is anything lost when a training is killed?

    python benchmarks/kill.py [--families a,b] [--models a,b] [--kills N] [--calls N]
    python benchmarks/kill.py --ranks 2 [--families a,b] [--models a,b] [--kills N]

For every model, on a CPU and in a temporary folder: one unbroken training, then trainings of the same command line
that are ended by SIGKILL (the whole process group) and started again, always by the same command, until they finish.

- Random kills, uniform over the duration of a training. Every fifth start is a fresh interpreter; the others are
  forked from a process that has the imports behind it, and do not draw the curves.
- Kills at the j-th call to the system that changes a file, j = 1, 2, ... to the last of a whole training with three
  saves: open for writing, write (after half of the bytes), fsync, rename, replace, unlink, rmdir, mkdir, chmod, and
  safetensors' own writing (before it, and with half of the file written). The next start is ended at one of its first
  calls, too.

With --ranks, each training is one of several processes (gloo, without torchrun), of which one or all are killed at a
random time; those that are left must end by themselves, and with exit code 1. The unbroken training is one of as many
processes. Models that several processes refuse are left out, and named.

After each kill: no checkpoint that was there is gone, and none is there that is not whole. After each finish: final
weights, averaged weights, optimisers, log, summary and sample pictures equal those of the unbroken training, the
images of each step were the same, and no temporary file is left. A figure that breaks a promise makes the exit code 1.
"""

import argparse
import builtins
import hashlib
import io
import itertools
import json
import math
import multiprocessing
import os
import platform
import random
import shutil
import signal
import socket
import statistics
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

os.environ |= {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "MPLBACKEND": "Agg"}  # before torch is imported

LANES = 2  # trainings at a time, one thread each
KILLS, CALLS = 50, 10_000  # of each family: at random, and at a call that changes a file (at most)
CHUNK = 25  # kills in a piece of work
FRESH_EVERY = 5
FIRST_CALLS = 30  # of a start, among which one is chosen
PATIENCE_S = 300.0  # after which a start counts as hanging
RANKS_FAMILIES, RANKS_KILLS = "autoencoder,gan,diffusion", 20  # of trainings in several processes, by default
RANKS_TIMEOUT_S = 30  # after which a process that waits for another gives up

SMALL = {  # by model, or else by family
    "gan": ["width=8", "latent=16"],
    "diffusion-small": ["widths=8,16", "embedding=16", "T=200"],
    "diffusion-text": ["size=16", "width=8", "multipliers=1,2", "depth=1", "text_width=32", "text_depth=1"],
    "diffusion-dit": ["width=32", "depth=1", "heads=2"],
    "diffusion": ["width=8", "multipliers=1,2", "depth=1"],
}
DATA = {"diffusion-text": "scenes"}  # by model, where digits do not suit
SAVE_EVERY = 640  # images between saves, as in the first of these
BATCH = 32  # images in a step of the random kills
LONG = ["steps=400", f"batch={BATCH}", f"save_every={SAVE_EVERY}", "sample_every=3200"]  # with a validation on the way
SHORT = ["steps=12", "batch=16", "save_every=64", "sample_every=96"]

CHANGES = ("mkdir", "rename", "replace", "unlink", "rmdir", "fsync", "chmod", "truncate")


@dataclass
class Tally:
    """What was counted for a family; tallies of its pieces of work are added."""

    family: str
    kills: int = 0
    calls: int = 0
    restarts: int = 0
    finished: int = 0
    equal: int = 0
    same_order: int = 0
    repairs: int = 0
    lost: int = 0
    repeated: list[int] = field(default_factory=list)
    warm_s: list[float] = field(default_factory=list)
    fresh_s: list[float] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)

    def __add__(self, other: "Tally") -> "Tally":
        names = [entry.name for entry in fields(self) if entry.name != "family"]
        return Tally(self.family, **{name: getattr(self, name) + getattr(other, name) for name in names})


# In the process that is killed


class Killer:
    """Counts the calls that change a file, and ends the process at one of them."""

    def __init__(self, at: int) -> None:
        self.at, self.count = at, 0

    def call(self, spoil: Callable[[], Any] = lambda: None) -> None:
        """Before such a call; `spoil` does a part of it."""
        self.count += 1
        if self.count == self.at:
            spoil()
            os.kill(os.getpid(), signal.SIGKILL)

    def install(self) -> None:
        """Put the counting in the place of the calls."""
        from trilemma.run import tensor_files

        for name in CHANGES:
            setattr(os, name, self._before(getattr(os, name)))
        builtins.open = io.open = self._open(builtins.open)
        tensor_files.save_file = self._save_file(tensor_files.save_file)

    def _before(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **keys: Any) -> Any:
            self.call()
            return real(*args, **keys)

        return call

    def _open(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(file: Any, mode: str = "r", *args: Any, **keys: Any) -> Any:
            if mode.startswith("r") and "+" not in mode:
                return real(file, mode, *args, **keys)
            self.call()
            return Halfway(real(file, mode, *args, **keys), self)

        return call

    def _save_file(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(tensors: Any, path: Path) -> None:
            self.call()
            real(tensors, path)
            self.call(lambda: os.truncate(path, path.stat().st_size // 2))

        return call


class Halfway:
    """A file whose write is ended after half of the bytes when its turn comes."""

    def __init__(self, file: Any, killer: Killer) -> None:
        self.file, self.killer = file, killer

    def write(self, data: Any) -> int:
        """As a file's."""
        self.killer.call(lambda: (self.file.write(data[: len(data) // 2]), self.file.flush()))
        return self.file.write(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)

    def __enter__(self) -> "Halfway":
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()


def train_here(words: list[str], trace: Path, kill_at: int | None = None) -> int:
    """The command line, with a line in `trace` at its begin and for every batch: time, position, its images.

    `kill_at` is the number of the call to die at; 0 counts the calls only.
    """
    from trilemma.cli.main import main
    from trilemma.training.loop import Trainer

    handle = os.open(trace, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(handle, b"begin\n")
    take = Trainer.batch_at

    def traced(trainer: Trainer, position: int) -> Any:
        batch = take(trainer, position)
        images = zlib.crc32(batch.index.numpy().tobytes())
        os.write(handle, f"{time.time()} {position} {images}\n".encode())
        return batch

    Trainer.batch_at = traced
    killer = Killer(kill_at or 0)
    if kill_at is not None:
        killer.install()
    code = main(words)
    os.write(handle, f"calls {killer.count}\n".encode())
    return code


# In the process that kills


def warm_up() -> None:
    """Import what a training imports."""
    import matplotlib.figure  # noqa: F401

    import trilemma
    from trilemma.training import results

    with tempfile.TemporaryDirectory() as folder:
        trilemma.train("ae-stacked", "digits", steps=1, out=Path(folder) / "run", quiet=True)
    results.draw_curves = lambda log, path, *_: path.write_bytes(b"")


@dataclass
class Attempt:
    """One start of the command: how it ended and what it told."""

    killed: bool
    code: int
    wait_s: float | None  # from the start to the first batch
    last_s: float  # from the begin (imports done) to the end
    batches: list[tuple[int, int]]  # position, checksum of its images
    calls: int  # that changed a file, if it came to its end


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


class Bench:
    """A folder with one run, the command that trains it, and the trace of its starts."""

    def __init__(self, model: str, family: str, keys: list[str], folder: Path) -> None:
        self.folder, self.run, self.trace = folder, folder / "run", folder / "trace"
        self.save_every = next(int(key.split("=")[1]) for key in keys if key.startswith("save_every="))
        self.words = [
            "train",
            model,
            DATA.get(model, "digits"),
            *keys,
            *SMALL.get(model, SMALL.get(family, [])),
            "device=cpu",
            f"out={self.run}",
        ]

    def clear(self) -> None:
        """Begin anew."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)

    def start(self, *, after_s: float | None = None, kill_at: int | None = None, fresh: bool = False) -> Attempt:
        """Start the command; kill its process group some seconds after its begin, or let it kill itself."""
        offset, begin = self._trace_bytes(), time.time()
        pid = os.fork()
        if pid == 0:
            self._become(kill_at, fresh)
        status = _wait(pid, lambda: self._trace_bytes() > offset, PATIENCE_S)
        begun = time.time()
        if status is None:
            status = _wait(pid, lambda: False, PATIENCE_S if after_s is None else after_s)
        if status is None:
            os.killpg(pid, signal.SIGKILL)
            status = os.waitpid(pid, 0)[1]
        return self._attempt(status, offset, begin, begun)

    def _become(self, kill_at: int | None, fresh: bool, rank: int = 0) -> None:
        """The child: it never returns."""
        try:
            os.setsid()
            trace = self.trace_of(rank)
            output = os.open(self.folder / "output", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
            os.dup2(output, 1)
            os.dup2(output, 2)
            if fresh:
                os.execv(sys.executable, [sys.executable, __file__, "--child", str(trace), *self.words])
            os._exit(train_here(self.words, trace, kill_at))
        finally:
            os._exit(99)

    def trace_of(self, rank: int) -> Path:
        """The trace of one of several processes."""
        return self.trace if rank == 0 else self.trace.with_name(f"trace-{rank}")

    def _trace_bytes(self) -> int:
        return self.trace.stat().st_size if self.trace.exists() else 0

    def _attempt(self, status: int, offset: int, begin: float, begun: float) -> Attempt:
        lines = [line.split() for line in self.trace.read_text()[offset:].splitlines()] if self._trace_bytes() else []
        entries = [words for words in lines if len(words) == 3]
        killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
        return Attempt(
            killed,
            0 if killed else os.waitstatus_to_exitcode(status),
            float(entries[0][0]) - begin if entries else None,
            time.time() - begun,
            [(int(position), int(images)) for _, position, images in entries],
            next((int(words[1]) for words in lines if words[0] == "calls"), 0),
        )

    def output(self) -> str:
        """The last words of the command."""
        return (self.folder / "output").read_text()[-600:]


class RanksBench(Bench):
    """A run that several processes train together, of which one or all are killed.

    Args:
        choose: which of them; a process alone and all together take turns.
    """

    def __init__(self, *words: Any, ranks: int, choose: random.Random) -> None:
        super().__init__(*words)
        self.ranks, self.choose = ranks, choose
        self.alone = True  # whether the next kill is of one process
        self.broken: list[str] = []

    def start(self, *, after_s: float | None = None, kill_at: int | None = None, fresh: bool = False) -> Attempt:
        """Start the processes; kill one or all of them some seconds after the begin of the first. `kill_at` is not
        used: calls that change files are those of one process."""
        offset, begin, port = self._trace_bytes(), time.time(), free_port()
        running = {rank: self._fork(rank, port, fresh) for rank in range(self.ranks)}
        statuses: dict[int, int] = {}
        _gather(running, statuses, lambda: self._trace_bytes() > offset, PATIENCE_S)
        begun = time.time()
        _gather(running, statuses, lambda: bool(statuses), PATIENCE_S if after_s is None else after_s)
        killed, victims = not statuses and after_s is not None, list[int]()
        if killed:
            victims = [self.choose.randrange(self.ranks)] if self.alone else list(running)
            self.alone = not self.alone
            for rank in victims:
                os.killpg(running[rank], signal.SIGKILL)
        _gather(running, statuses, lambda: False, 4 * RANKS_TIMEOUT_S)
        if killed:
            self.check_survivors(statuses, victims)
        if running:
            self.broken.append(f"{self.words[1]}: processes {list(running)} do not end")
            for pid in running.values():
                os.killpg(pid, signal.SIGKILL)
            _gather(running, statuses, lambda: False, PATIENCE_S)
        return self._joined(self._attempt(statuses[0], offset, begin, begun), statuses, killed)

    def _fork(self, rank: int, port: int, fresh: bool) -> int:
        pid = os.fork()
        if pid == 0:
            os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(self.ranks)}
            os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
            os.environ["TRILEMMA_TIMEOUT_S"] = str(RANKS_TIMEOUT_S)
            self._become(None, fresh, rank)
        return pid

    def _joined(self, first: Attempt, statuses: dict[int, int], killed: bool) -> Attempt:
        """What all processes did: the images of a step are those of each of them."""
        codes = [abs(os.waitstatus_to_exitcode(status)) for status in statuses.values()]
        parts = [dict(first.batches)]
        for rank in range(1, self.ranks):
            lines = [line.split() for line in self.trace_of(rank).read_text().splitlines()]
            parts.append({int(words[1]): int(words[2]) for words in lines if len(words) == 3})
        batches = [(at, zlib.crc32(str([part.get(at) for part in parts]).encode())) for at, _ in first.batches]
        if killed:  # the last of the first process may have been begun by it alone
            batches = [entry for entry in batches if all(entry[0] in part for part in parts)]
        return replace(first, killed=killed, code=0 if killed else max(codes), batches=batches)

    def check_survivors(self, statuses: dict[int, int], victims: list[int]) -> None:
        """Note the processes that were not killed and did not end with 1; a run that is finished may end with 0."""
        allowed = (0, 1) if (self.run / "summary.json").exists() else (1,)
        codes = {rank: os.waitstatus_to_exitcode(status) for rank, status in statuses.items() if rank not in victims}
        wrong = {rank: code for rank, code in codes.items() if code not in allowed}
        self.broken += [f"{self.words[1]}: process {rank} ends with {code}" for rank, code in wrong.items()]


def _gather(running: dict[int, int], statuses: dict[int, int], until: Callable[[], bool], seconds: float) -> None:
    """Move the processes that end from those that run to those whose exit status is known, until all have ended, the
    time is over or `until` holds."""
    end = time.monotonic() + seconds
    while running and time.monotonic() < end and not until():
        for rank, pid in list(running.items()):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                statuses[rank] = status
                del running[rank]
        time.sleep(0.002)


def _wait(pid: int, until: Callable[[], bool], seconds: float) -> int | None:
    """The exit status of a child, or None if it lives when the time is over or `until` holds."""
    end = time.monotonic() + seconds
    while time.monotonic() < end and not until():
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return status
        time.sleep(0.002)
    return None


def outcome(run: Path) -> dict[str, Any]:
    """All of a finished run that must not depend on how often it was killed."""
    from trilemma.run.checkpoint import list_checkpoints

    checkpoint = list_checkpoints(run / "checkpoints")[-1]
    state, summary = json.loads((checkpoint / "state.json").read_text()), json.loads((run / "summary.json").read_text())
    rows = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    timed = {"seconds", "images_per_second"}
    plain = {"state": state, "summary": summary} | {f"log row {k}": row for k, row in enumerate(rows)}
    files = [run / "weights.safetensors", *checkpoint.glob("*.safetensors"), *(run / "samples").glob("*")]
    return {
        **{name: {key: value for key, value in entry.items() if key not in timed} for name, entry in plain.items()},
        **{str(file.relative_to(run)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files},
        "files": sorted(str(file.relative_to(run)) for file in run.rglob("*")),
    }


def valid_checkpoints(run: Path) -> tuple[list[int], list[str]]:
    """Images of the valid checkpoints, and what is wrong with the others."""
    from trilemma.run.checkpoint import images_of, list_checkpoints, why_broken

    folder = run / "checkpoints"
    result = {images_of(path): why_broken(path) for path in (list_checkpoints(folder) if folder.is_dir() else [])}
    wrong = [f"checkpoint {images} is not whole: {why}" for images, why in result.items() if why is not None]
    return [images for images, why in result.items() if why is None], wrong


class KilledRun:
    """A run from its first start to its finish: what was seen of it so far, counted into a tally."""

    def __init__(self, bench: Bench, unbroken: "Unbroken", tally: Tally) -> None:
        self.bench, self.unbroken, self.tally = bench, unbroken, tally
        self.newest, self.reached, self.starts = 0, 0, 0  # images of the newest checkpoint, images trained on
        self.batches: dict[int, int] = {}
        self.same, self.is_unfinished = True, True
        bench.clear()

    def start(self, **how: Any) -> bool:
        """Start the command once; whether it is to be started again."""
        attempt = self.bench.start(**how)
        self._look_at_steps(attempt, fresh=how.get("fresh", False))
        self.starts += 1
        self.tally.restarts += self.starts > 1
        if attempt.killed:
            self._look_at_checkpoints()
        elif attempt.code:
            self.tally.repairs += 1
            self.tally.broken.append(f"the command was refused ({attempt.code}): {self.bench.output()}")
        else:
            self._look_at_outcome()
        self.is_unfinished = attempt.killed
        return self.is_unfinished

    def _look_at_steps(self, attempt: Attempt, *, fresh: bool) -> None:
        if not attempt.batches:
            return
        first, last = attempt.batches[0][0], attempt.batches[-1][0]
        if self.starts:
            self.tally.repeated.append(max(0, self.reached - first))
            (self.tally.fresh_s if fresh else self.tally.warm_s).append(attempt.wait_s or 0.0)
        self.reached = max(self.reached, last + self.unbroken.batch)
        self.newest = max(self.newest, last - last % self.bench.save_every)  # saved before that batch was taken
        self.batches |= dict(attempt.batches)
        self.same &= all(self.unbroken.batches.get(at) == images for at, images in attempt.batches)

    def _look_at_checkpoints(self) -> None:
        valid, wrong = valid_checkpoints(self.bench.run)
        self.tally.broken += wrong
        newest = max(valid, default=0)
        if newest < self.newest:
            self.tally.lost += 1
            self.tally.broken.append(f"a checkpoint of {self.newest} images was there; the newest is of {newest}")
        self.newest = newest

    def _look_at_outcome(self) -> None:
        result, expected = outcome(self.bench.run), self.unbroken.outcome
        different = [name for name in {**expected, **result} if result.get(name) != expected.get(name)]
        self.same &= self.batches == self.unbroken.batches
        self.tally.finished += 1
        self.tally.equal += not different
        self.tally.same_order += self.same
        if different:
            name = different[0]
            text = f"{expected.get(name)} became {result.get(name)}"
            self.tally.broken.append(f"{self.bench.words[1]}: different: {', '.join(different)}; {text}")


class Unbroken:
    """A training that nobody kills: what the others are compared with."""

    def __init__(self, bench: Bench) -> None:
        bench.clear()
        attempt = bench.start(kill_at=0)
        if attempt.killed or attempt.code:
            raise RuntimeError(f"the unbroken training ends with {attempt.code}: {bench.output()}")
        self.outcome, self.calls, self.seconds = outcome(bench.run), attempt.calls, attempt.last_s
        self.batches = dict(attempt.batches)
        self.batch = attempt.batches[1][0] - attempt.batches[0][0]


def random_kills(model: str, family: str, kills: int, seed: int, ranks: int, folder: Path) -> Tally:
    """Trainings killed at random times, until `kills` of them hit; each training is brought to its end."""
    tally, choose = Tally(family), random.Random(f"{seed}/{model}")
    words = (model, family, LONG, folder)
    bench = Bench(*words) if ranks == 1 else RanksBench(*words, ranks=ranks, choose=choose)
    unbroken = Unbroken(bench)
    starts = 0
    while tally.kills < kills:
        run = KilledRun(bench, unbroken, tally)
        while run.is_unfinished:
            after_s = choose.uniform(0, unbroken.seconds) if tally.kills < kills else None
            starts += 1
            tally.kills += run.start(after_s=after_s, fresh=starts % FRESH_EVERY == 0)
    tally.broken += bench.broken if isinstance(bench, RanksBench) else []
    return tally


def kills_at_calls(model: str, family: str, part: int, parts: int, most: int, seed: int, folder: Path) -> Tally:
    """For each call of a training that changes a file: die at it, in the next start die at one of the first calls
    (where what the first left is tidied up), then come to the same end.
    """
    tally, bench, choose = Tally(family), Bench(model, family, SHORT, folder), random.Random(f"{seed}/{part}")
    unbroken = Unbroken(bench)
    calls = range(1, unbroken.calls + 1, math.ceil(unbroken.calls / most))
    for number in calls[part::parts]:
        run = KilledRun(bench, unbroken, tally)
        starts = (run.start(kill_at=at) for at in (number, choose.randint(1, FIRST_CALLS)))
        tally.calls += sum(itertools.takewhile(bool, starts))
        if run.is_unfinished and run.start():
            tally.broken.append(f"killed at call {number}, and not again: the command does not end")
    tally.repeated.clear()  # of another save interval than the random kills
    return tally


@contextmanager
def work(kind: str, *args: Any) -> Iterator[Callable[[], Tally]]:
    """A piece of work in a folder of its own."""
    with tempfile.TemporaryDirectory(prefix="trilemma-kill-") as folder:
        yield lambda: {"random": random_kills, "calls": kills_at_calls}[kind](*args, folder=Path(folder) / "bench")


def do(piece: tuple[Any, ...]) -> Tally:
    """A piece of work, in a lane."""
    import torch

    if torch.get_num_threads() != 1:
        torch.set_num_threads(1)
    with work(*piece) as todo:
        return todo()


def plan(
    families: list[str], only: list[str], kills: int, calls: int, seed: int, ranks: int = 1
) -> list[tuple[Any, ...]]:
    """Pieces of work: every model of a family has its share of the random kills, its usual model the others; `only`
    the models named, where any are. Left out are models that several processes refuse, and models with parts, whose
    trainings are several: these are killed by tests/training/test_parts.py."""
    from trilemma import list_models
    from trilemma.comparison.request import ONE_PER_FAMILY
    from trilemma.registry import get_recipe

    for name in only:
        get_recipe(name)  # raises where there is none
    pieces: list[tuple[Any, ...]] = []
    for family in families:
        recipes = map(get_recipe, list_models())
        models = [recipe.name for recipe in recipes if recipe.family == family and not recipe.parts]
        models = [name for name in models if name in only] if only else models
        models = [name for name in models if ranks == 1 or is_divisible(name, ranks)]
        for model in models[:kills]:
            share = math.ceil(kills / len(models))
            counts = [min(CHUNK, share - done) for done in range(0, share, CHUNK)]
            pieces += [("random", model, family, count, seed + k, ranks) for k, count in enumerate(counts)]
        usual = next((model for model in models if model in ONE_PER_FAMILY), None)
        if calls and usual and ranks == 1:
            pieces += [("calls", usual, family, part, LANES, calls, seed) for part in range(LANES)]
    return pieces


def is_divisible(model: str, ranks: int) -> bool:
    """Whether so many processes can train a model together; the reason is printed where they cannot."""
    from trilemma.errors import UserError
    from trilemma.registry import get_recipe, without_memory
    from trilemma.training.players import check_divisible

    try:
        check_divisible(without_memory(get_recipe(model)), BATCH, SimpleNamespace(size=ranks))  # type: ignore[arg-type]
    except UserError as error:
        print(f"{model} is left out: {error}", file=sys.stderr)
        return False
    return True


HEAD = (
    "family",
    "random kills",
    "kills at a file call",
    "restarts",
    "manual repairs",
    "runs lost",
    f"repeated images, p95 (allowed {SAVE_EVERY})",
    "same sample order",
    "bit-equal",
    "restart to first step, s, p50",
    "the same with imports",
)


def row(tally: Tally) -> tuple[str, ...]:
    """A line of the table."""
    p95 = sorted(tally.repeated)[math.ceil(0.95 * len(tally.repeated)) - 1] if tally.repeated else 0
    waits = [f"{statistics.median(seconds):.2f}" if seconds else "-" for seconds in (tally.warm_s, tally.fresh_s)]
    counts = (tally.kills, tally.calls, tally.restarts, tally.repairs, tally.lost, p95)
    shares = (f"{part} of {tally.finished}" for part in (tally.same_order, tally.equal))
    return (tally.family, *map(str, counts), *shares, *waits)


def broken_promises(tally: Tally) -> list[str]:
    """In words; [] if all were kept."""
    result = list(dict.fromkeys(tally.broken))
    if max(tally.repeated, default=0) > SAVE_EVERY:
        result.append(f"{max(tally.repeated)} images were repeated, {SAVE_EVERY} are allowed")
    if tally.same_order < tally.finished:
        result.append(f"other images in some steps of {tally.finished - tally.same_order} trainings")
    return [f"{tally.family}: {text}" for text in result]


def as_text(rows: list[tuple[str, ...]], *, markdown: bool) -> str:
    """The table, for a terminal or for a Markdown page."""
    if markdown:
        return "\n".join(f"| {' | '.join(line)} |" for line in (HEAD, ("---",) * len(HEAD), *rows))
    columns = list(zip(HEAD, *rows, strict=True))
    width = max(map(len, HEAD))
    return "\n".join(
        "  ".join([column[0].ljust(width), *(cell.rjust(14) for cell in column[1:])]) for column in columns
    )


def main(argv: list[str]) -> int:
    """Do the work, print the table; 1 if a promise is broken."""
    from trilemma.registry import FAMILIES

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--families", help=f"comma between (default: all; with --ranks {RANKS_FAMILIES})")
    parser.add_argument("--models", default="", help="of these families, comma between (default: all)")
    parser.add_argument("--ranks", type=int, default=1, help="processes that train together")
    help_ = f"random kills of each family (default: {KILLS}; with --ranks {RANKS_KILLS})"
    parser.add_argument("--kills", type=int, help=help_)
    parser.add_argument("--calls", type=int, default=CALLS, help="most kills at a file call of each family")
    parser.add_argument("--seed", type=int, default=0, help="of the random times")
    parser.add_argument("--markdown", action="store_true", help="print the table as Markdown")
    asked = parser.parse_args(argv)
    several = asked.ranks > 1
    kills = asked.kills or (RANKS_KILLS if several else KILLS)
    named = asked.families or (RANKS_FAMILIES if several else ",".join(FAMILIES))
    families, only = named.split(","), asked.models.split(",") if asked.models else []
    begin, tallies = time.monotonic(), {family: Tally(family) for family in families}
    context = multiprocessing.get_context("fork")
    n_lanes = max(1, LANES // asked.ranks)
    with ProcessPoolExecutor(n_lanes, context, initializer=warm_up) as lanes:
        for tally in lanes.map(do, plan(families, only, kills, asked.calls, asked.seed, asked.ranks)):
            tallies[tally.family] += tally
            done = f"{tally.kills} random kills, {tally.calls} at a file call, {tally.finished} trainings finished"
            print(f"{tally.family}: {done}, {tally.equal} of them equal", file=sys.stderr, flush=True)
    print(as_text([row(tally) for tally in tallies.values()], markdown=asked.markdown))
    minutes = (time.monotonic() - begin) / 60
    print(f"\n{minutes:.1f} minutes, {n_lanes} trainings at a time, {platform.machine()}, {platform.system()}")
    broken = [text for tally in tallies.values() for text in broken_promises(tally)]
    for text in broken:
        print(f"BROKEN PROMISE: {text}", file=sys.stderr)
    return int(bool(broken))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        sys.exit(train_here(sys.argv[3:], Path(sys.argv[2])))
    sys.exit(main(sys.argv[1:]))
