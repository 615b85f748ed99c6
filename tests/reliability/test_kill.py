"""SIGKILL, a few times: benchmarks/kill.py on one family, and whether it would notice a loss."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

KILL = Path(__file__).parents[2] / "benchmarks" / "kill.py"
pytestmark = pytest.mark.skipif(not (hasattr(os, "fork") and KILL.exists()), reason="needs os.fork and benchmarks/")


def harness(*words: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, str(KILL), *words], capture_output=True, text=True)


@pytest.mark.slow
def test_a_few_kills_lose_nothing() -> None:
    done = harness("--families", "vae", "--kills", "2", "--calls", "4")
    assert done.returncode == 0, done.stdout + done.stderr
    cells = dict(line.rsplit(maxsplit=1) for line in done.stdout.splitlines() if line.startswith(("manual", "runs")))
    assert cells == {"manual repairs": "0", "runs lost": "0"}


@pytest.mark.slow
def test_a_few_kills_of_one_of_two_processes_and_of_both_lose_nothing() -> None:
    done = harness("--ranks", "2", "--families", "vae", "--models", "vae", "--kills", "2")
    assert done.returncode == 0, done.stdout + done.stderr
    cells = {line[:14].strip(): line.split()[-1] for line in done.stdout.splitlines() if line}
    assert cells["random kills"] == "2" and cells["manual repairs"] == cells["runs lost"] == "0"


LOSSY = """
import sys, tempfile
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import kill
from trilemma.run import checkpoint
from trilemma.run.tensor_files import save_tensors
from trilemma.training import saving
kill.warm_up()

def careless(folder, images, state, notice):  # straight to the final name, the old one removed first
    final = folder / f"{images:012d}"
    if final.exists():
        return
    for old in checkpoint.list_checkpoints(folder) if folder.exists() else []:
        checkpoint.shutil.rmtree(old)
    final.mkdir(parents=True)
    for name, tensors in state.tensors.items():
        save_tensors(tensors, final / f"{name}.safetensors")
    checkpoint.write_json(final / "state.json", state.values)
    checkpoint.write_json(final / "manifest.json", checkpoint.manifest_of(final))

saving.save_checkpoint = careless
with tempfile.TemporaryDirectory() as folder:
    tally = kill.kills_at_calls("vae", "vae", part=0, parts=1, most=8, seed=0, folder=Path(folder))
assert tally.lost and any("is not whole" in text for text in tally.broken), tally
"""


@pytest.mark.slow
def test_a_careless_save_would_be_noticed() -> None:
    done = subprocess.run([sys.executable, "-c", LOSSY, str(KILL.parent)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_hundreds_of_kills_lose_nothing() -> None:
    done = harness("--kills", "50")
    assert done.returncode == 0, done.stdout + done.stderr


RANKS = """
import os, random, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import kill
from trilemma import list_models
from trilemma.registry import get_recipe

plan = kill.plan(["gan"], [], kills=1000, calls=0, seed=0, ranks=2)
recipes = [get_recipe(name) for name in list_models()]
assert {piece[1] for piece in plan} == {r.name for r in recipes if r.family == "gan" and not r.parts} - {"gan-style"}
assert any(piece[1] == "gan-style" for piece in kill.plan(["gan"], [], kills=1000, calls=0, seed=0))

bench = kill.RanksBench("vae", "vae", kill.LONG, Path(sys.argv[2]), ranks=4, choose=random.Random(0))
bench.run.mkdir(parents=True)
statuses = {0: 0 << 8, 1: 1 << 8, 2: 6, 3: 9}  # as os.waitpid has them: two exit codes, two signals
bench.check_survivors(statuses, [3])
assert bench.broken == ["vae: process 0 ends with 0", "vae: process 2 ends with -6"], bench.broken
bench.broken.clear()
(bench.run / "summary.json").touch()
bench.check_survivors(statuses, [3])
assert bench.broken == ["vae: process 2 ends with -6"], bench.broken
"""


@pytest.mark.slow
def test_of_several_processes_the_survivors_must_end_with_1_and_refused_models_are_left_out(tmp_path: Path) -> None:
    words = [sys.executable, "-c", RANKS, str(KILL.parent), str(tmp_path)]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (line,) = [line for line in done.stderr.splitlines() if "is left out" in line]
    assert line.startswith("gan-style is left out: ")
