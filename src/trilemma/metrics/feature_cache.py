"""Features of images that are measured again and again, and what scores need of real ones, kept in the user's cache.

An entry is CACHE/features/NAME-KEY: a line of HEAD bytes (the checksum of the rest), then tensors by name in the format
of safetensors. KEY is a hash: of features that of the images' content, of the network's weights, of the size that it
takes and of the kind of device that it is on; of statistics that of the features. An entry that is damaged, or cannot
be written, is computed; one that was not read for KEEP_DAYS is removed.
"""

import hashlib
import os
import time
import zlib
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from trilemma.classifiers.bundled import FeatureNetwork
from trilemma.errors import UserError
from trilemma.files import cache_dir, write_atomic
from trilemma.metrics.features import extract, to_levels
from trilemma.team import ALONE, Team, smallest

VERSION = 2  # of the path from images to features and statistics, and of the entries
LEAST = 1_000  # images below which it is quicker to compute than to look
HEAD = 64  # bytes
LARGEST = 2**30  # bytes of an entry
KEEP_DAYS = 30

Tensors = Mapping[str, Tensor]


def cached_features(network: FeatureNetwork, images: Tensor, team: Team = ALONE) -> Tensor:
    """As `extract`, float64 (N, D), from the cache where they are known: to all processes of a team."""
    if not network.sha256 or (len(images) < LEAST and not network.is_slow):
        return extract(network, images, team=team)

    def compute() -> Tensors:
        return {"features": extract(network, images, team=team).float()}  # as networks give them

    return _cached(f"{network.name}-{_key_of_images(network, images)}", compute, team)["features"].double()


def cached_statistics(features: Tensor, compute: Callable[[], Tensors], team: Team = ALONE) -> Tensors:
    """Tensors that follow from features (N, D), as `compute` gives them, from the cache where they are known."""
    if len(features) < LEAST:
        return compute()
    return _cached(f"statistics-{_key_of_features(features)}", compute, team)


def _cached(name: str, compute: Callable[[], Tensors], team: Team) -> Tensors:
    """The entry of a name, or what `compute` gives, which becomes the entry."""
    path = cache_dir() / "features" / name
    known: Tensors | None = None
    with suppress(OSError, ValueError, SafetensorError):
        known = _recall(path)
    if smallest(team, known is not None) and known is not None:
        return known
    tensors = compute()
    if team.writes:
        with suppress(OSError, UserError):
            _keep(path, tensors)
    return tensors


def _key_of_images(network: FeatureNetwork, images: Tensor) -> str:
    of_network = f"{network.sha256} {network.shape} {network.device_type}"
    digest = hashlib.sha256(f"{VERSION} {of_network} {tuple(images.shape)}".encode())
    for part in images.split(4096):
        digest.update(to_levels(part).cpu().contiguous().numpy().data)
    return digest.hexdigest()[:32]


def _key_of_features(features: Tensor) -> str:
    digest = hashlib.sha256(f"{VERSION} {tuple(features.shape)} {features.dtype}".encode())
    digest.update(features.contiguous().numpy().data)
    return digest.hexdigest()[:32]


def _recall(path: Path) -> Tensors:
    """An entry.

    Raises:
        OSError: there is none. ValueError, SafetensorError: it is damaged.
    """
    with open(path, "rb") as file:
        checksum, content = file.read(HEAD), file.read()
    if int(checksum, 16) != zlib.crc32(content):
        raise ValueError(f"{path} is damaged")
    with suppress(OSError):  # of someone else, or read-only
        os.utime(path)
    return load(content)


def _keep(path: Path, tensors: Tensors) -> None:
    """Write an entry, and remove what was not read for long."""
    if sum(tensor.nbytes for tensor in tensors.values()) > LARGEST:
        return
    content = save({name: tensor.contiguous() for name, tensor in tensors.items()})
    head = f"{zlib.crc32(content):08x}".ljust(HEAD - 1) + "\n"
    write_atomic(path, head.encode() + content)
    for entry in path.parent.iterdir():
        if time.time() - entry.stat().st_mtime > KEEP_DAYS * 24 * 3600:
            entry.unlink()
