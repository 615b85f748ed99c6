"""Toy models whose number of network calls is known."""

import statistics
import time
from types import SimpleNamespace

import pytest
import torch
from threads import in_threads
from torch import nn

from trilemma.config import make
from trilemma.metrics.cost import (
    BUDGET_S,
    LEAST_TURNS,
    REPEATS,
    cost_of_one,
    counted_rows,
    draw_with_cost,
    quickest_batch,
    time_in_turns,
)
from trilemma.metrics.cost_scores import details_of_cost
from trilemma.metrics.quality import Setup
from trilemma.nets.attention import Attention
from trilemma.types import draw, keys_of


class Guided(nn.Module):
    """Three guided steps: a call of the network on twice the rows each, and a decoder that is not counted."""

    def __init__(self, seconds=0.0):
        super().__init__()
        self.sampling_network = nn.Linear(4, 4)  # 20 parameters
        self.decoder = nn.Linear(4, 4)
        self.seconds = seconds
        self.draws = []

    def sample(self, n, *, seed, first=0, condition=None, steps=3):
        self.draws.append((first, n))
        time.sleep(self.seconds)
        x = torch.zeros(n, 4)
        for _ in range(steps):
            x = self.sampling_network(torch.cat([x, x]))[:n]
        return self.decoder(x).sigmoid().reshape(n, 1, 2, 2)


def draw_from(model, **settings):
    return lambda first, count: model.sample(count, seed=0, first=first, **settings)


@pytest.mark.parametrize(("n", "batch"), [(10, 4), (8, 8), (3, 64), (1, 1)])
def test_calls_are_counted(n, batch):
    model = Guided()
    images, cost = draw_with_cost(draw_from(model), model, n, batch=batch)
    assert images.shape == (n, 1, 2, 2)
    assert cost.calls_per_image == 6
    assert cost.calls_interval == (6, 6)
    assert (cost.parameters, cost.sampling_parameters) == (40, 20)


def test_settings_reach_the_sampler():
    model = Guided()
    keys = make(keys_of(model), {"steps": 5})
    _, cost = draw_with_cost(lambda first, n: draw(model, n, seed=0, first=first, keys=keys), model, 4, batch=4)
    assert cost.calls_per_image == 10


def test_images_are_numbered_through():
    model = Guided()
    draw_with_cost(draw_from(model), model, 10, batch=4)
    assert model.draws[:3] == [(0, 4), (4, 4), (8, 2)]
    assert set(model.draws[3:]) == {(0, 4)}, "repeats for the timing draw the first batch again"


def test_time_per_image():
    """A batch of 5 that sleeps 10 ms takes 2 ms per image; one more for what else the machine does."""
    model = Guided(seconds=0.01)
    _, cost = draw_with_cost(draw_from(model), model, 5, batch=5)
    assert 2 <= cost.ms_per_image < 4
    assert cost.ms_interval[0] <= cost.ms_per_image <= cost.ms_interval[1]
    assert cost.repeats == REPEATS


def test_slow_models_are_not_repeated(monkeypatch):
    """Once the budget is spent nothing more is drawn for timing alone; one time has no interval."""
    monkeypatch.setattr("trilemma.metrics.cost.BUDGET_S", 0.0)
    model = Guided()
    _, cost = draw_with_cost(draw_from(model), model, 4, batch=4)
    assert model.draws == [(0, 4)]
    assert cost.repeats == 1
    assert cost.ms_interval is None
    assert BUDGET_S > 0


def test_several_processes_are_timed_by_the_first_alone(monkeypatch):
    """Each draws its two batches; then process 0 draws one again, REPEATS times and once to warm up."""
    monkeypatch.setattr("trilemma.metrics.cost.REPEATS", 3)
    calls = []

    def run(team):
        model = Guided()

        def draw(first, count):
            calls.append((team.rank, first, count))
            return model.sample(count, seed=0, first=first)

        return draw_with_cost(draw, model, 8, batch=2, team=team)

    (images, cost), (others, other) = in_threads(2, run)
    assert torch.equal(images, others) and cost == other
    assert cost.repeats == 3 and cost.calls_per_image == 6
    assert [call[1:] for call in calls if call[0] == 0] == [(0, 2), (2, 2), *[(0, 2)] * 4]
    assert [call[1:] for call in calls if call[0] == 1] == [(4, 2), (6, 2)]
    assert calls[4:] == [(0, 0, 2)] * 4  # nobody else draws meanwhile


