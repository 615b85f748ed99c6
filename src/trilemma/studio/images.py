"""Single images that a page sends to be edited, and masks that are painted over them: pixels alone, under ids."""

import base64
import hashlib
import re
from pathlib import Path

from trilemma.errors import UserError
from trilemma.studio.place import Missing
from trilemma.studio.uploads import decoded, write_png

IMAGE = "image:"  # before the id, where the number of a held-out image could stand
ID = re.compile("[0-9a-f]{16}")
PAINTED = "data:image/png;base64,"


class Images:
    """The images of a folder.

    Args:
        place: the folder, of the studio's own.
    """

    def __init__(self, place: Path) -> None:
        self.place = place

    def keep(self, content: bytes) -> str:
        """Write an image, and give its id.

        Raises:
            UserError: it is not an image within bounds.
        """
        if (image := decoded(content)) is None:
            raise UserError("this is not an image, or a very large one")
        ident = hashlib.sha256(repr((image.mode, image.size)).encode() + image.tobytes()).hexdigest()[:16]
        if not (self.place / f"{ident}.png").exists():
            write_png(image, self.place / f"{ident}.png")
        return ident

    def path(self, ident: str) -> Path:
        """The file of an image; raises Missing if there is none."""
        path = self.place / f"{ident}.png"
        if not ID.fullmatch(ident) or not path.is_file() or path.is_symlink():
            raise Missing("This image is not there any more.")
        return path

    def keep_mask(self, painted: str) -> Path:
        """Write a mask as a page paints it, white where pixels are drawn, and give its file.

        Raises:
            UserError: it is not one.
        """
        try:
            content = base64.b64decode(painted.removeprefix(PAINTED), validate=True)
        except ValueError:  # letters that are none of base 64, or not ASCII
            content = b""
        image = decoded(content) if painted.startswith(PAINTED) else None
        if image is None:
            raise UserError("the mask is not an image")
        plain = image.convert("L").point([0] * 128 + [255] * 128)
        ident = hashlib.sha256(repr(plain.size).encode() + plain.tobytes()).hexdigest()[:16]
        write_png(plain, self.place / f"mask-{ident}.png")
        return self.place / f"mask-{ident}.png"
