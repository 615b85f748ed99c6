"""Presets of the autoencoders, with their training and the figures they must reach.

Published figures: Fashion-MNIST, 55,000 images to train on and 5,000 to validate.
"""

from trilemma.autoencoders.autoencoder import Autoencoder, AutoencoderConfig
from trilemma.registry import Recipe, register

COMMON = {"schedule": "cosine", "monitor": "valid_rmse"}  # published: halved on a plateau

register(
    Recipe(
        name="ae-stacked",
        family="autoencoder",
        summary="fully connected autoencoder, samples through a mixture of Gaussians on its codes",
        source="Hinton & Salakhutdinov 2006; Ghosh et al. 2020 (sampling)",
        build=Autoencoder,
        config=AutoencoderConfig(),
        # Published: batch 32, 0.01. Larger for speed; without the warm-up, units of the code die in the first steps.
        training={"epochs": 10, "batch": 256, "lr": 0.006, "warmup_images": 30_000, **COMMON},
        figures={"valid_rmse": 0.120},
    )
)
