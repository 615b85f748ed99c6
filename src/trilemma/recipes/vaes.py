"""Presets of the variational autoencoders, with their training and the figures they must reach.

Published figures: Fashion-MNIST, 55,000 images to train on and 5,000 to validate, unless a preset says otherwise.
"""

from trilemma.autoencoders.vae import VAE, VAEConfig
from trilemma.registry import Recipe, register

COMMON = {"schedule": "cosine", "monitor": "valid_rmse"}  # published: halved on a plateau

register(
    Recipe(
        name="vae",
        family="vae",
        summary="variational autoencoder with a standard normal prior",
        source="Kingma & Welling 2014",
        build=VAE,
        config=VAEConfig(),
        # Published: batch 32, 0.001. Batches above 64 missed the figure in 20 epochs.
        training={"epochs": 20, "batch": 64, "lr": 0.002, **COMMON},
        figures={"valid_rmse": 0.148},
    )
)
