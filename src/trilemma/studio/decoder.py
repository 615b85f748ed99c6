"""The process that holds a model for the sliders: python -m trilemma.studio.decoder, in the studio's folder.

Each line that it reads is an object in JSON, {"run": NAME} for the axes of a run or {"run": NAME, "values": {UNIT:
VALUE}} for an image. It answers with a line in JSON; of an image that says how many bytes of a PNG follow.
"""

import json
import sys
from dataclasses import asdict
from typing import IO, Any

from trilemma.errors import UserError
from trilemma.explore.sliders import Sliders, sliders_of
from trilemma.pictures.png import png_content

THREADS = 1  # a training beside it keeps the others


def main(requests: IO[bytes], answers: IO[bytes]) -> None:
    """Answer until there is nothing more to read."""
    import torch

    torch.set_num_threads(THREADS)
    held: dict[str, Sliders] = {}
    for line in requests:
        try:
            head, content = answer(json.loads(line), held)
        except UserError as error:
            head, content = {"error": str(error)}, b""
        answers.write(json.dumps(head).encode() + b"\n" + content)
        answers.flush()


def answer(request: dict[str, Any], held: dict[str, Sliders]) -> tuple[dict[str, Any], bytes]:
    """The head of an answer, and the bytes of a picture.

    Args:
        held: the sliders of the last run, by its name.
    """
    name = request["run"]
    if name not in held:
        sliders = sliders_of(name)
        held.clear()
        held[name] = sliders
    sliders = held[name]
    if "values" not in request:
        return {"axes": [asdict(axis) for axis in sliders.axes], "directions": sliders.directions is not None}, b""
    content = png_content(sliders.image({int(unit): value for unit, value in request["values"].items()}))
    return {"bytes": len(content)}, content


if __name__ == "__main__":
    main(sys.stdin.buffer, sys.stdout.buffer)
