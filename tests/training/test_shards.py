"""Weights that are divided over processes (shard=true): the same training, and the same files, as with whole ones."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from distance import assert_near
from presets import small
from processes import start_all, torchrun
from safetensors.torch import load_file
from threads import Threads
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef

import trilemma
from trilemma.errors import UserError
from trilemma.progress import Display
from trilemma.ranks import current_team
from trilemma.registry import create
from trilemma.run.config import TrainConfig
from trilemma.team import ALONE
from trilemma.training import muon
from trilemma.training.blocks import LEAST
from trilemma.training.health import StepMonitor
from trilemma.training.loop import Trainer
from trilemma.training.shards import Shards, check_shards
from trilemma.types import Batch, Logs, Model, Phase, Player, Samples, draw

MODELS: dict[str, dict[str, Any]] = {  # the name of each is that of a preset, unless it has one
    "vae": {},
    "gan-r3": {},  # whose penalty has a gradient of a gradient
    "gan-dcgan": {"settings": {"loss": "wasserstein", "weight_clip": 0.02}},  # with batch norm, and what follows a step
    "diffusion": {},  # moved by muon
    "gan": {"optimizer": "nadam"},
    "ae-conv": {"optimizer": "adamw", "weight_decay": 0.1},
    "forked": {"optimizer": "adamw", "weight_decay": 0.1},  # one process has no gradient of what the other has one of
}
BLOCKS: dict[str, dict[str, Any]] = {  # which are used in other ways
    "diffusion-dit": {"settings": {"depth": 12}},
    "diffusion-small": {},  # they return two maps
    "vae-vq": {"settings": {"codes": 8}, "steps": 5},  # the prior is trained from the third step on
    "vae-hierarchical": {},
    "vae-ladder": {},
    "ae-recurrent": {},
    "ae-residual": {},
    "ae-tied": {},  # has none
    "ae-kl": {"settings": {"adversarial": 0.5}, "steps": 5},
    "gan-wgan-gp": {},
    "spectral": {"model": "gan-dcgan", "settings": {"spectral_norm": True}},
}
SMALLEST = 50  # numbers in a block, for models as small as these
NO_BLOCKS = 10**9
ROWS = {7: (4, 3), 4: (4, 0), 3: (0, 3)}  # of a batch for each branch of a fork: of all images, of the parts of two
ADVANCE = """
import json, sys, torch
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from test_shards import advance
from trilemma.ranks import connected_ranks
from trilemma.training import blocks

torch.set_num_threads(1)
with connected_ranks():
    for name, folder, steps, shard, blocks.LEAST in json.loads(sys.argv[2]):
        advance(name, Path(folder), steps, shard=shard)
"""


class Fork(nn.Module):
    """One layer for the images of the first of two processes, one for those of the second, and one for none."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.unused = nn.Linear(64, 64), nn.Linear(64, 64, bias=False), nn.Linear(64, 64)

    def forward(self, x: Tensor) -> Tensor:
        branches = zip((self.first, self.second), x.split(ROWS[len(x)]), strict=True)
        return torch.cat([layer(rows) for layer, rows in branches if len(rows)])


class Forked(Model):
    """An autoencoder of forks, of which some are blocks."""

    whole_because = ""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.outside, self.blocks = Fork(), nn.ModuleList([Fork(), Fork()])
        self.phases = [Phase("model", Player("model", list(self.parameters())), self.loss)]

    def loss(self, batch: Batch, generator: torch.Generator) -> tuple[Tensor, Logs]:
        x = y = batch.image.flatten(1)
        for fork in (self.outside, *self.blocks):
            y = fork(y)
        return (y - x).square().mean(), {}


def advance(name: str, folder: Path, steps: int, *, shard: bool, pieces: int | None = None) -> None:
    """More steps in float64, in the processes that there are; what is saved is then the state.

    Args:
        pieces: micro-batches from now on.
    """
    folder.mkdir(exist_ok=True)
    keys = {"batch": 7, "steps": 60, "ema_halflife_images": 100, **(MODELS | BLOCKS)[name]}
    preset, settings = keys.pop("model", name), keys.pop("settings", {})
    make = partial(create, preset, shape=(1, 8, 8), seed=0)
    model = Forked() if preset == "forked" else make(**{**small(preset), **settings})
    config = TrainConfig(shard=shard, **keys)
    data, display = trilemma.load_data("digits"), Display("x", quiet=True)
    trainer = InDouble(model.double(), data, config, folder, display, bf16=False, team=current_team())
    trainer.model.train()
    trainer.players.pieces = pieces or trainer.players.pieces
    for _ in range(steps):
        assert trainer.advance().fault is None
    trainer.saver.save(trainer.guard.sound_state())


