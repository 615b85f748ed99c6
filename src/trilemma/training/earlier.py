"""Weights that a training keeps on the way, from which its learning curve is measured."""

from collections.abc import Callable
from pathlib import Path

from trilemma.data.loader import FINISH_IMAGES
from trilemma.errors import UserError
from trilemma.files import remove
from trilemma.run.locate import EARLIER
from trilemma.run.tensor_files import write_tensors
from trilemma.training.in_use import ModelInUse


def drop_later(path: Path, images: int) -> None:
    """Remove weights of more images than a training has seen that goes on from there."""
    for file in (path / EARLIER).glob("*.safetensors"):
        if file.stem.isdecimal() and int(file.stem) > images:
            remove(file)


def keep_weights(in_use: ModelInUse, path: Path, name: str, warn: Callable[[str], None]) -> None:
    """The model as it would be used, into RUN/earlier/NAME.safetensors by one process; the training stays as it was.

    A file that cannot be written costs a warning, never the training.
    """
    if not in_use.team.writes and in_use.shards is None:
        return
    with in_use.untouched():
        in_use.finish(FINISH_IMAGES)
        if not in_use.team.writes:
            return
        try:
            (path / EARLIER).mkdir(exist_ok=True)
            write_tensors(path / EARLIER / f"{name}.safetensors", dict(in_use.model.state_dict()))
        except (OSError, UserError) as error:
            warn(f"the weights {name} were not kept ({error}); training continues")
