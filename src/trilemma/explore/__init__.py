"""What people do with a trained model: draw from it, make a picture again, look at its reconstructions."""

from trilemma.explore.again import again
from trilemma.explore.reconstruct import reconstruct
from trilemma.explore.sample import sample

__all__ = ["again", "reconstruct", "sample"]
