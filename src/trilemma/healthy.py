"""What is healthy in the log of a training: the limits by which its warnings go, in words and as ranges of values.

The rules are in training/monitor.py and training/adversarial.py. Nothing here loads torch, so that a page can show the
ranges, too.
"""

import math
import re
from collections.abc import Sequence
from statistics import median

SURE = 0.98  # mean probability of being right at which a critic leaves nothing to learn
VANISHED = 0.01  # of a gradient's usual norm
EXPLODED = 1000.0  # times its usual norm
OVERFIT = 0.7  # r_v from which a critic takes held-out images for generated ones
IN_USE = 0.5  # share of a codebook
ACTIVE_ENOUGH = 5  # active units that are not a collapse, however many there are: a ladder has thousands
NO_BETTER = 0.95  # of the error of the mean image, or of a linear estimate: an error above this share is a failure
KEPT = 100  # rows of the log in which a value is usual
LEAST_ROWS = 5  # below which it is not known what is usual

HEALTHY = {
    "d_real": f"D is the probability that the critic gives to an image of being real. Healthy: below {SURE:g}.",
    "d_fake": f"Healthy: above {1 - SURE:.2g}.",
    "logit_real": "Mean over real images. Only the distance between both lines counts.",
    "logit_fake": "Mean over generated images.",
    "auroc": "Share of pairs in which the real image has the higher logit. 0.5: the critic knows nothing.",
    "gradient_norm": f"Healthy: between {VANISHED:g} and {EXPLODED:g} times its usual value.",
    "critic_overfit": "How far the critic takes held-out images for generated ones, 1: as much as it can. "
    f"Healthy: below {OVERFIT:g}.",
    "penalty": f"On the critic's slope, before its weight. Healthy: below {EXPLODED:g} times its usual value.",
    "used_codes": f"Healthy: at least {IN_USE:g}.",
    "active_units": f"Healthy: at least {ACTIVE_ENOUGH}, or a tenth of all units.",
    "kl_nats": "Healthy: above 0. At 0 the code says nothing about the image.",
    "bits_per_dim": "At most so many bits for a value of an image of 256 levels. 8: all levels are equally probable.",
}
BETTER_THAN_MEAN = f"Healthy: below {NO_BETTER:g} times the error of the mean training image, which is {{rmse}}."
BETTER_THAN_LINEAR = f"Healthy: below {NO_BETTER:g} times the error of a linear estimate, which is {{rmse}}."
LINEAR = "valid_linear_"  # before the names of errors of a linear estimate
MEAN_IMAGE = "the mean of the training images has an RMSE of {rmse:.3f} on the held-out images"


def part_of(name: str) -> str:
    """A value of a log without its phase, or without "valid_".

    >>> part_of("critic/d_real"), part_of("valid_rmse"), part_of("penalty/loss")
    ('d_real', 'rmse', 'penalty')
    """
    return "penalty" if name == "penalty/loss" else name.partition("/")[2] or name.removeprefix("valid_")


def linear_of(name: str) -> str:
    """The name of the error of a linear estimate, beside that of a model's own.

    >>> linear_of("valid_denoising_rmse")
    'valid_linear_denoising_rmse'
    """
    return LINEAR + name.removeprefix("valid_")


def usual(values: Sequence[float]) -> float | None:
    """The median of earlier values; None of fewer than LEAST_ROWS."""
    return median(values) if len(values) >= LEAST_ROWS else None


def least_active(units: int) -> int:
    """Active units below which a code of so many is collapsed: one in ten, and ACTIVE_ENOUGH at most."""
    return min(max(1, units // 10), ACTIVE_ENOUGH)


def healthy_range(
    name: str,
    values: Sequence[float],
    *,
    units: int | None = None,
    mean_image_rmse: float | None = None,
    linear_rmse: float | None = None,
) -> tuple[float, float] | None:
    """The values of a log that no rule warns of, (low, high); None where no rule has a limit, or it is not known.

    Args:
        values: those so far, for what is compared with its usual value.
        units: numbers in a code; mean_image_rmse: error of the mean training image; linear_rmse: that of a linear
            estimate of what this value is the error of; where they are known.
    """
    part, before = part_of(name), usual(values[-KEPT:])
    if part == "active_units":
        return None if units is None else (least_active(units), math.inf)
    if name == "valid_rmse":
        return None if mean_image_rmse is None else (0.0, NO_BETTER * mean_image_rmse)
    if linear_rmse is not None:
        return (0.0, NO_BETTER * linear_rmse)
    if part in ("gradient_norm", "penalty"):
        low = VANISHED if part == "gradient_norm" else -math.inf
        return None if before is None or before <= 0 else (low * before, EXPLODED * before)
    fixed = {
        "d_real": (-math.inf, SURE),
        "d_fake": (1 - SURE, math.inf),
        "critic_overfit": (-math.inf, OVERFIT),
        "used_codes": (IN_USE, math.inf),
        "kl_nats": (0.0, math.inf),
    }
    return fixed.get(part)


def mean_image_rmse_in(output: str) -> float | None:
    """The error of the mean training image, from what a training says at its beginning; None if it does not.

    >>> mean_image_rmse_in("  " + MEAN_IMAGE.format(rmse=0.2758))
    0.276
    """
    match = re.search(MEAN_IMAGE.replace("{rmse:.3f}", r"(\d+\.\d+)"), output)
    return None if match is None else float(match[1])
