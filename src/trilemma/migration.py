"""Settings that earlier versions wrote, in the form of this one."""

from typing import Any

VARIANCE = 0.5  # of the Gaussian whose -log p is |x_hat - x|**2, up to a constant: behind a mean squared error
DISCRETE = {"variables", "categories", "hard"}  # settings of vae-discrete


def stated_variance(settings: dict[str, Any]) -> dict[str, Any]:
    """A model's settings as in config.json, where the default variance is written in one way.

    Earlier versions wrote "optimal" for every variance that was not given. Behind a squared error that meant VARIANCE;
    elsewhere None means the same. For vae-discrete they wrote none, and it was VARIANCE.
    """
    if settings.get("variance") not in (None, "optimal") or not ("variance" in settings or settings.keys() >= DISCRETE):
        return settings
    return {**settings, "variance": VARIANCE if settings.get("reconstruction", "mse") == "mse" else None}
