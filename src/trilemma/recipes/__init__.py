"""The presets, one file per family and one for those with parts; importing this package registers them all."""

from trilemma.recipes import autoencoders, diffusion, features, gans, vaes, with_parts

__all__ = ["autoencoders", "diffusion", "features", "gans", "vaes", "with_parts"]
