"""Figures for learning: an idea, its equation and its code as one picture, drawn anew by a command."""

from trilemma.lessons.gallery import figure, list_figures

__all__ = ["figure", "list_figures"]
