"""A training in several processes is the training in one: the same images, numbers, weights and log."""

from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, cast

import pytest
import torch
from distance import assert_near
from presets import small
from threads import SELF, Threads, in_threads
from torch import Tensor, nn

import trilemma
from trilemma import rng
from trilemma.data import Data
from trilemma.diffusion.weighting import evenly_spread
from trilemma.errors import UserError
from trilemma.progress import Display
from trilemma.registry import build, create, get_recipe
from trilemma.run.config import TrainConfig
from trilemma.team import ALONE, Team, broadcast_tensors, in_turn, part_of, together
from trilemma.training.exchange import Exchange
from trilemma.training.loop import Trainer
from trilemma.training.players import check_divisible
from trilemma.training.prepare import config_for
from trilemma.types import Batch, Model, Player

BATCH = 7  # which neither two nor three processes divide evenly
FAMILIES: list[tuple[str, dict[str, Any]]] = [
    *((name, {}) for name in ("ae-conv", "ae-denoising", "vae", "vae-discrete", "gan-r3", "diffusion")),
    ("diffusion-cifar", {}),  # with dropout
    *((name, {}) for name in ("ae-sparse", "ae-kl", "vae-hierarchical", "gan-dcgan")),  # with statistics of a batch
    ("vae-vq", {"codes": 8}),  # of many, some restart as the same vector: rounding decides which of them is nearer
    ("vae", {"capacity_nats": 30.0}),
    ("vae", {"reconstruction": "gaussian", "variance": "optimal"}),
    ("gan-r3", {"critic_augment": "adaptive"}),
    *((name, {}) for name in ("vae-conditional", "vae-ladder", "gan-wgan", "gan-wgan-gp", "diffusion-flow")),
    *((name, {}) for name in ("diffusion-edm", "diffusion-dit", "diffusion-text", "diffusion-inpaint")),
    *((name, {}) for name in ("diffusion-upscale", "diffusion-latent", "diffusion-few")),
]
QUICK = ("vae", "gan-r3", "gan-dcgan", "diffusion")  # of each kind of model, and one with batch norm


@pytest.fixture(scope="module")
def data() -> Data:
    return trilemma.load_data("digits")


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> dict[int, list[list[int]]]:
    """By step, the images of each part of its batch, in float64 models as float64."""
    images: dict[int, list[list[int]]] = {}
    batch_at = Trainer.batch_at

    def recorded(trainer: Trainer, position: int) -> Batch:
        batch = batch_at(trainer, position)
        assert batch.index is not None
        images.setdefault(trainer.calendar.step, []).append((trainer.team.rank, batch.index.tolist()))
        return replace(batch, image=batch.image.to(next(trainer.model.parameters())))

    monkeypatch.setattr(Trainer, "batch_at", recorded)
    return images


def trainer_of(
    name: str, data: Data, folder: Path, team: Team, dtype: torch.dtype, *, whole: bool = False, **keys: Any
) -> Trainer:
    """A trainer at its start, or where a checkpoint in its folder says; whole: whether its model is as large as the
    preset; settings: of the model."""
    folder.mkdir(exist_ok=True)
    recipe, settings = get_recipe(name), ({} if whole else small(name)) | keys.pop("settings", {})
    model = build(recipe, config_for(recipe, data, settings), seed=0).to(dtype)
    config = TrainConfig(**{"batch": BATCH, "steps": 60, "ema_halflife_images": 100, **keys})
    return Trainer(model, data, config, folder, Display("x", quiet=True), bf16=False, team=team)


