"""Cost of sampling: milliseconds and network calls per image.

Several batches are drawn; the time of an image is the median over the batches, so that one disturbed batch does not
move it. Interval: the order statistics that hold the median with at least 95% (binomial with p = 1/2), smallest and
largest where there are fewer than 6. Calls are rows through the forward of the sampling network, and of the networks
that guide it, counted by a hook, over images made: a guided step counts 2, an image decoded in one pass counts 1.

Models that are compared with each other are timed in turns, a batch of each, so that a slow minute of the machine hits
all alike, and in batches of one size, because the time of an image depends on it.
"""

import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from trilemma import rng
from trilemma.metrics.features import to_levels
from trilemma.metrics.intervals import median_interval
from trilemma.metrics.resources import EnergyMeter
from trilemma.modes import without_gradients
from trilemma.registry import count_parameters
from trilemma.team import ALONE, Team, by_batches, in_first
from trilemma.types import NO_GUIDES, Guides, Samples, sampling_network

REPEATS = 20  # timed batches wanted, within BUDGET_S
BUDGET_S = 2.0  # seconds after which no batch is drawn for timing alone
BATCH = 64  # images drawn at a time where models are compared
BATCHES = (4, 16, 64, 256)  # images drawn together, of which one is the quickest
LEAST_TURNS, TURNS_S = 3, 10.0  # turns at least, and seconds after which there is no further one
ALONE_IS = "95% for the median over the draws, from their order; the range where there are fewer than 6"
TIME_IS = "95% for the median over batches, from their order; the range where there are fewer than 6 batches"
CALLS_IS = "the range over the batches; counted, not estimated"


@dataclass(frozen=True)
class Cost:
    """What an image costs, on `device`, in batches of `batch`, over `repeats` batches after warming up."""

    ms_per_image: float
    ms_interval: tuple[float, float] | None  # None where a single batch was timed
    calls_per_image: float
    calls_interval: tuple[float, float]
    parameters: int  # of the whole model
    sampling_parameters: int  # of the network that sampling calls
    device: str
    batch: int
    repeats: int
    joules_per_image: float | str  # of the processors or of the GPU; or why it is not known


class CostOfOne(NamedTuple):
    """Milliseconds of an image that is drawn alone, with their interval, and the operations of its matrix products,
    convolutions and attention, a multiplication and an addition counted as two; those of recurrent layers are not in
    it."""

    ms: float
    ms_interval: tuple[float, float]
    flops: int


def draw_with_cost(
    draw: Callable[[int, int], Tensor],
    model: Samples,
    n: int,
    *,
    batch: int,
    guides: Guides = NO_GUIDES,
    team: Team = ALONE,
) -> tuple[Tensor, Cost]:
    """Draw n images in batches and measure on the way.

    Full batches are timed; where they are too few, the first is drawn again, at most BUDGET_S seconds long. The first
    of several times is left out as warming up.

    Args:
        draw: (first, count) -> images (count, C, H, W).
        model: what is drawn from, a module; guides: what guides it from outside; team: the processes that divide the
            batches.
    Returns:
        The images, uint8 (n, C, H, W), and their cost: calls of those that this process drew; time and energy, where
        several processes drew, of batches that process 0 draws again while the others wait.
    """
    assert isinstance(model, nn.Module)
    network = sampling_network(model)
    numbers = (count_parameters(model), count_parameters(network))
    device = next(model.parameters()).device
    networks = [network, *guides.networks]
    return draw_timed(draw, n, batch=batch, device=device, networks=networks, parameters=numbers, team=team)


