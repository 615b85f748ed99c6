"""A held-out image of a run as a PNG, from a process of its own: python -m trilemma.studio.held_out RUN NUMBER [DATA].

It works in the studio's folder, and answers with a line in JSON, {"bytes": COUNT} or {"error": TEXT}, and the bytes.
"""

import json
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from trilemma.errors import UserError
from trilemma.studio.processes import OneProcess, answers

LONGEST_S = 120.0  # seconds for the answer: torch and the images are loaded


class HeldOut:
    """Reads one held-out image at a time, for the server, which loads no torch.

    Args:
        folder: in which the runs lie.
    """

    def __init__(self, folder: Path) -> None:
        self._turn, self._process = threading.Lock(), OneProcess("held_out", folder)

    def close(self) -> None:
        """End what is being read, and read no other image."""
        self._process.close()

    def png(self, run: str, number: str, data: str = "") -> bytes:
        """The PNG of an image, in the size that the run works in.

        Args:
            data: other data than the run's own.
        Raises:
            UserError: there is no such image, another one is being read, or the process ended.
        """
        if not self._turn.acquire(blocking=False):
            raise UserError("another held-out image is being read; wait until it is there, and try again")
        try:
            words = [run, number, *([data] if data else [])]
            line, _, content = self._process.output(*words, limit_s=LONGEST_S).partition(b"\n")
            head = json.loads(line)
        except UserError:
            raise
        except (subprocess.TimeoutExpired, ValueError):
            raise UserError(f"image {number} could not be read; try again, or bring an image") from None
        finally:
            self._turn.release()
        if "error" in head:
            raise UserError(head["error"])
        return content


def main(words: Sequence[str], out: IO[bytes]) -> None:
    """Answer, in the process."""
    from trilemma.explore.naming import load_image
    from trilemma.pictures.png import png_content
    from trilemma.run.run import as_run

    run, number, *data = words
    try:
        content = png_content(load_image(as_run(run), int(number), data[0] if data else None)[0].cpu())
        out.write(json.dumps({"bytes": len(content)}).encode() + b"\n" + content)
    except UserError as error:
        out.write(json.dumps({"error": str(error)}).encode() + b"\n")


if __name__ == "__main__":
    with answers() as file:
        main(sys.argv[1:], file)
