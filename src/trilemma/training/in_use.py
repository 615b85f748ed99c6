"""The model of a training as it would be used: with its averaged weights if there are any, and its last step taken."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext

import torch
from torch import Tensor

from trilemma.data import Data
from trilemma.data.loader import FINISH_IMAGES, VALID_BATCH, training_images
from trilemma.memory import copies
from trilemma.run.config import TrainConfig
from trilemma.team import ALONE, Team, smallest
from trilemma.training.ema import EMA
from trilemma.types import Batch, Finishes, Model


class ModelInUse:
    """A model in training, and the images that its evaluations see."""

    def __init__(
        self, model: Model, data: Data, config: TrainConfig, ema: EMA | None = None, team: Team = ALONE
    ) -> None:
        self.model, self.data, self.config, self.ema, self.team = model, data, config, ema, team
        self.device = next(model.parameters()).device

    @contextmanager
    def weights(self) -> Iterator[None]:
        """Inside, the model is in eval mode and has its averaged weights if there are any."""
        training = self.model.training
        self.model.eval()
        try:
            with self.ema.applied() if self.ema is not None else nullcontext():
                yield
        finally:
            self.model.train(training)

    @contextmanager
    def buffers_kept(self) -> Iterator[None]:
        """Inside, nothing has gradients, and what the model does to its buffers is undone afterwards."""
        held = copies(dict(self.model.named_buffers()))
        with torch.no_grad():
            try:
                yield
            finally:
                for key, buffer in self.model.named_buffers():
                    buffer.copy_(held[key])

    @contextmanager
    def untouched(self) -> Iterator[None]:
        """As `buffers_kept`, and the model has the weights to use."""
        with self.buffers_kept(), self.weights():
            yield

    def training_images(self, n: int, size: int = VALID_BATCH) -> Iterator[Batch]:
        """The first `n` images of the training order, `size` at a time, as they are."""
        return training_images(self.data.train, n, seed=self.config.seed, device=self.device, size=size)

    def finish(self, n: int = FINISH_IMAGES) -> dict[str, float]:
        """Let the model take its last step, on the first `n` training images; its values are named train_..."""
        if not isinstance(self.model, Finishes):
            return {}
        values = self.model.finish(self.training_images(n), seed=self.config.seed)
        return {f"train_{name}": value for name, value in values.items()}

    @torch.no_grad()
    def finish_within(self, seconds: float | None) -> dict[str, float]:
        """The last step on FINISH_IMAGES training images, or on as many as take so many seconds; one batch at least."""
        if seconds is None:
            return self.finish()
        few, start = VALID_BATCH, time.perf_counter()
        values = self.finish(few)
        elapsed = max(time.perf_counter() - start, 1e-9)
        n = int(smallest(self.team, min(FINISH_IMAGES, few * (seconds - elapsed) / elapsed)))
        return self.finish(n) if n > few and len(self.data.train) > few else values

    def take_final_weights(self, best: Mapping[str, Tensor]) -> None:
        """The model ends with its best weights, or the averaged, or the last ones."""
        if best:
            self.model.load_state_dict(best)
        elif self.ema is not None:
            self.ema.swap()
        self.model.eval()
        self.ema = None
