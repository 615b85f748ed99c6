"""Small pieces that convolutional networks share."""

from torch import Tensor


def centre_crop(image: Tensor, height: int, width: int) -> Tensor:
    """The middle of an image: (B, C, H, W) -> (B, C, height, width), with height <= H and width <= W."""
    top, left = (image.shape[2] - height) // 2, (image.shape[3] - width) // 2
    return image[:, :, top : top + height, left : left + width]
