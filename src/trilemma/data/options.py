"""What may be asked of any source: the size of its images, their channels and frames, and what is held out of it."""

from typing import Any, NamedTuple

from trilemma.data.decoding.size import parse_size
from trilemma.errors import UserError, unknown

FRACTION = 0.1  # of the training images become the validation split by default
FRAMES = ("first", "all")  # of a file with several
# How a source is divided. "tenth" is the rule of earlier versions: a tenth, whatever the classes.
RULES = ("enough", "tenth")


class Options(NamedTuple):
    """size: (height, width); channels: 1 or 3; both default to inferred. frames: one of FRAMES; valid: fraction of
    the training images to hold out (default: as much as `rule`, one of RULES, says); seed: chooses them, and draws what
    is drawn; most_px: of a side, where the size is inferred (default: as `choose_size` says). See `load_data`."""

    size: tuple[int, int] | None = None
    channels: int | None = None
    frames: str = FRAMES[0]
    valid: float | None = None
    seed: int = 0
    rule: str = RULES[0]
    most_px: int | None = None


def change(options: Options, **keys: Any) -> Options:
    """The options with the keys that a user gives; None leaves one as it is.

    Raises:
        UserError: a value does not fit.
    """
    options = options._replace(**{key: value for key, value in keys.items() if value is not None})
    options = options._replace(size=parse_size(options.size))
    if options.channels not in (None, 1, 3):
        raise UserError(f"channels={options.channels}: choose 1 (grey) or 3 (colour)")
    if options.valid is not None:
        share(2, options.valid)
    if options.frames not in FRAMES:
        raise UserError(
            f"frames={options.frames}: choose first (of each file the first frame or page) or all (each an image)"
        )
    if options.rule not in RULES:
        raise unknown("rule", options.rule, RULES)
    return options


def share(n: int, fraction: float | None) -> int:
    """How many of n images are that fraction: at least 1, at most n - 1."""
    fraction = FRACTION if fraction is None else fraction
    if not 0 < fraction < 1:
        raise UserError(f"valid={fraction}: the fraction for validation lies between 0 and 1, for instance 0.1")
    return max(1, min(n - 1, round(n * fraction)))
