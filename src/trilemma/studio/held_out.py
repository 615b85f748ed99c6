"""A held-out image of a run as a PNG, from a process of its own: python -m trilemma.studio.held_out RUN NUMBER [DATA].

It works in the studio's folder, and answers with a line in JSON, {"bytes": COUNT} or {"error": TEXT}, and the bytes.
"""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from trilemma.errors import UserError
from trilemma.studio.processes import answers, start

LONGEST_S = 120.0  # seconds for the answer: torch and the images are loaded


def held_out_png(folder: Path, run: str, number: str, data: str = "") -> bytes:
    """The PNG of an image, in the size that the run works in; called by the server, which loads no torch.

    Args:
        folder: in which the run lies.
        data: other data than the run's own.
    Raises:
        UserError: there is no such image, or the process ended.
    """
    words = [run, number, *([data] if data else [])]
    process = start("held_out", *words, folder=folder, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
    try:
        line, _, content = process.communicate(timeout=LONGEST_S)[0].partition(b"\n")
        head = json.loads(line)
    except (subprocess.TimeoutExpired, ValueError):
        process.kill()
        process.wait()
        raise UserError(f"image {number} could not be read; try again, or bring an image") from None
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
