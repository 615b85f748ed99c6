"""NaN, spikes, lost memory and collapse: found, named, mended or said."""

import errno
import itertools
import math
import statistics
import subprocess
import sys
import weakref
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import SafetensorError
from torch import nn

import trilemma
from trilemma import memory
from trilemma.autoencoders.autoencoder import Autoencoder
from trilemma.autoencoders.vae import VAE
from trilemma.errors import UserError
from trilemma.memory import copies, halving, is_out_of_memory
from trilemma.metrics.likelihood import active_units, has_posterior
from trilemma.run import checkpoint, tensor_files
from trilemma.run.checkpoint import list_checkpoints
from trilemma.run.run import Run
from trilemma.run.state import Checkpoint
from trilemma.training import calendar, evaluation, players, saving
from trilemma.training.calendar import Calendar
from trilemma.training.diagnosis import Diagnosis
from trilemma.training.health import PlayerStep, StepMonitor
from trilemma.training.log import Averages
from trilemma.training.loop import Trainer
from trilemma.training.monitor import (
    QUIET,
    SampleMonitor,
    Warnings,
    coverage,
    energy_distance,
    posterior_collapse,
    small,
)
from trilemma.training.players import Players
from trilemma.training.samples import SamplePictures
from trilemma.training.signals import Stopped
from trilemma.training.spikes import LASTING, SPIKE, WINDOW, LossSpikeDetector
from trilemma.training.state import Parts
from trilemma.types import Batch, Phase, Player, count_players

NAN = float("nan")
BAD_STEP = 5


@pytest.fixture(autouse=True)
def in_tmp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def short(out: str, model: str = "vae", **keys: object) -> Run:
    tiny = {"widths": (8, 16), "embedding": 16, "T": 50} if model == "diffusion-small" else {}
    return trilemma.train(model, "digits", steps=12, batch=16, out=out, quiet=True, **tiny | keys)


def warned(run: Run, part: str) -> list[str]:
    """The warnings in a log that have a part; so short a training is warned of for other reasons, too."""
    return [row["warning"] for row in run.log if part in row.get("warning", "")]


def harm_input(trainer: Trainer) -> Callable[[], None]:
    batch_at = trainer.loader.batch_at

    def spoilt(position: int, size: int | None = None) -> Batch:
        batch = batch_at(position, size)
        batch.image[3, 0, 0, 0] = NAN
        return batch

    trainer.loader.batch_at = spoilt  # type: ignore[method-assign]
    return lambda: setattr(trainer.loader, "batch_at", batch_at)


def harm_weight(trainer: Trainer) -> Callable[[], None]:
    with torch.no_grad():
        next(trainer.model.parameters()).view(-1)[0] = NAN
    return lambda: None


def harm_gradient(trainer: Trainer) -> Callable[[], None]:
    parameter = next(trainer.model.parameters())
    handle = parameter.register_hook(lambda grad: grad + float("inf"))
    return handle.remove


def harm_middle_gradient(trainer: Trainer) -> Callable[[], None]:
    """One parameter's alone: the others' are made NaN by the norm they are scaled by, if that comes first."""
    parameter = trainer.model.get_parameter("decoder.net.0.0.weight")
    return parameter.register_hook(lambda grad: grad * NAN).remove


def harm_gradient_that_spreads(trainer: Trainer) -> Callable[[], None]:
    """That of a layer's result: it goes on to the layer's own parameters, and to those of every layer before it."""
    layer = trainer.model.get_submodule("decoder.net.0.0")
    harm = lambda module, inputs, result: result.register_hook(lambda grad: grad * NAN) and None  # noqa: E731
    return layer.register_forward_hook(harm).remove


def harm_ema(trainer: Trainer) -> Callable[[], None]:
    assert trainer.players.ema is not None
    next(iter(trainer.players.ema.average.values())).view(-1)[0] = NAN
    return lambda: None


