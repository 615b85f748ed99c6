"""Is every number finite? The loss and the gradient's norm of every step are checked before the weights change.

A NaN or an infinity anywhere in images, weights, losses or gradients reaches the loss or the norm of the gradient, so
these two tell; averaged weights, which no loss depends on, are checked by themselves after every step. On a CPU they
are read at once; on a GPU they are copied aside and read one step of a player late, so that nothing waits for it.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from trilemma.training.outcome import NotFinite
from trilemma.training.spikes import LossJump, LossSpikeDetector
from trilemma.types import Batch, Logs, Phase

Check = Callable[[Any], list[LossJump]]


@dataclass(frozen=True)
class PlayerStep:
    """The numbers of one step of a player: the losses of its phases, with their parts, and the norm of the gradient of
    their sum, on their device."""

    step: int
    phases: Sequence[Phase]
    batch: Batch
    parts: Sequence[Logs]  # of each phase
    values: Tensor  # (phases + 1,): the losses, the norm of the gradient


def copy_to_cpu(values: Tensor) -> Callable[[], Any]:
    """Begin to copy from a GPU; the result waits for the copy alone, not for what the device was given since."""
    copy, arrived = values.to("cpu", non_blocking=True), torch.cuda.Event()
    arrived.record(torch.cuda.current_stream(values.device))

    def wait() -> Any:
        arrived.synchronize()
        return copy.tolist()

    return wait


class StepMonitor:
    """Checks the steps of a training, player by player.

    Args:
        detector: of losses that jump; None for players against each other, whose losses jump in health, too.
        copy: begins to copy values from a GPU, and gives what waits for them.
        shards: what this process has of parameters that are divided over several, by their names.
    """

    def __init__(
        self,
        model: nn.Module,
        detector: LossSpikeDetector | None = None,
        copy: Callable[[Tensor], Callable[[], Any]] = copy_to_cpu,
        shards: Mapping[str, nn.Parameter] = MappingProxyType({}),
    ) -> None:
        self.model, self.detector, self.copy, self.shards = model, detector, copy, shards
        self.pending: list[tuple[Callable[[], Any], Check]] = []  # values on their way from a GPU, and their checks

    @property
    def in_doubt(self) -> bool:
        """Whether a loss stands out now: the state is one that may have to be given up."""
        return self.detector is not None and self.detector.in_doubt

    def check(self, player_step: PlayerStep) -> list[LossJump]:
        """Check a step of a player before its weights change (on a GPU: the one before it).

        Returns:
            The jumps of losses that are new.
        Raises:
            NotFinite: naming the tensor and the images of the batch.
        """
        return self.flush() + self._read(player_step.values, partial(self._check_values, player_step))

    def check_average(self, step: int, finite: Tensor) -> None:
        """Check whether the averaged weights after a step are finite, which is a scalar on their device.

        Raises:
            NotFinite: if they are not.
        """
        self._read(finite, partial(_check_average, step))

    def flush(self) -> list[LossJump]:
        """Check all that is pending, before the state after it is trusted."""
        pending, self.pending = self.pending, []
        return [jump for wait, check in pending for jump in check(wait())]

    def reset(self) -> None:
        """Start anew, after a return to an earlier state."""
        self.pending = []
        if self.detector is not None:
            self.detector.reset()

    def _read(self, values: Tensor, check: Check) -> list[LossJump]:
        if not values.is_cuda:
            return check(values.tolist())
        self.pending.append((self.copy(values), check))
        return []

    def _check_values(self, player_step: PlayerStep, numbers: list[float]) -> list[LossJump]:
        if not all(map(math.isfinite, numbers)):
            where, images = first_not_finite(self.model, player_step, self.shards), image_numbers(player_step.batch)
            raise NotFinite(player_step.step, f"{where}; images of the batch: {images}")
        if self.detector is None:
            return []
        names = [phase.name for phase in player_step.phases]
        return self.detector.check(player_step.step, dict(zip(names, numbers[:-1], strict=True)))


def _check_average(step: int, finite: bool) -> list[LossJump]:
    if not finite:
        raise NotFinite(step, "the averaged weights are not finite")
    return []


def first_not_finite(
    model: nn.Module, player_step: PlayerStep, shards: Mapping[str, nn.Parameter] = MappingProxyType({})
) -> str:
    """The first tensor that is not finite, in the order in which one would spoil the next: gradients go backwards."""
    phases = player_step.phases
    parameters = [(name, shards.get(name, p)) for name, p in model.named_parameters()]
    tensors: list[tuple[str, Tensor | None]] = [("the batch's images", player_step.batch.image)]
    tensors += [(f"the weight {name}", p) for name, p in parameters]
    tensors += [(f"the buffer {name}", b) for name, b in model.named_buffers()]
    for phase, parts, loss in zip(phases, player_step.parts, player_step.values, strict=False):
        tensors += [(f"the loss part {phase.name}/{name}", part) for name, part in parts.items()]
        tensors += [("the loss" if len(phases) == 1 else f"the loss of {phase.name}", loss)]
    tensors += [(f"the gradient of {name}", p.grad) for name, p in reversed(parameters)]
    for name, tensor in tensors:
        if tensor is not None and not torch.isfinite(tensor).all():
            return f"{name} is not finite"
    return f"the gradient of {' and '.join(p.name for p in phases)} is too large for its norm to be a number"


def image_numbers(batch: Batch, most: int = 8) -> str:
    """The positions of a batch's images in the training split, the first few of them."""
    if batch.index is None:
        return "unknown"
    numbers = ", ".join(map(str, batch.index[:most].tolist()))
    return f"{numbers}, ... ({len(batch.index)} in all)" if len(batch.index) > most else numbers
