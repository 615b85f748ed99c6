"""Single images that a page sends to be edited, and masks that are painted over them: pixels alone, under ids."""

import base64
import hashlib
import re
from collections.abc import Callable, Container
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING

from trilemma.errors import UserError
from trilemma.files import remove
from trilemma.studio.library import plain_files
from trilemma.studio.place import Missing
from trilemma.studio.uploads import NO_IMAGE, decoded, write_png

if TYPE_CHECKING:
    from PIL import Image

IMAGE = "image:"  # before the id, where the number of a held-out image could stand
ID = re.compile("[0-9a-f]{16}")
PAINTED = "data:image/png;base64,"
MOST_KEPT, LARGEST_KEPT = 500, 2 << 30  # images and masks, and their bytes


class Images:
    """The images of a folder.

    Args:
        place: the folder, of the studio's own.
        in_use: gives the names of files that are still needed, however old they are.
    """

    def __init__(self, place: Path, in_use: Callable[[], Container[str]]) -> None:
        self.place, self._in_use = place, in_use

    def keep(self, content: bytes) -> str:
        """Write an image, and give its id.

        Raises:
            UserError: it is not an image within bounds.
        """
        if (image := decoded(content)) is None:
            raise UserError(NO_IMAGE)
        ident = hashlib.sha256(repr((image.mode, image.size)).encode() + image.tobytes()).hexdigest()[:16]
        self._write(image, f"{ident}.png")
        return ident

    def path(self, ident: str) -> Path:
        """The file of an image; raises Missing if there is none."""
        if not self.has(ident):
            raise Missing("Image not found. Bring it again.")
        return self.place / f"{ident}.png"

    def has(self, ident: str) -> bool:
        """Whether there is an image of that id."""
        path = self.place / f"{ident}.png"
        return ID.fullmatch(ident) is not None and path.is_file() and not path.is_symlink()

    def keep_mask(self, painted: str, over: str = "") -> Path:
        """Write a mask as a page paints it, white where pixels are drawn, transparent as black, and give
        its file.

        Args:
            over: id of the image that it was painted over, whose size it gets; "" where that is its own size.
        Raises:
            UserError: it is not one, or Missing: the image is not found.
        """
        from PIL import Image

        try:
            content = base64.b64decode(painted.removeprefix(PAINTED), validate=True)
        except ValueError:  # letters that are none of base 64, or not ASCII
            content = b""
        image = decoded(content) if painted.startswith(PAINTED) else None
        if image is None:
            raise UserError("the mask is not an image; paint it again")
        opaque = Image.alpha_composite(Image.new("RGBA", image.size, "black"), image.convert("RGBA"))
        plain = opaque.convert("L").point([0] * 128 + [255] * 128)
        if over:
            with Image.open(self.path(over)) as whole:
                plain = plain.resize(whole.size, Image.Resampling.NEAREST)
        ident = hashlib.sha256(repr(plain.size).encode() + plain.tobytes()).hexdigest()[:16]
        self._write(plain, f"mask-{ident}.png")
        return self.place / f"mask-{ident}.png"

    def _write(self, image: "Image.Image", name: str) -> None:
        """Write an image, as the newest, and remove the oldest beyond the bounds, but none that a job needs."""
        write_png(image, self.place / name)
        newest = sorted(plain_files(self.place), key=lambda entry: -entry.stat().st_mtime_ns)
        wholes = accumulate(entry.stat().st_size for entry in newest)
        kept = [k < MOST_KEPT and whole <= LARGEST_KEPT for k, whole in enumerate(wholes)]
        in_use = () if all(kept) else self._in_use()
        for entry, keeps in zip(newest, kept, strict=True):
            if not keeps and entry.name not in in_use:
                remove(entry.path)
