"""Spectral normalisation (Miyato et al. 2018): a layer's weights, (outputs, everything else), by their largest gain.

    W / sigma,    sigma = u^T W v,    one step of power iteration, v <- W^T u / |.|, u <- W v / |.|, in each call of
    a layer that trains, so that u and v follow the weights

In float32 outside of autocast, as sigma is a sum of many products.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrize import register_parametrization

FIRST_STEPS = 15  # of power iteration, before training


class SpectralNorm(nn.Module):
    """Divides weights by their spectral norm."""

    u: Tensor
    v: Tensor

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        matrix = weight.detach().flatten(1)
        self.register_buffer("u", F.normalize(torch.randn(len(matrix), device=matrix.device), dim=0))
        self.register_buffer("v", torch.zeros(matrix.shape[1], device=matrix.device))
        for _ in range(FIRST_STEPS):
            self._iterate(matrix)

    def forward(self, weight: Tensor) -> Tensor:
        """Weights of any shape -> the same, with a largest gain of about 1."""
        with torch.autocast(weight.device.type, enabled=False):
            matrix = weight.flatten(1)
            if self.training:
                self._iterate(matrix.detach())
            return weight / (self.u.clone() @ matrix @ self.v.clone())  # a later call changes both

    @torch.no_grad()
    def _iterate(self, matrix: Tensor) -> None:
        self.v.copy_(F.normalize(matrix.T @ self.u, dim=0))
        self.u.copy_(F.normalize(matrix @ self.v, dim=0))


def normalise(network: nn.Module) -> None:
    """Divide the weights of each layer of a network by their spectral norm, from now on."""
    for layer in list(network.modules()):
        if isinstance(layer, nn.Conv2d | nn.Linear | nn.Embedding):
            register_parametrization(layer, "weight", SpectralNorm(layer.weight))
