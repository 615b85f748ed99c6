"""The process that holds a model for the sliders: python -m trilemma.studio.slider_worker, in the studio's folder.

Each line that it reads is an object in JSON: {"run": NAME, "how": {...}} for the axes of a run, where `how` holds
arguments of `sliders_of`; or with "values": {UNIT: VALUE}, and "styles" for a model that mixes them, for an image. It
answers with a line in JSON; of an image that says how many bytes of a PNG follow.
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
from trilemma.run.run import Run, as_run
from trilemma.run.unfinished import CHECKPOINTS

THREADS = 1  # a training beside it keeps the others
MOST_LOADED = 3  # runs, so that pages of several do not load theirs again and again
Stamp = list[tuple[str, int, int, int]]  # of files: name, number, time of change in ns, and bytes


@dataclass
class LoadedRun:
    """A run, the stamp that the files of its weights had when they were last compared, and its last sliders."""

    run: Run
    stamp: Stamp
    how: dict[str, Any] | None = None
    sliders: Sliders | None = None


def main(requests: IO[bytes], answers: IO[bytes]) -> None:
    """Answer until there is nothing more to read."""
    import torch

    torch.set_num_threads(THREADS)
    loaded: dict[str, LoadedRun] = {}
    for line in requests:
        try:
            head, content = answer(json.loads(line), loaded)
        except UserError as error:
            head, content = {"error": str(error)}, b""
        answers.write(json.dumps(head).encode() + b"\n" + content)
        answers.flush()


def answer(request: dict[str, Any], loaded: dict[str, LoadedRun]) -> tuple[dict[str, Any], bytes]:
    """The head of an answer, and the bytes of a picture.

    Args:
        loaded: the last runs, by their names, the newest last.
    Raises:
        UserError: there is no such run, its model has no codes to move, or what is asked for does not fit.
    """
    sliders = _current(request["run"], request.get("how", {}), loaded)
    if "values" not in request:
        return _facts(sliders), b""
    values = {int(unit): value for unit, value in request["values"].items()}
    content = png_content(sliders.image(values, request.get("styles")))
    return {"bytes": len(content)}, content


def _facts(sliders: Sliders) -> dict[str, Any]:
    """What a page shows of sliders."""
    names = ("kind", "kinds", "classes", "reads_captions", "calls", "layers", "by_effect")
    return {"axes": [asdict(axis) for axis in sliders.axes], **{name: getattr(sliders, name) for name in names}}


def _current(name: str, how: dict[str, Any], loaded: dict[str, LoadedRun]) -> Sliders:
    """The sliders of a run with the weights that it has now: they are loaded again when the sum of these changes."""
    stamp = stamp_of(name)
    one = loaded.pop(name, None)
    if one is None or (one.stamp != stamp and one.run.weights_id != as_run(name).weights_id):
        for oldest in [*loaded][: 1 - MOST_LOADED]:
            del loaded[oldest]
        one = LoadedRun(as_run(name), stamp)
    loaded[name] = one
    if one.sliders is None or one.how != how:
        one.sliders, one.how = sliders_of(one.run, **how), how
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
