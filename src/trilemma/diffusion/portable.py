"""A diffusion model in the terms of diffusers: a UNet2DModel, and a table of noise levels for DDIMScheduler.

The schedule, continuous here, is taken at T times, t_i = t_first (i + 1) / T, i = 0 ... T - 1, where t_first is the
time at which sampling begins. With timestep_spacing="trailing", S steps of DDIM there are those of

    sampler=ddim grid=uniform steps=S           for every S that divides T

beta_i = 1 - alpha_bar_i / alpha_bar_(i-1) gives the table back, as alpha**2 + sigma**2 = 1. What the network predicts
is eps, x0 or v = alpha eps - sigma x0, the same there.
"""

import torch
from torch import Tensor, nn

from trilemma import rng as random
from trilemma.config import Config
from trilemma.diffusion.config import PixelDiffusionConfig
from trilemma.diffusion.grids import BEGIN, first_time
from trilemma.diffusion.path import DenoisingModel
from trilemma.diffusion.sampling import DiffusionSampling
from trilemma.diffusion.schedule import noise_level
from trilemma.errors import UserError
from trilemma.nets.unet import UNet
from trilemma.nets.unet_diffusers import unet2d_settings, unet2d_weights
from trilemma.types import DiffusersNetwork, DiffusersParts

T = 1000  # steps of the table
PREDICTIONS = {"eps": "epsilon", "x0": "sample", "v": "v_prediction"}


class PortableModel(DenoisingModel):
    """The part of a diffusion model that says what it is in diffusers."""

    config: PixelDiffusionConfig
    prediction: str
    network: nn.Module
    embedding: nn.Embedding

    def as_diffusers(self) -> DiffusersParts:
        """See types.

        Raises:
            UserError: it was not trained with portable=true, whose layers alone have counterparts.
        """
        if not self.config.portable:
            raise UserError(
                "its network has patches, norms or attention that no class of diffusers has; train it with "
                "portable=true prediction=v"
            )
        assert isinstance(self.network, UNet)
        alpha, sigma = self.schedule.alpha(self._times()), self.schedule.sigma(self._times())
        classes = self.embedding.weight if self.n_classes else None
        n_classes = 0 if classes is None else len(classes)
        settings = unet2d_settings(self.network, self.x_shape[0], T, n_classes)
        weights = unet2d_weights(self.network, noise_level(alpha, sigma), classes)
        unet = DiffusersNetwork(settings, weights)
        return DiffusersParts(unet, self._scheduler(alpha.square()), self._start, self._keys)

    def _times(self) -> Tensor:
        """Of the table, float64 (T,)."""
        return first_time(self.schedule, BEGIN) * torch.arange(1, T + 1, dtype=torch.float64) / T

    def _scheduler(self, alpha_bar: Tensor) -> dict[str, object]:
        """The settings of DDIMScheduler."""
        before = torch.cat([alpha_bar.new_ones(1), alpha_bar[:-1]])
        return {
            "num_train_timesteps": T,
            "trained_betas": (1 - alpha_bar / before).tolist(),
            "prediction_type": PREDICTIONS[self.prediction],
            "timestep_spacing": "trailing",
            "clip_sample": self.config.clip_x0,
            "clip_sample_range": 1.0,
            "set_alpha_to_one": True,
            "steps_offset": 0,
        }

    def _start(self, ids: Tensor, seed: int) -> Tensor:
        """x_T of images by their numbers."""
        return float(self.schedule.sigma(self._times()[-1])) * random.normal(ids, self.x_shape, seed, "x_T")

    def _keys(self, steps: int) -> Config:
        """The settings of the sampler that takes the same steps."""
        return DiffusionSampling(sampler="ddim", grid="uniform", steps=steps)
