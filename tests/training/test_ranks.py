"""Processes of torch.distributed: what they tell each other, the command under torchrun, and one that is killed."""

import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn, cast

import numpy as np
import pytest
import torch
import torch.distributed as dist
from distance import assert_near
from presets import small
from processes import free_port, start, start_all, torchrun
from safetensors.torch import load_file
from threads import Threads

import trilemma
from trilemma import ranks
from trilemma.cli.main import main
from trilemma.errors import Disconnected, Diverged, UserError
from trilemma.memory import is_out_of_memory
from trilemma.ranks import _connected, _is_lost_connection, connected_ranks
from trilemma.run.config import TrainConfig
from trilemma.run.run import Run
from trilemma.team import ALONE, Team
from trilemma.training.prepare import Plan
from trilemma.training.train import _resume_command

TALK = """
import json, math, sys, torch
from trilemma.ranks import connected_ranks, current_team

for _ in range(2):  # a process may train twice
    with connected_ranks():
        team = current_team()
        k, nan, inf = float(team.rank), math.nan, math.inf
        agreed = team.agree([k, -k, nan if k else 1.0, 2.0, -inf, inf if k else 0.0])
        total = torch.tensor([k + 1, 0.1], dtype=torch.float64)
        team.sum(total)
        texts = [team.broadcast(text if k == 0 else "") for text in ("runs/größe", "")]
print(json.dumps([team.rank, team.size, team.writes, list(agreed), total.tolist(), texts]))
"""


