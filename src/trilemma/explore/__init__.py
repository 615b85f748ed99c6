"""What people do with a trained model: draw from it, look at its reconstructions."""

from trilemma.explore.reconstruct import reconstruct
from trilemma.explore.sample import sample

__all__ = ["reconstruct", "sample"]
