"""One loop trains every model, and leaves a run folder that holds the whole truth about it."""

from trilemma.training.train import train

__all__ = ["train"]
