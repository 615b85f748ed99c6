"""Everything the package measures of a model or of a set of images, in one call, each figure with its receipt."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from trilemma.data import Data, load_data
from trilemma.data.load import Source
from trilemma.data.selection import ALL
from trilemma.data.sources.arrays import as_numpy, to_images
from trilemma.data.split import counted, held_out_split
from trilemma.errors import UserError, unknown
from trilemma.keys import BatchSize, Seed
from trilemma.metrics import cost, frechet, neighbours
from trilemma.metrics.catalogue import CATALOGUE, COST
from trilemma.metrics.classification import class_scores
from trilemma.metrics.controls import (
    Control,
    Reference,
    choice,
    learned_nothing,
    part_named,
    reference_of,
    spreads_of,
)
from trilemma.metrics.features import FeatureNetwork, extract, feature_network, to_levels
from trilemma.metrics.intervals import Estimate, Spread
from trilemma.metrics.likelihood import likelihood_scores
from trilemma.metrics.quality import Setup, quality, quality_scores
from trilemma.metrics.receipt import Score, claim_scores, protocol_name, score_of, write_score
from trilemma.modes import own_modes
from trilemma.pictures.png import read_metadata
from trilemma.registry import models_that
from trilemma.run.locate import CONFIG, no_run
from trilemma.types import Conditional, Samples
from trilemma.values import checked_call, shown

if TYPE_CHECKING:
    from trilemma.run.run import Run

N_DEFAULT = 2500  # images on either side where the user does not say: minutes on a CPU at most
METRICS = "metrics"  # of a run folder: its scores
LEAST = neighbours.LEAST  # images that can be measured
ROLES = {  # what the images of a split were to a model that was trained on the same data
    "test": "never seen in training",
    "valid": "not trained on, but the best weights were chosen by them, where a model keeps its best",
    "train": "trained on",
    ALL: "every image, for no model was trained on them",
}


@dataclass(frozen=True)
class Evaluation:
    """Scores of a set of generated images.

    fakes: the images, float32 on uint8 levels, (n, C, H, W) in [0, 1]; spreads: how the scores of quality scatter, by
    name; reference: the real images' features and the controls, for further evaluations by the same real images;
    learned_nothing: a sentence where the mean image, static or one image repeated is as good.
    """

    scores: tuple[Score, ...]
    fakes: Tensor
    notes: tuple[str, ...]
    spreads: dict[str, Spread]
    reference: Reference
    learned_nothing: str | None

    @property
    def controls(self) -> tuple[Control, ...]:
        """The scores of images whose worth is known."""
        return self.reference.controls

    def __getitem__(self, name: str) -> Score:
        """The score of that name."""
        for score in self.scores:
            if score.name == name:
                return score
        raise unknown("score", name, [score.name for score in self.scores])


@checked_call
@own_modes()
def evaluate(
    what: Annotated["Run | Source", Field(description="a run folder, or a folder or zip of generated images")],
    *,
    against: Annotated[Source | None, Field(description="real images (default: the data of the run)")] = None,
    n: Annotated[
        int | None, Field(description="number of generated images (default: as many as real ones, up to 2,048)")
    ] = None,
    features: Annotated[
        str | FeatureNetwork, Field(description="network that extracts features; auto: the one that fits the data")
    ] = "auto",
    split: Annotated[
        str | None,
        Field(description="split of the real data: test, valid or train (default: held-out images if there are any)"),
    ] = None,
    seed: Seed = 0,
    batch: BatchSize = 256,
    bound_samples: Annotated[
        int, Field(ge=0, description="codes per image for the likelihood bound; 0: do not compute it")
    ] = 50,
    bound_images: Annotated[int, Field(ge=2, description="images to compute the bound on, at most")] = 1000,
    reference: Reference | None = None,
    **settings: Any,
) -> Evaluation:
    """Measure a run, or a folder or zip of generated images, against real images.

    Args:
        what: a run, its folder, or a folder or zip of images; or images in memory, an array, a tensor or loaded data.
        against: the real data; the run's own where None.
        n: images on either side; as many as there are, at most N_DEFAULT, where None.
        features: "auto", the name of a bundled feature network, or a network of your own.
        split: of the real data; as `choose_reals` says where None.
        seed: of the generated images, and of which real images are taken.
        batch: images drawn at a time; the time per image is for this batch.
        bound_samples: codes per image in the bound on the likelihood, for a model that has one; 0 for no bound.
        bound_images: real images it is measured on, at most.
        reference: that of an earlier evaluation by the same real images, which are not read again then.
        settings: of the run's sampler (steps, ...).
    Returns:
        Frechet distance (refused below 2,048 images), kernel distance, density, coverage, precision, recall, and the
        same of controls; for a run also the cost and bounds on the likelihood, and every score is written to
        metrics/<protocol>.json in its folder.
    Raises:
        UserError: if the model cannot sample, its images are not finite, there are too few images, or a file of ours
            holds several.
    """
    run = _as_run(what)
    if run is not None:
        bounds = {"samples": bound_samples, "n": bound_images}
        settings = run.checked(settings, evaluate)
        keys = {"seed": seed, "batch": batch, "bounds": bounds, "settings": settings, "reference": reference}
        return _evaluate_run(run, against, n, features, split, **keys)
    if settings:
        raise UserError(
            f"{', '.join(settings)}: sampling settings are for a run, and {shown(what)} holds images; drop them"
        )
    if against is None:
        raise UserError(
            f"{shown(what)} holds images; say what to measure them against, for instance against=fashion-mnist"
        )
    images = _generated(what) if isinstance(what, str | Path) else _in_memory(what)
    setup = _prepare(load_data(against), n, features, split, seed, {}, own=False, n_fake=len(images))
    fakes = images[choice(len(images), setup.n, seed)]
    return _evaluation(setup, fakes, reference)


def _evaluate_run(
    run: "Run",
    against: Source | None,
    n: int | None,
    features: str | FeatureNetwork,
    split: str | None,
    *,
    seed: int,
    batch: int,
    bounds: dict[str, int],
    settings: dict[str, Any],
    reference: Reference | None,
) -> Evaluation:
    """The scores of a run, written into its folder; `bounds` are the keys of `likelihood_scores`."""
    model = run.model
    if not isinstance(model, Samples):
        able = ", ".join(models_that(Samples)) or "none is installed"
        raise UserError(
            f"{type(model).__name__} cannot sample, so there is nothing to measure; models that can: {able}"
        )
    claim_scores(run.path / METRICS)
    channels, height, width = run.model_config.shape
    data = run.data if against is None else load_data(against, size=(height, width), channels=channels)
    own = data.fingerprint == run.config["fingerprint"]
    setup = _prepare(data, n, features, split, seed, settings, own=own)

    def draw(first: int, count: int) -> Tensor:
        return run.sample(count, seed=seed, first=first, batch=count, **settings)

    images, spent = cost.draw_with_cost(draw, model, setup.n, batch=batch)
    fakes = to_levels(images)
    found, notes = likelihood_scores(
        model, data, setup.split, split_label=setup.split_label, own=own, seed=seed, **bounds
    )
    more = [*_cost_scores(setup, spent), *found]
    if isinstance(model, Conditional) and own:
        more += class_scores(data, fakes, model.n_classes, seed=seed, settings=settings)
    notes = notes if run.unfinished is None else [run.unfinished, *notes]
    of_run = {"weights": run.weights_id, "unfinished": run.unfinished}
    evaluation = _evaluation(setup, fakes, reference, more, notes, of_run)
    for score in evaluation.scores:
        write_score(run.path / METRICS, score)
    return evaluation


def choose_reals(
    data: Data, n: int | None = None, *, split: str | None = None, n_fake: int | None = None, own: bool = True
) -> tuple[str, int]:
    """Which split of the data is measured against, and how many images of it.

    Where no split is asked for: the test split, or without one all images, for no model was trained on them; of data
    that a run was trained on (`own`) the test split, else the validation split, and the training split only where
    neither has LEAST images.

    Args:
        n: as many as there are, at most N_DEFAULT, where None; n_fake: generated images there are, None for any number.
    Raises:
        UserError: if there is no such split, or it does not have so many images.
    """
    if split is None:
        split = _default_split(data, own)
    if split not in (*data.splits, ALL):
        raise unknown("split", split, [*data.splits, ALL])
    n_real = len(part_named(data, split))
    most = n_real if n_fake is None else min(n_real, n_fake)
    n = min(most, N_DEFAULT) if n is None else n
    if not LEAST <= n <= most:
        there = (
            f"{data.name} has {n_real} images"
            if split == ALL
            else f"the {split} split of {data.name} has {n_real} images"
        )
        there += "" if n_fake is None else f", and there are {n_fake} generated ones"
        allowed = f"choose n from {LEAST} to {most}" if most >= LEAST else f"a measurement needs {LEAST} on either side"
        raise UserError(f"n={n}: {there}; {allowed}, or give more images")
    return split, n


def _default_split(data: Data, own: bool) -> str:
    if not own and "test" not in data.splits:
        return ALL
    name = held_out_split(data.splits, LEAST)
    return name if len(data.splits[name]) >= LEAST else "train"


def caveats(data: Data, split: str, n: int, *, own: bool) -> list[str]:
    """What limits every figure measured by n images of that split; own: whether the model was trained on this data."""
    found = []
    if own and split == "train":
        name, held_out = data.held_out
        found.append(
            f"the real images were seen in training (the {name} split has {len(held_out)}), so a model that copies "
            "its training images looks good"
        )
    if n < neighbours.ROUGH:
        found.append(
            f"with {n} real and {n} generated images precision and recall are rough: both are inflated, and nothing is "
            "decided by them. Use more images"
        )
    return found


def _evaluation(
    setup: Setup,
    fakes: Tensor,
    reference: Reference | None,
    more: Iterable[Score] = (),
    notes: Sequence[str] = (),
    of_run: Mapping[str, Any] = MappingProxyType({}),
) -> Evaluation:
    """The scores of uint8 images (n, C, H, W), beside the controls; `more` scores and notes join them.

    Args:
        of_run: what the scores say of the run.
    """
    reference = reference_of(setup, reference)
    values = quality(reference.real, extract(setup.network, fakes))
    spreads = spreads_of(values)
    scores = [*quality_scores(setup, values, _resize(setup, fakes)), *more]
    return Evaluation(
        tuple(replace(score, **of_run) for score in scores),
        fakes.float() / 255,
        (*_notes(setup, fakes), *notes),
        spreads,
        reference,
        learned_nothing(spreads, reference.controls),
    )


def _prepare(
    data: Data,
    n: int | None,
    features: str | FeatureNetwork,
    split: str | None,
    seed: int,
    settings: dict[str, Any],
    *,
    own: bool,
    n_fake: int | None = None,
) -> Setup:
    """Settle split, number of images and feature network before anything is drawn."""
    split, n = choose_reals(data, n, split=split, n_fake=n_fake, own=own)
    network = features if isinstance(features, FeatureNetwork) else feature_network(features, data.shape, data.name)
    return Setup(data, split, own, network, n, seed, settings)


def _cost_scores(setup: Setup, spent: cost.Cost) -> Iterator[Score]:
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


def _notes(setup: Setup, fakes: Tensor) -> Iterator[str]:
    """What the reader of the scores has to know."""
    if setup.network.note:
        yield setup.network.note
    reals = f"{setup.split}: {ROLES[setup.split]}" if setup.own else setup.split
    yield f"{setup.n} real images of {setup.data.name} ({reals}) against {setup.n} generated, all at uint8 levels"
    yield from caveats(setup.data, setup.split, setup.n, own=setup.own)
    shape = tuple(fakes.shape[1:])
    if shape != tuple(setup.data.shape):
        yield (
            f"the generated images are {shape}, the real ones {setup.data.shape} (channels, height, width); part of "
            "the distance may come from bringing them to one size"
        )
    if refused := frechet.refusal(setup.n, setup.n):
        yield f"Frechet distance refused: {refused}"


def _resize(setup: Setup, fakes: Tensor) -> str:
    """How real and generated images are brought to the feature network."""
    real = setup.network.resize_rule(setup.data.shape)
    fake = setup.network.resize_rule(fakes.shape[1:])
    return real if real == fake else f"real: {real}; generated: {fake}"


def _generated(what: str | Path) -> Tensor:
    """The images of a folder or zip, one to a file: a grid among them would also spoil the size they are read at."""
    splits = load_data(what).splits.values()
    folder = Path(what).expanduser()
    files = [name for part in splits for name in part.names or ()] if folder.is_dir() else []
    made = {name: _made(folder / name) for name in files}  # a name in an archive is no path here
    if grids := [name for name, how in made.items() if how.get("grid") or how.get("n", 1) != 1]:
        found = counted("grids of several", grids)
        raise UserError(f"{what} holds {found}; give a folder of single images, as `trilemma sample` writes one")
    if len({(str(how.get("weights")), str(how.get("settings"))) for how in made.values() if how}) > 1:
        raise UserError(
            f"{what} holds images of ours that were drawn with different weights or settings; "
            "draw each kind into a folder of its own with out="
        )
    return torch.cat([part.images for part in splits])


def _in_memory(what: Any) -> Tensor:
    """The images of an array, a tensor or loaded data: uint8 (n, C, H, W)."""
    if isinstance(what, Data):
        return torch.cat([part.images for part in what.splits.values()])
    return to_images(as_numpy(what), "the generated images")[0]


def _made(path: Path) -> dict[str, Any]:
    """What a PNG of ours says of how it was made; {} of any other image."""
    try:
        return read_metadata(path)
    except UserError:
        return {}


def _as_run(what: "Run | Source") -> "Run | None":
    """The run, or None for images."""
    from trilemma.run.run import load

    if isinstance(what, Data | np.ndarray | Tensor):
        return None
    if not isinstance(what, str | Path):
        if not hasattr(what, "model_config"):
            raise UserError(f"what={shown(what)}: give a run, a path, or an array or tensor of images")
        return what  # type: ignore[return-value]
    if not (path := Path(what).expanduser()).exists():
        raise no_run(path)
    if path.name != CONFIG and not (path / CONFIG).is_file():
        return None
    return load(path)
