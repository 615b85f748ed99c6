"""Feature networks: images -> vectors that the metrics compare.

The package carries four small classifiers (classifiers/weights, one card each), and EfficientNet-Lite0 for photographs
(classifiers/imagenet.py); others are fetched when they are asked for: the network of published Frechet distances
(classifiers/inception.py), DINOv2 and CLIP (classifiers/hub.py). An image's features are the activations before the
last layer. One path for real and generated images alike:

1. to uint8 levels, round(255 x), as an image file would hold them;
2. to the network's channels: grey is repeated into three; colour becomes grey by 0.299 R + 0.587 G + 0.114 B
   (ITU-R BT.601); an alpha channel is laid over white;
3. to the network's size, where the size differs, by the interpolation that belongs to it (RESIZES);
4. through the network in float32, in eval mode, on the network's device, whatever device the images were made on.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from trilemma.classifiers import hub, imagenet, inception
from trilemma.classifiers.bundled import BUNDLED, CHANNELS, SAME_IMAGES, FeatureNetwork, Shape, load_network
from trilemma.errors import UserError, check_finite, unknown
from trilemma.modes import in_float32, own_modes
from trilemma.pictures.levels import to_float, to_uint8
from trilemma.team import ALONE, Team, by_batches

SMALL_PX = 12  # grey images up to this size are nearer to the 8x8 digits than to 28x28
# A small network, for 28 px in grey and 32 px in colour, sees a quarter of the pixels of larger images or less. Up to
# here it stays the better choice (docs/measuring.md).
LARGE_GREY_PX, LARGE_COLOUR_PX = 56, 64
MOST_PIXELS = 2**20  # of the images in a pass
LUMA = (0.299, 0.587, 0.114)


def feature_network(name: str, shape: Shape, data_name: str) -> FeatureNetwork:
    """A feature network by name; "auto" takes the bundled one that fits the data and says why in its note.

    Args:
        name: "auto", one of the values of BUNDLED, "efficientnet-lite0", "inception", "dinov2" or "clip".
        shape: (channels, height, width) of the images to measure.
        data_name: name of the real data.
    Raises:
        UserError: unknown name; or weights that are absent or differ from their card.
    """
    name, note = choose(shape, data_name) if name == "auto" else (name, f"features: {name}, as asked")
    if name == imagenet.NAME:
        return imagenet.load_efficientnet(note=note)
    if name == inception.NAME:
        return inception.load_inception(note=note)
    if hub.is_hub_name(name):
        return hub.load_hub_network(name, note=note)
    if name not in BUNDLED.values():
        raise unknown("feature network", name, ["auto", *BUNDLED.values(), imagenet.NAME, inception.NAME, *hub.KINDS])
    return load_network(name, note=note)


def choose(shape: Shape, data_name: str) -> tuple[str, str]:
    """The network of the package that fits images of a shape, and why, in words.

    The one trained on these data where there is one; EfficientNet-Lite0 for grey images of more than
    LARGE_GREY_PX and colour images of more than LARGE_COLOUR_PX; else the nearest by channels and size.
    """
    if data_name in BUNDLED and CHANNELS[data_name] == shape[0]:
        name = BUNDLED[data_name]
        return name, f"features: {name}, the bundled network trained on {data_name}"
    if data_name in SAME_IMAGES:
        name = BUNDLED[SAME_IMAGES[data_name]]
        return name, f"features: {name}, the bundled network trained on the grey images behind {data_name}"
    side, grey = max(shape[1:]), shape[0] == 1
    if side > (LARGE_GREY_PX if grey else LARGE_COLOUR_PX):
        name = imagenet.NAME
    elif grey:
        name = "digits-cnn" if side <= SMALL_PX else "fashion-mnist-cnn"
    else:
        name = "cifar10-cnn"
    kind = "grey images" if grey else "colour images"
    why = f"the network of the package nearest to {kind} of {shape[1]}x{shape[2]} (none was trained on {data_name})"
    return name, f"features: {name}, {why}; its values rank models of these data and compare with nothing else"


@own_modes()
@torch.no_grad()
def extract(
    network: FeatureNetwork, images: Tensor, batch: int = 500, *, rounded: bool = True, team: Team = ALONE
) -> Tensor:
    """Features of images, float64 (N, D).

    Args:
        images: (N, C, H, W), uint8 or float in [0, 1], on any device.
        batch: images in a pass, at most; changes nothing but the memory used.
        rounded: whether images come to uint8 levels first, as a file holds them; not where two images differ by less.
        team: the processes that divide the work, and all have the images.
    Raises:
        UserError: images have neither 1, 3 nor 4 channels, or images or features are not finite.
    """
    network.network.eval()
    rows = max(1, min(batch, MOST_PIXELS // (network.shape[1] * network.shape[2])))

    def compute(first: int, count: int) -> Tensor:
        part = images[first : first + count]
        kept = to_levels(part) if rounded else part
        return network.network.features(_prepare(kept.to(network.device), network)).cpu()

    with in_float32():
        features = by_batches(team, len(images), rows, compute).double()
    check_finite(features, f"features by {network.name}", "nothing is measured; choose another feature network")
    return features


def to_levels(images: Tensor) -> Tensor:
    """Images as uint8 levels, as `to_uint8` rounds them.

    Raises:
        UserError: if a value is not finite.
    """
    if images.dtype == torch.uint8:
        return images
    check_finite(images, "images", "nothing is measured. The model has diverged: train it again with a lower lr=")
    return to_uint8(images)


def _prepare(images: Tensor, network: FeatureNetwork) -> Tensor:
    """Images (B, C, H, W), levels or values in [0, 1], as the network takes them: float32 in [0, 1], (B, *shape)."""
    channels, *size = network.shape
    x = to_channels(to_float(images) if images.dtype == torch.uint8 else images.float(), channels)
    return x if list(x.shape[2:]) == size else RESIZES[network.resize](x, size).clamp(0, 1)


def bilinear_of_tensorflow_1(x: Tensor, size: Sequence[int]) -> Tensor:
    """Images (B, C, H, W) at another size by the rule of TensorFlow 1, as for published Frechet distances: pixel i of n
    lies at i m / n among m, and nothing is averaged where an image shrinks."""
    for dim, n in zip((2, 3), size, strict=True):
        m = x.shape[dim]
        place = torch.arange(n, device=x.device, dtype=torch.float32) * (m / n)
        low = place.floor().long().clamp(max=m - 1)
        high, weight = (low + 1).clamp(max=m - 1), place - low
        weight = weight.view([-1 if k == dim else 1 for k in range(4)])
        below = x.index_select(dim, low)
        x = below + weight * (x.index_select(dim, high) - below)
    return x


def _interpolated(mode: str) -> Callable[[Tensor, Sequence[int]], Tensor]:
    """With antialiasing: where an image shrinks, pixels are averaged."""

    def resize(x: Tensor, size: Sequence[int]) -> Tensor:
        return nn.functional.interpolate(x, size=list(size), mode=mode, antialias=True, align_corners=False)

    return resize


RESIZES = {
    "bilinear-antialias": _interpolated("bilinear"),
    "bicubic-antialias": _interpolated("bicubic"),
    "bilinear-tensorflow1": bilinear_of_tensorflow_1,
}


def to_channels(x: Tensor, channels: int) -> Tensor:
    """Float images (B, C, H, W) with 1 or 3 channels, by the rule at the head of this module.

    Raises:
        UserError: if the images have neither 1, 3 nor 4 channels.
    """
    if x.shape[1] not in (1, 3, 4):
        raise UserError(f"images with {x.shape[1]} channels cannot be measured; give grey, RGB or RGBA images")
    if x.shape[1] == 4:
        alpha = x[:, 3:]
        x = x[:, :3] * alpha + (1 - alpha)
    if x.shape[1] == channels:
        return x
    if channels == 3:
        return x.expand(-1, 3, -1, -1)
    return (x * torch.tensor(LUMA, dtype=x.dtype, device=x.device).view(1, 3, 1, 1)).sum(dim=1, keepdim=True)
