"""Images of whatever draws them, as an evaluation measures them, with what is known of it beside their quality."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from trilemma.config import Config
from trilemma.metrics import cost
from trilemma.metrics.classification import class_scores
from trilemma.metrics.controls import Reference
from trilemma.metrics.cost_scores import cost_scores, details_of_cost, training_seconds_of
from trilemma.metrics.features import to_levels
from trilemma.metrics.likelihood import likelihood_scores
from trilemma.metrics.path_length import path_scores
from trilemma.metrics.quality import Setup
from trilemma.metrics.receipt import Score
from trilemma.metrics.reconstruction import code_map_scores, reconstruction_scores
from trilemma.registry import count_parameters
from trilemma.run.contestant import Contestant, ImageSet
from trilemma.run.run import Run
from trilemma.run.text_to_image import TextToImage
from trilemma.team import in_turn, together
from trilemma.types import Conditional, Samples


class DrawnImages(NamedTuple):
    """Images of a contestant, uint8 (n, C, H, W), and what is measured and noted beside their quality.

    of_run: what the scores say of a run; reading: how images that were read were scaled, and which were skipped; given:
    whether they were there before, so that the same ones may be measured again.
    """

    images: Tensor
    scores: Sequence[Score] = ()
    notes: Sequence[str] = ()
    of_run: Mapping[str, Any] = MappingProxyType({})
    reading: Sequence[str] = ()
    given: bool = False


def drawn_by(contestant: Contestant, setup: Setup, batch: int) -> DrawnImages:
    """Images of a contestant that has no cost of its own."""
    parts = contestant.draw(setup.n, seed=setup.seed, first=0, batch=batch, **setup.settings)
    images = torch.cat([to_levels(part.images) for part in parts])
    if not isinstance(contestant, ImageSet):
        return DrawnImages(images)
    reading = [f"generated images: {note}" for note in contestant.notes]
    return DrawnImages(images, notes=[contestant.described(setup.n)], reading=reading, given=True)


def drawn_by_pipeline(pipeline: TextToImage, setup: Setup, batch: int) -> DrawnImages:
    """Images of a published pipeline, and its cost; the processes of a team load it in turn, and divide the drawing."""
    session = in_turn(setup.team, pipeline.open)
    denoiser, networks = session.networks
    numbers = (sum(map(count_parameters, networks)), count_parameters(denoiser))

    def draw(first: int, count: int) -> Tensor:
        return session.images(first, count, setup.seed)

    device = session.pipeline.device
    images, spent = cost.draw_timed(
        draw, setup.n, batch=batch, device=device, networks=[denoiser], parameters=numbers, team=setup.team
    )
    whole = nn.ModuleList(networks)
    details = details_of_cost(setup, spent, draw, whole, device, together=1)  # each image is drawn by itself
    scores = [*cost_scores(setup, spent), *details]
    return DrawnImages(images, scores, session.described(), {"weights": pipeline.weights_id})


def drawn_by_run(
    run: Run, setup: Setup, keys: Config, batch: int, inverted: int, reference: Reference, **bounds: Any
) -> DrawnImages:
    """Images of a run, its cost, bounds on its likelihood, how near images come back, and whether it draws the class
    asked for; `bounds` are keys of `likelihood_scores`."""
    model, data, seed, classifier = run.model, setup.data, setup.seed, reference.classifier
    assert isinstance(model, Samples)

    def draw(first: int, count: int) -> Tensor:
        return run.sample(count, seed=seed, first=first, batch=count, keys=keys)

    guides = together(setup.team, lambda: run.guides(keys))
    images, spent = cost.draw_with_cost(draw, model, setup.n, batch=batch, guides=guides, team=setup.team)
    likelihoods, notes = likelihood_scores(
        model, data, setup.split, split_label=setup.split_label, own=setup.own, seed=seed, **bounds
    )
    reconstructed, more = reconstruction_scores(model, setup, inverted=inverted)
    reconstructed += code_map_scores(model, setup, reference.real.gaussian)
    lengths, others = path_scores(model, setup)
    device, known = next(model.parameters()).device, training_seconds_of(run)
    details = details_of_cost(setup, spent, draw, model, device, together=spent.batch, training_seconds=known)
    costs = [*cost_scores(setup, spent), *details]
    scores = [*costs, *likelihoods, *reconstructed, *lengths]
    notes = [*notes, *more, *others]
    if isinstance(model, Conditional) and setup.own:
        asked = {"classifier": classifier, "seed": seed, "settings": setup.settings}
        scores += class_scores(data, images, model.n_classes, **asked)
        notes += [classifier.note] if not isinstance(classifier, str) and classifier.note else []
    if guides.weak is not None:
        notes = [f"guided by {setup.settings['guide']}", *notes]
    notes = [*filter(None, [run.unfinished]), *notes]
    return DrawnImages(images, scores, notes, {"weights": run.weights_id, "unfinished": run.unfinished})
