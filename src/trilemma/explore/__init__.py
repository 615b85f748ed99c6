"""What people do with a trained model: draw from it, look at its codes and reconstructions, edit, detect, augment; and
how they look at images before a training."""

from trilemma.explore.again import again
from trilemma.explore.augment import augment
from trilemma.explore.compress import compress
from trilemma.explore.denoise import denoise
from trilemma.explore.detect import detect
from trilemma.explore.disentangle import disentangle
from trilemma.explore.edit import edit
from trilemma.explore.imagine import imagine
from trilemma.explore.interpolate import interpolate
from trilemma.explore.invert import invert
from trilemma.explore.map import latent_map
from trilemma.explore.reconstruct import reconstruct
from trilemma.explore.sample import sample
from trilemma.explore.show import show
from trilemma.explore.traverse import traverse
from trilemma.explore.upscale import upscale

__all__ = [
    "again",
    "augment",
    "compress",
    "denoise",
    "detect",
    "disentangle",
    "edit",
    "imagine",
    "interpolate",
    "invert",
    "latent_map",
    "reconstruct",
    "sample",
    "show",
    "traverse",
    "upscale",
]
