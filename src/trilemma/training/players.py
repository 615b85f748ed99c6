"""The players of a model in training: their optimisers and averages, and how each of them moves.

A player lowers the sum of the losses of its phases that are due. A batch may be divided over processes, and there into
micro-batches: the gradients add up to that of the batch, where nothing in the model depends on the other images of it.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from trilemma import rng
from trilemma.errors import UserError
from trilemma.memory import halving, in_main_memory
from trilemma.run.config import TrainConfig
from trilemma.run.state import Checkpoint
from trilemma.team import ALONE, Team, part_of
from trilemma.training.ema import EMA
from trilemma.training.exchange import Exchange
from trilemma.training.optim import Plateau, learning_rate, lr_factor, make_optimizer, optimizer_config
from trilemma.training.shards import Shards, check_shards
from trilemma.training.state import first_entries, flatten_optimizer, restore_optimizer
from trilemma.types import Batch, Logs, Model, Phase, Player, flags, not_averaged, players_of, repeats_of, span_of
from trilemma.whole_batch import divided, share_batch_norms

START_BATCH = 500  # training images that the start of a phase is shown at a time


@dataclass(frozen=True)
class PhaseLoss:
    """A phase, its loss on a batch and the named parts of it, on their device."""

    phase: Phase
    loss: Tensor
    parts: Logs


class Players:
    """The players of a model, with the optimiser of each.

    Args:
        bf16: whether losses are computed under bfloat16 autocast; team: the processes that each batch is divided over.
    """

    def __init__(self, model: Model, config: TrainConfig, *, bf16: bool, team: Team = ALONE) -> None:
        self.model, self.config, self.bf16 = model, config, bf16
        self.device = next(model.parameters()).device
        self.phases = list(model.phases)  # read once: it may be a property that makes new ones
        check_shards(list(model.parameters()), config, team)
        self.shards = Shards(model, self.phases, team) if config.shard else None
        if self.shards is not None:
            self.phases = self.shards.phases
        self.all = players_of(self.phases)
        self.optimizers = {player.name: make_optimizer(player, config, self.shards) for player in self.all}
        self.spans = {player.name: span_of(player, self.phases) for player in self.all}
        self.clips = {player.name: optimizer_config(player, config).clip for player in self.all}
        halflife = config.ema_halflife_images
        own = {} if self.shards is None else self.shards.own
        self.ema = EMA(model, halflife, not_averaged(self.phases), own) if halflife else None
        self.exchange, self.first = Exchange(team, self.all, own.values()), part_of(team, config.batch)[0]
        kind = torch.Generator if team.size == 1 else rng.RowsGenerator
        self.noise = kind(self.device)  # of a step, seeded anew in each
        rng.own_dropout(model, self.noise)
        if team.size > 1:
            share_batch_norms(model)
        self.repeats = repeats_of(self.phases)
        self.pieces = 1  # micro-batches that make a batch; more than one after memory ran out
        self.has_start = any(phase.start is not None for phase in self.phases)
        self.started: list[str] = []  # the phases whose `start` was called

    def due(self, step: int, progress: float) -> list[Phase]:
        """The phases that run in a step."""
        return [phase for phase in self.phases if phase.is_active(progress) and step % phase.every == 0]

    def start(
        self, phase: Phase, images: Callable[[int], Iterable[Batch]], warn: Callable[[str], None]
    ) -> dict[str, float]:
        """What a phase does once, before its first step; its values, named by it.

        Args:
            images: training images, so many at a time; fewer where memory runs out.
        """
        if phase.start is None or phase.name in self.started:
            return {}
        start = phase.start
        self.model.eval()
        with torch.no_grad(), self.whole():
            values = halving(lambda size: start(images(size), self.config.seed), START_BATCH, warn)
        self.model.train()
        self.started.append(phase.name)
        return {f"{phase.name}/{name}": value for name, value in values.items()}

    def set_learning_rate(self, player: Player, progress: float, images: int, plateau: Plateau, factor: float) -> None:
        """For the next step of a player, by how far the training is in the span in which the player moves.

        Args:
            images: seen in the training so far; factor: a further one.
        """
        begin, end = self.spans[player.name]
        since = images - (images * begin / progress if begin else 0)
        factor *= lr_factor(self.config, (progress - begin) / (end - begin), since, plateau)
        for group in self.optimizers[player.name].param_groups:
            group["lr"] = factor * learning_rate(player, self.config)

    def differentiate(self, player: Player, phases: Sequence[Phase], batch: Batch) -> tuple[list[PhaseLoss], Tensor]:
        """Leave the gradient of the sum of losses in a player's parameters; the losses, and the gradient's norm."""
        for parameter in player.parameters:
            parameter.grad = None
        if self.shards is not None:
            self.shards.clear(player)
        sums = self.exchange.sum(player, [self.gradient(phase, batch) for phase in phases])
        losses = [PhaseLoss(phase, loss, _means(parts)) for phase, (loss, parts) in zip(phases, sums, strict=True)]
        if self.shards is not None:
            return losses, self.shards.take_gradients(player)
        norm = nn.utils.get_total_norm([p.grad for p in player.parameters if p.grad is not None], foreach=True)
        return losses, norm

    def gradient(self, phase: Phase, batch: Batch) -> tuple[Tensor, Logs]:
        """Add the gradient of `every` times the mean loss over a batch, as far as it is of the images that this process
        has, in micro-batches if memory asks for it; as much of the loss and its parts."""
        losses: Logs = {}
        sums: Logs = {}
        team = self.exchange.team
        first, total = self.first, self.config.batch if team.size > 1 else len(batch.image)
        # as many in all processes, which may take part in sums in each
        for piece in split(batch, min(self.pieces, total // team.size)):
            n = len(piece.image)
            with self._autocast(), self._rows(first, n, total):
                loss, parts = self._loss(phase, piece)
            share, first = n / total, first + n
            (loss if phase.every * share == 1 else phase.every * share * loss).backward()
            _add(losses, {"": loss.detach()}, share)
            _add(sums, parts, share)
        return losses[""], sums

    def _loss(self, phase: Phase, batch: Batch) -> tuple[Tensor, Logs]:
        """The loss of a phase, with whole weights."""
        if self.shards is None:
            return phase.loss(batch, self.noise)
        return self.shards.losses(lambda: phase.loss(batch, self.noise))

    def whole(self) -> AbstractContextManager[object]:
        """Inside, the model has whole weights, also where they are divided over processes, which enter together."""
        return nullcontext() if self.shards is None else self.shards.whole()

    def _autocast(self) -> AbstractContextManager[object]:
        return torch.autocast(self.device.type, torch.bfloat16) if self.bf16 else nullcontext()

    @contextmanager
    def _rows(self, first: int, n: int, total: int) -> Iterator[None]:
        """Inside, numbers and statistics are those of n images of a batch of `total`, of which others may be in other
        processes."""
        if not isinstance(self.noise, rng.RowsGenerator):
            yield
            return
        with self.noise.rows(first, n, total), divided(self.exchange.team, n / total):
            yield

    def step(self, player: Player, norm: Tensor) -> None:
        """One step of a player along its gradient, which is clipped first; `norm` is that of the gradient."""
        if (clip := self.clips[player.name]) is not None:
            nn.utils.clip_grads_with_norm_(player.parameters, clip, norm, foreach=True)
        self.optimizers[player.name].step()
        if player.after_step is not None:
            with torch.no_grad(), self.whole():
                player.after_step()

    def average_is_finite(self) -> Tensor:
        """Whether every averaged weight is a number; a scalar on their device, which is not waited for.

        It is the same in all processes: where each has a part of the weights, the others would wait in a step for one
        that left it alone.
        """
        assert self.ema is not None
        finite = self.ema.is_finite()
        if self.shards is None:
            return finite
        spoilt = (~finite).float().view(1)
        self.exchange.team.sum(spoilt)
        return spoilt[0] == 0

    def state(self) -> Checkpoint:
        """Weights, averages and optimisers, as copies in main memory: a state to return to takes no room on a GPU."""
        model = dict(self.model.state_dict()) if self.shards is None else self.shards.model_state()
        tensors = {"model": model}
        if self.ema is not None:
            tensors["ema"] = self.ema.state()
        for name, optimizer in self.optimizers.items():
            tensors[f"optimizer-{name}"] = flatten_optimizer(optimizer)
        values = {"pieces": self.pieces, "started": list(self.started)}
        return Checkpoint(values, {file: in_main_memory(group) for file, group in tensors.items()})

    def load(self, state: Checkpoint) -> None:
        """Take them back."""
        if self.shards is None:
            self.model.load_state_dict(state.tensors["model"])
        else:
            self.shards.load_model(state.tensors["model"])
        if self.ema is not None:
            self.ema.load(state.tensors["ema"])
        for name, optimizer in self.optimizers.items():
            restore_optimizer(optimizer, state.tensors.get(f"optimizer-{name}", {}))
        self.pieces, self.started = state.values["pieces"], list(state.values["started"])

    def first_state(self) -> Checkpoint:
        """The form of what the optimisers hold after their first steps, without numbers, and when those are taken."""
        players = self.all if self.shards is None else [self.shards.whole_player(player) for player in self.all]
        entries = {f"optimizer-{player.name}": first_entries(player, self.config) for player in players}
        values = {"step": 1, "images": self.repeats * self.config.batch}
        late = [f"optimizer-{name}" for name, (begin, _) in self.spans.items() if begin > 0]
        return Checkpoint(values, entries, late)


def _add(sums: Logs, parts: Logs, share: float) -> None:
    """Add the parts of the loss on a share of a batch: means by that share, sums and counts as they are."""
    for name, part in parts.items():
        own = part if share == 1 or part.ndim else share * part
        sums[name] = sums[name] + own if name in sums else own


def _means(parts: Logs) -> Logs:
    """Parts as scalars: those that are a sum and a count, (2,), as their mean."""
    return {name: part[0] / part[1] if part.ndim else part for name, part in parts.items()}


def check_divisible(model: nn.Module, batch: int, team: Team) -> None:
    """Refuse to divide a batch over several processes where that would be another training.

    Raises:
        UserError: with the reason.
    """
    if team.size == 1:
        return
    if batch < team.size:
        raise UserError(
            f"batch={batch} for {team.size} processes, of which each needs an image; give batch={team.size} or more, "
            "or start fewer processes"
        )
    if whole := _parts_that(model, _needs_one_process):
        raise UserError(
            f"{whole[0]} takes statistics over a batch, which each of {team.size} processes would take over its own "
            "part: train this model in one process"
        )


def needing_whole_batch(model: nn.Module) -> list[str]:
    """The parts of a model whose training depends on statistics of the batch."""
    return _parts_that(model, needs_whole_batch)


def summing_statistics(model: nn.Module) -> list[str]:
    """The parts of a model in whose losses processes that have a part of a batch each wait for each other."""
    return _parts_that(model, lambda module: module.training and _sums_statistics(module))


def _parts_that(model: nn.Module, need: Callable[[nn.Module], bool]) -> list[str]:
    """The names of the parts of a model for which something holds; the model itself is "its loss"."""
    return [name or "its loss" for name, module in model.named_modules() if need(module)]


def needs_whole_batch(module: nn.Module) -> bool:
    """Whether its training depends on statistics of the batch: batch norm, or a module that says so of itself. A frozen
    part is in eval mode, and depends on none."""
    return module.training and (isinstance(module, _BatchNorm) or flags(module).batch_statistics)


def _needs_one_process(module: nn.Module) -> bool:
    """Whether its training depends on statistics of the batch that are not summed over processes."""
    return (needs_whole_batch(module) and not _sums_statistics(module)) or flags(module).batch_averages


def _sums_statistics(module: nn.Module) -> bool:
    """Whether it sums statistics of a batch over the processes that have a part of it each, in training."""
    return isinstance(module, _BatchNorm) or flags(module).sums_statistics


def split(batch: Batch, pieces: int) -> list[Batch]:
    """A batch in pieces of nearly equal size."""
    if pieces == 1:
        return [batch]
    parts = torch.arange(len(batch.image), device=batch.image.device).tensor_split(pieces)
    return [batch.rows(rows) for rows in parts if len(rows)]
