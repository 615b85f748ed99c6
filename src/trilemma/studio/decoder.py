"""The process that holds a model for the sliders: python -m trilemma.studio.decoder, in the studio's folder.

Each line that it reads is an object in JSON, {"run": NAME} for the axes of a run or {"run": NAME, "values": {UNIT:
VALUE}} for an image. It answers with a line in JSON; of an image that says how many bytes of a PNG follow.
"""

import json
import os
import sys
from dataclasses import asdict, dataclass
from typing import IO, Any

from trilemma.errors import UserError
from trilemma.explore.sliders import Sliders, sliders_of
from trilemma.pictures.png import png_content
from trilemma.run.checkpoint import MANIFEST
from trilemma.run.locate import WEIGHTS, run_folder
from trilemma.run.run import as_run
from trilemma.run.unfinished import CHECKPOINTS

THREADS = 1  # a training beside it keeps the others
Stamp = list[tuple[str, int, int, int]]  # of files: name, number, time of change in ns, and bytes


@dataclass
class Held:
    """The sliders of a run, and the stamp that the files of its weights had when they were last compared."""

    sliders: Sliders
    stamp: Stamp


def main(requests: IO[bytes], answers: IO[bytes]) -> None:
    """Answer until there is nothing more to read."""
    import torch

    torch.set_num_threads(THREADS)
    held: dict[str, Held] = {}
    for line in requests:
        try:
            head, content = answer(json.loads(line), held)
        except UserError as error:
            head, content = {"error": str(error)}, b""
        answers.write(json.dumps(head).encode() + b"\n" + content)
        answers.flush()


def answer(request: dict[str, Any], held: dict[str, Held]) -> tuple[dict[str, Any], bytes]:
    """The head of an answer, and the bytes of a picture.

    Args:
        held: the last run, by its name.
    Raises:
        UserError: there is no such run, or its model has no codes to move.
    """
    sliders = _current(request["run"], held)
    if "values" not in request:
        return {"axes": [asdict(axis) for axis in sliders.axes], "directions": sliders.directions is not None}, b""
    content = png_content(sliders.image({int(unit): value for unit, value in request["values"].items()}))
    return {"bytes": len(content)}, content


def _current(name: str, held: dict[str, Held]) -> Sliders:
    """The sliders of a run with the weights that it has now: they are loaded again when the sum of these changes."""
    stamp = stamp_of(name)
    one = held.get(name)
    if one is None or (one.stamp != stamp and one.sliders.run.weights_id != as_run(name).weights_id):
        held.clear()
        one = held[name] = Held(sliders_of(name), stamp)
    one.stamp = stamp
    return one.sliders


def stamp_of(name: str) -> Stamp:
    """What tells without reading them that the weights of a run, or its checkpoints, may have changed."""
    folder = run_folder(name)
    files = [folder / WEIGHTS, *sorted((folder / CHECKPOINTS).glob(f"*/{MANIFEST}"))]
    return [(str(file), *_numbers(file.stat())) for file in files if file.is_file()]


def _numbers(stat: os.stat_result) -> tuple[int, int, int]:
    return stat.st_ino, stat.st_mtime_ns, stat.st_size


if __name__ == "__main__":
    main(sys.stdin.buffer, sys.stdout.buffer)
