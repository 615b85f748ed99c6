"""Presets of the autoencoders and variational autoencoders, with their training and the figures they must reach.

Published figures: Fashion-MNIST, 55,000 images to train on and 5,000 to validate.
"""

from trilemma.autoencoders.autoencoder import Autoencoder, AutoencoderConfig
from trilemma.autoencoders.vae import VAE, VAEConfig
from trilemma.registry import Recipe, register

COMMON = {"schedule": "cosine", "monitor": "valid_rmse"}

register(
    Recipe(
        name="ae-stacked",
        family="autoencoder",
        summary="fully connected autoencoder, samples through a mixture of Gaussians on its codes",
        source="Hinton & Salakhutdinov 2006; Ghosh et al. 2020 (sampling)",
        build=Autoencoder,
        config=AutoencoderConfig(),
        training={"epochs": 10, "batch": 128, "lr": 0.005, "warmup_images": 30_000, **COMMON},
        figures={"valid_rmse": 0.120},
    )
)

register(
    Recipe(
        name="vae",
        family="vae",
        summary="variational autoencoder with a standard normal prior",
        source="Kingma & Welling 2014",
        build=VAE,
        config=VAEConfig(),
        training={"epochs": 20, "batch": 64, "lr": 0.002, **COMMON},
        figures={"valid_rmse": 0.148},
    )
)
