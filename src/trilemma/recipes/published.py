"""Settings and values that were published for Fashion-MNIST, in the words of `train`."""

from typing import Any

from trilemma.registry import Published

SPECIFICATION = "the specification of the project"
ON_FASHION = "fashion-mnist, 55,000 images to train on and 5,000 to validate"
SETTINGS = {"optimizer": "nadam", "batch": 32, "clip": 1.0, "lr_schedule": "plateau"}


def on_fashion(settings: dict[str, Any], **values: float) -> Published:
    """Those that all of them share, and a preset's own."""
    return Published(SPECIFICATION, ON_FASHION, SETTINGS | settings, values)
