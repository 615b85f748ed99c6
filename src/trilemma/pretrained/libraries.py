"""The libraries of the extra `pretrained`, loaded when needed, and silent: what they say is for programmers."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import Any

from trilemma.errors import UserError
from trilemma.extras import EXTRAS, install_line

LIBRARIES = ("diffusers", "transformers", "accelerate")
LONGEST = 300  # letters of a message of theirs


def check_installed() -> None:
    """Raises UserError where a library is not installed, or too old, with the line that installs it; none is loaded."""
    if absent := [name for name in LIBRARIES if find_spec(name) is None]:
        raise _needed(absent[0])
    for name in LIBRARIES:
        with suppress(PackageNotFoundError):  # a copy that pip did not install
            _check_version(name, version(name))


def load_diffusers() -> Any:
    """The module diffusers, with transformers and accelerate beside it.

    Raises:
        UserError: one of them is not installed, or too old, with the line that installs it.
    """
    try:
        with silent_logs():
            import accelerate  # pyright: ignore[reportMissingImports]
            import diffusers  # pyright: ignore[reportMissingImports]
            import transformers  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise _needed(error.name or "diffusers") from None
    for module in (diffusers, transformers, accelerate):
        _check_version(module.__name__, module.__version__)
    return diffusers


def _needed(name: str) -> UserError:
    return UserError(f"published checkpoints need the library {name}: {install_line('pretrained')}")


@cache
def _check_version(name: str, installed: str) -> None:
    """Raises UserError for a library that is older than the extra asks for."""
    from packaging.requirements import Requirement  # accelerate needs it, too

    wanted = next(need for need in map(Requirement, EXTRAS["pretrained"]) if need.name == name)
    if not wanted.specifier.contains(installed, prereleases=True):
        raise UserError(
            f"published checkpoints need {wanted}, and {installed} is installed: {install_line('pretrained')}"
        )


class Warned(logging.Handler):
    """Keeps what the libraries warn of, and shows none of it."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a warning."""
        self.texts.append(record.getMessage())


@contextmanager
def silence() -> Iterator[list[str]]:
    """Inside, the libraries show no warnings and no progress of their own; errors are raised as ever.

    Yields:
        What they warned of.
    """
    both = [load_diffusers().utils.logging, _transformers_logging()]
    shown = [one for one in both if one.is_progress_bar_enabled()]
    warned = Warned()
    loggers = [logging.getLogger(name) for name in LIBRARIES]
    held = [(logger.handlers, logger.propagate, logger.level) for logger in loggers]
    for one in shown:
        one.disable_progress_bar()
    for logger in loggers:
        logger.handlers, logger.propagate = [warned], False
        logger.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield warned.texts
    finally:
        for logger, (handlers, propagate, level) in zip(loggers, held, strict=True):
            logger.handlers, logger.propagate = handlers, propagate
            logger.setLevel(level)
        for one in shown:
            one.enable_progress_bar()


def _transformers_logging() -> Any:
    from transformers.utils import logging as theirs  # pyright: ignore[reportMissingImports]

    return theirs


@contextmanager
def silent_logs() -> Iterator[None]:
    """Inside, logs below an error and warnings are dropped."""
    held = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(held)


def brief(error: BaseException) -> str:
    """What an error of a library says first, in one line; its kind if it says nothing.

    >>> brief(ValueError("bad value\\nand a page of advice")), brief(KeyError())
    ('bad value', 'KeyError')
    """
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:LONGEST] if lines else type(error).__name__
