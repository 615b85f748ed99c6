"""The sample pictures of a training: the same latents every time, so that pictures compare."""

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from trilemma.data.loader import FINISH_IMAGES
from trilemma.errors import UserError
from trilemma.memory import halving
from trilemma.pictures.grid import grid
from trilemma.pictures.png import save_png
from trilemma.training.in_use import ModelInUse
from trilemma.training.pictures import made_by_training
from trilemma.types import Samples, draw

N_SAMPLES = 64  # in a sample picture
PARTS = 16  # of a sample picture, of which one tells how long it takes


class SamplePictures:
    """Draws them into the folder `samples`.

    Args:
        command: of the training, for the pictures' metadata; warn: takes a warning.
    """

    def __init__(self, in_use: ModelInUse, path: Path, command: str, warn: Callable[[str], None]) -> None:
        self.in_use, self.folder, self.command, self.warn = in_use, path / "samples", command, warn
        self.seconds = 0.0  # that the images of a picture take, by the last that were drawn

    def snapshot(self, name: str) -> Tensor | None:
        """A picture on the way, which leaves the training as it was; as `draw`."""
        with self.in_use.untouched():
            self.in_use.finish(FINISH_IMAGES // 5)
            return self.draw(name)

    def draw_part(self, parts: int) -> None:
        """One of so many parts of the work of a snapshot, to learn how long one takes."""
        if isinstance(self.in_use.model, Samples):
            with self.in_use.untouched():
                self.in_use.finish(FINISH_IMAGES // 5 // parts)
                self._sample(N_SAMPLES // parts, N_SAMPLES // parts)

    def draw(self, name: str) -> Tensor | None:
        """The samples (N_SAMPLES, C, H, W), written as samples/NAME.png by one process; None for a model that draws
        none.

        A picture that cannot be written costs a warning, never the training.
        """
        if not isinstance(self.in_use.model, Samples):
            return None
        images = halving(partial(self._sample, N_SAMPLES), N_SAMPLES, self.warn)
        if not self.in_use.team.writes:
            return images
        try:
            self.folder.mkdir(exist_ok=True)
            record = made_by_training(self.command, f"samples {name}")
            save_png(grid(images.cpu()), self.folder / f"{name}.png", record, replace=True)
        except (OSError, UserError) as error:
            self.warn(f"the sample picture {name}.png was not written ({error}); training continues")
        return images

    @torch.no_grad()
    def _sample(self, n: int, size: int) -> Tensor:
        """The first `n` images of the pictures, `size` at a time."""
        model, seed, start = self.in_use.model, self.in_use.config.seed, time.perf_counter()
        assert isinstance(model, Samples)
        images = torch.cat([draw(model, size, seed=seed, first=first) for first in range(0, n, size)])
        self.seconds = (time.perf_counter() - start) * N_SAMPLES / n
        return images
