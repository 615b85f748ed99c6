"""The figures by name: what each shows, what it needs, and the function that draws it."""

import inspect
import re
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

from pydantic import Field

from trilemma.config import Config, keywords_of, make
from trilemma.errors import UserError, unknown
from trilemma.lessons.adversarial_game import adversarial_game
from trilemma.lessons.adversarial_losses import adversarial_losses
from trilemma.lessons.augmented import augmented
from trilemma.lessons.beside import beside
from trilemma.lessons.beta import beta
from trilemma.lessons.bits import bits
from trilemma.lessons.calls import calls
from trilemma.lessons.critic_augment import critic_augment
from trilemma.lessons.few_calls import few_calls
from trilemma.lessons.guidance import guidance
from trilemma.lessons.gumbel import gumbel
from trilemma.lessons.jensen import jensen_gap
from trilemma.lessons.jensen_wasserstein import jensen_wasserstein
from trilemma.lessons.levels import levels
from trilemma.lessons.metric_faults import metric_faults, model_faults
from trilemma.lessons.mode_collapse import mode_collapse
from trilemma.lessons.noising import noising
from trilemma.lessons.pca import pca
from trilemma.lessons.penalty import kl_penalty_figure
from trilemma.lessons.predictions import predictions
from trilemma.lessons.schedules import schedules
from trilemma.lessons.score_field import score_field
from trilemma.lessons.slope_bounds import slope_bounds
from trilemma.lessons.solver_order import solver_order
from trilemma.lessons.sparse import sparse_units
from trilemma.lessons.spectrum import spectrum
from trilemma.lessons.styles import styles
from trilemma.modes import own_modes
from trilemma.pictures.png import read_metadata, receipt_for, save_png
from trilemma.results import claim, out_path
from trilemma.run.run import Run, as_run
from trilemma.values import checked_call

if TYPE_CHECKING:
    from PIL import Image


WIDEST = 41  # letters of a key with its default in the list of figures
LONGEST_NAME = 80  # letters of a picture's default name


class Lesson(NamedTuple):
    """what: one line; runs: what stands behind the name, as typed; draw: takes the runs, and keys by name."""

    what: str
    runs: str
    draw: "Callable[..., Image.Image]"


class Listed(NamedTuple):
    """A figure in a list: its name, what it shows, and what it needs, with its keys and their defaults."""

    name: str
    what: str
    needs: str


LESSONS = {
    "pca": Lesson("points, what a linear autoencoder makes of them, and the plane of PCA", "RUN of ae-linear", pca),
    "beside": Lesson(
        "the same held-out images through several models, as they are or with noise, and samples of each",
        "RUN RUN ...",
        beside,
    ),
    "sparse-units": Lesson(
        "activations of a sparse code, the mean of each unit, favourite images of some",
        "RUN of ae-sparse",
        sparse_units,
    ),
    "kl-penalty": Lesson("the KL penalty against L1 and L2, and their slopes", "nothing", kl_penalty_figure),
    "jensen-gap": Lesson(
        "a model with known log p(x): the gap of the ELBO, closed by more samples", "nothing", jensen_gap
    ),
    "beta": Lesson(
        "reconstruction and KL divergence for several weights beta; trains them if no runs are given",
        "nothing, or RUN RUN ... of different beta",
        beta,
    ),
    "gumbel": Lesson("draws of the Gumbel-softmax at several temperatures", "nothing", gumbel),
    "levels": Lesson("what each level adds to the divergence through the training", "RUN of vae-hierarchical", levels),
    "adversarial-game": Lesson(
        "generator and critic on points of a line, step by step, beside the best critic", "nothing", adversarial_game
    ),
    "adversarial-losses": Lesson(
        "the loss of critic and generator over logits, and the slope that the generator gets",
        "nothing",
        adversarial_losses,
    ),
    "jensen-wasserstein": Lesson(
        "distances of two lines without a common point, and the slopes they give", "nothing", jensen_wasserstein
    ),
    "slope-bounds": Lesson(
        "critics of two groups of points, and their slope under each bound", "nothing", slope_bounds
    ),
    "mode-collapse": Lesson("a ring of Gaussians, and what several losses reach of it", "nothing", mode_collapse),
    "styles": Lesson(
        "images crossed by the styles of two seeds, and drawn towards the average image", "RUN of gan-style", styles
    ),
    "critic-augment": Lesson("training images as a critic with critic_augment sees them", "nothing", critic_augment),
    "schedules": Lesson("beta, alpha_bar and log-SNR of the noise schedules, with a shift", "nothing", schedules),
    "noising": Lesson("an image at several noise levels, and back from the true and a wrong noise", "nothing", noising),
    "predictions": Lesson("what each prediction keeps of x_t, and how its error counts", "nothing", predictions),
    "spectrum": Lesson("what edm and wiener draw before a network has learned anything", "nothing", spectrum),
    "augmented": Lesson("a training image moved, and what a network is told of it", "nothing", augmented),
    "score-field": Lesson("the score of a mixture and the path of each sampler through it", "nothing", score_field),
    "solver-order": Lesson("error of each solver over network calls, with the measured order", "nothing", solver_order),
    "metric-faults": Lesson("images with one fault each, and how every metric moves with it", "nothing", metric_faults),
    "model-faults": Lesson(
        "classes, reconstructions and codes with one fault each, and how their metrics move with it",
        "nothing",
        model_faults,
    ),
    "calls": Lesson(
        "distance to real images against network calls, for several samplers", "RUN of a diffusion model", calls
    ),
    "guidance": Lesson(
        "precision, recall and images as asked over the guidance", "RUN of a diffusion model with classes", guidance
    ),
    "few-calls": Lesson("points of a mixture in few steps of a sampler, and in few jumps", "nothing", few_calls),
    "bits": Lesson("bits of a value by noise level, of estimates whose bound is known", "nothing", bits),
}


