"""The presets, one file per family; importing this package registers them all."""

from trilemma.recipes import autoencoders, diffusion, features, gans, vaes

__all__ = ["autoencoders", "diffusion", "features", "gans", "vaes"]