@pytest.mark.slow
def test_ranks_agree_sum_and_broadcast() -> None:
    processes = start_all(2, "-c", TALK)
    outputs = [process.communicate(timeout=60) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    for rank, (out, _) in enumerate(outputs):
        own, size, writes, agreed, total, texts = json.loads(out)
        assert (own, size, writes) == (rank, 2, rank == 0)
        assert math.isnan(agreed[2]) and [*agreed[:2], *agreed[3:]] == [1.0, 0.0, 2.0, -math.inf, math.inf]
        assert total == [3.0, 0.2]
        assert texts == ["runs/größe", ""]


SUM = """
import json, torch
from torch import nn
from trilemma.ranks import connected_ranks, current_team
from trilemma.training.exchange import Exchange
from trilemma.types import Player

with connected_ranks():
    team = current_team()
    parameters = [nn.Parameter(torch.zeros(n)) for n in (3, 2, 4)]
    parameters[team.rank].grad = torch.full_like(parameters[team.rank], team.rank + 1.0)
    exchange = Exchange(team, [player := Player("a", parameters)])
    exchange.sum(player, [(torch.tensor(1.0), {})])
print(json.dumps([None if p.grad is None else p.grad.tolist() for p in parameters]))
"""


@pytest.mark.slow
def test_a_gradient_of_one_rank_is_that_of_all() -> None:
    """Rank r has that of parameter r alone: packed by what is there, the two would be added up as one."""
    processes = start_all(2, "-c", SUM)
    outputs = [process.communicate(timeout=60) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    assert [json.loads(out) for out, _ in outputs] == [[[1.0] * 3, [2.0] * 2, None]] * 2


@pytest.mark.slow
def test_the_command_under_torchrun_is_the_command(tmp_path: Path) -> None:
    """The same weights; everything is printed and written once. Again it does nothing."""
    words = ["train", "vae", "digits", "steps=12", "batch=15", "sample_every=60", "save_every=60"]
    command = [sys.executable, "-m", "trilemma", *words]
    subprocess.run([*command, f"out={tmp_path / 'one'}"], check=True, capture_output=True)
    done = torchrun(*words, f"out={tmp_path / 'two'}")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("next: ") == 1 and done.stderr.count("29,056 parameters") == 1
    one, two = (load_file(tmp_path / name / "weights.safetensors") for name in ("one", "two"))
    assert all(torch.allclose(value, two[key], rtol=1e-5, atol=1e-6) for key, value in one.items())
    names = [sorted(str(p.relative_to(tmp_path / run)) for p in (tmp_path / run).rglob("*")) for run in ("one", "two")]
    assert names[0] == names[1]
    assert len(Run(tmp_path / "one").log) == len(Run(tmp_path / "two").log)
    again = torchrun(*words, f"out={tmp_path / 'two'}")
    assert again.returncode == 0 and again.stderr.count("is already trained") == 1


@pytest.mark.slow
def test_a_wrong_key_is_one_sentence(tmp_path: Path) -> None:
    done = torchrun("train", "vae", "digits", "stpes=12", f"out={tmp_path / 'run'}")
    assert done.returncode != 0 and done.stderr.count('did you mean "steps"?') == 1


MISSING = {
    "images": "train vae {own}/images.npy steps=1 out={shared}/vae",
    "module": "--import {own}/extra.py train vae digits steps=1 out={shared}/vae",
    "run": "sample {own}/run",
    "guide": "sample {shared}/run guide={own}/run guidance=2",
}


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a machine needs for all of MISSING."""
    folder = tmp_path_factory.mktemp("shared")
    trilemma.train("diffusion", "digits", steps=1, device="cpu", quiet=True, out=folder / "run", **small("diffusion"))
    np.save(folder / "images.npy", np.random.default_rng(0).integers(0, 256, (40, 8, 8), np.uint8))
    (folder / "extra.py").touch()
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("thing", MISSING)
def test_what_one_machine_lacks_is_said_by_its_process(thing: str, shared: Path, tmp_path: Path) -> None:
    """Process 0, which has it, ends too."""
    port = free_port()
    lines = [MISSING[thing].format(shared=shared, own=own) for own in (shared, tmp_path)]
    processes = [start(rank, 2, port, "-m", "trilemma", *line.split()) for rank, line in enumerate(lines)]
    texts = [process.communicate(timeout=120)[1] for process in processes]
    assert [process.returncode for process in processes] == [2, 2], texts
    assert "error: " not in texts[0]
    assert "error: process 1 of 2: " in texts[1] and "not found" in texts[1] and str(tmp_path) in texts[1]
    assert not (shared / "vae").exists()


def test_memory_that_runs_out_in_an_exchange_is_no_lost_process() -> None:
    """Nor is it tried again: the others wait for what was not sent."""
    lost, full = RuntimeError("gloo: Connection closed by peer"), RuntimeError("gloo: can't allocate memory: 64 bytes")
    for error, expected in ((lost, Disconnected), (full, UserError), (MemoryError(), UserError)):
        with pytest.raises(UserError) as raised, _connected():
            raise error
        assert type(raised.value) is expected and not is_out_of_memory(raised.value)
        assert str(raised.value).startswith("out of memory") == (expected is UserError)
    assert _is_lost_connection(lost) and not _is_lost_connection(full)


def test_a_defect_in_an_exchange_is_no_lost_process() -> None:
    with pytest.raises(RuntimeError, match=r"^No backend type"), _connected():
        raise RuntimeError("No backend type associated with device type mps")


@pytest.mark.parametrize("rank", [0, 1])
def test_an_error_that_all_processes_have_is_printed_by_the_first(rank: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The others print, and say who they are, what happens to each by itself: a lost connection, a defect."""
    monkeypatch.setattr(ranks, "current_team", lambda: SimpleNamespace(size=2, rank=rank))
    cases = [(UserError, ""), (Diverged, ""), (Disconnected, "; resume"), (OSError, ""), (KeyError, "")]
    for kind, advice in cases:
        with pytest.raises(kind) as raised, connected_ranks("resume"):
            raise kind("x")
        printed = rank > 0 and kind not in (UserError, Diverged)
        assert getattr(raised.value, "__notes__", []) == (["process 1 of 2"] if printed else [])
        assert raised.value.args == (f"x{advice}",)


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_a_killed_rank_ends_the_others_and_the_same_command_resumes(rank: int, tmp_path: Path) -> None:
    """Nothing is lost but the steps since the last checkpoint; a second launch beside the first is refused."""
    words = ["-m", "trilemma", "train", "vae", "digits", "steps=4000", "batch=16", "save_every=1600"]
    words += ["sample_every=1000000", f"out={tmp_path / 'run'}"]
    processes = start_all(2, *words)
    while len(list((tmp_path / "run" / "checkpoints").glob("*"))) < 2:
        assert all(process.poll() is None for process in processes)
        time.sleep(0.1)
    second = start_all(2, *words)
    texts = [process.communicate(timeout=60)[1] for process in second]
    assert [process.returncode for process in second] == [2, 2]
    assert "is being trained by process" in texts[0] and "error" not in texts[1]
    processes[rank].send_signal(signal.SIGKILL)
    began, other = time.monotonic(), processes[1 - rank]
    text = other.communicate(timeout=60)[1]
    assert other.returncode == 1 and time.monotonic() - began < 30, text
    (line,) = [line for line in text.splitlines() if line.startswith("error: ")]
    assert "another process has ended" in line
    assert line.endswith("; the same command resumes from the last checkpoint")
    saved = max(int(p.name) for p in (tmp_path / "run" / "checkpoints").iterdir() if p.name.isdecimal())
    assert 0 < saved < 64_000
    processes = start_all(2, *words)
    outputs = [process.communicate(timeout=200) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    assert f"resuming at {saved:,} images" in outputs[0][1]
    assert Run(tmp_path / "run").summary["images"] == 64_000


@pytest.mark.slow
def test_a_signal_to_one_of_two_processes_is_one_to_both(tmp_path: Path) -> None:
    """SIGUSR1 saves, and the training continues; SIGTERM ends both with 143. The same command resumes in 1 and in 3."""
    words = ["-m", "trilemma", "train", "vae", "digits", "batch=16", "save_every=1000000", "sample_every=1000000"]
    words += ["device=cpu"]
    run = tmp_path / "1"
    processes = start_all(2, *words, "steps=8000", f"out={run}")
    wait_for(lambda: images_logged(run) > 0, *processes)
    assert saved_images(run) == 0
    processes[1].send_signal(signal.SIGUSR1)
    wait_for(lambda: saved_images(run) > 0, *processes)
    saved = saved_images(run)
    wait_for(lambda: images_logged(run) > saved, *processes)
    assert saved_images(run) == saved
    processes[1].send_signal(signal.SIGTERM)
    outputs = [process.communicate(timeout=60) for process in processes]
    assert [process.returncode for process in processes] == [143, 143], outputs
    stopped = saved_images(run)
    assert stopped > saved and f"stopped after {stopped:,} images; the state is saved" in outputs[0][1]
    assert ". Resume with: torchrun ... -m trilemma train vae digits " in outputs[0][1]
    shutil.copytree(run, tmp_path / "3")
    weights = []
    for size in (1, 3):
        resumed = start_all(size, *words, f"steps={stopped // 16 + 30}", f"out={tmp_path / str(size)}")
        outputs = [process.communicate(timeout=200) for process in resumed]
        assert [process.returncode for process in resumed] == [0] * size, outputs
        assert f"resuming at {stopped:,} images" in outputs[0][1]
        assert Run(tmp_path / str(size)).summary["images"] == stopped + 30 * 16
        last = tmp_path / str(size) / "checkpoints" / f"{stopped + 30 * 16:012d}"
        weights.append(load_file(last / "model.safetensors"))
    assert_near(*({f"model/{name}": value for name, value in own.items()} for own in weights), 1e-5)


@pytest.mark.parametrize(
    ("of_machine", "launcher"), [("2", "torchrun --standalone --nproc-per-node 2"), ("1", "torchrun ...")]
)
def test_the_command_that_resumes_starts_as_many_processes(
    of_machine: str, launcher: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the weights divided if they are; dots where the processes are on several machines."""
    monkeypatch.setenv("LOCAL_WORLD_SIZE", of_machine)
    record = {"command": "trilemma train vae digits", "model_config": {}, "data": "digits"}

    def resume(team: Team, *, shard: bool) -> str:
        training = TrainConfig(steps=1, save_every=64, sample_every=128, shard=shard)
        return _resume_command(Path("r"), cast(Plan, SimpleNamespace(record=record, training=training)), team)

    words = "trilemma train vae digits save_every=64 sample_every=128"
    assert resume(ALONE, shard=False) == f"{words} out=r"
    assert resume(Threads(2), shard=False) == f"{launcher} -m {words} out=r"
    assert resume(Threads(2), shard=True) == f"{launcher} -m {words} shard=true out=r"


def wait_for(reached: Callable[[], bool], *processes: subprocess.Popen) -> None:
    """Wait until something holds, while the processes run."""
    end = time.monotonic() + 300
    while not reached():
        assert time.monotonic() < end and all(process.poll() is None for process in processes)
        time.sleep(0.05)


def images_logged(run: Path) -> int:
    """Images of the last whole row of a log, 0 where there is none."""
    lines = (run / "log.jsonl").read_text().split("\n")[:-1] if (run / "log.jsonl").exists() else []
    return json.loads(lines[-1])["images"] if lines else 0


def saved_images(run: Path) -> int:
    """Images of the newest checkpoint, 0 where there is none."""
    return max((int(path.name) for path in (run / "checkpoints").glob("[0-9]*")), default=0)


def children_of(process: subprocess.Popen) -> list[int]:
    """The processes that one has started, oldest first."""
    return [int(pid) for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="processes are found in /proc")
@pytest.mark.parametrize("rank", [0, 1])
def test_torchrun_restarts_the_processes_and_the_training_resumes(rank: int, tmp_path: Path) -> None:
    """With --max-restarts 2, after one was killed: to the bit the weights of two processes that nobody disturbs."""
    words = ["train", "vae", "digits", "steps=1000", "batch=16", "save_every=1600", "sample_every=1000000"]
    words += ["device=cpu"]
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    launcher += ["--max-restarts", "2", "-m", "trilemma"]
    broken = subprocess.Popen(
        [*launcher, *words, f"out={tmp_path / 'broken'}"],
        env=os.environ | {"OMP_NUM_THREADS": "1", "TRILEMMA_TIMEOUT_S": "60"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    while len(list((tmp_path / "broken" / "checkpoints").glob("[0-9]*"))) < 2:
        assert broken.poll() is None
        time.sleep(0.05)
    os.kill(children_of(broken)[rank], signal.SIGKILL)
    text = broken.communicate(timeout=300)[1]
    assert broken.returncode == 0 and text.count("resuming at") == 1, text
    unbroken = start_all(2, "-m", "trilemma", *words, f"out={tmp_path / 'unbroken'}")
    outputs = [process.communicate(timeout=300) for process in unbroken]
    assert [process.returncode for process in unbroken] == [0, 0], outputs
    one, other = (load_file(tmp_path / run / "weights.safetensors") for run in ("broken", "unbroken"))
    assert all(torch.equal(value, other[key]) for key, value in one.items())
    assert Run(tmp_path / "broken").summary["images"] == 16_000


def start_agent(port: int, log: Path, *words: str) -> subprocess.Popen:
    """torchrun as on a machine of its own, with one process, in a group of one or two machines that meet at a port."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nnodes", "1:2", "--nproc-per-node", "1"]
    launcher += ["--max-restarts", "3", "--rdzv-backend", "c10d", "--rdzv-endpoint", f"127.0.0.1:{port}"]
    launcher += ["--rdzv-conf", "last_call_timeout=1,keep_alive_interval=1", "--local-addr", "127.0.0.1"]
    env = os.environ | {"OMP_NUM_THREADS": "1", "TRILEMMA_TIMEOUT_S": "60"}
    env |= {"TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}  # else who joins is not told where the others meet (torch 2.13)
    with log.open("w") as file:
        return subprocess.Popen([*launcher, "-m", "trilemma", *words], env=env, stdout=file, stderr=file)


def group_size(agent: subprocess.Popen) -> int:
    """How many processes its own works with; 0 where it has none."""
    for pid in children_of(agent):
        with suppress(OSError):
            words = Path(f"/proc/{pid}/environ").read_text().split("\0")
            return int(dict(word.partition("=")[::2] for word in words).get("WORLD_SIZE", "0"))
    return 0


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="processes are found in /proc")
def test_a_group_grows_and_shrinks_as_machines_come_and_go(tmp_path: Path) -> None:
    """--nnodes=1:2: a second machine joins, and is then lost with its process; SIGTERM to torchrun ends the training
    with the state saved."""
    run, port = tmp_path / "run", free_port()
    words = [
        "train",
        "vae",
        "digits",
        "batch=16",
        "save_every=1600",
        "sample_every=1000000",
        "device=cpu",
        "quiet=true",
    ]
    forever = [*words, "steps=1000000", f"out={run}"]
    agents = [start_agent(port, tmp_path / "0.log", *forever)]

    def wait_for_group(size: int) -> None:
        wait_for(lambda: group_size(agents[0]) == size, agents[0])
        saved = saved_images(run)
        wait_for(lambda: group_size(agents[0]) == size and saved_images(run) > saved, agents[0])

    try:
        wait_for_group(1)
        agents.append(start_agent(port, tmp_path / "1.log", *forever))
        wait_for_group(2)
        victims = children_of(agents[1])
        agents[1].kill()
        for pid in victims:
            os.kill(pid, signal.SIGKILL)
        wait_for_group(1)
        agents[0].send_signal(signal.SIGTERM)
        assert agents[0].wait(timeout=60) != 0
    finally:
        for agent in agents:
            for pid in children_of(agent) if agent.poll() is None else ():
                os.kill(pid, signal.SIGKILL)
            agent.kill()
            agent.wait()
    stopped = saved_images(run)
    steps = stopped // 16 + 10
    subprocess.run([sys.executable, "-m", "trilemma", *words, f"steps={steps}", f"out={run}"], check=True)
    assert Run(run).summary["images"] == 16 * steps
    images = [row["images"] for row in Run(run).log]
    assert images == sorted(images)


@pytest.mark.parametrize("text", ["abc", "", "0", "-1", "nan", "inf"])
def test_a_timeout_that_is_not_above_0_is_refused(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"RANK": "1", "WORLD_SIZE": "2", "TRILEMMA_TIMEOUT_S": text}.items():
        monkeypatch.setenv(name, value)
    refusal = f"cannot be connected: TRILEMMA_TIMEOUT_S={text}: give a number of seconds above 0"
    with pytest.raises(UserError, match=refusal) as raised, connected_ranks():
        pass
    assert type(raised.value) is UserError


LOST = [
    (dist.DistNetworkError("recv: Connection reset by peer"), Disconnected),
    (dist.DistStoreError("Timed out after 31 seconds waiting for clients. 1/2 clients joined."), Disconnected),
    (RuntimeError("Gloo connectFullMesh failed with [transport/tcp/pair.cc:144] no error"), Disconnected),
    (RuntimeError("no such backend"), UserError),
]


@pytest.mark.parametrize(("error", "kind"), LOST)
def test_a_process_that_ends_while_the_others_connect_is_a_lost_one(
    error: Exception, kind: type[UserError], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the others then raise has exit code 1, as later on; what is wrong with the request has 2."""

    def rendezvous(*_: Any, **__: Any) -> NoReturn:
        raise error

    monkeypatch.setattr(import_module("torch.distributed.rendezvous"), "rendezvous", rendezvous)
    for name, value in {"RANK": "1", "WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match="the processes cannot be connected: ") as raised, connected_ranks():
        pass
    assert type(raised.value) is kind


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_a_rank_killed_before_it_connects_ends_the_other_with_1(
    rank: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRILEMMA_TIMEOUT_S", "5")
    processes = start_all(2, "-m", "trilemma", "train", "vae", "digits", f"out={tmp_path / 'run'}")
    processes[rank].kill()
    text = processes[1 - rank].communicate(timeout=60)[1]
    assert processes[1 - rank].returncode == 1, text
    (line,) = [line for line in text.splitlines() if line.startswith("error: ")]
    assert "the processes cannot be connected" in line
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("rank", "named"), [("0", ""), ("3", "process 3 of 4: ")])
def test_each_process_that_cannot_connect_says_why(
    rank: str, named: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The others cannot say it for one of another machine."""
    for name, value in {"RANK": rank, "WORLD_SIZE": "4"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    assert main(["train", "vae", "digits", f"out={tmp_path / 'run'}"]) == 2
    error = capsys.readouterr().err
    assert f"error: {named}the processes cannot be connected" in error and "MASTER_ADDR" in error
    assert not (tmp_path / "run").exists()


PRESETS = """
import json, sys, torch, trilemma
from presets import small
from trilemma.errors import UserError
from trilemma.ranks import connected_ranks

torch.set_num_threads(1)
refused = {}
with connected_ranks():
    for name in trilemma.list_models():
        parts = {f"{part}.steps": 2 for part in trilemma.registry.get_recipe(name).parts}
        try:
            out = f"{sys.argv[1]}/{name}"
            trilemma.train(name, "shapes:64", steps=2, batch=8, out=out, quiet=True, **small(name), **parts)
        except UserError as error:
            refused[name] = str(error)
print(json.dumps(refused))
"""


@pytest.mark.slow
def test_every_preset_trains_in_two_processes_or_is_refused_with_the_reason(tmp_path: Path) -> None:
    processes = start_all(2, "-c", PRESETS, str(tmp_path))
    outputs = [process.communicate(timeout=900) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    refused = json.loads(outputs[0][0])
    assert refused.keys() == {"gan-style"}, refused
    assert all("takes statistics over a batch" in reason for reason in refused.values())


@pytest.mark.slow
def test_samples_and_scores_under_torchrun_are_those_of_the_command(tmp_path: Path) -> None:
    run = Run(trilemma.train("vae", "digits", steps=20, out=tmp_path / "run", quiet=True).path)
    words = ["sample", str(run.path), "n=20", "batch=8"]
    subprocess.run([sys.executable, "-m", "trilemma", *words, f"out={tmp_path / 'one'}"], check=True)
    done = torchrun(*words, f"out={tmp_path / 'two'}")
    assert done.returncode == 0, done.stderr
    for one in [tmp_path / "one.png", *(tmp_path / "one").iterdir()]:
        other = tmp_path / str(one.relative_to(tmp_path)).replace("one", "two")
        assert one.read_bytes() == other.read_bytes(), one
    words = ["evaluate", str(run.path), "n=100", "batch=32", "bound_samples=0"]
    subprocess.run([sys.executable, "-m", "trilemma", *words], check=True)
    values = {path.name: json.loads(path.read_text())["value"] for path in (run.path / "metrics").iterdir()}
    done = torchrun(*words)
    assert done.returncode == 0, done.stderr
    again = {path.name: json.loads(path.read_text())["value"] for path in (run.path / "metrics").iterdir()}
    exact = [name for name, value in values.items() if value is not None and not name.startswith(("ms", "memory"))]
    assert len(exact) > 5 and all(again[name] == pytest.approx(values[name], rel=1e-10) for name in exact)
    done = torchrun("evaluate", str(run.path), "size=5")
    assert done.returncode != 0 and done.stderr.count("leave size out") == 1, done.stderr
