"""Is every number a number? The loss and the gradient's norm of every move are looked at before the weights change.

A NaN or an infinity anywhere in images, weights, losses or gradients reaches the loss or the norm of the gradient, so
these two tell; averaged weights, which no loss depends on, are looked at by themselves after every step. On a CPU all
of it is read at once; on a GPU it is copied aside and read one move late, so that the device is not waited for.
"""

import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

from trilemma.types import Batch, Logs, Phase

WINDOW = 50  # losses that a new one is compared with, and after which a loss that rose has come back or has not
SPIKE, SPIKE_SPREADS = 2.0, 20.0  # a spike is so many times the window's median, and median deviations above it
RISE, RISE_SPREADS = 1.3, 10.0  # a rise is smaller, and is said only if the loss does not come back
LASTING = 3  # steps in a row: a single batch may stand out in a healthy training


class NotFinite(Exception):
    """A number that is none; `step` is the step it was found in, the text says where."""

    def __init__(self, step: int, text: str) -> None:
        super().__init__(text)
        self.step = step


@dataclass(frozen=True)
class Jump:
    """A loss that rose: in words, the step it began in, and whether it had WINDOW losses to come back and did not."""

    text: str
    step: int
    stays: bool = False


class LastingJump(Exception):
    """A loss rose and did not come back."""

    def __init__(self, jump: Jump) -> None:
        super().__init__(jump.text)
        self.jump = jump


@dataclass
class Watch:
    """Over a loss that rose in `step` above what it was: its level before, and since then the losses."""

    step: int
    before: float
    rise: float
    spike: float
    losses: list[float]
    said: bool = False


@dataclass(frozen=True)
class Reading:
    """What one move of a player told: the losses of its phases, with their parts, and the norm of the gradient of their
    sum, on their device."""

    step: int
    phases: Sequence[Phase]
    batch: Batch
    parts: Sequence[Logs]  # of each phase
    values: Tensor  # (phases + 1,): the losses, the norm of the gradient


class Pulse:
    """Looks at the moves of a training, one by one."""

    def __init__(self, model: nn.Module, *, spikes: bool = True) -> None:
        self.model, self.spikes = model, spikes  # losses of players against each other jump in health, too
        self.waiting: list[tuple[Callable[[], Any], Callable[[Any], list[Jump]]]] = []  # numbers on their way, judges
        self.losses: dict[str, deque[float]] = {}
        self.watches: dict[str, Watch] = {}  # by phase: a loss that may have risen

    @property
    def in_doubt(self) -> bool:
        """Whether a loss stands out now: the state is one that may have to be given up."""
        return bool(self.watches)

    def check(self, reading: Reading) -> list[Jump]:
        """Take the reading of a move, before its weights change (on a GPU: look at what came before).

        Returns:
            The jumps of losses that are news.
        Raises:
            NotFinite: naming the tensor and the images of the batch.
        """
        return self.flush() + self._look(reading.values, partial(self._judge, reading))

    def check_average(self, step: int, finite: Tensor) -> None:
        """Take whether the averaged weights after a step are numbers, a scalar on their device.

        Raises:
            NotFinite: if they are not.
        """
        self._look(finite, partial(_judge_average, step))

    def flush(self) -> list[Jump]:
        """Look at what waits, before the state after it is trusted."""
        waiting, self.waiting = self.waiting, []
        return [jump for wait, judge in waiting for jump in judge(wait())]

    def _look(self, values: Tensor, judge: Callable[[Any], list[Jump]]) -> list[Jump]:
        if not values.is_cuda:
            return judge(values.tolist())
        self.waiting.append((_on_its_way(values), judge))
        return []

    def _judge(self, reading: Reading, numbers: list[float]) -> list[Jump]:
        if not all(map(math.isfinite, numbers)):
            raise NotFinite(reading.step, f"{where(self.model, reading)}; images of the batch: {ids(reading.batch)}")
        if not self.spikes:
            return []
        over = [name for name, watch in self.watches.items() if reading.step - watch.step > WINDOW]
        for name in over:  # of a phase that ended before its loss could come back
            del self.watches[name]
        losses = zip(reading.phases, numbers[:-1], strict=True)
        jumps = [self._compare(phase.name, loss, reading.step) for phase, loss in losses]
        return [jump for jump in jumps if jump is not None]

    def forget(self) -> None:
        """Start anew, after a return to an earlier state."""
        self.waiting, self.watches = [], {}

    def _compare(self, phase: str, loss: float, step: int) -> Jump | None:
        """Compare a loss with the window of those before it, or with what there was before it rose."""
        window = self.losses.setdefault(phase, deque(maxlen=WINDOW))
        watch = self.watches.get(phase) or _rising(window, loss, step)
        if watch is None:
            window.append(loss)
            return None
        self.watches[phase] = watch
        watch.losses.append(loss)
        seen = len(watch.losses)
        if seen == WINDOW or (seen <= LASTING and loss <= watch.rise):
            del self.watches[phase]
            window.extend(watch.losses)
        if seen == WINDOW and median(watch.losses) > watch.rise:
            return Jump(f"{_rose(phase, watch)} and did not come back in {WINDOW} steps", watch.step, stays=True)
        if not watch.said and seen >= LASTING and min(watch.losses[-LASTING:]) > watch.spike:
            watch.said = True
            return Jump(f"{_rose(phase, watch)}: if it does not come back, lower lr= or set a smaller clip", watch.step)
        return None


def _rising(window: deque[float], loss: float, step: int) -> Watch | None:
    """A watch over a loss that stands out of the window of those before it."""
    if len(window) < WINDOW or loss <= RISE * min(window):  # the last: quick, and mostly true
        return None
    middle = median(window)
    spread = median(abs(value - middle) for value in window)
    rise, spike = (
        middle + max((times - 1) * abs(middle), spreads * spread)
        for times, spreads in ((RISE, RISE_SPREADS), (SPIKE, SPIKE_SPREADS))
    )
    return Watch(step, middle, rise, spike, []) if loss > rise else None


def _rose(phase: str, watch: Watch) -> str:
    return (
        f"the loss of {phase} jumped to {watch.losses[-1]:.4g} in step {watch.step} (it was about {watch.before:.4g})"
    )


def _judge_average(step: int, finite: bool) -> list[Jump]:
    if not finite:
        raise NotFinite(step, "the averaged weights are not finite")
    return []


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
    for phase, parts, loss in zip(reading.phases, reading.parts, reading.values, strict=False):
        named += [(f"the loss part {phase.name}/{name}", part) for name, part in parts.items()]
        named += [("the loss" if len(reading.phases) == 1 else f"the loss of {phase.name}", loss)]
    named += [(f"the gradient of {name}", p.grad) for name, p in reversed(list(model.named_parameters()))]
    for name, tensor in named:
        if tensor is not None and not torch.isfinite(tensor).all():
            return f"{name} is not finite"
    names = " and ".join(phase.name for phase in reading.phases)
    return f"the gradient of {names} is too large for its norm to be a number"


def ids(batch: Batch, most: int = 8) -> str:
    """The positions of a batch's images in the training split, the first few of them."""
    if batch.index is None:
        return "unknown"
    shown = ", ".join(map(str, batch.index[:most].tolist()))
    return f"{shown}, ... ({len(batch.index)} in all)" if len(batch.index) > most else shown
