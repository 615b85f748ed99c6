"""Measuring: features -> statistics -> values, each with an interval and a receipt."""

from trilemma.metrics.evaluate import Evaluation, evaluate
from trilemma.metrics.receipt import Score

__all__ = ["Evaluation", "Score", "evaluate"]
