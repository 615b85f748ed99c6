"""The studio is an extra: where it is not installed, neither its tests nor its doctests are collected."""

from importlib.util import find_spec

collect_ignore = [] if find_spec("fastapi") else ["src/trilemma/studio", "tests/studio"]