def advance(
    name: str, data: Data, folder: Path, size: int, steps: int, dtype: torch.dtype = torch.float64, **keys: Any
) -> tuple[dict[str, Tensor], dict[str, float]]:
    """All tensors of the state, and the values for the log, after more steps in so many processes; it is saved."""

    def run(team: Team) -> tuple[dict[str, Tensor], dict[str, float]]:
        trainer = trainer_of(name, data, folder, team, dtype, **keys)
        trainer.model.train()
        for _ in range(steps):
            assert trainer.advance().fault is None
        trainer.saver.save(trainer.guard.sound_state())
        tensors = trainer.parts.state().tensors
        flat = {f"{file}/{key}": value for file, group in tensors.items() for key, value in group.items()}
        return flat, trainer.averages.take()

    results = [run(ALONE)] if size == 1 else in_threads(size, run)
    for other, _ in results[1:]:
        assert all(torch.equal(value, other[key]) for key, value in results[0][0].items())
    return results[0]


def parts_of(seen: dict[int, list[tuple[int, list[int]]]], size: int) -> list[list[int]]:
    """By step, the images of the whole batch, from what `size` processes saw last."""
    return [[image for _, part in sorted(seen[step][-size:]) for image in part] for step in sorted(seen)]


@pytest.mark.parametrize(("size", "total"), [(1, 5), (2, 5), (3, 7), (4, 4), (8, 3)])
def test_parts_follow_each_other_and_differ_by_one_at_most(size: int, total: int) -> None:
    teams = [SimpleNamespace(size=size, rank=rank) for rank in range(size)]
    parts = [part_of(cast(Team, team), total) for team in teams]
    images = [image for first, count in parts for image in range(first, first + count)]
    assert images == list(range(total))
    assert max(count for _, count in parts) - min(count for _, count in parts) <= 1


def test_the_images_of_each_step_are_the_same_for_any_number_of_processes(
    data: Data, seen: Any, tmp_path: Path
) -> None:
    orders = []
    for size in (1, 2, 3, 4):
        advance("ae-stacked", data, tmp_path / str(size), size, 5)
        orders.append(parts_of(seen, size))
    n, stream = len(data.train), rng.permutation(len(data.train), 0, "order", 0)
    assert orders[0] == [stream[BATCH * step : BATCH * (step + 1)].tolist() for step in range(5)] and n > 5 * BATCH
    assert orders[1:] == orders[:1] * 3


@pytest.mark.parametrize(
    ("name", "settings"),
    [pytest.param(*one, marks=() if one[0] in QUICK else pytest.mark.slow) for one in FAMILIES],
    ids=lambda x: ",".join(x) if isinstance(x, dict) else x,
)
@pytest.mark.parametrize("size", [pytest.param(2, marks=pytest.mark.slow), 3])
def test_five_steps_are_those_of_one_process(
    name: str, settings: dict[str, Any], size: int, data: Data, seen: Any, tmp_path: Path
) -> None:
    """Of an odd batch, in float64: weights, averages, optimisers, and the values for the log, which are float32. The
    area under a curve of ranks is no mean over images: each process has that of its own."""
    data = trilemma.load_data("scenes:64", size=16) if name == "diffusion-text" else data
    states = [advance(name, data, tmp_path / str(n), n, 5, settings=settings) for n in (1, size)]
    (one, log), (several, logs) = states
    assert_near(one, several, 1e-12)
    for values in (log, logs):
        values.pop("critic/auroc", None)
    assert logs == pytest.approx(log, rel=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["diffusion-small", "gan-dcgan-28"])
def test_models_that_compute_in_float32_are_near_those_of_one_process(name: str, data: Data, tmp_path: Path) -> None:
    one, two = (advance(name, data, tmp_path / str(n), n, 3, torch.float32, lr=1e-4)[0] for n in (1, 2))
    weights, others = ({k: v for k, v in state.items() if k.startswith("model/")} for state in (one, two))
    assert_near(weights, others, 1e-5)


@pytest.mark.parametrize("augment", [(), ("flip", "shift"), ("binarise",)])
def test_images_are_changed_as_in_one_process(augment: tuple[str, ...], data: Data, seen: Any, tmp_path: Path) -> None:
    one, two = (advance("ae-stacked", data, tmp_path / str(n), n, 2, augment=augment)[0] for n in (1, 2))
    assert_near(one, two, 1e-12)


