"""What guides a run's sampler from outside its model: another run (guide=), a bundled classifier (classifier=)."""

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from trilemma.classifiers.bundled import BUNDLED, SAME_IMAGES, load_network
from trilemma.classifiers.classifier import Classifier
from trilemma.config import Config
from trilemma.errors import UserError, unknown
from trilemma.registry import require
from trilemma.types import NO_GUIDES, Conditional, Denoises, Guides, flags


class Owner(Protocol):
    """What is known of a run."""

    config: dict[str, Any]
    device: torch.device

    @property
    def path(self) -> Path: ...
    @property
    def shape(self) -> tuple[int, int, int]: ...
    @property
    def classes(self) -> tuple[str, ...]: ...


Opened = Callable[[str], tuple[Owner, nn.Module]]  # path -> the run there, and its model on the same device


class ClassifierGuide(nn.Module):
    """Logits of a bundled classifier, for images (B, C, H, W) in [0, 1]."""

    def __init__(self, classifier: Classifier) -> None:
        super().__init__()
        self.classifier, self.n_classes = classifier, classifier.config.n_classes

    def forward(self, image: Tensor) -> Tensor:
        """(B, n_classes)."""
        return self.classifier.logits(image)


def guides_of(run: Owner, model: nn.Module, keys: Config, opened: Opened) -> Guides:
    """What the settings of a run's sampler name.

    Raises:
        UserError: it is not found, or does not fit the images or the classes of the run.
    """
    guide, classifier = keys.get("guide"), keys.get("classifier")
    if not flags(model).takes_guides or (guide is None and classifier is None):
        return NO_GUIDES
    return Guides(
        None if guide is None else _weak(run, guide, opened, has_classes=isinstance(model, Conditional)),
        None if classifier is None else _classifier(run, classifier),
    )


def _weak(run: Owner, path: str, opened: Opened, *, has_classes: bool) -> nn.Module:
    """The model of another run, which is asked for the same classes."""
    try:
        other, model = opened(path)
        require(model, str(other.config["model"]), "denoise", Denoises)
    except UserError as error:
        raise UserError(f"guide={path}: {error}") from None
    if other.shape != run.shape:
        raise UserError(
            f"guide={path}: its images are {_form(other.shape)}, those of {run.path} {_form(run.shape)}; give a run on "
            "images of the same shape"
        )
    if has_classes and isinstance(model, Conditional) and other.classes != run.classes:
        raise UserError(
            f"guide={path}: it has other classes ({len(other.classes)}) than {run.path} ({len(run.classes)}); give a "
            "run on the same data"
        )
    return model


def _classifier(run: Owner, name: str) -> ClassifierGuide:
    """A bundled classifier; auto: the one that was trained on the data of the run."""
    if name == "auto":
        data = str(run.config["data"])
        if (own := BUNDLED.get(SAME_IMAGES.get(data, data))) is None:
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
    return guide


@lru_cache
def _on_device(name: str, device: torch.device) -> ClassifierGuide:
    return ClassifierGuide(load_network(name).network.to(device))


def _form(shape: tuple[int, int, int]) -> str:
    """A shape as text: channels x height x width."""
    return "x".join(map(str, shape))
