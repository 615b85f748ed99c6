"""Settings that earlier versions wrote, in the form of this one."""

from typing import Any

VARIANCE = 0.5  # of the Gaussian whose -log p is |x_hat - x|**2, up to a constant: behind a mean squared error


def stated_variance(settings: dict[str, Any]) -> dict[str, Any]:
    """A model's settings as in config.json, where the default variance is written in one way.

    Earlier versions wrote "optimal" for every variance that was not given. Behind a squared error that meant VARIANCE;
    elsewhere None means the same.
    """
    if "variance" not in settings or settings["variance"] not in (None, "optimal"):
        return settings
    return {**settings, "variance": VARIANCE if settings.get("reconstruction", "mse") == "mse" else None}