FIFTY = ("ae-conv", "vae", "gan-r3", "diffusion")


@pytest.mark.slow
@pytest.mark.parametrize("name", FIFTY)
def test_fifty_steps_in_float32_are_those_of_one_process(name: str, data: Data, tmp_path: Path) -> None:
    one, two = (advance(name, data, tmp_path / str(n), n, 50, torch.float32)[0] for n in (1, 2))
    weights, others = ({k: v for k, v in state.items() if k.startswith("model/")} for state in (one, two))
    assert_near(weights, others, 1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ae-stacked", *FIFTY])
def test_fifty_steps_in_float64_are_those_of_one_process(name: str, data: Data, seen: Any, tmp_path: Path) -> None:
    one, two = (advance(name, data, tmp_path / str(n), n, 50)[0] for n in (1, 2))
    assert_near(one, two, 1e-12)


def test_a_training_begins_with_the_weights_of_the_first_process(data: Data, tmp_path: Path) -> None:
    """And with its buffers, to the bit, where each process has drawn its own, as it may with a module of its own."""
    name, config = "gan-dcgan", TrainConfig(batch=BATCH, steps=60)

    def made(seed: int) -> Model:
        return create(name, shape=(1, 8, 8), seed=seed, **small(name))

    def run(team: Team) -> dict[str, Tensor]:
        trainer = Trainer(made(team.rank), data, config, tmp_path, Display("x", quiet=True), bf16=False, team=team)
        return trainer.parts.state().tensors["model"]

    first, second = made(0).state_dict(), made(1).state_dict()
    assert not all(torch.equal(tensor, second[key]) for key, tensor in first.items())
    for state in in_threads(2, run):
        assert state.keys() == first.keys()
        assert all(torch.equal(tensor, first[key]) for key, tensor in state.items())


def test_tensors_of_every_kind_are_sent_to_the_bit() -> None:
    first = [
        torch.tensor([1.5, -0.0, torch.nan]),
        torch.tensor(-7),
        torch.tensor([True, False]),
        torch.zeros(0),
        torch.arange(24.0).view(1, 2, 3, 4).to(memory_format=torch.channels_last),
    ]

    def run(team: Team) -> list[Tensor]:
        own = [tensor.clone() if team.rank == 0 else torch.ones_like(tensor) for tensor in first]
        broadcast_tensors(team, own)
        return own

    def bits(tensor: Tensor) -> list[int]:
        return tensor.contiguous().view(-1).view(torch.uint8).tolist()

    for sent in in_threads(3, run):
        assert [bits(tensor) for tensor in sent] == [bits(tensor) for tensor in first]


def test_the_number_of_processes_may_change_at_every_resume(data: Data, seen: Any, tmp_path: Path) -> None:
    """3 steps in 2 processes, 2 in one, 2 in 3 and 3 in 2, from the same run folder."""
    images = []
    for size, steps in ((2, 3), (1, 2), (3, 2), (2, 3)):
        seen.clear()
        state, _ = advance("vae", data, tmp_path / "changing", size, steps)
        images += parts_of(seen, size)
    seen.clear()
    unbroken, _ = advance("vae", data, tmp_path / "one", 1, 10)
    assert images == parts_of(seen, 1)
    assert_near(unbroken, state, 1e-12)


EXCHANGED = [
    *((name, False) for name in ("vae", "gan-r3", "diffusion")),
    *(pytest.param(name, True, marks=pytest.mark.slow) for name in ("ae-residual", "vae", "diffusion", "gan-r3")),
]


@pytest.mark.parametrize(("name", "whole"), EXCHANGED)
def test_gradients_and_little_else_are_exchanged(name: str, whole: bool, data: Data, tmp_path: Path) -> None:
    """Per step at most 1.05 times the bytes of the gradients in one sum for each player, and one decision of at most 64
    numbers. With -s, the lines of the table in docs/scaling.md."""

    def run(team: Threads) -> tuple[Trainer, dict[str, list[int]]]:
        trainer = trainer_of(name, data, tmp_path, team, torch.float32, whole=whole)
        trainer.model.train()
        team.bytes = {"agree": [], "sum": []}
        trainer.advance()
        return trainer, team.bytes

    trainer, counts = in_threads(2, run)[0]
    gradients = [sum(p.nbytes for p in player.parameters) for player in trainer.players.all]
    assert len(counts["sum"]) == len(gradients)
    assert all(own <= sent <= 1.05 * own for own, sent in zip(gradients, counts["sum"], strict=True))
    assert [size // 8 <= 64 for size in counts["agree"]] == [True]
    parts, ratio = " + ".join(f"{sent:,}" for sent in counts["sum"]), sum(counts["sum"]) / sum(gradients)
    print(f"| `{name}`, 8x8 grey | {sum(gradients):,} | {parts} | {ratio:.4f} |")


def test_gradients_that_only_some_processes_have_are_summed_in_their_places() -> None:
    """Process r has the gradients r + 1 of the first parameter, 10 of the one with its own number, none of the last."""

    def run(team: Threads) -> tuple[list[Tensor | None], Tensor]:
        parameters = [nn.Parameter(torch.zeros(shape)) for shape in ((2, 3), (4,), (4,), (5,))]
        parameters[0].grad = torch.full((2, 3), team.rank + 1.0)
        parameters[1 + team.rank].grad = torch.full((4,), 10.0)
        exchange = Exchange(team, [player := Player("a", parameters)])
        ((loss, parts),) = exchange.sum(player, [(torch.tensor(0.5), {"mse": torch.tensor([3.0, 1.0])})])
        return [parameter.grad for parameter in parameters], torch.cat([loss.view(1), parts["mse"]])

    for (*gradients, absent), values in in_threads(2, run):
        expected = [torch.full((2, 3), 3.0), torch.full((4,), 10.0), torch.full((4,), 10.0)]
        assert absent is None
        for gradient, value in zip(gradients, expected, strict=True):
            assert gradient is not None and torch.equal(gradient, value)
        assert values.tolist() == [1.0, 6.0, 2.0]


@pytest.mark.parametrize(
    ("name", "keys"),
    [
        ("gan-style", {}),
        ("gan-style", {"deviation_group": 1}),
    ],
)
def test_statistics_of_a_whole_batch_are_refused(name: str, keys: dict[str, Any]) -> None:
    model = create(name, shape=(1, 8, 8), **small(name), **keys)
    check_divisible(model, 8, ALONE)
    with pytest.raises(UserError, match="takes statistics over a batch"):
        check_divisible(model, 8, Threads(2))


def test_a_batch_has_an_image_for_each_process() -> None:
    model = create("vae", shape=(1, 8, 8))
    check_divisible(model, 3, Threads(3))
    with pytest.raises(UserError, match="batch=2 for 3 processes"):
        check_divisible(model, 2, Threads(3))


def test_an_error_of_one_is_reported_by_the_first_that_has_it_and_ends_all() -> None:
    def run(team: Threads) -> str:
        def action() -> int:
            if team.rank > 0:
                raise UserError(f"no disk in {team.rank}")
            return team.rank

        try:
            return str(together(team, action))
        except UserError as error:
            return f"{type(error).__name__}: {error}; {getattr(error, '__notes__', [])}"

    elsewhere = "ReportedElsewhere: process 1 of 3 reports an error; []"
    assert in_threads(3, run) == [elsewhere, "UserError: no disk in 1; ['process 1 of 3']", elsewhere]


@pytest.fixture
def train_in_team(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The module of the verb, whose team is in each thread that of the thread, if it has one."""
    module = import_module("trilemma.training.train")
    monkeypatch.setattr(module, "current_team", lambda: getattr(SELF, "team", ALONE))
    return module


@pytest.mark.slow
def test_images_that_are_others_in_one_process_are_refused(train_in_team: ModuleType, tmp_path: Path) -> None:
    def run(team: Team) -> str:
        with pytest.raises(UserError) as error:
            trilemma.train("vae", "shapes:40", split_seed=team.rank // 2, steps=1, out=tmp_path / "run", quiet=True)
        return str(error.value)

    elsewhere = "process 2 of 3 reports an error"
    reason = "the images of process 2 are not those of process 0; give images on a disk that all machines share"
    assert in_threads(3, run) == [elsewhere, elsewhere, reason]
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_run_is_finished_where_all_processes_find_it_finished(
    train_in_team: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that does not see the results on a shared disk yet would train on alone, and wait for the others."""
    keys: dict[str, Any] = {"steps": 2, "batch": 8, "out": tmp_path / "run", "quiet": True, "device": "cpu"}
    trilemma.train("vae", "shapes:40", **keys)
    written, has_results = (tmp_path / "run" / "summary.json").stat().st_mtime_ns, train_in_team.has_results
    in_threads(2, lambda team: trilemma.train("vae", "shapes:40", **keys))
    assert (tmp_path / "run" / "summary.json").stat().st_mtime_ns == written
    monkeypatch.setattr(train_in_team, "has_results", lambda *given: SELF.rank == 0 and has_results(*given))
    in_threads(2, lambda team: trilemma.train("vae", "shapes:40", **keys))
    assert (tmp_path / "run" / "summary.json").stat().st_mtime_ns > written


def test_files_are_written_by_one_before_the_others_look() -> None:
    order = []
    results = in_threads(3, lambda team: in_turn(team, lambda: (order.append(team.rank), team.rank)[1]))
    assert order[0] == 0 and sorted(order) == results == [0, 1, 2]


DRAWS: list[Callable[[int, torch.Generator], Tensor]] = [
    lambda n, g: torch.randn(n, 3, 2, generator=g),
    lambda n, g: torch.randn((n, 40), generator=g, dtype=torch.float64),
    lambda n, g: torch.rand(size=(n,), generator=g),
    lambda n, g: torch.randint(9, (n, 4), generator=g),
    lambda n, g: torch.randint(2, 9, size=(n,), generator=g),
    lambda n, g: torch.empty(n, 5).normal_(1, 2, generator=g),
    lambda n, g: torch.empty(n, 2, 3, 4).to(memory_format=torch.channels_last).bernoulli_(0.5, generator=g),
    lambda n, g: torch.rand((), generator=g).expand(n),
    lambda n, g: rng.batch_normal(3, torch.empty(n), g).T,
    lambda n, g: evenly_spread(n, g),
]


@pytest.mark.parametrize("draw", DRAWS)
@pytest.mark.parametrize("total", [5, 64])
def test_rows_have_the_numbers_of_the_whole_batch(draw: Callable, total: int) -> None:
    """In any division, and what is drawn next, too; 64 rows are drawn by other code of torch than 5."""
    generator = torch.Generator().manual_seed(3)
    whole, after = draw(total, generator), torch.rand(4, generator=generator)
    for first, end in ((0, total), (0, 2), (2, 3), (3, total)):
        own = rng.RowsGenerator().manual_seed(3)
        with own.rows(first, end - first, total):
            assert torch.equal(draw(end - first, own), whole[first:end])
        assert torch.equal(torch.rand(4, generator=own), after)


@pytest.mark.parametrize("draw", [lambda g: torch.randn(6, 2, generator=g), lambda g: torch.randperm(3, generator=g)])
def test_numbers_that_are_not_of_images_are_refused(draw: Callable) -> None:
    own = rng.RowsGenerator()
    with own.rows(0, 3, 8), pytest.raises(UserError, match="process"):
        draw(own)