class InDouble(Trainer):
    """A trainer whose images are float64."""

    def batch_at(self, position: int) -> Batch:
        batch = super().batch_at(position)
        return Batch(batch.image.double(), batch.condition, batch.index, batch.progress)


def in_two(*words: str) -> None:
    """A script in two processes."""
    processes = start_all(2, "-c", *words)
    outputs = [process.communicate(timeout=500) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], [text[-2500:] for _, text in outputs]


def advance_in_two(*trainings: tuple[str, Path, int, bool], least: int = SMALLEST) -> None:
    """Trainings, one after the other; least: numbers in a block."""
    asked = json.dumps([(name, str(folder), steps, shard, least) for name, folder, steps, shard in trainings])
    in_two(ADVANCE, str(Path(__file__).parent), asked)


def saved(folder: Path) -> dict[str, Tensor]:
    """All tensors of the newest checkpoint, by file and name."""
    files = sorted(max((folder / "checkpoints").iterdir()).glob("*.safetensors"))
    return {f"{file.stem}/{name}": tensor for file in files for name, tensor in load_file(file).items()}


def assert_same_training(one: Path, other: Path) -> None:
    """The same names, shapes and types, and numbers to 1e-12 of each kind of them, as vectors."""
    states = [saved(folder) for folder in (one, other)]
    forms = [{name: (tensor.shape, tensor.dtype) for name, tensor in state.items()} for state in states]
    assert forms[0] == forms[1]
    assert_near(*states, 1e-12)


@pytest.mark.slow
def test_divided_weights_are_those_of_one_process(tmp_path: Path) -> None:
    """Five steps, in float64: weights, averages and optimisers as they are saved."""
    advance_in_two(*((name, tmp_path / name, 5, True) for name in MODELS))
    for name in MODELS:
        advance(name, tmp_path / "one", 5, shard=False)
        assert_same_training(tmp_path / "one", tmp_path / name)
        (tmp_path / "one").rename(tmp_path / f"one-{name}")


@pytest.mark.slow
def test_weights_gathered_by_blocks_are_those_of_one_unit(tmp_path: Path) -> None:
    """Five steps, in float64: gradients that meet at the start of a block are summed in another order."""
    names = MODELS | BLOCKS
    advance_in_two(*((name, tmp_path / name, 5, True) for name in names))
    advance_in_two(*((name, tmp_path / f"unit-{name}", 5, True) for name in names), least=NO_BLOCKS)
    for name in names:
        assert_same_training(tmp_path / f"unit-{name}", tmp_path / name)


@pytest.mark.slow
def test_a_whole_training_by_blocks_is_that_of_one_unit(tmp_path: Path) -> None:
    """With what needs whole weights: validations, pictures, a phase's start, a step's end, best and earlier weights.
    Afterwards the model is as if its weights had never been divided."""
    names = ("ae-recurrent", "vae-vq", "gan-dcgan", "diffusion-upscale", "diffusion-latent")
    script = (
        "import json, sys; from pathlib import Path; sys.path.insert(0, sys.argv[1])\n"
        "from test_shards import train_whole\n"
        "from trilemma.ranks import connected_ranks\n"
        "with connected_ranks():\n"
        "    for name in json.loads(sys.argv[3]): train_whole(name, Path(sys.argv[2]) / name, int(sys.argv[4]))"
    )
    for folder, least in (("blocks", SMALLEST), ("unit", NO_BLOCKS)):
        in_two(script, str(Path(__file__).parent), str(tmp_path / folder), json.dumps(names), str(least))
    for name in names:
        runs = [tmp_path / folder / name for folder in ("blocks", "unit")]
        files = [sorted(str(path.relative_to(run)) for path in run.rglob("*.safetensors")) for run in runs]
        assert files[0] == files[1] and any(file.startswith("earlier/") for file in files[0])
        for file in files[0]:
            assert_near(*({f"{file}/{key}": t for key, t in load_file(run / file).items()} for run in runs), 1e-5)


