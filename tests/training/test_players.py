"""Players and phases, on a toy whose gradients are known: its losses are linear in its weights.

The gradient of <a, w> is a, whatever the weights, so what a player is moved by can be read off in `after_step`.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import trilemma
from trilemma.config import ModelConfig
from trilemma.errors import UserError
from trilemma.registry import Recipe, create, registered
from trilemma.run.checkpoint import list_checkpoints, read_checkpoint
from trilemma.run.config import TrainConfig
from trilemma.run.run import Run
from trilemma.run.state import check_state
from trilemma.training.health import StepMonitor
from trilemma.training.loop import Trainer
from trilemma.training.optim import learning_rate, make_optimizer
from trilemma.training.players import Players
from trilemma.types import Batch, Model, Phase, PhaseError, Player, check_together

TOY = ExitStack()  # in which the newest toy is known
MOVES: list[Tensor] = []  # the gradients by which the last toy was moved
FREE = {"clip": 1e6}  # no gradient of the toy is as long
A, B = torch.tensor([1.0, -2.0, 0.5]), torch.tensor([-0.25, 1.0, 4.0])


class Toy(Model):
    """Three weights that are moved, three that nobody moves; `phases` are what the test says."""

    def __init__(self, config: ModelConfig, phases: "Callable[[Toy], list[Phase]]") -> None:
        super().__init__()
        self.config = config
        self.weights = nn.Parameter(torch.tensor([0.3, -0.1, 0.2]))
        self.teacher = nn.Parameter(torch.zeros(3), requires_grad=False)
        self.phases = phases(self)

    def player(self, **optimizer: Any) -> Player:
        return Player("toy", [self.weights], FREE | optimizer, self.keep)

    def keep(self) -> None:
        MOVES.append(self.weights.grad.clone())  # type: ignore[union-attr]

    def down(self, direction: Tensor) -> Any:
        """The loss <direction, w>."""
        return lambda batch, rng: ((direction * self.weights).sum(), {})


@pytest.fixture(autouse=True)
def in_tmp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture(autouse=True)
def no_toy_afterwards() -> Iterator[None]:
    with TOY:
        yield


def train(phases: Callable[[Toy], list[Phase]], out: str = "run", ema: int | None = None, **keys: Any) -> Run:
    """A toy with these phases, trained for 8 steps of 4 images."""
    training = {"schedule": "constant", "ema_halflife_images": ema}
    recipe = Recipe("toy", "toy", "a toy", "", lambda c: Toy(c, phases), ModelConfig(), training, listed=False)
    TOY.close()
    TOY.enter_context(registered(recipe))
    MOVES.clear()
    given = {"steps": 8, "batch": 4, "lr": 0.01, "sample_every": 10**9} | keys
    return trilemma.train("toy", "digits", out=out, quiet=True, device="cpu", **given)


def test_a_lazy_phase_has_the_same_expected_gradient() -> None:
    def phases(toy: Toy) -> list[Phase]:
        player = toy.player()
        return [Phase("loss", player, toy.down(A)), Phase("penalty", player, toy.down(B), every=4)]

    train(phases)
    assert len(MOVES) == 8
    for step, gradient in enumerate(MOVES):
        assert torch.equal(gradient, A + 4 * B if step % 4 == 0 else A)
    assert torch.equal(torch.stack(MOVES).mean(0), A + B)


def test_two_phases_of_a_player_are_one_with_the_sum_of_their_losses() -> None:
    def two(toy: Toy) -> list[Phase]:
        player = toy.player()
        return [Phase("a", player, toy.down(A)), Phase("b", player, toy.down(B))]

    apart = train(two, "two")
    together = train(lambda toy: [Phase("sum", toy.player(), toy.down(A + B))], "one")
    assert torch.equal(apart.model.weights, together.model.weights)
    assert set(apart.log[-1]) - set(together.log[-1]) == {"a/loss", "b/loss"}


def test_repeats_move_a_player_again_on_batches_of_their_own() -> None:
    indices: dict[str, list[list[int]]] = {"critic": [], "penalty": [], "generator": []}

    def noting(name: str, weights: Tensor) -> Any:
        def loss(batch: Batch, rng: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
            indices[name].append(batch.index.tolist())  # type: ignore[union-attr]
            return (A * weights).sum(), {}

        return loss

    def phases(toy: Toy) -> list[Phase]:
        toy.teacher.requires_grad_(True)
        critic, generator = toy.player(), Player("generator", [toy.teacher])
        return [
            Phase("critic", critic, noting("critic", toy.weights), repeats=3),
            Phase("penalty", critic, noting("penalty", toy.weights), repeats=2),
            Phase("generator", generator, noting("generator", toy.teacher)),
        ]

    run = train(phases, steps=5)
    assert len(MOVES) == 15 and len(indices["generator"]) == 5 and len(indices["penalty"]) == 10
    assert run.summary["images"] == 5 * 3 * 4
    seen = indices["critic"]
    assert all(not set(a) & set(b) for a, b in pairwise(seen))  # one epoch is longer than that
    assert [seen[k] for k in range(15) if k % 3 == 0] == indices["generator"]
    assert [seen[k] for k in range(15) if k % 3 < 2] == indices["penalty"]


def test_clipped_weights_are_so_after_the_last_step_and_in_the_average() -> None:
    limit = 0.01

    def phases(toy: Toy) -> list[Phase]:
        player = Player("toy", [toy.weights], after_step=lambda: toy.weights.clamp_(-limit, limit))
        return [Phase("loss", player, toy.down(A))]

    assert torch.equal(train(phases, lr=1.0).model.weights, -limit * A.sign())
    halflife, start = 10**9, torch.tensor([0.3, -0.1, 0.2])  # then it is 5% of the images seen
    kept = math.prod(0.5 ** (4 / (0.05 * 4 * step)) for step in range(1, 9))
    average = train(phases, "average", ema=halflife, lr=1.0).model.weights
    assert torch.allclose(average, kept * start - (1 - kept) * limit * A.sign(), rtol=1e-5, atol=0)


def test_what_nobody_moves_stays_and_has_no_optimiser() -> None:
    run = train(lambda toy: [Phase("loss", toy.player(), toy.down(A))])
    state = read_checkpoint(list_checkpoints(run.path / "checkpoints")[-1])
    assert torch.equal(run.model.teacher, torch.zeros(3)) and torch.equal(
        state.tensors["model"]["teacher"], torch.zeros(3)
    )
    assert {name.split("/")[0] for name in state.tensors["optimizer-toy"]} == {"0"}


def teaching(toy: Toy) -> list[Phase]:
    """The second of two stages begins with a copy of what the first has learned, and goes back to it."""

    def copy(batches: Any, seed: int) -> dict[str, float]:
        assert not toy.training
        toy.teacher.copy_(toy.weights)
        return {"images": sum(len(batch.image) for batch in batches), "seed": seed}

    player = toy.player(betas=(0.5, 0.9))
    return [
        Phase("first", player, toy.down(A), end=0.5),
        Phase("second", player, toy.down(B), begin=0.5, start=copy),
    ]


@pytest.mark.parametrize(("ema", "stops"), [(None, (4, 5)), (100, (5,))])
def test_the_start_of_a_phase_is_called_once_wherever_the_training_was_stopped(
    monkeypatch: pytest.MonkeyPatch, ema: int | None, stops: tuple[int, ...]
) -> None:
    whole = train(teaching, "whole", ema)
    starts = [(row["step"], row["second/images"], row["second/seed"]) for row in whole.log if "second/images" in row]
    assert starts == [(4, len(whole.data.train), 0)]
    assert [torch.equal(gradient, A) for gradient in MOVES] == [True] * 4 + [False] * 4
    first = train(lambda toy: teaching(toy)[:1], "first")  # the same until the second begins, and not averaged
    assert torch.equal(whole.model.teacher, first.model.weights)
    one_step = Trainer.take_step
    for at in stops:

        def stopping(trainer: Trainer, at: int = at) -> None:
            one_step(trainer)
            trainer.signals.stop = 2 if trainer.calendar.step == at else 0

        with monkeypatch.context() as patch:
            patch.setattr(Trainer, "take_step", stopping)
            with pytest.raises(KeyboardInterrupt):
                train(teaching, f"at-{at}", ema)
        run = train(teaching, f"at-{at}", ema)
        assert all(torch.equal(a, b) for a, b in zip(run.model.parameters(), whole.model.parameters(), strict=True))
        assert len([row for row in run.log if "second/images" in row]) == 1


def test_keys_of_a_player_stand_in_the_place_of_the_runs() -> None:
    weights = [nn.Parameter(torch.ones(3))]
    run = TrainConfig(steps=1, lr=0.1, betas=(0.9, 0.999))
    player = Player("critic", weights, {"betas": (0.0, 0.99), "lr_factor": 0.5, "optimizer": "adam"})
    optimizer = make_optimizer(player, run)
    assert isinstance(optimizer, torch.optim.Adam)
    assert (optimizer.param_groups[0]["betas"], optimizer.param_groups[0]["lr"]) == ((0.0, 0.99), 0.05)
    assert learning_rate(player, run.with_(lr={"critic": 0.4, "generator": 1.0})) == 0.2
    with pytest.raises(UserError, match=r'lr= has no value for "critic" \(given: generator\)'):
        learning_rate(player, run.with_(lr={"generator": 1.0}))
    with pytest.raises(UserError, match="did you mean"):
        make_optimizer(Player("critic", weights, {"beta": (0.0, 0.99)}), run)


def test_a_rate_of_a_player_goes_before_the_runs_unless_that_names_the_player() -> None:
    player = Player("critic", [nn.Parameter(torch.ones(3))], {"lr": 0.02})
    run = TrainConfig(steps=1, lr=0.1)
    assert learning_rate(player, run) == make_optimizer(player, run).param_groups[0]["lr"] == 0.02
    assert learning_rate(player, run.with_(lr={"generator": 1.0})) == 0.02
    assert learning_rate(player, run.with_(lr={"critic": 0.4, "generator": 1.0})) == 0.4
    with pytest.raises(UserError, match="lr"):
        make_optimizer(Player("critic", player.parameters, {"lr": -1.0}), run)


def two_players(toy: Toy, **late: float) -> list[Phase]:
    """One moves the weights, the other the teacher."""
    toy.teacher.requires_grad_(True)
    student = Player("student", [toy.teacher])
    return [Phase("a", toy.player(), toy.down(A)), Phase("b", student, lambda *_: (toy.teacher.sum(), {}), **late)]


def test_a_state_is_sound_after_every_step_around_the_beginning_of_a_player(monkeypatch: pytest.MonkeyPatch) -> None:
    one_step, held = Trainer.take_step, []

    def checking(trainer: Trainer) -> None:
        one_step(trainer)
        state = trainer.parts.state()
        check_state(state, trainer.parts.form(), images=trainer.calendar.images)
        held.append(bool(state.tensors["optimizer-student"]))

    monkeypatch.setattr(Trainer, "take_step", checking)
    train(lambda toy: two_players(toy, begin=0.55))  # the fifth step is from 0.5 to 0.625
    assert held == [False] * 5 + [True] * 3


def of_one_name(toy: Toy) -> list[Phase]:
    return [Phase("a", toy.player(), toy.down(A)), Phase("b", toy.player(), toy.down(B))]


def of_one_phase_name(toy: Toy) -> list[Phase]:
    player = toy.player()
    return [Phase("a", player, toy.down(A)), Phase("a", player, toy.down(B))]


def sharing(toy: Toy, middle: float = 0.5, second: float = 0.4) -> list[Phase]:
    one, other = Player("one", [toy.weights]), Player("other", [toy.weights])
    return [Phase("a", one, toy.down(A), end=middle), Phase("b", other, toy.down(B), begin=second)]


@pytest.mark.parametrize(
    ("phases", "text"),
    [
        (of_one_name, 'two players are named "toy"; make one Player and give it to both phases'),
        (of_one_phase_name, 'two phases are named "a"'),
        (sharing, '"one" and "other" move the same parameters at the same time; make one Player'),
        (lambda toy: [Phase("a", Player("none", []), toy.down(A))], 'the player "none" has no parameters'),
        (lambda toy: [Phase("a", toy.player(), toy.down(A), every=0)], 'toy: every=0 of the phase "a": give a whole'),
    ],
)
def test_phases_that_do_not_fit_each_other_are_refused(phases: Any, text: str) -> None:
    with pytest.raises(UserError, match=text):
        train(phases)


def test_stages_that_follow_each_other_may_move_the_same() -> None:
    check_together(Toy(ModelConfig(), lambda toy: sharing(toy, 0.5, 0.5)).phases)


WEIGHT = nn.Parameter(torch.zeros(2))


@pytest.mark.parametrize("name", ["", "a/b", "a b", 3])
def test_names_of_players_and_phases_are_those_of_files(name: Any) -> None:
    for make in (lambda: Player(name, [WEIGHT]), lambda: Phase(name, Player("p", [WEIGHT]), lambda *_: None)):  # type: ignore[arg-type, return-value]
        with pytest.raises(PhaseError, match="use letters, digits"):
            make()


@pytest.mark.parametrize(
    ("keys", "text"),
    [
        ({"every": 0}, "every=0 of"),
        ({"every": 1.5}, "every=1.5"),
        ({"repeats": 0}, "repeats=0"),
        ({"begin": 0.5, "end": 0.5}, "begin=0.5, end=0.5"),
        ({"begin": -0.1}, "begin=-0.1"),
        ({"end": 1.1}, "end=1.1"),
        ({"end": "1"}, "end='1'"),
    ],
)
def test_a_phase_runs_in_whole_steps_and_a_share_of_the_training(keys: dict[str, Any], text: str) -> None:
    with pytest.raises(PhaseError, match=text):
        Phase("a", Player("p", [WEIGHT]), lambda *_: (WEIGHT.sum(), {}), **keys)


@pytest.mark.parametrize("factor", ["0.1", 0, -1.0, math.inf, math.nan, True])
def test_the_learning_rate_of_a_player_is_multiplied_by_a_number_above_0(factor: Any) -> None:
    with pytest.raises(PhaseError, match="lr_factor="):
        Player("p", [WEIGHT], {"lr_factor": factor})


@pytest.mark.parametrize("given", [WEIGHT, nn.Linear(1, 1).parameters, [("weight", WEIGHT)], None])
def test_a_player_has_a_list_of_parameters(given: Any) -> None:
    assert Player("p", iter([WEIGHT])).parameters == (WEIGHT,)
    with pytest.raises(PhaseError, match="needs a list of parameters"):
        Player("p", given)


def test_the_phase_whose_loss_is_not_finite_is_named_and_a_move_is_looked_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls, checked, check = [], [], StepMonitor.check
    monkeypatch.setattr(StepMonitor, "check", lambda monitor, step: checked.append(step.step) or check(monitor, step))

    def spoiling(toy: Toy) -> list[Phase]:
        def loss(batch: Batch, rng: torch.Generator) -> Any:
            calls.append(len(calls))
            return (B * toy.weights).sum() * (math.nan if len(calls) == 3 else 1), {}

        player = toy.player()
        return [Phase("a", player, toy.down(A)), Phase("b", player, loss)]

    run = train(spoiling)
    warnings = [row["warning"] for row in run.log if "warning" in row]
    assert warnings and warnings[0].startswith("the loss of b is not finite")
    assert checked == [0, 1, 2, 0, 1, 3, 4, 5, 6, 7]


def test_a_start_without_room_is_shown_fewer_images_at_a_time() -> None:
    """And the batch of the training is not divided."""

    def phases(toy: Toy) -> list[Phase]:
        def start(batches: Any, seed: int) -> dict[str, float]:
            sizes = [len(batch.image) for batch in batches]
            if max(sizes) > 200:
                raise MemoryError
            return {"images": sum(sizes), "most": max(sizes)}

        return [Phase("a", toy.player(), toy.down(A), start=start)]

    run = train(phases)
    (row,) = [row for row in run.log if "a/images" in row]
    assert (row["a/images"], row["a/most"]) == (len(run.data.train), 125)
    warnings = [row["warning"] for row in run.log if "warning" in row]
    assert warnings == [f"out of memory: continuing with batches of {size}" for size in (250, 125)]
    assert read_checkpoint(list_checkpoints(run.path / "checkpoints")[-1]).values["pieces"] == 1


def test_a_player_may_have_no_momentum() -> None:
    run = train(lambda toy: [Phase("a", toy.player(optimizer="nadam", betas=(0.0, 0.9)), toy.down(A))])
    moved = run.model.weights - torch.tensor([0.3, -0.1, 0.2])  # the same gradient: the rate in each step
    assert torch.allclose(moved, -8 * 0.01 * A.sign(), rtol=1e-4)


def test_the_players_of_a_recipe_may_depend_on_its_settings() -> None:
    run = train(lambda toy: two_players(toy)[: 2 if toy.config.shape == (1, 8, 8) else 1], lr=None)
    assert run.config["training"]["lr"] == TrainConfig.model_fields["lr"].default


def test_a_state_lies_in_main_memory(device: torch.device) -> None:
    model = create("gan", shape=(1, 8, 8), seed=0).to(device)
    players = Players(model, TrainConfig(steps=1, ema_halflife_images=100), bf16=False)
    players.differentiate(players.all[0], [players.phases[0]], Batch(torch.rand(4, 1, 8, 8, device=device)))
    players.step(players.all[0], torch.ones((), device=device))
    tensors = players.state().tensors
    assert {"model", "ema", "optimizer-critic"} <= tensors.keys() and tensors["optimizer-critic"]
    assert all(tensor.device.type == "cpu" for group in tensors.values() for tensor in group.values())
    before = tensors["model"]["critic.body.0.weight"].clone()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1)
    assert torch.equal(tensors["model"]["critic.body.0.weight"], before)
