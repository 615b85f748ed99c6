"""Features of real images, which are asked for again and again, kept in the user's cache.

An entry is CACHE/features/KEY: a line of HEAD bytes (checksum, images, numbers of each), then float32 values, as
networks give them. KEY is the hash of the images' content, of the network's weights and of the size that it takes. An
entry that is damaged, or cannot be written, is computed; one that was not read for KEEP_DAYS is removed.
"""

import hashlib
import os
import time
import zlib
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from trilemma.classifiers.bundled import FeatureNetwork
from trilemma.errors import UserError
from trilemma.files import cache_dir, write_atomic
from trilemma.metrics.features import extract, to_levels
from trilemma.team import ALONE, Team, smallest

VERSION = 1  # of the path from images to features
LEAST = 1_000  # images below which it is quicker to compute than to look
HEAD = 64  # bytes
LARGEST = 2**30  # bytes of an entry
KEEP_DAYS = 30


def real_features(network: FeatureNetwork, images: Tensor, team: Team = ALONE) -> Tensor:
    """As `extract`, float64 (N, D), from the cache where they are known: to all processes of a team."""
    if not network.sha256 or (len(images) < LEAST and not network.is_slow):
        return extract(network, images, team=team)
    path = cache_dir() / "features" / f"{network.name}-{_key(network, images)}"
    known: Tensor | None = None
    with suppress(OSError, ValueError):
        known = _recall(path, len(images))
    if smallest(team, known is not None) and known is not None:
        return known
    features = extract(network, images, team=team)
    if team.writes:
        with suppress(OSError, UserError):
            _keep(path, features)
    return features


def _key(network: FeatureNetwork, images: Tensor) -> str:
    digest = hashlib.sha256(f"{VERSION} {network.sha256} {network.shape} {tuple(images.shape)}".encode())
    for part in images.split(4096):
        digest.update(to_levels(part).cpu().contiguous().numpy().data)
    return digest.hexdigest()[:32]


def _recall(path: Path, n: int) -> Tensor:
    """An entry of n images.

    Raises:
        OSError: there is none. ValueError: it is damaged.
    """
    with open(path, "rb") as file:
        checksum, count, numbers = file.read(HEAD).split()
        values = np.fromfile(file, dtype="<f4")
    if int(count) != n or len(values) != n * int(numbers) or int(checksum, 16) != zlib.crc32(values.data):
        raise ValueError(f"{path} is damaged")
    with suppress(OSError):  # of someone else, or read-only
        os.utime(path)
    return torch.from_numpy(values.astype(np.float64)).view(n, -1)


def _keep(path: Path, features: Tensor) -> None:
    """Write an entry, and remove what was not read for long."""
    values = features.numpy().astype("<f4")
    if values.nbytes > LARGEST:
        return
    head = f"{zlib.crc32(values.data):08x} {len(values)} {values.shape[1]}".ljust(HEAD - 1) + "\n"
    write_atomic(path, head.encode() + values.tobytes())
    for entry in path.parent.iterdir():
        if time.time() - entry.stat().st_mtime > KEEP_DAYS * 24 * 3600:
            entry.unlink()
