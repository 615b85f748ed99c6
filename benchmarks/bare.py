"""The bare step of a recipe: forward, backward, clipping, optimiser and averages on batches that lie ready.

Imported by the benchmarks beside it; no part of a training but the mathematics.
"""

import time
from contextlib import nullcontext

import torch

from trilemma.data import Data, Loader
from trilemma.registry import create, get_recipe
from trilemma.run.config import TrainConfig
from trilemma.training.ema import EMA
from trilemma.training.optim import make_optimizer
from trilemma.types import Batch, Model, Phase, Player, not_averaged

BATCHES = 16  # that lie ready
WARM_UP = 5  # steps


class BareStep:
    """A recipe's network, with its batch, optimiser and averages; precision and layout as asked for.

    Args:
        model: in place of the recipe's own.
    """

    def __init__(
        self,
        name: str,
        data: Data,
        *,
        bf16: bool,
        channels_last: bool,
        device: str = "cpu",
        model: Model | None = None,
    ) -> None:
        self.config = TrainConfig(**get_recipe(name).training)
        self.model = (create(name, shape=data.shape) if model is None else model).to(device)
        layout = torch.channels_last if channels_last else torch.contiguous_format
        self.model.to(memory_format=layout)  # type: ignore[call-overload]
        self.bf16, self.device = bf16, torch.device(device)
        self.optimizers = {player.name: make_optimizer(player, self.config) for player in self.model.players}
        halflife, still = self.config.ema_halflife_images, not_averaged(self.model.phases)
        self.ema = EMA(self.model, halflife, without=still) if halflife else None
        loader = Loader(data.train, batch=self.config.batch, seed=0, device=device)
        batches = [loader.batch_at(k * self.config.batch) for k in range(BATCHES)]
        self.batches = [Batch(b.image.contiguous(memory_format=layout), b.condition, index=b.index) for b in batches]

    def __call__(self, k: int) -> None:
        """The k-th step."""
        for player in self.model.players:
            own = [phase for phase in self.model.phases if phase.player is player and k % phase.every == 0]
            for turn in range(max(phase.repeats for phase in own)):
                self._move(player, [phase for phase in own if turn < phase.repeats], self.batches[(k + turn) % BATCHES])
        if self.ema is not None:
            self.ema.update(0.999)

    def _move(self, player: Player, phases: list[Phase], batch: Batch) -> None:
        """A step of a player."""
        self.optimizers[player.name].zero_grad(set_to_none=True)
        for phase in phases:
            with torch.autocast(self.device.type, torch.bfloat16) if self.bf16 else nullcontext():
                loss, _ = phase.loss(batch, torch.default_generator)
            (loss if phase.every == 1 else phase.every * loss).backward()
        if self.config.clip is not None:
            torch.nn.utils.clip_grad_norm_(player.parameters, self.config.clip)
        self.optimizers[player.name].step()
        if player.after_step is not None:
            with torch.no_grad():
                player.after_step()

    def speed(self, seconds: float) -> float:
        """Images per second."""
        for k in range(WARM_UP):
            self(k)
        self._wait()
        start, steps = time.perf_counter(), 0
        while time.perf_counter() - start < seconds:
            self(steps)
            steps += 1
        self._wait()
        return steps * self.config.batch / (time.perf_counter() - start)

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()
