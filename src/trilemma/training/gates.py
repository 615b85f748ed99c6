"""Whether an autoencoder is good enough for a model of its codes, asked before that is trained.

reconstruction   the distance of features of held-out images and their reconstructions, over that of two different
                 images: at most that of the images shrunk to the size of the map and enlarged again, which need
                 no training, and at most MOST_DISTANCE
noise            noise of NOISE standard deviations on the codes changes the reconstructions by at most MOST_GAIN times
                 as much of the standard deviation of the images: a decoder that magnifies the errors of the model that
                 draws codes would show nothing else
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from trilemma import rng
from trilemma.arguments import word
from trilemma.data import Data, batches
from trilemma.errors import UserError
from trilemma.metrics.features import extract, feature_network
from trilemma.metrics.reconstruction import feature_distance
from trilemma.run.config import LENGTHS
from trilemma.run.parts import Check
from trilemma.types import HasCodeMap

IMAGES, FEWER, ROWS = 1_000, 300, 100  # that are measured, fewer by a slow network; together
MOST_DISTANCE = 0.5
NOISE, MOST_GAIN = 0.1, 3.0
SIZES = {"codes": "codes", "dim": "numbers at a place"}  # of what a code says more with more, by the key
OF_NOISE = "Codes of pure noise decode to what looks like noise: that is as it should be"


def check_autoencoder(
    autoencoder: HasCodeMap,
    data: Data,
    device: torch.device,
    say: Callable[[str], None],
    trained: Mapping[str, Any] | None,
) -> Check:
    """Say how good it is, and return that.

    Args:
        trained: the config.json of its training, whose keys a refusal names; None of a finished run that was given.
    Raises:
        UserError: it is not good enough.
    """
    result = measure(autoencoder, data, device)
    channels, height, width = autoencoder.map_shape
    say(
        f"  codes: {channels} x {height} x {width} numbers; the distance of a reconstruction is "
        f"{result.reconstruction:.3g} of that of two images ({result.shrunk:.3g} for images shrunk to {height} x "
        f"{width}). {OF_NOISE}"
    )
    if not result.reconstruction <= min(result.shrunk, MOST_DISTANCE):
        raise UserError(
            f"the autoencoder is not good enough: a reconstruction is at {result.reconstruction:.3g} of the distance "
            f"of two images, and {min(result.shrunk, MOST_DISTANCE):.3g} is the most; {_nearer(trained)}, "
            "or continue with check=false"
        )
    if not result.gain <= MOST_GAIN:
        raise UserError(
            f"the autoencoder is not good enough: it magnifies noise on its codes {result.gain:.2g} times, and "
            f"{MOST_GAIN:g} is the most; {_steadier(trained)}, or continue with check=false"
        )
    return result


def _nearer(trained: Mapping[str, Any] | None) -> str:
    """What to do for reconstructions that are nearer to the images."""
    if trained is None:
        return "give a run that was trained longer, or whose codes have more numbers"
    length = next(key for key in LENGTHS if trained["training"].get(key) is not None)
    advice = f"train it longer, as {_doubled(trained['training'], length)}"
    size = next((key for key in SIZES if key in trained["model_config"]), None)
    return (
        advice
        if size is None
        else f"{advice}, or with more {SIZES[size]}, as {_doubled(trained['model_config'], size)}"
    )


def _steadier(trained: Mapping[str, Any] | None) -> str:
    """What to do for a decoder that magnifies noise less."""
    if trained is None:
        return "give a run of ae-kl, whose decoder is trained on codes with noise, or one with more of that noise"
    settings = trained["model_config"]
    if "code_noise" not in settings:
        return "take another, whose decoder is trained on codes with noise: autoencoder=ae-kl"
    more = _doubled(settings if settings["code_noise"] else {"code_noise": NOISE}, "code_noise")
    return f"train it with more noise on its codes, as {more}"


def _doubled(values: Mapping[str, Any], key: str) -> str:
    """About twice a value, as a key of the part."""
    return f"autoencoder.{key}={word(float(f'{2 * values[key]:.3g}'))}"


@torch.no_grad()
def measure(autoencoder: HasCodeMap, data: Data, device: torch.device) -> Check:
    """On at most IMAGES held-out images."""
    network = feature_network("auto", data.shape, data.name)
    most, parts = FEWER if network.is_slow else IMAGES, list[tuple[Tensor, ...]]()
    for batch in batches(data.valid, ROWS, device):
        if ROWS * len(parts) >= most:
            break
        code, size = autoencoder.to_map(batch.image), list(batch.image.shape[2:])
        assert batch.index is not None
        eps = rng.normal(batch.index, autoencoder.map_shape, 0, "gates").to(code)
        shrunk = F.interpolate(batch.image, list(autoencoder.map_shape[1:]), mode="bilinear", antialias=True)
        enlarged = F.interpolate(shrunk, size, mode="bilinear")
        images = batch.image, autoencoder.from_map(code), autoencoder.from_map(code + NOISE * eps), enlarged
        parts.append(tuple(image.cpu() for image in images))
    image, result, noisy, enlarged = (torch.cat(images) for images in zip(*parts, strict=True))
    real = extract(network, image)
    distances = [feature_distance(real=real, fake=extract(network, other)) for other in (result, enlarged)]
    if reason := next((distance for distance in distances if isinstance(distance, str)), None):
        raise UserError(f"the autoencoder cannot be judged: {reason}; continue with check=false")
    reconstruction, shrunk = (distance.value for distance in distances if not isinstance(distance, str))
    change = (noisy.double() - result.double()).square().mean().sqrt() / image.double().std().clamp(min=1e-12)
    return Check(reconstruction=reconstruction, shrunk=shrunk, gain=float(change) / NOISE)
