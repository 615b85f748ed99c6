"""What a denoising network is given beside a noisy image and its noise level."""

from typing import NamedTuple

from torch import Tensor


class NetworkInput(NamedTuple):
    """Of B images; None = nothing.

    vector: added to the embedding of the noise level, (B, E).
    tokens: of a text, which the attention of the network looks at, (B, N, D); keep: which of them count, bool (B, N).
    planes: beside the channels of the noisy image, (B, P, H, W).
    """

    vector: Tensor | None = None
    tokens: Tensor | None = None
    keep: Tensor | None = None
    planes: Tensor | None = None


NO_INPUT = NetworkInput()
