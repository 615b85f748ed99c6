"""Densities over codes, fitted after training, so that a plain autoencoder samples too.

Ghosh et al. (2020), "From variational to deterministic autoencoders", section 4: p(z) = sum_k pi_k N(z; m_k, S_k),
fitted by expectation-maximisation on the codes of training images.
"""

import torch
from torch import Tensor, nn

from trilemma import rng


class GaussianMixture(nn.Module):
    """Mixture of full-covariance Gaussians over codes (B, Z); its parameters are buffers, saved with the weights."""

    weights: Tensor
    means: Tensor
    factors: Tensor

    def __init__(self, latent: int, components: int) -> None:
        super().__init__()
        self.register_buffer("weights", torch.full((components,), 1 / components))
        self.register_buffer("means", torch.zeros(components, latent))
        self.register_buffer("factors", torch.eye(latent).repeat(components, 1, 1))  # lower Cholesky, (K, Z, Z)

    def fit(self, codes: Tensor, *, seed: int) -> None:
        """Expectation-maximisation from a k-means start; codes (N, Z). Fewer codes than components use fewer.

        A single code is given twice: the mixture is then one narrow Gaussian around it.
        """
        from sklearn.mixture import GaussianMixture as Mixture

        used = min(len(self.weights), len(codes))
        codes = codes if len(codes) > 1 else codes.expand(2, -1)
        spread = float(codes.var(0, correction=0).mean())
        found = Mixture(used, reg_covar=1e-6 + 1e-4 * spread, random_state=rng.seed_of(seed, "prior") % 2**32)
        found.fit(codes.double().cpu().numpy())
        for buffer, values in (
            (self.weights, found.weights_),
            (self.means, found.means_),
            (self.factors, torch.linalg.cholesky(torch.as_tensor(found.covariances_))),
        ):
            buffer.zero_()
            buffer[:used] = torch.as_tensor(values, dtype=buffer.dtype)

    def sample(self, ids: Tensor, *, seed: int) -> Tensor:
        """One code per id, (len(ids), Z): pick a component, then m_k + L_k eps."""
        pick = rng.uniform(ids, (1,), seed, "component")
        component = torch.searchsorted(self.weights.cpu().cumsum(0)[:-1].contiguous(), pick[:, 0])
        component = component.to(self.means.device)
        eps = rng.normal(ids, (self.means.shape[1],), seed, "latent").to(self.means)
        return self.means[component] + torch.einsum("bij,bj->bi", self.factors[component], eps)
