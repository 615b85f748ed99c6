"""The network behind published Frechet distances ("FID") and Inception Scores, fetched at its first use.

The weights are those of 2015 in the layout for PyTorch of the torch-fidelity project (Obukhov et al. 2020), release
0.2.0: 95,628,359 bytes, checked by their hash and read as plain tensors.
"""

import os

import torch

from trilemma import rng
from trilemma.classifiers.bundled import FeatureNetwork
from trilemma.data.sources.download import check_hash, download
from trilemma.errors import UserError
from trilemma.files import cache_dir
from trilemma.hardware import pick_device
from trilemma.modes import own_modes
from trilemma.nets.inception import SIDE, InceptionV3

NAME = "inception"
FILE = "weights-inception-2015-12-05-6726825d.pth"
URL = f"https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/{FILE}"
SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"
MIRROR = "TRILEMMA_INCEPTION_URL"  # where else the file lies


def load_inception(*, note: str = "", url: str | None = None, sha256: str = SHA256) -> FeatureNetwork:
    """The network as one that features are taken from, on the first device.

    Args:
        url: default: that of the published file, or what the environment variable TRILEMMA_INCEPTION_URL says.
        sha256: of the file.
    Raises:
        UserError: the file cannot be fetched, or is another one.
    """
    path = cache_dir() / "networks" / FILE
    check = check_hash(sha256, decompress=False)
    download(url or os.environ.get(MIRROR) or URL, path, check=check)
    try:
        check(path)
    except UserError as error:
        raise UserError(f"{path} is not the published file: {error}; remove it, and it is fetched again") from None
    with own_modes(), rng.OwnStart(rng.generator(0, NAME)):
        network = InceptionV3()
    weights = torch.load(path, map_location="cpu", weights_only=True)
    network.load_state_dict({name: value for name, value in weights.items() if not name.startswith("AuxLogits")})
    device = pick_device()
    network = network.requires_grad_(False).eval().to(device)
    return FeatureNetwork(NAME, network, (3, SIDE, SIDE), sha256, note, "bilinear-tensorflow1", str(device))
