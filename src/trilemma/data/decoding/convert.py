"""Pixels of any mode to opaque grey or sRGB of 8 bits, a band of rows at a time, to save memory."""

from collections.abc import Callable, Iterator

import numpy as np
from PIL import Image

from trilemma.data.decoding.size import cover
from trilemma.data.decoding.srgb import to_srgb

GREY = ("1", "L", "LA", "La", "I", "F", "I;16", "I;16B", "I;16L", "I;16N")
PLAIN = ("L", "RGB")
BAND = 2**20  # pixels that are converted at a time
DEPTH = "16-bit or float values, scaled linearly to 8 bits"
ALPHA = "transparency, composed over {}"
PROFILE = "a colour profile, converted to sRGB"
BAD_PROFILE = "a colour profile that cannot be used, skipped"


def fitted(image: Image.Image, mode: str, target: tuple[int, int]) -> Image.Image:
    """In the mode "L" or "RGB" and the target (height, width)."""
    if image.mode == mode:
        return cover(image, target)
    if image.mode == "RGBA" and mode == "RGB" and image.width * image.height > BAND:
        return Image.merge(mode, [cover(image.getchannel(c), target) for c in mode])  # one at a time; A says nothing
    return cover(in_bands(lambda band: band.convert(mode), image, mode), target)


def in_bands(work: Callable[[Image.Image], Image.Image], image: Image.Image, mode: str) -> Image.Image:
    """work(image), which looks at each pixel alone, in that mode; done for some rows at a time, to save memory."""
    if image.width * image.height <= BAND:
        return work(image)
    out = Image.new(mode, image.size)
    for band, top in bands(image):
        out.paste(work(band), (0, top))
    return out


def bands(image: Image.Image) -> Iterator[tuple[Image.Image, int]]:
    """Some rows of an image at a time, and the number of the first."""
    rows = max(1, BAND // image.width)
    for top in range(0, image.height, rows):
        yield image.crop((0, top, image.width, min(top + rows, image.height))), top


def is_deep(image: Image.Image) -> bool:
    """Whether the file holds more than 8 bits per value: Pillow keeps the upper 8 of several channels."""
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        return True
    args = [tile[3] for tile in getattr(image, "tile", ())]
    return any(";16" in str(arg[0] if isinstance(arg, tuple) and arg else arg) for arg in args)


def to_plain(image: Image.Image, words: list[str], ground: str = "white") -> Image.Image:
    """Opaque, in sRGB, with 8 bits per channel; what was done is added to `words`.

    Args:
        ground: the colour that a transparent image is composed over.
    """
    image = in_srgb(image, words)
    if image.has_transparency_data:
        if image.getchannel("A").getextrema() != (255, 255):
            words.append(ALPHA.format(ground))
            return over(image, ground)
        return image if image.mode == "RGBA" else image.convert("L")
    return image


def in_srgb(image: Image.Image, words: list[str]) -> Image.Image:
    """In sRGB, with 8 bits per channel and its transparency, if it has any; what was done is added to `words`."""
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        return eight_bits(image)
    if image.mode not in (*PLAIN, "RGBA", "LA", "RGBa", "La"):
        words.append(
            {"P": "converted from palette", "1": "1 bit per pixel"}.get(image.mode) or f"converted from {image.mode}"
        )
    if image.has_transparency_data and image.mode not in ("RGBA", "LA"):
        image = image.convert("RGBA")
    if image.mode == "LAB" or "icc_profile" in image.info:
        image, converted = to_srgb(image)
        words += [] if converted is None else [PROFILE if converted else BAD_PROFILE]
    return image


def over(image: Image.Image, ground: str) -> Image.Image:
    """A transparent image composed over a colour; "RGBA", and opaque."""

    def composed(band: Image.Image) -> Image.Image:
        return Image.alpha_composite(Image.new("RGBA", band.size, ground), band.convert("RGBA"))

    return in_bands(composed, image, "RGBA")


def eight_bits(image: Image.Image) -> Image.Image:
    """Integers 0 ... 65535, or floats 0 ... 1, to 0 ... 255."""
    top = 1 if image.mode == "F" else 65535
    ends = [(values.min(), values.max()) for values in (np.asarray(band) for band, _ in bands(image))]
    if why := outside(np.min([low for low, _ in ends]), np.max([high for _, high in ends]), top):
        raise ValueError(f"{why}; 0 to {top} can be read")

    def scaled(band: Image.Image) -> Image.Image:
        return Image.fromarray(np.rint(np.asarray(band) * np.float32(255 / top)).clip(0, 255).astype(np.uint8))

    return in_bands(scaled, image, "L")


def outside(low: np.generic, high: np.generic, top: int) -> str:
    """Whether values from `low` to `high`, NaN where one is, go beyond 0 ... top by more than rounding mends, in words.

    Half a level of 255 does no harm: such a value becomes 0 or 255 all the same.
    """
    if not np.isfinite([low, high]).all():
        return f"{'NaN' if np.isnan([low, high]).any() else 'infinite'} values"
    ends = np.rint(np.array([low, high], np.float64) * (255 / top))
    limits = [str(end).removesuffix(".0") for end in (low, high)]  # exact: the shortest text that is this number
    return "" if ends[0] >= 0 and ends[1] <= 255 else f"values from {limits[0]} to {limits[1]}"
