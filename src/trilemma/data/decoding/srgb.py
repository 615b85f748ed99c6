"""Colours to sRGB, the space of screens: what an embedded ICC profile or CIE Lab means, by littlecms.

A camera's Display P3 or Adobe RGB file read as if it were sRGB looks dull: the same numbers stand for stronger colours.
CMYK without a profile is converted by R = (255 - C) (255 - K) / 255 and so on.
"""

import io
from functools import lru_cache

from PIL import Image, ImageCms

OUT = {"RGBA": "RGBA"}  # transparency is kept


def to_srgb(image: Image.Image) -> tuple[Image.Image, bool | None]:
    """The image in sRGB, and whether it was converted: None if it is sRGB already, False if it cannot be.

    Lab without a profile is taken as CIE Lab under D50, as TIFF files hold it.
    """
    profile = image.info.get("icc_profile") or b""
    if image.mode == "LAB":
        lab = ImageCms.applyTransform(image, _from_lab())
        assert lab is not None
        return lab, None
    if _is_srgb(profile):
        return image, None
    if image.mode == "P":
        image = image.convert("RGB")
    if image.mode == "LA":
        grey, alpha = image.split()
        colour, converted = _apply(grey, profile)
        if converted:
            colour.putalpha(alpha)
        return (colour, True) if converted else (image, False)
    return _apply(image, profile)


def _apply(image: Image.Image, profile: bytes) -> tuple[Image.Image, bool]:
    try:
        transform = _transform(profile, image.mode)
        converted = ImageCms.applyTransform(image, transform)
    except (ImageCms.PyCMSError, OSError, ValueError, KeyError):  # broken, or of another kind of colour
        return image, False
    assert converted is not None
    return converted, True


@lru_cache(16)
def _transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform:
    return ImageCms.buildTransform(io.BytesIO(profile), ImageCms.createProfile("sRGB"), mode, OUT.get(mode, "RGB"))


@lru_cache(1)
def _from_lab() -> ImageCms.ImageCmsTransform:
    return ImageCms.buildTransform(ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB"), "LAB", "RGB")


@lru_cache(64)
def _is_srgb(profile: bytes) -> bool:
    try:
        return "srgb" in ImageCms.getProfileDescription(io.BytesIO(profile)).lower()
    except (ImageCms.PyCMSError, OSError, ValueError):
        return False
