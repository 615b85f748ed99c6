"""Is every number a number? The loss and the gradient's norm of every move are looked at before the weights change.

A NaN or an infinity anywhere in images, weights, losses or gradients reaches the loss or the norm of the gradient, so
these two tell; averaged weights, which no loss depends on, are looked at by themselves after every step. On a CPU all
of it is read at once; on a GPU it is copied aside and read one move late, so that the device is not waited for.
"""

import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

from trilemma.types import Batch, Logs, Phase

WINDOW = 50  # losses that a new one is compared with
SPIKE = 2.0  # a spike is this many times the window's median, and SPREADS median deviations above it
SPREADS = 20.0
LASTING = 3  # steps in a row: a single batch may stand out in a healthy training


class NotFinite(Exception):
    """A number that is none; `step` is the step it was found in, the text says where."""

    def __init__(self, step: int, text: str) -> None:
        super().__init__(text)
        self.step = step


@dataclass(frozen=True)
class Reading:
    """What one move told: loss and norm of the gradient, on their device."""

    step: int
    phase: Phase
    batch: Batch
    parts: Logs
    values: Tensor  # (2,): loss, norm of the gradient


class Pulse:
    """Looks at the moves of a training, one by one."""

    def __init__(self, model: nn.Module, *, spikes: bool = True) -> None:
        self.model, self.spikes = model, spikes  # losses of players against each other jump in health, too
        self.waiting: list[tuple[Callable[[], Any], Callable[[Any], str | None]]] = []  # numbers on their way, judges
        self.losses: dict[str, deque[float]] = {}

    def feel(self, reading: Reading) -> str | None:
        """Take the reading of a move, before its weights change (on a GPU: look at what came before).

        Returns:
            A warning in words if the loss jumped.
        Raises:
            NotFinite: naming the tensor and the images of the batch.
        """
        earlier = self.flush()
        return self._look(reading.values, partial(self._judge, reading)) or earlier

    def feel_average(self, step: int, finite: Tensor) -> None:
        """Take whether the averaged weights after a step are numbers, a scalar on their device.

        Raises:
            NotFinite: if they are not.
        """
        self._look(finite, partial(_judge_average, step))

    def flush(self) -> str | None:
        """Look at what waits, before the state after it is trusted."""
        waiting, self.waiting = self.waiting, []
        warnings = [judge(wait()) for wait, judge in waiting]
        return next((text for text in warnings if text is not None), None)

    def _look(self, values: Tensor, judge: Callable[[Any], str | None]) -> str | None:
        if not values.is_cuda:
            return judge(values.tolist())
        self.waiting.append((_on_its_way(values), judge))
        return None

    def _judge(self, reading: Reading, numbers: list[float]) -> str | None:
        loss, norm = numbers
        if not math.isfinite(loss + norm):
            raise NotFinite(reading.step, f"{where(self.model, reading)}; images of the batch: {ids(reading.batch)}")
        return self._spike(reading.phase.name, loss, reading.step)

    def forget(self) -> None:
        """Start anew, after a return to an earlier state."""
        self.waiting, self.losses = [], {}

    def _spike(self, phase: str, loss: float, step: int) -> str | None:
        """A warning when the last LASTING losses all stand out of the window's."""
        window = self.losses.setdefault(phase, deque(maxlen=WINDOW))
        window.append(loss)
        if not self.spikes or len(window) < WINDOW or loss <= SPIKE * min(window):  # the last: quick, and mostly true
            return None
        middle = median(window)
        spread = median(abs(value - middle) for value in window)
        if min(list(window)[-LASTING:]) - middle <= max((SPIKE - 1) * abs(middle), SPREADS * spread):
            return None
        window.clear()
        return (
            f"the loss of {phase} jumped to {loss:.4g} in step {step} (it was about {middle:.4g}): "
            "if it does not come back, lower lr= or set a smaller clip"
        )


def _judge_average(step: int, finite: bool) -> None:
    if not finite:
        raise NotFinite(step, "the averaged weights are not finite")


def _on_its_way(values: Tensor) -> Callable[[], Any]:
    """Begins to copy from a GPU; the result waits for the copy alone, not for what the device was given since."""
    copy, arrived = values.to("cpu", non_blocking=True), torch.cuda.Event()
    arrived.record(torch.cuda.current_stream(values.device))

    def wait() -> Any:
        arrived.synchronize()
        return copy.tolist()

    return wait


def where(model: nn.Module, reading: Reading) -> str:
    """The first tensor that is not finite, in the order in which one would spoil the next: gradients go backwards."""
    named: list[tuple[str, Tensor | None]] = [("the batch's images", reading.batch.image)]
    named += [(f"the weight {name}", p) for name, p in model.named_parameters()]
    named += [(f"the buffer {name}", b) for name, b in model.named_buffers()]
    named += [(f"the loss part {reading.phase.name}/{name}", part) for name, part in reading.parts.items()]
    named += [("the loss", reading.values[0])]
    named += [(f"the gradient of {name}", p.grad) for name, p in reversed(list(model.named_parameters()))]
    for name, tensor in named:
        if tensor is not None and not torch.isfinite(tensor).all():
            return f"{name} is not finite"
    return f"the gradient of {reading.phase.name} is too large for its norm to be a number"


def ids(batch: Batch, most: int = 8) -> str:
    """The positions of a batch's images in the training split, the first few of them."""
    if batch.index is None:
        return "unknown"
    shown = ", ".join(map(str, batch.index[:most].tolist()))
    return f"{shown}, ... ({len(batch.index)} in all)" if len(batch.index) > most else shown
