"""What a network call buys: how far the samples of a run are from real images, and what share of these they recall, for
several samplers and numbers of calls: the trilemma's quality and diversity against its speed.

Beside them, how far a sampler without noise is from the image that it would give with many more calls, from the same
noise: the error of the solver alone, which does not depend on how well the network was trained."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

from pydantic import Field, PositiveInt
from torch import Tensor

from trilemma.diffusion.samplers import ALWAYS_RANDOM, calls_of, steps_for
from trilemma.errors import UserError
from trilemma.keys import OneOrMore
from trilemma.lessons.held_out import rmse
from trilemma.metrics import neighbours
from trilemma.metrics.evaluate import setup_of
from trilemma.metrics.features import extract
from trilemma.metrics.frechet import frechet_distance, gaussian, refusal
from trilemma.metrics.intervals import Estimate, Spread
from trilemma.metrics.kernel import kernel_distance, similarity
from trilemma.metrics.quality import Setup
from trilemma.metrics.reals import choose_reals, real_images
from trilemma.pictures import plots
from trilemma.run.run import Run
from trilemma.types import Denoises

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from PIL import Image

SAMPLERS = ("ddpm", "ddim", "heun", "dpm++2m", "unipc")  # drawn where none are asked for, as far as the model has them
COMPARED = 64  # images behind an error


class Point(NamedTuple):
    """calls: of the network; distance: to real images; recall: of them, None for fewer than 12; error: RMSE to the
    images of many calls, None with noise."""

    calls: int
    distance: Estimate
    recall: Estimate | None
    error: float | None


class Distance(NamedTuple):
    """name: of the distance; distance: of features `fake` to the real images, with its spread; real: their features."""

    name: str
    distance: Callable[..., Spread]
    real: Tensor


def distance_of(setup: Setup) -> Distance:
    """The Frechet distance to the real images of a setup, or the kernel distance where there are too few for it."""
    real = extract(setup.network, real_images(setup.data, setup.split, setup.n, setup.seed))
    if refusal(setup.n, setup.n):
        return Distance("kernel distance", partial(kernel_distance, real=similarity(real)), real)
    return Distance("Frechet distance", partial(frechet_distance, real=gaussian(real)), real)


def calls(
    run: Run,
    *,
    numbers: OneOrMore[PositiveInt] = (5, 10, 20, 50),
    samplers: OneOrMore[str] | None = None,
    n: Annotated[int, Field(ge=3)] | None = None,
    reference: PositiveInt = 200,
    seed: int = 0,
) -> "Image.Image":
    """Distance to real images, their recall, and error of the solver, over the network calls for an image.

    Args:
        numbers: of network calls; heun takes the odd number below an even one.
        samplers: default: ddpm, ddim, heun, dpm++2m and unipc, as far as the model has them.
        n: images on either side; default: as many as there are, at most 2,500. Below 2,048 the distance is the kernel
            distance.
        reference: calls behind the images that errors are against, by the last sampler that adds no noise.
        seed: of the images.
    """
    run.require("denoise", Denoises)
    names = samplers or [name for name in SAMPLERS if _takes(run, name)]
    split, n = choose_reals(run.data, n)
    setup = setup_of(run.data, split, n, seed=seed)
    measured_by = distance_of(setup)
    noiseless = [name for name in names if name not in ALWAYS_RANDOM] or ["ddim"]
    exact = draw(run, noiseless[-1], reference, min(n, COMPARED), seed)
    lines = {}
    for name in names:
        lines[name] = [measure(run, name, calls, setup, measured_by, exact) for calls in sorted(set(numbers))]
    return _page(lines, measured_by.name, f"{n:,} images, {setup.network.name}", reference)


def draw(run: Run, sampler: str, calls: int, n: int, seed: int) -> Tensor:
    """Images of a run by a sampler in as many steps as make so many calls, or just fewer."""
    return run.sample(n, seed=seed, sampler=sampler, steps=steps_for(sampler, calls))


def measure(run: Run, sampler: str, calls: int, setup: Setup, measured_by: Distance, exact: Tensor) -> Point:
    """What a sampler reaches in so many calls."""
    images = draw(run, sampler, calls, setup.n, setup.seed)
    fake = extract(setup.network, images)
    few = neighbours.refusal(setup.n)
    recall = None if few else neighbours.neighbour_scores(real=measured_by.real, fake=fake)["recall"].estimate()
    error = None if sampler in ALWAYS_RANDOM else rmse(images[: len(exact)], exact)
    made = calls_of(sampler, steps_for(sampler, calls))
    return Point(made, measured_by.distance(fake=fake).estimate(), recall, error)


def _takes(run: Run, sampler: str) -> bool:
    """Whether the model has that sampler."""
    try:
        run.sampling({"sampler": sampler}, run.sample)
    except UserError:
        return False
    return True


def _page(lines: Mapping[str, Sequence[Point]], distance: str, measured_on: str, reference: int) -> "Image.Image":
    from matplotlib.ticker import LogLocator

    asked = [max(point.calls for point in points) for points in zip(*lines.values(), strict=True)]
    figure, (quality, diversity, errors) = plots.row_of_plots(3, width=13.0, height=3.8)
    for k, (name, points) in enumerate(lines.items()):
        look: dict[str, Any] = {"marker": plots.style(k)[1], "markersize": 4, "label": name, **plots.line_style(k)}
        at, exact = [point.calls for point in points], [p.error for p in points if p.error is not None]
        plot_with_intervals(quality, at, [point.distance for point in points], look)
        plot_with_intervals(diversity, at, [point.recall for point in points if point.recall], look)
        if exact:
            errors.plot(at, exact, **look)
    for ax in (quality, errors):
        if ax.dataLim.y0 > 0:  # a kernel distance may be negative
            ax.set_yscale("log")
            ax.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    for ax in (quality, diversity, errors):
        ax.set_xscale("log")
        ax.set_xticks(asked, [f"{number:,}" for number in asked])
        ax.yaxis.set_major_formatter("{x:g}")
        ax.minorticks_off()
        ax.grid(color="0.9", linewidth=0.6)
    quality.legend(fontsize=8, frameon=False)
    plots.label_axes(quality, f"{distance} ({measured_on})", "network calls per image")
    plots.label_axes(diversity, "recall", "network calls per image")
    plots.label_axes(errors, f"RMSE to the image of {reference:,} calls from the same noise", "network calls per image")
    return plots.pixels(figure)


def plot_with_intervals(ax: "Axes", at: Sequence[float], values: Sequence[Estimate], look: Mapping[str, Any]) -> None:
    """Values over x, and their intervals."""
    if values:
        low, high = zip(*(one.interval for one in values), strict=True)
        ax.plot(at, [one.value for one in values], **look)
        ax.fill_between(at, low, high, color=look["color"], alpha=0.12, linewidth=0)
