"""Animations that repeat for ever: GIF and WebP files, and MP4 films by the extra `video`."""

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch import Tensor

from trilemma.errors import UserError
from trilemma.extras import install_line
from trilemma.keys import Film
from trilemma.pictures.grid import grid, tile_scale

if TYPE_CHECKING:
    from PIL import Image

MOVING = 128  # px: images are enlarged towards this side
FRAMES_PER_SECOND = 25  # of an MP4 film


def frame(images: Tensor, columns: int) -> "Image.Image":
    """Images (N, C, H, W) beside each other."""
    return grid(images, columns=columns, scale=tile_scale(*images.shape[2:], side=MOVING), pad=4)


def check_film(film: Film, animate: bool = True) -> None:
    """Raises UserError, before any work, for a format of no animation, or one whose package is not installed."""
    if not animate and film != "gif":
        raise UserError(f"film={film} is the format of an animation; give animate=true, or leave film= out")
    if animate and film == "mp4":
        try:
            import av  # noqa: F401  # pyright: ignore[reportMissingImports]
        except ImportError:
            raise UserError(f"film=mp4 needs the package av: {install_line('video')}; or take gif or webp") from None


def animated(
    pictures: "Sequence[Image.Image]", times_ms: Sequence[int], film: Film = "gif", rate: int = FRAMES_PER_SECOND
) -> bytes:
    """The content of a file that shows each picture for its time.

    Args:
        rate: frames in a second of an MP4 film, of which each picture takes a whole number.
    """
    if film == "mp4":
        return _mp4(pictures, times_ms, rate)
    buffer = io.BytesIO()
    more = {"lossless": True} if film == "webp" else {}
    pictures[0].save(buffer, film, save_all=True, append_images=pictures[1:], duration=list(times_ms), loop=0, **more)
    return buffer.getvalue()


def _mp4(pictures: "Sequence[Image.Image]", times_ms: Sequence[int], rate: int) -> bytes:
    """H.264, with sides of an even number of pixels, as it needs them; each picture for a whole number of frames."""
    import av  # pyright: ignore[reportMissingImports]

    width, height = (side - side % 2 for side in pictures[0].size)
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=rate)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.options = {"crf": "18"}
        for picture, time_ms in zip(pictures, times_ms, strict=True):
            shown = picture.convert("RGB").crop((0, 0, width, height))
            for _ in range(max(1, round(time_ms * rate / 1000))):
                container.mux(stream.encode(av.VideoFrame.from_image(shown)))
        container.mux(stream.encode())
    return buffer.getvalue()
