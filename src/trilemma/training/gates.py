"""Whether an autoencoder is good enough for a model of its codes, asked before that is trained.

reconstruction   the distance of features of held-out images and their reconstructions, over that of two different
                 images: at most that of the images shrunk to the size of the map and enlarged again, which need
                 no training, and at most MOST_DISTANCE
noise            noise of NOISE standard deviations on the codes changes the reconstructions by at most MOST_GAIN times
                 as much of the standard deviation of the images: a decoder that magnifies the errors of the model that
                 draws codes would show nothing else
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from trilemma import rng
from trilemma.data import Data, batches
from trilemma.errors import UserError
from trilemma.metrics.features import extract, feature_network
from trilemma.metrics.reconstruction import feature_distance
from trilemma.run.parts import Check
from trilemma.types import HasCodeMap

IMAGES, FEWER, ROWS = 1_000, 300, 100  # that are measured, fewer by a slow network; together
MOST_DISTANCE = 0.5
NOISE, MOST_GAIN = 0.1, 3.0
OF_NOISE = "Codes of pure noise decode to what looks like noise: that is as it should be"


def check_autoencoder(autoencoder: HasCodeMap, data: Data, device: torch.device, say: Callable[[str], None]) -> Check:
    """Say how good it is, and return that.

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
    advice = "train it longer, as autoencoder.epochs=20, or with more channels, as autoencoder.channels=8"
    if not result.reconstruction <= min(result.shrunk, MOST_DISTANCE):
        raise UserError(
            f"the autoencoder is not good enough: a reconstruction is at {result.reconstruction:.3g} of the distance "
            f"of two images, and {min(result.shrunk, MOST_DISTANCE):.3g} is the most; {advice}, "
            "or continue with check=false"
        )
    if not result.gain <= MOST_GAIN:
        raise UserError(
            f"the autoencoder is not good enough: it magnifies noise on its codes {result.gain:.2g} times, and "
            f"{MOST_GAIN:g} is the most; train it with more noise on its codes, as autoencoder.code_noise=0.2, or "
            "continue with check=false"
        )
    return result


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
