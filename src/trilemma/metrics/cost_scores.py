"""What drawing an image costs, as scores with receipts: time, network calls, operations, memory, energy, training."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from trilemma.errors import UserError
from trilemma.metrics import cost
from trilemma.metrics.catalogue import CATALOGUE, COST
from trilemma.metrics.intervals import Estimate
from trilemma.metrics.quality import Setup
from trilemma.metrics.receipt import Score, protocol_name, score_of
from trilemma.metrics.resources import peak_bytes
from trilemma.run.run import Run
from trilemma.team import in_first


def cost_scores(setup: Setup, spent: cost.Cost) -> Iterator[Score]:
    """Milliseconds and network calls per image."""
    unseen = "nothing went through the forward of the sampling network, so nothing was counted"
    calls = Estimate(spent.calls_per_image, spent.calls_interval) if spent.calls_per_image > 0 else unseen
    time = Estimate(spent.ms_per_image, spent.ms_interval) if spent.ms_interval else spent.ms_per_image
    for name, value, interval_is in zip(COST, (time, calls), (cost.TIME_IS, cost.CALLS_IS), strict=True):
        yield score_of(
            name,
            protocol_name(CATALOGUE[name].word, spent.device, f"batch{spent.batch}"),
            value,
            interval_is=interval_is,
            n_fake=setup.n,
            seed=setup.seed,
            used={"device": spent.device, "threads": str(torch.get_num_threads())},
            settings=setup.settings,
        )


def details_of_cost(
    setup: Setup,
    spent: cost.Cost,
    draw: Callable[[int, int], Tensor],
    network: nn.Module,
    device: torch.device,
    *,
    together: int,
    training_seconds: float | None = None,
) -> Iterator[Score]:
    """An image alone, its time and its operations; the quickest batch; the memory, the energy and the training. Of
    several processes the first measures, while the others wait.

    Args:
        draw: (first, count) -> images (count, C, H, W); network: with all that draws, on a device.
        together: images of a batch that are drawn at one time, which its memory depends on.
        training_seconds: where they are known.
    """

    def measure() -> list[Any]:
        one = cost.cost_of_one(draw, network, device)
        quickest = cost.quickest_batch(draw, device, {1: one.ms, spent.batch: spent.ms_per_image})
        return [one, quickest, peak_bytes(lambda: draw(0, together), device)]

    (ms, (low, high), flops), (batch, best), peak = in_first(setup.team, measure)
    batched = f"batch{spent.batch}"
    timed = {"device": spent.device, "threads": str(torch.get_num_threads())}
    further = {"ms_best_batch": {"best_batch": str(batch)}}
    values: list[tuple[str, Estimate | float | str | None, tuple[str, ...], str]] = [
        ("ms_one_image", Estimate(ms, (low, high)), (spent.device,), cost.ALONE_IS),
        ("ms_best_batch", best, (spent.device,), ""),
        ("flops_per_image", float(flops), (), ""),
        ("peak_memory_mb", peak / 1e6, (spent.device, batched), ""),
        ("joules_per_image", spent.joules_per_image, (spent.device, batched), ""),
        ("parameters", float(spent.parameters), (), ""),
        ("training_seconds", training_seconds, (), ""),
    ]
    for name, value, parts, interval_is in values:
        if value is not None:
            protocol = protocol_name(CATALOGUE[name].word, *parts)
            used = timed | further.get(name, {})
            yield score_of(
                name, protocol, value, interval_is=interval_is, seed=setup.seed, used=used, settings=setup.settings
            )


def training_seconds_of(run: Run) -> float | None:
    """Of a finished training whose summary can be read."""
    if run.unfinished:
        return None
    try:
        return run.seconds
    except UserError:
        return None