def list_figures() -> list[Listed]:
    """All figures, in the order of the pages."""
    return [Listed(name, lesson.what, _needs(lesson)) for name, lesson in LESSONS.items()]


@checked_call
@own_modes()
def figure(
    name: Annotated[str, Field(description="a figure (default: list them all)")],
    *runs: Annotated[Run | str | Path, Field(description="the runs it is drawn from")],
    out: Annotated[
        str | Path | None, Field(description="picture to write (default: chosen for you and printed)")
    ] = None,
    **keys: Any,
) -> Path:
    """Draw a figure of `list_figures()`.

    Args:
        runs: what it is drawn from, if it needs any.
        out: the picture to write; default: RUN/figure-NAME.png for a single run, else figures/NAME.png. The keys
            that differ from their defaults follow NAME, and -2, -3, ... where other runs have that name.
        keys: of this figure.
    Returns:
        The PNG file, which carries how it was made.
    Raises:
        UserError: an unknown figure or key, a value that does not fit, or runs that do not.
    """
    if name not in LESSONS:
        raise unknown("figure", name, LESSONS)
    lesson, opened = LESSONS[name], [as_run(run) for run in runs]
    settings = make(settings_of(lesson), keys)
    try:
        inspect.signature(lesson.draw).bind(*opened)
    except TypeError:
        raise UserError(f"the figure {name} is drawn from {lesson.runs}; runs given: {len(opened)}") from None
    receipt = receipt_for("figure", figure=name, runs=[run.origin for run in opened], **settings.to_json())
    path = _default_path(opened, receipt, settings) if out is None else out_path(out)
    claim([path], within=opened[0].path if out is None and len(opened) == 1 else path.parent)
    return save_png(lesson.draw(*opened, **dict(settings)), path, receipt)


def _default_path(runs: list[Run], receipt: dict[str, Any], settings: Config) -> Path:
    """Where a picture made so is written: over one made in the same way, never over another."""
    fields = type(settings).model_fields
    other = {key: value for key, value in settings if value != fields[key].default}
    stem = "-".join([receipt["figure"], *(f"{key}-{_typed(value)}" for key, value in other.items())])
    stem = re.sub(r"[^\w.]+", "-", stem)[:LONGEST_NAME]
    folder, stem = (runs[0].path, f"figure-{stem}") if len(runs) == 1 else (Path("figures"), stem)
    for number in count(1):
        path = folder / f"{stem if number == 1 else f'{stem}-{number}'}.png"
        try:
            if _subject(read_metadata(path)) == _subject(receipt):
                return path
        except UserError:  # not found, or not ours and so not written over
            return path
    raise AssertionError  # count never ends


def _subject(receipt: dict[str, Any]) -> dict[str, Any]:
    """What a picture shows, whatever the version and the state of its runs."""
    entries = receipt.get("runs")
    runs = [run.get("run") for run in entries if isinstance(run, dict)] if isinstance(entries, list) else []
    return {key: value for key, value in receipt.items() if key != "trilemma"} | {"runs": runs}


def settings_of(lesson: Lesson) -> type[Config]:
    """The keys of a figure, as settings that are checked: its function's keywords."""
    return keywords_of(lesson.draw)


def _needs(lesson: Lesson) -> str:
    """What a figure is drawn from, and its keys with their defaults as they are typed, of a list the first few."""
    keys = " ".join(_shortened(f"{key}={_typed(f.default)}") for key, f in settings_of(lesson).model_fields.items())
    return f"{lesson.runs}; keys: {keys}" if keys else lesson.runs


def _shortened(words: str) -> str:
    """A key with its default; of a list that no narrow terminal could wrap the first few, and "..."."""
    while len(words) > WIDEST:
        words = words.removesuffix(",...").rpartition(",")[0] + ",..."
    return words


def _typed(value: Any) -> str:
    """A default as it is typed."""
    if isinstance(value, tuple):
        return ",".join(map(_typed, value))
    return "none" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