HARMS = [
    (harm_input, "vae", "the batch's images is not finite"),
    (harm_weight, "vae", "the weight encoder.net.0.0.weight is not finite"),
    (harm_gradient, "vae", "the gradient of encoder.net.0.0.weight is not finite"),
    (harm_middle_gradient, "vae", "the gradient of decoder.net.0.0.weight is not finite"),
    (harm_gradient_that_spreads, "vae", "the gradient of decoder.net.0.0.bias is not finite"),
    (harm_ema, "diffusion-small", "the averaged weights are not finite"),
    (harm_input, "gan-dcgan", "the batch's images is not finite"),
]


@pytest.mark.parametrize(("harm", "model", "named"), HARMS, ids=lambda x: getattr(x, "__name__", None))
def test_a_nan_is_found_in_its_step_named_and_skipped(
    harm: Callable[[Trainer], Callable[[], None]], model: str, named: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    one_step = Trainer.take_step
    harmed: list[int] = []

    def step(trainer: Trainer) -> None:
        undo = lambda: None  # noqa: E731
        if trainer.calendar.step == BAD_STEP and not harmed:
            harmed.append(trainer.calendar.step)
            undo = harm(trainer)
        try:
            one_step(trainer)
        finally:
            undo()

    monkeypatch.setattr(Trainer, "take_step", step)
    run = short("harmed", model)
    warnings = warned(run, "skipped")
    assert len(warnings) == 1 and named in warnings[0] and f"step {BAD_STEP} will be skipped" in warnings[0]

    monkeypatch.setattr(Trainer, "take_step", without(BAD_STEP, one_step))
    assert weights(short("skipped", model)) == weights(run)


def without(bad: int, one_step: Callable[[Trainer], None]) -> Callable[[Trainer], None]:
    """Steps of which the bad one is skipped."""

    def step(trainer: Trainer) -> None:
        if trainer.calendar.step == bad:
            trainer.calendar.step += 1
        else:
            one_step(trainer)

    return step


def weights(run: Run) -> bytes:
    return (run.path / "weights.safetensors").read_bytes()


def all_finite(state: Checkpoint) -> bool:
    return all(bool(t.isfinite().all()) for group in state.tensors.values() for t in group.values())


def spoil_weight(trainer: Trainer) -> None:
    with torch.no_grad():
        list(trainer.model.parameters())[-1].view(-1)[0] = float("inf")


def spoil_average(trainer: Trainer) -> None:
    assert trainer.players.ema is not None
    list(trainer.players.ema.average.values())[-1].view(-1)[0] = NAN


def spoil_moment(trainer: Trainer) -> None:
    (optimizer,) = trainer.players.optimizers.values()
    next(iter(optimizer.state.values()))["exp_avg_sq"].view(-1)[0] = float("inf")


AT_END = 11
KEPT = [  # what is spoilt, after which step, why that state would be kept
    (spoil_weight, "vae", BAD_STEP, "a save", "decoder.net.0.2.bias of the model"),
    (spoil_moment, "vae", BAD_STEP, "a save", "0/exp_avg_sq of the optimizer-vae"),
    (spoil_average, "diffusion-small", BAD_STEP, "a save", "of the ema"),
    (spoil_weight, "vae", BAD_STEP, "the clock", "decoder.net.0.2.bias of the model"),
    (spoil_weight, "vae", BAD_STEP, "a validation", "decoder.net.0.2.bias of the model"),
    (spoil_weight, "vae", BAD_STEP, "a signal", "decoder.net.0.2.bias of the model"),
    (spoil_weight, "vae", AT_END, "the end", "decoder.net.0.2.bias of the model"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("spoil", "model", "bad", "why", "named"), KEPT, ids=lambda x: getattr(x, "__name__", None))
def test_what_a_step_spoils_is_neither_saved_nor_returned_to(
    spoil: Callable[[Trainer], None], model: str, bad: int, why: str, named: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No step follows whose loss would tell: the state itself is looked at."""
    one_step, saved, done = Trainer.take_step, [], []
    keys = {"save_every": 16 * (bad + 1) if why == "a save" else 10**6}
    if why == "a validation":
        monkeypatch.setattr(Calendar, "epoch", property(lambda calendar: 16 * (bad + 1)))
        monkeypatch.setattr(Calendar, "report_every", property(lambda calendar: [calendar.epoch]))

    def step(trainer: Trainer) -> None:
        one_step(trainer)
        if trainer.calendar.step == bad + 1 and not done:
            done.append(trainer.calendar.step)
            spoil(trainer)
            trainer.signals.save |= why == "the clock"
            trainer.signals.stop = 2 if why == "a signal" else 0

    def noted(folder: Path, images: int, state: Checkpoint, notice: Callable[[str], None]) -> Path:
        saved.append(state)
        return checkpoint.save_checkpoint(folder, images, state, notice)

    monkeypatch.setattr(saving, "save_checkpoint", noted)
    monkeypatch.setattr(SamplePictures, "draw", lambda *_: None)  # they take most of a small training's time
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "take_step", step)
        if why == "a signal":
            with pytest.raises(Stopped):
                short("spoilt", model, **keys)
        run = short("spoilt", model, **keys)
    assert saved and all(map(all_finite, saved))
    (warning,) = warned(run, "skipped")
    assert f"{named} is not finite" in warning and f"step {bad} will be skipped" in warning

    monkeypatch.setattr(Trainer, "take_step", without(bad, one_step))
    assert weights(short("skipped", model, **keys)) == weights(run)


@pytest.mark.slow
def test_a_rate_beyond_all_numbers_leaves_no_weights_that_are_none() -> None:
    """The first step's rate is 0 (warm-up), and the second one's moves make infinite weights: it is skipped."""
    run = trilemma.train("ae-stacked", "digits", steps=2, lr=1e39, batch=16, save_every=16, out="r", quiet=True)
    skipped = [text.split("; ")[-1] for text in warned(run, "skipped")]
    assert skipped == ["step 1 will be skipped"]
    for path in list_checkpoints(run.path / "checkpoints"):
        assert all_finite(checkpoint.read_checkpoint(path))
    assert all(p.isfinite().all() for p in run.model.parameters())


def test_the_images_of_the_bad_batch_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    model = trilemma.create("vae", shape=(1, 8, 8))
    image = torch.rand(20, 1, 8, 8)
    image[2] = NAN
    step = PlayerStep(7, model.phases, Batch(image, index=torch.arange(100, 120)), [{}], torch.tensor([NAN, 1.0]))
    with pytest.raises(Exception, match=r"the batch's images is not finite; .*100, 101, .*107, \.\.\. \(20 in all\)"):
        StepMonitor(model).check(step)


def spikes(losses: list[float]) -> list[int]:
    """The numbers of the losses that raise a warning."""
    detector = LossSpikeDetector(["p"])
    return [step for step, loss in enumerate(losses) if detector.check(step, {"p": loss})]


def test_a_spike_that_lasts_is_said_and_noise_is_not() -> None:
    generator = torch.Generator().manual_seed(0)
    healthy = (
        (0.4 * torch.randn(2000, generator=generator)).exp() * torch.linspace(3, 0.2, 2000)
    ).tolist()  # heavy-tailed
    assert spikes(healthy) == []
    steady = [1.0 + 0.01 * (k % 7) for k in range(WINDOW + 10)]
    for lasting in range(1, LASTING + 2):
        warned = spikes([*steady, *[1.06 * SPIKE] * lasting, *steady])
        assert warned == ([] if lasting < LASTING else [len(steady) + LASTING - 1])
    negative = [-value for value in steady]  # as nats of a density may be
    assert spikes([*negative, *[0.5] * LASTING]) == [len(steady) + LASTING - 1]


def test_a_rate_a_hundred_times_too_high_is_flagged_within_five_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    factor = players.lr_factor
    steps: list[int] = []

    def raised(*args: object) -> float:
        steps.append(len(steps))
        return factor(*args) * (100 if 100 <= steps[-1] < 105 else 1)  # type: ignore[arg-type]

    monkeypatch.setattr(players, "lr_factor", raised)
    run = trilemma.train("ae-stacked", "digits", steps=120, lr=0.02, batch=64, out="r", quiet=True)
    messages = [row["step"] for row in run.log if "jumped" in row.get("warning", "")]
    assert messages and 100 <= messages[0] <= 105


def test_memory_that_runs_out_divides_the_batch_and_the_gradient_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    gradient = Players.gradient
    grads: list[torch.Tensor] = []

    def scarce(players: Players, phase: Phase, batch: Batch):
        if len(batch.image) // players.pieces > 8:
            raise torch.OutOfMemoryError("out of memory")
        result = gradient(players, phase, batch)
        grads.append(phase.player.parameters[0].grad.clone())
        return result

    keys = {"steps": 3, "batch": 32, "precision": "float32", "quiet": True}
    monkeypatch.setattr(Players, "gradient", scarce)
    divided = trilemma.train("ae-stacked", "digits", out="divided", **keys)
    assert warned(divided, "memory")[-1].endswith("is processed as 4 micro-batches")
    assert [text for text in divided.warnings if "memory" in text] == [
        "step 0: out of memory: from now on each batch of 32 is processed as 4 micro-batches"
    ]
    monkeypatch.setattr(Players, "gradient", gradient)
    first: list[torch.Tensor] = []

    def keep(players: Players, phase: Phase, batch: Batch):
        result = gradient(players, phase, batch)
        first.append(phase.player.parameters[0].grad.clone())
        return result

    monkeypatch.setattr(Players, "gradient", keep)
    trilemma.train("ae-stacked", "digits", out="whole", **keys)
    assert (grads[0] - first[0]).abs().max() < 1e-6 * first[0].abs().max() + 1e-9


def test_what_the_lost_step_held_is_free_before_the_state_is_taken_back(monkeypatch: pytest.MonkeyPatch) -> None:
    gradient, back = Players.gradient, Parts.load
    held: list[weakref.ref] = []

    def scarce(players: Players, *args: Any):
        if players.pieces == 1:
            activations = torch.zeros(10)
            held.append(weakref.ref(activations))
            raise torch.OutOfMemoryError("out of memory")
        return gradient(players, *args)

    def checked(parts: Parts, state: Checkpoint) -> None:
        assert [ref() for ref in held] == [None]
        back(parts, state)

    monkeypatch.setattr(Players, "gradient", scarce)
    monkeypatch.setattr(Parts, "load", checked)
    assert short("r").summary["steps"] == 12 and len(held) == 1


def with_saves(**keys: object) -> Run:
    return short("r", save_every=64, sample_every=48, **keys)


@pytest.fixture
def whole(monkeypatch: pytest.MonkeyPatch) -> bytes:
    """The weights of a training that had memory enough, with a picture and a look at the codes on the way."""
    monkeypatch.setattr(calendar, "VALIDATE_AT_LEAST", 1)
    monkeypatch.setattr(evaluation, "SETTLED", 0.0)
    monkeypatch.setattr(Calendar, "epoch", property(lambda calendar: 48))
    run = short("whole", save_every=64, sample_every=48)
    assert not warned(run, "memory")
    return weights(run)


class Scarce:
    """A function for which memory runs out in some of its calls."""

    def __init__(self, action: Callable[..., Any], fails: Callable[[int], bool], error: BaseException) -> None:
        self.action, self.fails, self.error, self.calls = action, fails, error, 0

    def __get__(self, owner: Any, kind: Any) -> Callable[..., Any]:
        return partial(self, owner)

    def __call__(self, *args: Any, **keys: Any) -> Any:
        self.calls += 1
        if self.fails(self.calls):
            raise self.error
        return self.action(*args, **keys)


LOST = torch.OutOfMemoryError("CUDA out of memory")
HIDDEN = SafetensorError("Error while serializing: I/O error: Cannot allocate memory (os error 12)")
PLACES = [
    (tensor_files, "save_file", MemoryError("in save")),
    (tensor_files, "save_file", OSError(errno.ENOMEM, "Cannot allocate memory")),
    (tensor_files, "save_file", HIDDEN),
    (Diagnosis, "active_units", LOST),
    (SamplePictures, "snapshot", LOST),
    (Averages, "take", LOST),
    (VAE, "encode", LOST),
]


@pytest.mark.slow
@pytest.mark.parametrize(("owner", "name", "error"), PLACES, ids=lambda x: x if isinstance(x, str) else "")
def test_memory_that_is_short_for_a_moment_outside_a_step_changes_nothing(
    owner: Any, name: str, error: Exception, whole: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    scarce = Scarce(getattr(owner, name), lambda call: call == 2, error)
    monkeypatch.setattr(owner, name, scarce)
    run = with_saves()
    assert scarce.calls > 2 and weights(run) == whole
    assert warned(run, "memory") in ([], [HALVED])
    assert [int(path.name) for path in list_checkpoints(run.path / "checkpoints")] == [128, 192]


@pytest.mark.parametrize(("owner", "name"), [(Parts, "load"), (players, "restore_optimizer")])
def test_memory_that_is_short_for_a_moment_when_a_training_goes_on_changes_nothing(
    owner: Any, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where a part of the state is taken already."""
    keys = {"steps": 6, "batch": 16, "device": "cpu", "quiet": True}
    trained = trilemma.train("vae", "digits", out="whole", **keys)
    one_step = Trainer.take_step

    def stopping(trainer: Trainer) -> None:
        one_step(trainer)
        trainer.signals.stop = 2 if trainer.calendar.step == 3 else 0

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "take_step", stopping)
        with pytest.raises(Stopped):
            trilemma.train("vae", "digits", out="r", **keys)
    scarce = Scarce(getattr(owner, name), lambda call: call == 1, LOST)
    monkeypatch.setattr(owner, name, scarce)
    assert weights(trilemma.train("vae", "digits", out="r", **keys)) == weights(trained)
    assert scarce.calls == 2  # the one that failed and the one after it


HALVED = "out of memory: continuing with batches of 250"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("owner", "name", "said"),
    [
        (saving, "save_checkpoint", "a checkpoint is skipped"),
        (Diagnosis, "active_units", "the check of the codes is skipped"),
        (SamplePictures, "snapshot", "the picture 000000000048.png is skipped"),
    ],
)
def test_memory_that_stays_short_outside_a_step_costs_a_warning(
    owner: Any, name: str, said: str, whole: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(owner, name, Scarce(getattr(owner, name), lambda call: call <= 2, LOST))
    run = with_saves()
    assert weights(run) == whole
    (warning,) = warned(run, "memory")
    assert warning == f"out of memory (CUDA out of memory): {said}"


@pytest.fixture
def no_collections(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory runs out so often that to collect garbage each time would take most of the test."""
    monkeypatch.setattr(memory, "release", lambda: None)


@pytest.mark.usefixtures("no_collections")
def test_copies_for_which_the_device_has_no_room_are_made_on_the_cpu(
    whole: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    clone, state = torch.Tensor.clone, Parts.state

    def full(tensor: torch.Tensor, **_: object) -> torch.Tensor:
        raise LOST

    def scarce(parts: Parts) -> Checkpoint:
        with monkeypatch.context() as patch:
            patch.setattr(torch.Tensor, "clone", full)
            return state(parts)

    monkeypatch.setattr(Parts, "state", scarce)
    assert weights(with_saves()) == whole
    assert torch.Tensor.clone is clone
    parameter = nn.Parameter(torch.ones(2))
    monkeypatch.setattr(torch.Tensor, "clone", full)
    (copy,) = copies({"w": parameter}).values()
    with torch.no_grad():
        parameter.zero_()
    assert copy.tolist() == [1, 1] and not copy.requires_grad


@pytest.mark.slow
def test_batch_normalisation_is_not_divided_behind_the_users_back(monkeypatch: pytest.MonkeyPatch) -> None:
    def none_left(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(Players, "gradient", none_left)
    with pytest.raises(UserError, match=r"statistics that .* takes over a batch, so choose a smaller batch= or size="):
        short("gan", "gan-dcgan")
    with pytest.raises(UserError, match="even for one image at a time"):
        short("ae", "ae-stacked")


@pytest.mark.slow
@pytest.mark.usefixtures("no_collections")
def test_validation_and_pictures_go_on_in_smaller_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """The numbers are those of larger ones."""
    whole = short("whole", "ae-stacked")
    validation, sample = Autoencoder.validation, Autoencoder.sample

    def limited_validation(model: Autoencoder, batch: Batch, rng: torch.Generator) -> dict[str, torch.Tensor]:
        if len(batch.image) > 16:
            raise torch.OutOfMemoryError
        return validation(model, batch, rng)

    def limited_sample(model: Autoencoder, n: int, **keys: Any) -> torch.Tensor:
        if n > 16:
            raise torch.OutOfMemoryError
        return sample(model, n, **keys)

    monkeypatch.setattr(Autoencoder, "validation", limited_validation)
    monkeypatch.setattr(Autoencoder, "sample", limited_sample)
    run = short("r", "ae-stacked")
    assert run.summary["valid_rmse"] == pytest.approx(whole.summary["valid_rmse"], rel=1e-5)
    assert run.summary["steps"] == 12 and (run.path / "samples" / "last.png").exists()


def test_halving_goes_down_to_one_and_passes_other_errors_on() -> None:
    sizes: list[int] = []

    def never(size: int) -> None:
        sizes.append(size)
        raise MemoryError

    with pytest.raises(MemoryError):
        halving(never, 9)
    assert sizes == [9, 4, 2, 1]
    with pytest.raises(RuntimeError, match="size"):
        halving(lambda size: torch.zeros(2) @ torch.zeros(3), 4)


FULL = [  # as torch, cuBLAS, cuDNN, oneDNN and Metal word it
    "could not create a primitive",
    "[enforce fail at alloc_cpu.cpp:117] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to allocate 8",
    "CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported at some other API call",
    "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
    "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
    "MPS backend out of memory (MPS allocated: 17.9 GB, other allocations: 1.2 GB, max allowed: 18.1 GB).",
]
OTHER = [
    "CUDA error: an illegal memory access was encountered",
    "CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasSgemm`",
    "cuDNN error: CUDNN_STATUS_NOT_SUPPORTED",
    "MPS backend does not support this",
    "index 9 is out of bounds for dimension 0 with size 4",
]


def test_every_way_of_saying_that_memory_ran_out_is_understood_and_no_other_error_is() -> None:
    assert all(is_out_of_memory(RuntimeError(text)) for text in FULL)
    assert not any(is_out_of_memory(RuntimeError(text)) for text in OTHER)
    assert not any(is_out_of_memory(ValueError(text)) for text in FULL)  # of somebody else


def test_coverage_of_a_set_by_another_of_its_kind_has_its_known_mean() -> None:
    """Naeem et al. (2020), equation 9: of M generated and N real ones, 1 - (N-1)...(N-k) / ((M+N-1)...(M+N-k))."""
    n, k, draws = 64, 5, 200
    generator = torch.Generator().manual_seed(0)
    result = [coverage(real=x, fake=y, k=k) for x, y in torch.randn(draws, 2, n, 3, generator=generator)]
    expected = 1 - math.prod((n - i) / (2 * n - i) for i in range(1, k + 1))
    error = statistics.stdev(result) / math.sqrt(draws)
    assert statistics.mean(result) == pytest.approx(expected, abs=4 * error) and error < 0.005


def test_the_energy_distance_of_shifted_normals_is_the_known_one() -> None:
    """In one dimension x ~ N(0, 1), y ~ N(m, 1): E|x - y| is the mean of |N(m, 2)|, and E|x - x'| = 2 / sqrt(pi)."""
    m, n, draws = 1.5, 64, 400
    x = torch.randn(2, draws, n, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    distance = [energy_distance(real=a, fake=b + m) for a, b in zip(*x, strict=True)]
    between = 2 / math.sqrt(math.pi) * math.exp(-(m**2) / 4) + m * math.erf(m / 2)
    error = statistics.stdev(distance) / math.sqrt(draws)
    assert statistics.mean(distance) == pytest.approx(2 * between - 4 / math.sqrt(math.pi), abs=4 * error)
    assert error < 0.02


def test_collapse_and_divergence_are_said_of_those_and_of_nothing_else() -> None:
    draw = torch.Generator().manual_seed(0)
    means, noise = torch.rand(10, 1, 1, 1, generator=draw), torch.randn(4, 64, 1, 8, 8, generator=draw)
    real, like, one, far = (
        means[torch.arange(64) % 10] + torch.tensor([0.01, 0.01, 0.01, 0.2]).view(4, 1, 1, 1, 1) * noise
    )
    one = one - means[torch.arange(64) % 10] + means[0]

    def said(samples: torch.Tensor, real: torch.Tensor = real) -> set[str]:
        monitor = SampleMonitor()
        assert not monitor.check(real=real, fake=far + 1)  # whether it gets better is not known of the first picture
        monitor.distances = [0.0]  # it was no worse before
        faults = monitor.check(real=real, fake=samples)
        assert faults.keys() == ({"collapse", "divergence"} if len(real) == 64 else set())
        return {rule for rule, text in faults.items() if text is not None}

    assert said(like) == set()
    assert "collapse" in said(one) and "divergence" in said(far)
    assert said(one[:15], real[:15]) == set()  # too few to tell


def test_what_gets_better_is_not_said() -> None:
    """Each picture is compared with the one after half as many: 2 with 1, 3 with 1, 4 with 2, 5 with 2, 6 with 3."""
    real, monitor = torch.rand(64, 1, 8, 8, generator=torch.Generator().manual_seed(0)), SampleMonitor()
    shifts = [2.0, 1.7, 1.5, 1.4, 1.3, 1.5]
    reported = [bool(monitor.check(real=real, fake=real + shift)) for shift in shifts]
    better = [now < 0.8 * monitor.distances[at] for now, at in zip(monitor.distances[1:], (0, 0, 1, 1, 2), strict=True)]
    assert reported == [False] + [not it for it in better] and {*reported[1:]} == {True, False}
    assert monitor.check(real=real, fake=real * math.nan) == {} and len(monitor.distances) == 6


def test_what_is_compared_is_small_and_as_wide_as_it_is_high() -> None:
    images = torch.rand(3, 2, 32, 48, dtype=torch.float64)
    expected = images.reshape(3, 2, 8, 4, 8, 6).mean((3, 5)).flatten(1)
    assert torch.allclose(small(images), expected.float(), atol=1e-6)
    assert small(torch.rand(3, 1, 4, 9)).shape == (3, 4 * 8)


def test_active_units_and_posterior_collapse() -> None:
    codes = torch.zeros(100, 4)
    codes[:, 1] = torch.linspace(-1, 1, 100)
    codes[:, 2] = 0.05 * codes[:, 1]  # its variance is below the bar
    assert active_units(codes) == 1
    having = {name for name in trilemma.list_models() if has_posterior(trilemma.create(name, shape=(1, 8, 8)))}
    assert {"vae", "vae-conv", "vae-conditional", "vae-hierarchical", "vae-ladder"} <= having
    assert not having & {"ae-stacked", "vae-discrete", "vae-vq", "gan", "diffusion-small"}


@pytest.mark.parametrize(
    ("active", "units", "collapsed"), [(4, 200, True), (5, 200, False), (2, 30, True), (3, 30, False), (0, 1, True)]
)
def test_a_tenth_of_the_units_or_five_are_no_collapse(active: int, units: int, collapsed: bool) -> None:
    text = posterior_collapse(active, units, trilemma.create("vae", shape=(1, 8, 8)).config)
    assert bool(text) == collapsed
    assert not text or (f"{active} of {units} units" in text and "Lower beta=" in text)


def test_advice_names_keys_that_the_model_has() -> None:
    config = trilemma.create("vae-hierarchical", shape=(1, 8, 8)).config
    assert "Raise warmup= or free_nats=" in (posterior_collapse(0, 32, config) or "")


@pytest.mark.slow
def test_the_log_says_how_many_units_are_active_and_a_collapse_after_one_pass() -> None:
    run = trilemma.train("vae", "digits", steps=60, batch=1293, beta=20.0, variance=0.5, latent=6, quiet=True)
    pass_ = -(-calendar.VALIDATE_AT_LEAST // 1293)  # steps until the first validation
    first = next(row for row in run.log if "valid_active_units" in row)
    assert first["step"] == pass_ and first["valid_active_units"] in range(7)
    collapsed = [row["step"] for row in run.log if "posterior collapse" in row.get("warning", "")]
    assert len(collapsed) == 1 and collapsed[0] < 30  # of 60: it collapses soon with such a weight
    assert collapsed == [row["step"] for row in run.log if row.get("valid_active_units") == 0][:1]


@pytest.mark.slow
def test_too_high_a_weight_of_the_divergence_is_said_and_a_healthy_training_is_quiet() -> None:
    high = trilemma.train("vae", "digits", steps=700, batch=32, beta=50.0, variance=0.5, out="high", quiet=True)
    assert any("posterior collapse" in row.get("warning", "") for row in high.log)
    healthy = trilemma.train("vae", "digits", steps=700, batch=32, out="healthy", quiet=True)
    assert not any("warning" in row for row in healthy.log)


def test_phases_that_follow_each_other_are_no_players() -> None:
    def phase(begin: float, end: float) -> Phase:
        return Phase("p", Player("p", []), lambda batch, rng: (torch.zeros(()), {}), begin=begin, end=end)

    def of(*spans: tuple[float, float]) -> int:
        return count_players([phase(*span) for span in spans])

    assert of((0, 1)) == of((0, 0.5), (0.5, 1)) == of((0.5, 1), (0, 0.5)) == 1
    assert of((0, 1), (0, 1)) == of((0, 0.6), (0.5, 1)) == of((0, 0.6), (0.5, 1), (0.8, 1)) == 2
    assert of((0, 1), (0.2, 0.4), (0.3, 0.5)) == 3
    assert {name: count_players(trilemma.create(name, shape=(1, 8, 8)).phases) for name in ("vae-vq", "gan-dcgan")} == {
        "vae-vq": 1,
        "gan-dcgan": 2,
    }


@pytest.mark.slow
def test_samples_of_stages_in_a_row_that_are_alike_are_no_collapse_and_a_jump_is_said(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(SampleMonitor, "check", lambda monitor, *, real, fake: {"collapse": "mode collapse"})
    factor, steps = players.lr_factor, itertools.count()

    def raised(*args: object) -> float:
        return factor(*args) * (1000 if 70 <= next(steps) < 75 else 1)  # type: ignore[arg-type]

    monkeypatch.setattr(players, "lr_factor", raised)
    stages = trilemma.train("vae-vq", "digits", steps=150, batch=16, out="stages", quiet=True)
    messages = [row["warning"] for row in stages.log if "warning" in row]
    assert not any("collapse" in text for text in messages) and any("jumped" in text for text in messages)
    rivals = short("rivals", "gan-dcgan", width=4, latent=8)
    assert any("collapse" in row.get("warning", "") for row in rivals.log)


def test_a_standing_warning_is_said_once() -> None:
    warnings = Warnings()
    assert [warnings.new("a", text, 0) for text in ("x", "x", None, "x")] == ["x", None, None, None]
    assert [warnings.new("a", text, 0) for text in [None] * QUIET + ["x"]] == [None] * QUIET + ["x"]
    assert warnings.new("b", "y", 0) == "y"


def test_a_warning_says_since_when_it_holds() -> None:
    """Also from before it was time to warn, and anew after it healed."""
    warnings = Warnings()
    assert [warnings.new("a", "x", step, settled=step > 5) for step in (3, 5, 7)] == [None, None, "x (since step 3)"]
    assert warnings.current == {"a": "x (since step 3)"}
    warnings.new("a", None, 8)
    warnings.new("a", "x", 1200)
    assert warnings.current == {"a": "x"}
    warnings.new("a", "y", 1300)
    assert warnings.current == {"a": "y (since step 1,200)"}


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["healthy", "gans"])
def test_warnings_come_when_they_should_and_only_then(kind: str) -> None:
    script = Path(__file__).parents[2] / "benchmarks" / "health.py"
    done = subprocess.run([sys.executable, str(script), kind], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
