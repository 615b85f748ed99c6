"""How much of the 256 levels the images of a source fill: values of another range come out black."""

from torch import Tensor

CHECKED = 1_000  # images that are checked, spread over all
FEW = 64  # levels; images that fill no more look black, white or flat


def few_levels(images: Tensor) -> str:
    """A warning if images, uint8 (N, ...), fill few levels, as 12-bit values in 16-bit files do; else ""."""
    sample = images[:: max(1, len(images) // CHECKED)]
    if not sample.numel():
        return ""
    low, high = int(sample.min()), int(sample.max())
    if high - low >= FEW:
        return ""
    advice = f"scale the values by up to {255 // high}" if 0 < high < FEW else "stretch their values"
    return (
        f"the images fill {high - low + 1} of 256 levels ({low} to {high}), which a model sees as almost one grey; "
        f"{advice} if they hold more than that"
    )
