"""The classifiers that the package carries, with a card each (classifiers/weights): features, verdicts and guidance."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from safetensors.torch import load_file
from torch import Tensor

from trilemma import rng
from trilemma.classifiers.classifier import Classifier, ClassifierConfig
from trilemma.config import make
from trilemma.errors import UserError
from trilemma.files import sha256_of
from trilemma.hardware import pick_device
from trilemma.modes import own_modes

WEIGHTS = Path(__file__).parent / "weights"
BUNDLED = {  # data it was trained on -> network
    "digits": "digits-cnn",
    "mnist": "mnist-cnn",
    "fashion-mnist": "fashion-mnist-cnn",
    "cifar10": "cifar10-cnn",
}
SAME_IMAGES = {"mnist-binary": "mnist"}  # in other pixel values
CHANNELS = {"digits": 1, "mnist": 1, "fashion-mnist": 1, "cifar10": 3}
SMALL = 64  # px of the input of a network that is quick
REMAKE = "python -m trilemma.classifiers.make_bundled"

Shape = tuple[int, int, int]


@runtime_checkable
class Classifies(Protocol):
    """A network that tells classes from its features."""

    def classify(self, features: Tensor) -> Tensor:
        """Features (N, D) -> logits (N, K)."""
        ...


@dataclass(frozen=True)
class FeatureNetwork:
    """A module with `features(image)`, the image shape it takes, the hash of its weights, why it was chosen, how images
    are brought to its size (a name of metrics/features.py), and the device it is on.

    The module may have `classify(features)`, too: logits of classes, (N, K).
    """

    name: str
    network: Any
    shape: Shape
    sha256: str = ""
    note: str = ""
    resize: str = "bilinear-antialias"
    device: str = "cpu"

    @property
    def is_slow(self) -> bool:
        """Whether its input has sides of more than SMALL px, so that an image takes many times as long."""
        return max(self.shape[1:]) > SMALL

    @property
    def receipt(self) -> dict[str, str]:
        """What a score by its features says of it, beside its name: the hash of its weights, and where it ran."""
        return {"feature_weights_sha256": self.sha256, "feature_device": self.device_type}

    @property
    def device_type(self) -> str:
        """The device without its number, which differs from process to process."""
        return self.device.partition(":")[0]

    def classify(self, features: Tensor) -> Tensor:
        """Features (N, D) on the CPU -> logits (N, K), float32 on the CPU, of a network that tells classes."""
        return self.network.classify(features.float().to(self.device)).cpu()

    def resize_rule(self, shape: Sequence[int]) -> str:
        """How images of a shape are brought to the network, in words; "none" where they fit."""
        steps = []
        if tuple(shape[1:]) != tuple(self.shape[1:]):
            steps.append(f"{self.resize} to {self.shape[1]}x{self.shape[2]}")
        if shape[0] != self.shape[0]:
            steps.append("grey" if self.shape[0] == 1 else "colour")
        return ", ".join(steps) or "none"


def load_network(name: str, *, note: str = "", folder: Path = WEIGHTS) -> FeatureNetwork:
    """A feature network from its weights and card, checked by hash, on the best device.

    Raises:
        UserError: if a file is absent or the weights are not those of the card.
    """
    weights = folder / f"{name}.safetensors"
    card = read_card(name, folder)
    if not weights.exists():
        raise UserError(f"the weights of {name} are not in {folder}; install the package again, or: {REMAKE} {name}")
    digest = sha256_of(weights)
    if digest != card["sha256"]:
        raise UserError(
            f"{weights} is not the file its card describes (SHA-256 {digest[:12]}, card {card['sha256'][:12]}); "
            f"install the package again, or: {REMAKE} {name}"
        )
    with own_modes(), rng.OwnStart(rng.generator(0, name)):
        network = Classifier(make(ClassifierConfig, card["config"]))
        network.load_state_dict(load_file(weights))
    device = pick_device()
    network.requires_grad_(False).eval().to(device)
    return FeatureNetwork(name, network, network.config.shape, digest, note, device=str(device))


def read_card(name: str, folder: Path = WEIGHTS) -> dict[str, Any]:
    """The card of a bundled network: data, recipe, accuracy, hash, licence.

    Raises:
        UserError: if there is none.
    """
    try:
        return json.loads((folder / f"{name}.json").read_text("utf-8"))
    except FileNotFoundError:
        raise UserError(f"{name} has no card in {folder}; install the package again, or: {REMAKE} {name}") from None