def train_whole(name: str, folder: Path, least: int) -> None:
    """A short training with all that happens beside its steps, in the processes that there are."""
    from trilemma.training import blocks

    blocks.LEAST = least
    keys: dict[str, Any] = {"weight_clip": 0.02, "loss": "wasserstein"} if name == "gan-dcgan" else {}
    keys |= {"monitor": "valid_denoising_mse"} if name.startswith("diffusion") else {}
    keys |= {"autoencoder": {"steps": 4, **small("ae-kl")}} if name == "diffusion-latent" else {}
    trainers: list[Trainer] = []
    start = Trainer.__init__

    def made(trainer: Trainer, *args: Any, **words: Any) -> None:
        trainers.append(trainer)
        start(trainer, *args, **words)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "__init__", made)
        keys |= {"steps": 9, "batch": 15, "sample_every": 45, "save_every": 45, "keep_weights": 1, "shard": True}
        keys |= {"ema_halflife_images": 50, "device": "cpu", "quiet": True, **small(name)}
        trilemma.train(name, "digits", out=folder, **keys)
    model = trainers[-1].model  # the others are of its parts
    assert not [module for module in model.modules() if "FSDP" in type(module).__name__]
    assert not [module for module in model.modules() if module._forward_hooks or module._forward_pre_hooks]
    assert not [p for p in model.parameters() if type(p) is not torch.nn.Parameter]
    fresh = trilemma.load(folder, device="cpu").model
    assert isinstance(model, Samples) and isinstance(fresh, Samples)
    torch.testing.assert_close(draw(model, 2, seed=0), draw(fresh, 2, seed=0), rtol=0, atol=1e-5)


@pytest.mark.slow
def test_a_run_is_resumed_with_whole_and_with_divided_weights(tmp_path: Path) -> None:
    """2 steps with divided weights, 2 with whole ones in two processes, 2 in one, and 2 with divided ones."""
    name, folder = "gan-r3", tmp_path / "changing"
    advance_in_two((name, folder, 2, True), (name, folder, 2, False))
    advance(name, folder, 2, shard=False)
    advance_in_two((name, folder, 2, True))
    advance(name, tmp_path / "one", 8, shard=False)
    assert_same_training(tmp_path / "one", folder)


@pytest.mark.slow
def test_a_resumed_run_has_as_many_micro_batches_in_each_process(tmp_path: Path) -> None:
    """In 4 pieces, the 4 images of one process would have 4 losses, in each of which weights are gathered; the 3 images
    of the other would have 3."""
    name, folder = "ae-conv", tmp_path / "changing"
    advance(name, folder, 2, shard=False, pieces=4)
    advance_in_two((name, folder, 2, True))
    advance(name, tmp_path / "one", 4, shard=False)
    assert_same_training(tmp_path / "one", folder)


@pytest.mark.slow
def test_an_average_that_one_process_loses_is_rolled_back_by_both(tmp_path: Path) -> None:
    """Read one step of a player late, as on a GPU: in the middle of a step, in which the others need this process."""
    script = (
        "import sys; from pathlib import Path; sys.path.insert(0, sys.argv[1])\n"
        "from test_shards import report_incidents\n"
        "from trilemma.ranks import connected_ranks\n"
        "with connected_ranks(): report_incidents(Path(sys.argv[2]))"
    )
    in_two(script, str(Path(__file__).parent), str(tmp_path))
    for rank in range(2):
        skipped, event, step = json.loads((tmp_path / f"{rank}.json").read_text())
        assert (skipped, step) == ([1], 3)  # steps 0 and 1, the critic's of 2; again 0, and 1 skipped, then 2
        assert event.startswith("step 1: the averaged weights are not finite")


def report_incidents(folder: Path) -> None:
    """What happens to a training in two players where an average is lost after the first step, for the test."""

    def late(monitor: StepMonitor, values: Tensor, check: Any) -> list[Any]:
        monitor.pending.append((values.clone().tolist, check))
        return []

    config = TrainConfig(batch=4, steps=60, ema_halflife_images=100, shard=True)
    model, display = create("gan-r3", shape=(1, 8, 8), seed=0, **small("gan-r3")), Display("x", quiet=True)
    data, team = trilemma.load_data("digits"), current_team()
    trainer = Trainer(model, data, config, folder, display, bf16=False, team=team)
    trainer.model.train()
    assert trainer.players.ema is not None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(StepMonitor, "_read", late)
        for number in range(6):
            if number == 1 and team.rank == 1:
                max(trainer.players.ema.average.values(), key=Tensor.numel).fill_(torch.nan)
            trainer.decide(trainer.guard.attempt_step(trainer.take_step))
    incidents = [trainer.incidents.skipped, trainer.incidents.events["skipped"], trainer.calendar.step]
    (folder / f"{team.rank}.json").write_text(json.dumps(incidents))


