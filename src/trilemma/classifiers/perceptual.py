"""A distance between images by the maps of a classifier, as a loss (Johnson, Alahi & Fei-Fei 2016; Zhang et al. 2018,
"The unreasonable effectiveness of deep features as a perceptual metric", equation 1 with all weights 1, and up to the
factor 1/3, as this is the mean over the stages).

    d(x, y) = mean over stages l and places of |phi_l(x) / |phi_l(x)| - phi_l(y) / |phi_l(y)||**2

with phi_l(x) the vector of channels of EfficientNet-Lite0 at a place of stage l. The images are seen at their own size.
"""

from copy import deepcopy
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

from trilemma.classifiers.imagenet import load_efficientnet
from trilemma.nets.efficientnet import EfficientNetLite0

STAGES = 3  # maps of 1/2, 1/4 and 1/8 of the size
EPS = 1e-4  # a place where nothing is seen has no direction


def perceptual_distance(a: Tensor, b: Tensor) -> Tensor:
    """Images (B, C, H, W) in [0, 1], C = 1 or 3, and as many others -> (B,), from 0 to 4; gradients pass through both.

    Raises:
        UserError: the weights of EfficientNet-Lite0 are not installed.
    """
    network = _network(a.device)
    maps = network.stages(torch.cat([a, b]).expand(-1, 3, -1, -1), STAGES)
    distances = []
    for features in maps:
        one, other = F.normalize(features.float(), dim=1, eps=EPS).chunk(2)
        distances.append((one - other).square().sum(1).mean(dim=(1, 2)))
    return torch.stack(distances).mean(0)


@cache
def _network(device: torch.device) -> EfficientNetLite0:
    network = load_efficientnet().network
    assert isinstance(network, EfficientNetLite0)
    return network if device == next(network.parameters()).device else deepcopy(network).to(device)