def draw_timed(
    draw: Callable[[int, int], Tensor],
    n: int,
    *,
    batch: int,
    device: torch.device,
    networks: Sequence[nn.Module],
    parameters: tuple[int, int],
    team: Team = ALONE,
) -> tuple[Tensor, Cost]:
    """As `draw_with_cost`, of anything that draws.

    Args:
        networks: whose calls are counted; parameters: of all that draws, and of the network that sampling calls.
    """
    batch = min(batch, n)
    seconds, counts, calls = list[float](), list[int](), list[float]()
    energy = EnergyMeter(device)

    def timed(first: int, count: int) -> Tensor:
        before, start = rows.total, _now(device)
        drawn = draw(first, count)
        seconds.append(_now(device) - start)
        counts.append(count)
        calls.append((rows.total - before) / count)
        return to_levels(drawn)

    with counted_rows(*networks) as rows:
        images = by_batches(team, n, batch, timed)
    calls_per_image = rows.total / sum(counts)
    if team.size == 1:
        joules = energy.joules_per(n)
        seconds = _timed_batches(draw, batch, device, seconds[: n // batch])  # not of a smaller last one
    else:  # they disturbed each other
        seconds, joules = in_first(team, lambda: _timed_alone(draw, batch, device))
    times = [1000 * s / batch for s in seconds[1:] or seconds]
    return images, Cost(
        ms_per_image=statistics.median(times),
        ms_interval=median_interval(times) if len(times) > 1 else None,
        calls_per_image=calls_per_image,
        calls_interval=(min(calls), max(calls)),
        parameters=parameters[0],
        sampling_parameters=parameters[1],
        device=device.type,
        batch=batch,
        repeats=len(times),
        joules_per_image=joules,
    )


def _timed_batches(
    draw: Callable[[int, int], Tensor], batch: int, device: torch.device, known: Sequence[float] = ()
) -> list[float]:
    """Seconds of full batches: those known, and more, up to REPEATS after the first within BUDGET_S; at least one."""
    seconds = list(known)
    while not seconds or (len(seconds) <= REPEATS and sum(seconds) < BUDGET_S):
        start = _now(device)
        draw(0, batch)
        seconds.append(_now(device) - start)
    return seconds


def _timed_alone(
    draw: Callable[[int, int], Tensor], batch: int, device: torch.device
) -> tuple[list[float], float | str]:
    """Seconds of full batches, and joules of an image of them, or why these are not known."""
    energy, seconds = EnergyMeter(device), _timed_batches(draw, batch, device)
    return seconds, energy.joules_per(len(seconds) * batch)


def quickest_batch(
    draw: Callable[[int, int], Tensor], device: torch.device, measured: Mapping[int, float]
) -> tuple[int, float]:
    """How many images are best drawn together, and milliseconds per image then: of BATCHES, and of what was measured,
    ms by batch. Each is drawn once to warm up; its time is the median of LEAST_TURNS more. A batch of which that would
    take longer than BUDGET_S, by those before it, is not tried.

    Args:
        draw: (first, count) -> images (count, C, H, W).
    """
    times = dict(measured)
    for batch in BATCHES:
        if batch not in times and (LEAST_TURNS + 1) * batch * min(times.values()) <= 1000 * BUDGET_S:
            draw(0, batch)
            starts = [_now(device)]
            for _ in range(LEAST_TURNS):
                draw(0, batch)
                starts.append(_now(device))
            times[batch] = 1000 * statistics.median(b - a for a, b in pairwise(starts)) / batch
    return min(times.items(), key=lambda item: item[1])


def cost_of_one(draw: Callable[[int, int], Tensor], model: nn.Module, device: torch.device) -> CostOfOne:
    """What one image costs that is drawn alone.

    Args:
        draw: (first, count) -> images (count, C, H, W), by the model.
    """
    from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

    def attention(q: Any, k: Any, v: Any, *_: Any, **__: Any) -> int:
        return sdpa_flop_count(q, k, v)

    own = {torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: attention}  # which torch does not count
    # warms up, too; the counter fails where a module is given a view of a parameter that takes gradients
    with without_gradients(model), FlopCounterMode(display=False, custom_mapping=own) as counter:
        draw(0, 1)
    begin, times = _now(device), list[float]()
    while len(times) < LEAST_TURNS or (len(times) < REPEATS and _now(device) - begin < BUDGET_S / 2):
        start = _now(device)
        draw(0, 1)
        times.append(1000 * (_now(device) - start))
    return CostOfOne(statistics.median(times), median_interval(times), counter.get_total_flops())


def time_in_turns(
    draws: Sequence[tuple[Callable[[int, int], object], torch.device]], *, batch: int = BATCH, turns: int = REPEATS
) -> list[tuple[float, ...]]:
    """Milliseconds per image of several models in each turn, each turn in an order of its own.

    Args:
        draws: of each model, what draws images by (first, count), and the device it draws on.
        batch: images drawn at a time.
        turns: at most; fewer, but LEAST_TURNS, where they take longer than TURNS_S.
    """
    times: list[list[float]] = [[] for _ in draws]
    begin = time.perf_counter()
    for turn in range(turns):
        if turn >= LEAST_TURNS and time.perf_counter() - begin >= TURNS_S:
            break
        for k in rng.permutation(len(draws), turn, "turns").tolist():
            draw, device = draws[k]
            draw(0, 1)  # what the model before it left in the processor's caches is not its concern
            start = _now(device)
            draw(0, batch)
            times[k].append(1000 * (_now(device) - start) / batch)
    return [tuple(own) for own in times]


class Rows:
    """Rows that went through a network."""

    total = 0


@contextmanager
def counted_rows(*networks: nn.Module) -> Iterator[Rows]:
    """Inside, every forward of the networks adds the rows of its first tensor to the count."""
    rows = Rows()

    def add(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        rows.total += next((len(a) for a in (*args, *kwargs.values()) if isinstance(a, Tensor) and a.ndim), 1)

    handles = [network.register_forward_pre_hook(add, with_kwargs=True) for network in networks]
    try:
        yield rows
    finally:
        for handle in handles:
            handle.remove()


def _now(device: torch.device) -> float:
    """Seconds, when everything asked of the device so far is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
    return time.perf_counter()