@pytest.mark.slow
def test_the_run_folder_is_that_of_one_process(tmp_path: Path) -> None:
    """With validations, pictures, averages, the best weights and earlier ones; one process without shard=true finds it
    trained."""
    words = ["train", "ae-conv", "digits", "steps=12", "batch=15", "sample_every=60", "save_every=60", "keep_weights=1"]
    words += ["monitor=valid_rmse", "ema_halflife_images=100", "lr=1e-4", "device=cpu"]
    command = [sys.executable, "-m", "trilemma", *words]
    subprocess.run([*command, f"out={tmp_path / 'one'}"], check=True, capture_output=True)
    done = torchrun(*words, "shard=true", f"out={tmp_path / 'two'}")
    assert done.returncode == 0, done.stderr[:2000]
    files = [sorted(str(p.relative_to(run)) for p in run.rglob("*")) for run in (tmp_path / "one", tmp_path / "two")]
    assert files[0] == files[1] and any(name.startswith("earlier/") for name in files[0])
    for name in (name for name in files[0] if name.endswith(".safetensors")):
        tensors, others = (load_file(run / name) for run in (tmp_path / "one", tmp_path / "two"))
        assert {key: (t.shape, t.dtype) for key, t in tensors.items()} == {
            key: (t.shape, t.dtype) for key, t in others.items()
        }
        if not Path(name).stem.startswith("optimizer"):
            assert_near(*({f"{name}/{key}": t for key, t in group.items()} for group in (tensors, others)), 1e-5)
    again = subprocess.run([*command, f"out={tmp_path / 'two'}"], capture_output=True, check=False)
    assert again.returncode == 0 and b"is already trained" in again.stderr


@contextmanager
def peak() -> Iterator[dict[str, int]]:
    """Inside, the most bytes are counted at a time of whole weights, with the memory that they are gathered through,
    and of whole gradients, by what FSDP of torch holds of either; and of the whole matrices of muon and their
    orthogonal factors."""
    from torch.distributed.fsdp._fully_shard._fsdp_param_group import FSDPParamGroup as Group

    groups: list[Any] = []
    matrices: list[tuple[StorageWeakRef, int]] = []
    most = {"weights": 0, "gradients": 0, "matrices": 0}
    ends = {name: getattr(Group, name) for name in ("unshard", "wait_for_unshard")}
    reduce, join, orthogonal = Group.post_backward, Shards.joined, muon.orthogonal

    def count() -> None:
        parameters = [parameter for group in groups for parameter in group.fsdp_params]
        whole = [tensor for parameter in parameters for tensor in parameter.all_gather_outputs]
        results = [group._all_gather_result for group in groups]
        held = {id(group.comm_ctx): getattr(group.comm_ctx, "all_gather_state", None) for group in groups}
        results += [state.all_gather_result for state in held.values() if state is not None]
        storages = {id(r): r.all_gather_output for r in results if r is not None and r.all_gather_output is not None}
        bytes_of = [tensor.untyped_storage().nbytes() for tensor in (*whole, *storages.values())]
        most["weights"] = max(most["weights"], sum(bytes_of))
        unsharded = [getattr(parameter, "_unsharded_param", None) for parameter in parameters]
        gradients = [p.grad.nbytes for p in unsharded if p is not None and p.grad is not None]
        most["gradients"] = max(most["gradients"], sum(gradients))

    def counted(name: str) -> Any:
        def run(group: Any, *args: Any) -> None:
            if group not in groups:
                groups.append(group)
            ends[name](group, *args)
            count()

        return run

    def reduced(group: Any, *args: Any) -> None:
        count()
        reduce(group, *args)

    def hold(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        matrices.append((StorageWeakRef(storage), storage.nbytes()))
        most["matrices"] = max(most["matrices"], sum(size for matrix, size in matrices if not matrix.expired()))
        return tensor

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Shards, "joined", lambda *args: hold(join(*args)))
        patch.setattr(muon, "orthogonal", lambda given: list(map(hold, orthogonal(given))))
        patch.setattr(Group, "post_backward", reduced)
        for name in ends:
            patch.setattr(Group, name, counted(name))
        yield most