def test_details_of_several_processes_are_those_of_the_first(monkeypatch):
    data = SimpleNamespace(fingerprint="0")
    monkeypatch.setattr("trilemma.metrics.cost.BUDGET_S", 0.01)
    ranks = []

    def run(team):
        model = Guided()

        def draw(first, count):
            ranks.append(team.rank)
            return model.sample(count, seed=0, first=first)

        _, spent = draw_with_cost(draw, model, 4, batch=2, team=team)
        drawn = len(ranks)
        setup = Setup(data, "test", False, None, 4, 0, team=team)
        scores = list(details_of_cost(setup, spent, draw, model, torch.device("cpu"), together=2))
        assert set(ranks[drawn:]) <= {0}
        return {score.name: score.value for score in scores}

    first, second = in_threads(2, run)
    assert first == second and first["ms_one_image"] > 0 and first["peak_memory_mb"] > 0


def test_hook_is_removed():
    network = nn.Linear(2, 2)
    with counted_rows(network) as rows:
        network(torch.zeros(3, 2))
        network(input=torch.zeros(4, 2))
    network(torch.zeros(5, 2))
    assert rows.total == 7
    with pytest.raises(ValueError, match="stop"), counted_rows(network):
        raise ValueError("stop")
    assert not network._forward_pre_hooks


def test_models_are_timed_in_turns():
    """A batch of each after the other, so that a slow minute hits all alike."""
    models, order = [Guided(seconds=0.0), Guided(seconds=0.004)], []

    def draw(k):
        return lambda first, count: order.append((k, first, count)) or models[k].sample(count, seed=0, first=first)

    times = time_in_turns([(draw(k), torch.device("cpu")) for k in (0, 1)], batch=4, turns=5)
    timed = [k for k, _, count in order if count == 4]
    assert order == [(k, 0, count) for k in timed for count in (1, 4)]  # one image to warm up
    assert [sorted(timed[i : i + 2]) for i in range(0, 10, 2)] == [[0, 1]] * 5
    assert timed != [0, 1] * 5  # nobody always follows the same model
    assert [len(own) for own in times] == [5, 5]
    assert all(ms >= 1 for ms in times[1])  # 4 ms for 4 images
    assert statistics.median(times[0]) < statistics.median(times[1])


def test_slow_turns_are_few(monkeypatch):
    monkeypatch.setattr("trilemma.metrics.cost.TURNS_S", 0.0)
    model = Guided()
    (times,) = time_in_turns([(draw_from(model), torch.device("cpu"))], batch=2)
    assert len(times) == LEAST_TURNS and model.draws == [(0, 1), (0, 2)] * LEAST_TURNS
    assert time_in_turns([]) == []


def test_the_operations_of_an_image_are_those_of_its_products():
    """Three calls on two rows of 4 numbers and the decoder on one: 2 x 4 x 4 for each row."""
    model = Guided(seconds=0.01)
    result = cost_of_one(draw_from(model), model, torch.device("cpu"))
    assert result.flops == (3 * 2 + 1) * 2 * 4 * 4
    assert result.ms_interval[0] <= result.ms <= result.ms_interval[1] and result.ms >= 10
    attention = Attention(8, 2)
    assert cost_of_one(lambda first, n: attention(torch.zeros(n, 5, 8)), attention, torch.device("cpu")).flops == (
        2 * 5 * 8 * 24 + 2 * 5 * 8 * 8 + 2 * 2 * (5 * 5 * 8)  # both linear layers, and two products of each head
    )
    assert {n for _, n in model.draws} == {1} and LEAST_TURNS < len(model.draws) <= REPEATS + 1


def test_the_quickest_batch_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """A draw of 1 ms and 0.1 ms an image, by a clock of its own: the more together, the quicker each; a batch that
    takes too long is left out."""
    drawn, seconds = [], [0.0]

    def draw_slowly(first: int, count: int) -> torch.Tensor:
        drawn.append(count)
        seconds[0] += 0.001 + 0.0001 * count
        return torch.zeros(count, 1, 2, 2)

    monkeypatch.setattr("trilemma.metrics.cost._now", lambda device: seconds[0])
    batch, ms = quickest_batch(draw_slowly, torch.device("cpu"), {1: 1.1})
    assert batch == 256 and drawn == [k for k in (4, 16, 64, 256) for _ in range(4)]
    assert ms == pytest.approx((1 + 0.1 * 256) / 256, rel=1e-9)
    drawn.clear()
    assert quickest_batch(draw_slowly, torch.device("cpu"), {1: 0.01, 64: 1e4}) == (1, 0.01) and 64 not in drawn
    drawn.clear()
    quickest_batch(draw_slowly, torch.device("cpu"), {1: 1000 * BUDGET_S / 10})
    assert not drawn  # 4 x 4 images would take longer than the budget
