"""The model of a training as it would be used: with its averaged weights if there are any, and its last step taken."""

import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import Tensor

from trilemma.data import Data
from trilemma.data.loader import FINISH_IMAGES, VALID_BATCH, training_images
from trilemma.memory import copies, in_main_memory
from trilemma.modes import in_eval_mode
from trilemma.run.config import TrainConfig
from trilemma.team import ALONE, Team, smallest
from trilemma.training.ema import EMA
from trilemma.training.shards import Shards
from trilemma.types import Batch, Finishes, Model


class ModelInUse:
    """A model in training, and the images that its evaluations see.

    Args:
        shards: of its weights, where they are divided over the processes, which then do all of this together.
    """

    def __init__(
        self,
        model: Model,
        data: Data,
        config: TrainConfig,
        ema: EMA | None = None,
        team: Team = ALONE,
        shards: Shards | None = None,
    ) -> None:
        self.model, self.data, self.config, self.ema, self.team = model, data, config, ema, team
        self.shards = shards
        self.device = next(model.parameters()).device

    @contextmanager
    def weights(self) -> Iterator[None]:
        """Inside, the model is in eval mode and has its averaged weights if there are any."""
        averaged = self.ema.applied() if self.ema is not None else nullcontext()
        with in_eval_mode(self.model), averaged, self.whole():
            yield

    def whole(self) -> AbstractContextManager[object]:
        """Inside, the model has whole weights."""
        return nullcontext() if self.shards is None else self.shards.whole()

    def weights_kept(self) -> dict[str, Tensor]:
        """A copy of the weights and buffers that the model has; in main memory where a device need not have room."""
        state = self.model.state_dict()
        return copies(state) if self.shards is None else in_main_memory(state)

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
        if self.ema is not None and not best:
            self.ema.swap()
        if self.shards is not None:
            self.shards.join()
        if best:
            self.model.load_state_dict(best)
        self.model.eval()
        self.ema = self.shards = None