def report_peak(folder: Path, least: int) -> None:
    """Bytes of a deep transformer's weights and of its largest matrix, and the most that are whole at a time in a
    training by muon, for the test."""
    from trilemma.training import blocks

    blocks.LEAST = least
    with peak() as most:
        model = create("diffusion-dit", shape=(1, 8, 8), seed=0, width=64, depth=24, heads=2)
        total = sum(parameter.nbytes for parameter in model.parameters())
        largest = max(parameter.nbytes for parameter in model.parameters() if muon.is_matrix(parameter.shape))
        config = TrainConfig(batch=4, steps=60, ema_halflife_images=100, shard=True, optimizer="muon")
        data, display = trilemma.load_data("digits"), Display("x", quiet=True)
        folder.mkdir(exist_ok=True)
        trainer = Trainer(model, data, config, folder, display, bf16=False, team=current_team())
        trainer.model.train()
        for _ in range(3):
            assert trainer.advance().fault is None
    (folder / f"{current_team().rank}.json").write_text(json.dumps({"all": total, "largest": largest, **most}))


@pytest.mark.slow
def test_only_a_few_blocks_of_a_deep_model_are_whole_at_a_time(tmp_path: Path) -> None:
    """Two blocks of 24 and the memory that one is gathered through; as one unit all are, and so are their gradients. Of
    either, muon has one whole matrix and its orthogonal factor."""
    script = (
        "import sys; from pathlib import Path; sys.path.insert(0, sys.argv[1])\n"
        "from test_shards import report_peak\n"
        "from trilemma.ranks import connected_ranks\n"
        "with connected_ranks(): report_peak(Path(sys.argv[2]), int(sys.argv[3]))"
    )
    most = {}
    for name, least in (("blocks", LEAST), ("whole", NO_BLOCKS)):
        in_two(script, str(Path(__file__).parent), str(tmp_path / name), str(least))
        most[name] = [json.loads((tmp_path / name / f"{rank}.json").read_text()) for rank in range(2)]
    for rank in range(2):
        blocks, whole = most["blocks"][rank], most["whole"][rank]
        assert whole["weights"] >= whole["all"] and whole["gradients"] > 0.99 * whole["all"]
        assert blocks["weights"] < 0.25 * blocks["all"], blocks
        assert 0 < blocks["gradients"] < 0.15 * blocks["all"], blocks
        assert blocks["matrices"] == whole["matrices"] == 2 * blocks["largest"], (blocks, whole)


def test_a_state_of_an_earlier_version_may_lack_what_it_did_not_write() -> None:
    now = {"weight": torch.zeros(2), "vector_std": torch.ones(2)}
    shards = SimpleNamespace(model_state=lambda: now)
    Shards.load_model(shards, {"weight": torch.full((2,), 3.0)})
    assert now["weight"].tolist() == [3, 3] and now["vector_std"].tolist() == [1, 1]
    with pytest.raises(KeyError, match="weight"):
        Shards.load_model(shards, {"vector_std": torch.ones(2)})


def test_one_process_has_nothing_to_divide_weights_over() -> None:
    parameters = list(create("vae", shape=(1, 8, 8)).parameters())
    check_shards(parameters, TrainConfig(steps=1), ALONE)
    check_shards(parameters, TrainConfig(steps=1, shard=True), Threads(2))
    with pytest.raises(UserError, match="this is one; start them with torchrun"):
        check_shards(parameters, TrainConfig(steps=1, shard=True), ALONE)


def test_weights_of_several_types_are_not_divided() -> None:
    model = create("vae", shape=(1, 8, 8))
    parameters = [*model.parameters(), torch.nn.Parameter(torch.zeros(1, dtype=torch.float64))]
    with pytest.raises(UserError, match="of several types \\(float32, float64\\)"):
        check_shards(parameters, TrainConfig(steps=1, shard=True), Threads(2))


def test_a_torch_whose_fsdp_is_another_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without what is taken from its inside, gradients would be summed in the wrong places."""
    from torch.distributed.fsdp._fully_shard._fsdp_param_group import FSDPParamGroup as Group

    parameters, config = list(create("vae", shape=(1, 8, 8)).parameters()), TrainConfig(steps=1, shard=True)
    with monkeypatch.context() as patch:
        patch.delattr(Group, "post_backward")
        with pytest.raises(UserError, match=r"which lacks FSDPParamGroup\.post_backward; install torch"):
            check_shards(parameters, config, Threads(2))
    monkeypatch.setattr(Group, "__init__", lambda group: None)
    with pytest.raises(UserError, match=r"lacks FSDPParamGroup\.fsdp_params, FSDPParamGroup\._training_state;"):
        check_shards(parameters, config, Threads(2))
