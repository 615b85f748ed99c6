"""Everything the package measures of a model or of a set of images, in one call, each figure with its receipt."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Annotated, Any, Literal

from pydantic import Field
from torch import Tensor

from trilemma.classifiers.bundled import FeatureNetwork
from trilemma.config import Config
from trilemma.data import Data, load_data
from trilemma.data.load import Source
from trilemma.errors import UserError, named
from trilemma.keys import BatchSize, Inverted, Prompt, Resize, Seed
from trilemma.metrics import frechet
from trilemma.metrics.controls import Control, Reference, learned_nothing, reference_of, spreads_of
from trilemma.metrics.drawing import DrawnImages, drawn_by, drawn_by_pipeline, drawn_by_run
from trilemma.metrics.feature_cache import cached_features
from trilemma.metrics.features import extract, feature_network
from trilemma.metrics.intervals import Spread
from trilemma.metrics.quality import Setup, details, quality, quality_scores
from trilemma.metrics.reals import FEWEST, caveats, choose_reals, real_notes, role_of
from trilemma.metrics.receipt import METRICS, Score, claim_scores, write_score
from trilemma.metrics.reconstruction import check_inverted
from trilemma.modes import own_modes
from trilemma.pretrained.table import pipeline_name
from trilemma.ranks import connected_ranks, current_team
from trilemma.run.contestant import Contestant, ImageSet, Thing, contestant_of, images_to_measure, is_images
from trilemma.run.run import Run
from trilemma.run.text_to_image import TextToImage
from trilemma.team import by_writer, check_same, in_turn, together
from trilemma.types import BoundsByPath, Inverts, Reconstructs, Upscales
from trilemma.values import checked_call, shown


@dataclass(frozen=True)
class Evaluation:
    """Scores of a set of generated images.

    fakes: the images, uint8 (n, C, H, W); features: theirs, float64 (n, D); spreads: how the scores of images scatter,
    by name, as far as it is known; reference: the real images' features and the controls, for further evaluations by
    the same real images; learned_nothing: a sentence where the mean image, static or one image repeated is as good.
    """

    scores: tuple[Score, ...]
    fakes: Tensor = field(repr=False)
    features: Tensor = field(repr=False)
    notes: tuple[str, ...]
    spreads: dict[str, Spread] = field(repr=False)
    reference: Reference = field(repr=False)
    learned_nothing: str | None

    @property
    def controls(self) -> tuple[Control, ...]:
        """The scores of images whose quality is known."""
        return self.reference.controls

    def __getitem__(self, name: str) -> Score:
        """The score of that name."""
        return named("score", name, {score.name: score for score in self.scores})


@checked_call
@own_modes()
@connected_ranks()
def evaluate(
    what: Annotated[
        Thing, Field(description="a run folder, a folder or zip of generated images, or pipeline:NAME as of imagine")
    ],
    *,
    against: Annotated[Source | None, Field(description="real images (default: the data of the run)")] = None,
    n: Annotated[
        int | None, Field(description="number of generated images (default: as many as real ones, up to 2,500)")
    ] = None,
    features: Annotated[
        str | FeatureNetwork, Field(description="network that extracts features; auto: the one that fits the data")
    ] = "auto",
    split: Annotated[
        str | None,
        Field(description="split of the real data: test, valid or train (default: held-out images if there are any)"),
    ] = None,
    size: Annotated[
        int | str | tuple[int, int] | None,
        Field(
            description="resize images of both sides to this, px: 32, or 48x64 (height x width) (default: their "
            "own up to 256); of a pipeline, the size it draws at"
        ),
    ] = None,
    seed: Seed = 0,
    batch: BatchSize = 256,
    bound_samples: Annotated[
        int, Field(ge=0, description="codes, or noise levels, per image for the likelihood bound; 0: do not compute it")
    ] = 50,
    bound_images: Annotated[
        int | None, Field(ge=2, description="images to compute it on, at most (default: 1000, or 200 for diffusion)")
    ] = None,
    likelihood: Annotated[
        Literal["bound", "flow"], Field(description="of a diffusion model: a bound, or by its probability-flow path")
    ] = "bound",
    inverted: Inverted = 0,
    prompt: Prompt = None,
    reference: Reference | None = None,
    **settings: Any,
) -> Evaluation:
    """Measure whatever draws images, a run, or a folder or zip of images, against real images. Processes that torchrun
    has started divide the drawing and the features; the first one writes.

    Args:
        what: also images in memory: an array, a tensor or loaded data.
        against: the real data (default: the run's own, or those of the reference).
        n: images on either side (default: as many as there are, at most N_DEFAULT).
        features: "auto", the name of a bundled feature network, or a network of your own.
        split: default: as `choose_reals` says.
        size: default: that of the real images, up to 256 px on the longer side. A run draws in its own, in which the
            real images are read; a pipeline draws at this one, and its images are scaled to that of the real ones.
        seed: of the generated images, and of which real images are taken.
        batch: images drawn at a time; the time per image is for this batch.
        inverted: as many images come back through codes that are searched, as `invert` does.
        reference: that of an earlier evaluation by the same real images, which are not read again then.
        prompt: of a pipeline: what its images show, with {} for the caption or the class of a real image.
        settings: of the run's sampler (steps, ...); of a pipeline steps, guidance, negative and scheduler.
    Returns:
        Frechet distance (refused below 2,048 images), kernel distance (below 3), density, coverage, precision, recall
        (below 12), and the same of controls; the Frechet distance extrapolated to infinitely many images, and the
        Inception Score; for a run also the cost, bounds on the likelihood and how near images come back, and every
        score is written to metrics/<protocol>.json in its folder.
    Raises:
        UserError: if the model cannot sample, or has no likelihood of the kind asked for, its images are not finite,
            there are too few images, or a file of ours holds several; a pipeline is not found, or is not told what to
            draw.
    """
    if against is None and reference is None and is_images(what):
        raise _no_real_data(shown(what))  # before the images are read
    team, keys = current_team(), Config()
    contestant = together(team, lambda: contestant_of(what, size))
    run = contestant if isinstance(contestant, Run) else None
    if run is not None:
        keys = together(team, lambda: run.sampling(settings, evaluate))
        settings = keys.given()
        folder = run.path / METRICS
        by_writer(team, lambda: claim_scores(folder))
    _check_size(run, size)
    _check_likelihood(run, likelihood, bound_samples)
    _check_inverted(run, inverted)
    pipeline = contestant if isinstance(contestant, TextToImage) else None
    if pipeline is not None and size is not None:
        settings, size = {**settings, "size": size}, None
    check_prompt(prompt, [contestant])
    data = in_turn(team, lambda: _real_data(contestant, against, reference, size))
    check_same(team, data.fingerprint, "real images")
    if isinstance(contestant, ImageSet):
        contestant = in_turn(team, partial(contestant.in_shape, data.shape))
    own = reference.setup.own if reference else run is not None and data.fingerprint == run.config["fingerprint"]
    split, n = choose_reals(data, n, split=split, n_fake=contestant.count, own=own, least=FEWEST)
    if pipeline is not None:
        contestant = pipeline = pipeline.prepared(data, split, prompt, settings)
        settings = pipeline.settings
    if reference is not None and features == "auto":
        features = reference.setup.network
    setup = setup_of(data, split, n, features=features, own=own, seed=seed)
    setup = replace(setup, settings=settings, team=team)
    reference = reference_of(setup, reference)
    if pipeline is not None:
        return _evaluation(setup, drawn_by_pipeline(pipeline, setup, batch), reference)
    if run is None:
        return _evaluation(setup, drawn_by(contestant, setup, batch), reference)
    bounds = {"samples": bound_samples, "n": bound_images, "by": likelihood}
    drawn = drawn_by_run(run, setup, keys, batch, inverted, reference, **bounds)
    evaluation = _evaluation(setup, drawn, reference, own=own)
    by_writer(team, lambda: [write_score(folder, score) for score in evaluation.scores])
    return evaluation


def _check_size(run: Run | None, size: Resize) -> None:
    """Raises UserError where a size is asked for and the model has its own."""
    if run is not None and size is not None:
        raise UserError(f"size={shown(size)}: {run.recipe.name} is measured in the size that it draws; leave size out")


def _check_likelihood(run: Run | None, likelihood: str, samples: int) -> None:
    """Raises UserError for a kind of likelihood that is asked for and cannot be computed."""
    if likelihood == "bound":
        return
    if run is None:
        raise UserError(f"likelihood={likelihood}: images have no likelihood; give a run, or leave it out")
    if samples < 2:
        raise UserError(
            f"likelihood={likelihood} with bound_samples={samples}: a path has at least 2 points; give more, such as 50"
        )
    run.require(f"take likelihood={likelihood}", BoundsByPath)


def _check_inverted(run: Run | None, inverted: int) -> None:
    """Raises UserError where codes are to be searched and there is nothing to search them by."""
    check_inverted(inverted)
    if inverted and run is None:
        raise UserError(f"inverted={inverted}: images have no codes; give a run, or leave it out")
    if inverted and run is not None and isinstance(run.model, Upscales):
        raise UserError(
            f"inverted={inverted}: {run.recipe.name} draws from smaller images, too, so that noise alone is not a "
            "code; leave it out"
        )
    if inverted and run is not None and not isinstance(run.model, Reconstructs):
        run.require(f"take inverted={inverted}", Inverts)


def _real_data(contestant: Contestant, against: Source | None, reference: Reference | None, size: Resize) -> Data:
    """The real data: as asked for, else those of the reference, else the run's own."""
    if against is not None and isinstance(contestant, Run):
        channels, height, width = contestant.shape
        return load_data(against, size=(height, width), channels=channels)
    if against is not None:
        return images_to_measure(against, size)
    if reference is not None:
        return reference.setup.data
    if isinstance(contestant, Run):
        return contestant.data
    raise _no_real_data(contestant.name)


def _no_real_data(name: str) -> UserError:
    what = "draws" if pipeline_name(name) is not None else "holds"
    return UserError(f"{name} {what} images; add what to measure them against, for instance against=fashion-mnist")


def check_prompt(prompt: str | None, contestants: Iterable[Contestant | None]) -> None:
    """Raises UserError where prompts are given and nothing draws by them."""
    if prompt is not None and not any(isinstance(one, TextToImage) for one in contestants):
        raise UserError(f'prompt="{prompt:.40}" is what a pipeline draws; give pipeline:NAME, or leave it out')


def setup_of(
    data: Data, split: str, n: int, *, features: str | FeatureNetwork = "auto", own: bool = True, seed: int = 0
) -> Setup:
    """What is measured by, as `choose_reals` settled it: with the feature network, before anything is drawn."""
    network = features if isinstance(features, FeatureNetwork) else feature_network(features, data.shape, data.name)
    return Setup(data, split, own, network, n, seed)


def reference_by(
    data: Data, split: str, n: int, *, features: str | FeatureNetwork = "auto", own: bool, seed: int = 0
) -> Reference:
    """The reference of evaluations that all are to be by the same real images, for `evaluate(reference=)`."""
    return reference_of(setup_of(data, split, n, features=features, own=own, seed=seed))


def _evaluation(setup: Setup, drawn: DrawnImages, reference: Reference, *, own: bool = False) -> Evaluation:
    """The scores of what was drawn, beside the controls; own: by a run that was trained on the data."""
    features_of = cached_features if drawn.given else extract
    features = features_of(setup.network, drawn.images, team=setup.team)
    values = quality(real=reference.real, fake=features)
    further = details(setup, values, reference.classifier, real=reference.real, fake=features)
    measured = {**values, **further}
    spreads = spreads_of(measured)
    reading = "; ".join([*real_notes(setup.data), *drawn.reading])
    of_images = quality_scores(setup, measured, _resize(setup, drawn.images))
    scores = [*(replace(score, reading=reading) for score in of_images), *drawn.scores]
    return Evaluation(
        tuple(replace(score, **drawn.of_run) for score in scores),
        drawn.images,
        features,
        (*_notes(setup, drawn.images, own=own), *drawn.reading, *drawn.notes),
        spreads,
        reference,
        learned_nothing(spreads, reference.controls),
    )


def _notes(setup: Setup, fakes: Tensor, *, own: bool) -> Iterator[str]:
    """What the reader of the scores has to know; own: of images of a run that was trained on the data."""
    if setup.network.note:
        yield setup.network.note
    reals = f"{setup.split}: {role_of(setup.split, own=True)}" if own else setup.split
    yield f"{setup.n} real images of {setup.data.name} ({reals}) against {setup.n} generated, all at uint8 levels"
    yield from real_notes(setup.data)
    yield from map(str, caveats(setup.data, setup.split, setup.n, own=setup.own))
    shape = tuple(fakes.shape[1:])
    if shape != tuple(setup.data.shape):
        yield (
            f"the generated images are {shape}, the real ones {setup.data.shape} (channels, height, width); part of "
            "the distance may come from resizing them"
        )
    if refused := frechet.refusal(setup.n, setup.n):
        yield f"Frechet distance refused: {refused}"


def _resize(setup: Setup, fakes: Tensor) -> str:
    """How real and generated images are brought to the feature network."""
    real = setup.network.resize_rule(setup.data.shape)
    fake = setup.network.resize_rule(fakes.shape[1:])
    return real if real == fake else f"real: {real}; generated: {fake}"
