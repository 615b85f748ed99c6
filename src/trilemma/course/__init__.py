"""The self-test and the exercises of the course in docs/course/: their texts, and what is right."""

from trilemma.course.quiz import quiz

__all__ = ["quiz"]
