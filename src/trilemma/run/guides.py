"""What comes to a run's sampler from outside its model: another run (guide=), a bundled classifier (classifier=), a
time grid that was optimised on held-out images (grid=optimised)."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from trilemma.classifiers.bundled import BUNDLED, SAME_IMAGES, load_network, read_card
from trilemma.classifiers.classifier import Classifier
from trilemma.config import Config
from trilemma.errors import UserError, unknown
from trilemma.files import read_json, write_json
from trilemma.pictures.levels import to_float
from trilemma.registry import require
from trilemma.run.stored import StoredRun
from trilemma.text import note
from trilemma.types import NO_GUIDES, Condition, Conditional, DenoisesOnAnySchedule, Guides, UsesCodeMap

GRIDS = "grids.json"  # in a run's folder: time grids that were optimised for its model
GRID_IMAGES = 32  # held-out images that they are measured on
GRID_METHOD = 3  # of the measurement: grids that were measured by another are measured again


@runtime_checkable
class OptimisesTimes(Protocol):
    """A model whose time grid can be optimised on images."""

    def optimised_times(self, image: Tensor, condition: Condition, keys: Any, seed: int, guides: Guides) -> Tensor: ...


Opened = Callable[[str], tuple[StoredRun, nn.Module]]  # path -> the run there, and its model on the same device


class ClassifierGuide(nn.Module):
    """Logits of a bundled classifier, for images (B, C, H, W) in [0, 1]."""

    def __init__(self, classifier: Classifier) -> None:
        super().__init__()
        self.classifier, self.n_classes = classifier, classifier.config.n_classes

    def forward(self, image: Tensor) -> Tensor:
        """(B, n_classes)."""
        return self.classifier.logits(image)


def guides_of(run: StoredRun, model: nn.Module, keys: Config, opened: Opened) -> Guides:
    """What the settings of a run's sampler name.

    Raises:
        UserError: it is not found, or does not fit the images or the classes of the run.
    """
    guide, classifier = keys.get("guide"), keys.get("classifier")
    is_optimised = keys.get("grid") == "optimised"
    if guide is None and classifier is None and not is_optimised:
        return NO_GUIDES
    guides = Guides(
        None if guide is None else _weak(run, model, guide, opened, has_classes=isinstance(model, Conditional)),
        None if classifier is None else _classifier(run, classifier),
    )
    if not is_optimised:
        return guides
    weights = None if guide is None else opened(guide)[0].weights_id
    return replace(guides, times=optimised_grid(run, model, keys, guides, weights))


def optimised_grid(run: StoredRun, model: nn.Module, keys: Config, guides: Guides, guide_weights: str | None) -> Tensor:
    """The times that suit the model best, guided as asked, measured once on held-out images and kept in GRIDS.

    Args:
        guide_weights: the weights_id of the run that guides it, if one does.
    Raises:
        UserError: the images of the run cannot be read, or it cannot be guided so.
    """
    assert isinstance(model, OptimisesTimes)
    file, settings = run.path / GRIDS, {**keys.to_json(), "guide": guide_weights}
    kept = _kept(file, run.weights_id)
    if (name := " ".join(f"{key}={value}" for key, value in settings.items() if value is not None)) not in kept:
        images = run.data.splits.get("valid", run.data.held_out[1])  # not those of the test, which scores are of
        index = torch.linspace(0, len(images) - 1, min(len(images), GRID_IMAGES)).long()
        part = images.take(index)
        image, condition = to_float(part.images.to(run.device)), Condition(part.labels, part.captions).to(run.device)
        kept[name] = model.optimised_times(image, condition, keys, 0, guides).tolist()
        with suppress(OSError):  # a folder that cannot be written: it is measured again
            write_json(file, {"weights": run.weights_id, "method": GRID_METHOD, "times": kept})
    return torch.tensor(kept[name], dtype=torch.float64)


def _kept(file: Path, weights: str) -> dict[str, list[float]]:
    """The grids in a file, if they are of these weights, measured as now."""
    try:
        content = read_json(file)
        current = content["weights"] == weights and content["method"] == GRID_METHOD
        return dict(content["times"]) if current else {}
    except (FileNotFoundError, UserError, LookupError, TypeError, ValueError):
        return {}


def _weak(run: StoredRun, own: nn.Module, path: str, opened: Opened, *, has_classes: bool) -> nn.Module:
    """The model of another run, which is asked for the same classes."""
    try:
        other, model = opened(path)
        require(model, str(other.config["model"]), "guide another run", DenoisesOnAnySchedule)
    except UserError as error:
        raise UserError(f"guide={path}: {error}") from None
    if other.shape != run.shape:
        raise UserError(
            f"guide={path}: its images are {_form(other.shape)}, those of {run.path} {_form(run.shape)}; give a run on "
            "images of the same shape"
        )
    if not _draw_alike(own, model):
        raise UserError(f"guide={path}: it draws other codes than {run.path}; give a run with the same autoencoder")
    if has_classes and isinstance(model, Conditional) and other.classes != run.classes:
        raise UserError(
            f"guide={path}: it has other classes ({len(other.classes)}) than {run.path} ({len(run.classes)}); give a "
            "run on the same data"
        )
    return model


def _draw_alike(one: nn.Module, other: nn.Module) -> bool:
    """Whether two models draw pixels, or codes of autoencoders with equal weights."""
    parts: list[Any] = [
        model.autoencoder if isinstance(model, UsesCodeMap) else nn.Identity() for model in (one, other)
    ]
    first, second = (part.state_dict() for part in parts)
    return first.keys() == second.keys() and all(
        torch.equal(tensor, second[name].to(tensor.device)) for name, tensor in first.items()
    )


def _classifier(run: StoredRun, name: str) -> ClassifierGuide:
    """A bundled classifier; auto: the one that was trained on the data of the run."""
    data = str(run.config["data"])
    own = BUNDLED.get(SAME_IMAGES.get(data, data))
    if name == "auto":
        if own is None:
            raise UserError(
                f"classifier=auto: no bundled classifier was trained on {data}; there is one for {', '.join(BUNDLED)}"
            )
        name = own
    if name not in BUNDLED.values():
        raise unknown("classifier", name, ["auto", *BUNDLED.values()])
    guide = _on_device(name, run.device)
    if (shape := guide.classifier.config.shape) != run.shape:
        raise UserError(
            f"classifier={name}: it takes images of {_form(shape)}, and those of {run.path} are "
            f"{_form(run.shape)}; leave classifier out"
        )
    if guide.n_classes != len(run.classes):
        raise UserError(
            f"classifier={name}: it knows {guide.n_classes} classes, and the data of {run.path} have "
            f"{len(run.classes)}; leave classifier out"
        )
    _check_classes(run, name, own)
    return guide


def _check_classes(run: StoredRun, name: str, own: str | None) -> None:
    """Refuse a classifier of other classes than those of the run. Images of the user's own may have numbers in place of
    the names of classes: then it is said which classes these numbers are to the classifier.

    Args:
        own: the classifier that was trained on the images of the run, if there is one.
    """
    card = read_card(name)
    known, numbers = tuple(card["classes"]), tuple(map(str, range(len(run.classes))))
    if run.classes != known and (own or run.classes != numbers):
        k = next(k for k, (one, other) in enumerate(zip(known, run.classes, strict=True)) if one != other)
        raise UserError(
            f"classifier={name}: it was trained on {card['data']}, whose class {k} is {known[k]}, and that of "
            f"{run.path} is {run.classes[k]}; {f'give classifier={own}' if own else 'leave classifier out'}"
        )
    if name != own:
        note(f"classifier={name}: the classes are those of {card['data']}: {', '.join(known)}")


@lru_cache
def _on_device(name: str, device: torch.device) -> ClassifierGuide:
    return ClassifierGuide(load_network(name).network.to(device))


def _form(shape: tuple[int, int, int]) -> str:
    """A shape as text: channels x height x width."""
    return "x".join(map(str, shape))
