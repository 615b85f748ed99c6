"""Comparison: models trained with an equal budget, measured by one protocol, in one report."""

from trilemma.comparison.compare import Comparison, compare

__all__ = ["Comparison", "compare"]
