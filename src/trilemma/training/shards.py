"""A model whose weights are divided over processes, with all that is kept of each weight: `shard=true`.

Rajbhandari et al. (2020), "ZeRO: memory optimizations toward training trillion parameter models"; Zhao et al. (2023),
"PyTorch FSDP". Process r of P has the rows [r c, (r + 1) c) of every parameter, c = ceil(rows / P), and of its
gradient, its average and what an optimiser holds of it: the shard. `fully_shard` of torch gathers whole weights where
they are used, and sums gradients into their shards after it: those of a block (blocks.py) for its forward pass and
again for its backward pass, all others for a loss. Optimisers and averages work on shards, which are plain tensors:
they change each number by itself. Only muon needs whole matrices: every process has those it moves gathered, one after
the other, and takes its rows of the step.

FSDP sums the gradients that there are in a process, one after the other, and which there are may differ between
processes. So each weight of the player that moves is given one before they are summed, zeros where it has none; a
weight without a gradient in any process stays without, as in one process.

States of a training are of shards, too. What is saved is whole, as that of one process: `gathered` and `divide`
translate.
"""

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from trilemma.errors import UserError
from trilemma.run.config import TrainConfig
from trilemma.run.state import Checkpoint, Tensors
from trilemma.run.weights import is_later
from trilemma.team import Team, sum_bytes
from trilemma.training.blocks import blocks_of, division
from trilemma.types import Logs, Model, Phase, Player, players_of

BEST = "best"  # weights that a state has whole


class _Losses(nn.Module):
    """The module around a model whose forward pass computes a loss: with whole weights, by the hooks of FSDP."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, loss: Callable[[], tuple[Tensor, Logs]]) -> tuple[Tensor, Logs]:
        return loss()


class Shards:
    """The weights of a model, divided over the processes of a team.

    Args:
        phases: of the model; `phases` are then the same with players that move shards.

    `own` is the shard of each parameter by its name, `shapes` are the shapes of the whole ones; `note` says what is
    gathered when.
    """

    def __init__(self, model: Model, phases: Sequence[Phase], team: Team) -> None:
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard
        from torch.distributed.tensor import DTensor

        # blocks that say whole_because="" do not change in place what they return
        warnings.filterwarnings("ignore", "FSDP2-wrapped module .* returned a view tensor", UserWarning)
        self.model, self.team = model, team
        names = {id(parameter): name for name, parameter in model.named_parameters()}
        single = {parameter for parameter in model.parameters() if not parameter.ndim}  # numbers, which have no rows
        for parameter in model.parameters():  # of a part that is loaded they lie in memory as convolutions want them
            parameter.data = parameter.data.contiguous()
        mesh = init_device_mesh(next(model.parameters()).device.type, (team.size,))
        self.blocks, self.losses = blocks_of(model), _Losses(model)
        self.note, self._kinds = division(model, self.blocks), [type(block) for block in self.blocks]
        parts = (*self.blocks, self.losses)
        units: list[Any] = [fully_shard(part, mesh=mesh, ignored_params=single) for part in parts]
        for unit in units:
            unit.set_force_sum_reduction_for_comms(True)
            unit.set_gradient_divide_factor(1.0)  # the sum: each process computes its share of the mean
        parameters = dict(model.named_parameters())
        self.divided = {name: p for name, p in parameters.items() if isinstance(p, DTensor)}
        self._moving: set[str] = set()  # the weights of the player whose losses are computed
        self._present: set[str] = set()  # those of them that have a gradient in this process
        for group in filter(None, (unit._get_fsdp_state()._fsdp_param_group for unit in units)):
            self._complete(group)
        by_names = model.named_parameters(remove_duplicate=False)  # a weight that is shared has several
        self.shapes = {name: p.shape for name, p in by_names if isinstance(p, DTensor)}
        self.own = {
            name: nn.Parameter(p.to_local().detach(), requires_grad=p.requires_grad) for name, p in self.divided.items()
        }
        moved = {number: self.own.get(name, parameters[name]) for number, name in names.items()}
        players = {p: replace(p, parameters=[moved[id(one)] for one in p.parameters]) for p in players_of(phases)}
        self.phases = [replace(phase, player=players[phase.player]) for phase in phases]
        self._names = {id(shard): name for name, shard in self.own.items()}
        self.names = {player.name: [self._names.get(id(p)) for p in player.parameters] for player in players.values()}
        self._places = [
            (module, key, name)
            for name, parameter in self.divided.items()
            for module in model.modules()
            for key, value in module._parameters.items()
            if value is parameter
        ]

    def clear(self, player: Player) -> None:
        """Forget the gradients of a player, whose losses come next."""
        self._moving, self._present = set(filter(None, self.names[player.name])), set()
        for name in self._moving:
            self.divided[name].grad = None

    def take_gradients(self, player: Player) -> Tensor:
        """Let the shards of a player have their gradients, which lie in the same memory.

        Returns:
            The norm of its whole gradient; a scalar, the same in all processes.
        """
        names = list(filter(None, self.names[player.name]))
        for name in names:
            gradient = self.divided[name].grad
            self.own[name].grad = None if gradient is None else gradient.to_local()  # pyright: ignore
        shards = [self.own[name] for name in names]
        known = set(map(id, shards))
        single = [parameter for parameter in player.parameters if id(parameter) not in known]
        square = _square(shards)
        missing = [number for number, name in enumerate(names) if name not in self._present]
        sums = torch.cat([square.view(1), square.new_ones(len(names))])  # and in how many processes each has one
        for number in missing:
            sums[1 + number] = 0
        self.team.sum(sums)
        counts = sums[1:].tolist() if missing else []  # which waits for a GPU
        for number in missing:
            if not counts[number]:
                shards[number].grad = None
        return (sums[0] + _square(single).to(sums)).sqrt().to(next(iter(player.parameters)).dtype)

    def _complete(self, group: Any) -> None:
        """Before FSDP sums the gradients of a unit: let those weights have one that the player moves, and no others."""
        by_parameter = {id(parameter): name for name, parameter in self.divided.items()}
        names, reduce = [by_parameter[id(p.sharded_param)] for p in group.fsdp_params], group.post_backward

        def complete(*unused: Any) -> None:
            reached = group._training_state.name == "PRE_BACKWARD"  # else it is called to tidy up
            for name, parameter in zip(names, group.fsdp_params, strict=True):
                weight = getattr(parameter, "_unsharded_param", None)
                if weight is None:
                    continue
                if name not in self._moving:
                    weight.grad = None
                elif weight.grad is not None:
                    self._present.add(name)
                elif reached:
                    weight.grad = torch.zeros_like(weight)
            reduce(*unused)

        group.post_backward = complete

    @contextmanager
    def whole(self) -> Iterator[None]:
        """Inside, the model has whole weights; what is written to them is kept. All processes enter together."""
        weights, hooks = self._gather_weights(), _take_hooks(self.blocks)
        self._put(weights)
        try:
            yield
        finally:
            self._put(self.divided)
            _put_back(hooks)
            for name, weight in weights.items():
                self.own[name].data.copy_(self.own_rows(weight.detach()))

    def join(self) -> None:
        """From now on the model has whole weights, as a model in one process; nothing is divided any more."""
        _take_hooks(self.blocks)
        self._put(self._gather_weights())
        for block, kind in zip(self.blocks, self._kinds, strict=True):
            block.__class__ = kind  # of which FSDP had made one of its own

    def model_state(self) -> Tensors:
        """The tensors of the model by name, the shard of each weight; not copied."""
        return {name: _local(tensor) for name, tensor in self.model.state_dict().items()}

    @torch.no_grad()
    def load_model(self, state: Mapping[str, Tensor]) -> None:
        """Take a state of `model_state` back; what an earlier version did not write stays as it is."""
        for name, tensor in self.model_state().items():
            if name in state or not is_later(name):
                tensor.copy_(state[name])

    def gathered(self, state: Checkpoint) -> Checkpoint:
        """A state with whole tensors, in the process that writes; all processes take part."""
        return self._translated(state, self._gathered)

    def divide(self, state: Checkpoint) -> Checkpoint:
        """The shards of this process, from a state with whole tensors."""
        return self._translated(state, lambda tensor, shape: self.own_rows(tensor).clone())

    def form(self, state: Checkpoint) -> Checkpoint:
        """The form of a state with whole tensors, from one with shards."""
        return self._translated(state, lambda tensor, shape: tensor.new_empty(shape, device="meta"))

    def whole_player(self, player: Player) -> Player:
        """A player with parameters of whole shapes, without memory."""
        names = zip(player.parameters, self.names[player.name], strict=True)
        shapes = [(p, p.shape if name is None else self.shapes[name]) for p, name in names]
        return replace(player, parameters=[nn.Parameter(p.new_empty(shape, device="meta")) for p, shape in shapes])

    def _translated(self, state: Checkpoint, translate: Callable[[Tensor, torch.Size], Tensor]) -> Checkpoint:
        """A state with other tensors in the place of those that are divided."""
        tensors: dict[str, Tensors] = {group: {} for group in state.tensors}
        for group, name in sorted((group, name) for group, entries in state.tensors.items() for name in entries):
            tensor = state.tensors[group][name]  # in one order in all processes: a file gives them in any
            shape = self._whole_shape(group, name, tensor)
            tensors[group][name] = tensor if shape is None else translate(tensor, shape)
        return Checkpoint(state.values, tensors, state.late)

    def _whole_shape(self, group: str, name: str, tensor: Tensor) -> torch.Size | None:
        """The whole shape of what is divided in a state; None of anything else: an optimiser counts its steps, too."""
        if group == BEST:
            return None
        parameter: str | None = name
        if group.startswith("optimizer-"):
            parameter = self.names[group.removeprefix("optimizer-")][int(name.split("/")[0])]
        shape = None if parameter is None else self.shapes.get(parameter)
        return shape if shape is not None and tensor.ndim == len(shape) else None

    def _gathered(self, shard: Tensor, shape: torch.Size) -> Tensor:
        """A whole tensor in the process that writes, to the bit; what the others get is of no use."""
        whole = self._joined(shard, shape)
        return whole if self.team.writes else shard

    def _joined(self, rows: Tensor, shape: torch.Size) -> Tensor:
        """A whole tensor of that shape, to the bit, of the rows that each process has."""
        whole = rows.new_zeros(shape)
        self.own_rows(whole).copy_(rows)
        sum_bytes(self.team, whole)
        return whole

    def shape_of(self, weight: Tensor) -> torch.Size:
        """The shape of a whole weight, of which this process has the shard `weight`, or all of it."""
        name = self._names.get(id(weight))
        return weight.shape if name is None else self.shapes[name]

    def joined(self, weight: Tensor, rows: Tensor) -> Tensor:
        """The whole of what the processes have rows of, as of that weight; all processes take part."""
        if id(weight) not in self._names:
            return rows
        return self._joined(rows, self.shape_of(weight))

    def own_rows(self, whole: Tensor) -> Tensor:
        """The rows of a whole tensor that this process has."""
        count = -(-len(whole) // self.team.size)
        return whole[count * self.team.rank : count * (self.team.rank + 1)]

    def _gather_weights(self) -> dict[str, nn.Parameter]:
        """Whole weights by name, on their device."""
        return {
            name: nn.Parameter(p.detach().full_tensor(), requires_grad=p.requires_grad)  # pyright: ignore
            for name, p in self.divided.items()
        }

    def _put(self, parameters: Mapping[str, nn.Parameter]) -> None:
        """Put these parameters into the modules that have them."""
        for module, key, name in self._places:
            if isinstance(module, nn.RNNBase):  # which has a list of them, too
                setattr(module, key, parameters[name])
            else:
                module._parameters[key] = parameters[name]
            _remove_hooks(module)


def check_shards(parameters: Sequence[nn.Parameter], config: TrainConfig, team: Team) -> None:
    """Refuse to divide the weights of a model where that cannot work.

    Raises:
        UserError: with the reason.
    """
    if not config.shard:
        return
    if team.size == 1:
        raise UserError(
            "shard=true divides the weights over several processes, and this is one; start them with "
            "torchrun --standalone --nproc-per-node 2 -m trilemma train ..., or leave shard=true out"
        )
    if len(types := {str(p.dtype).removeprefix("torch.") for p in parameters}) > 1:
        raise UserError(
            f"the weights of this model are of several types ({', '.join(sorted(types))}), which shard=true does not "
            "divide; leave it out"
        )
    _check_fsdp()


def _check_fsdp() -> None:
    """Refuse a torch whose FSDP lacks what `Shards` takes from its inside, which may change.

    Raises:
        UserError: with the names.
    """
    try:
        from torch.distributed.fsdp import FSDPModule
        from torch.distributed.fsdp._fully_shard._fsdp_param import FSDPParam
        from torch.distributed.fsdp._fully_shard._fsdp_param_group import FSDPParamGroup
        from torch.distributed.fsdp._fully_shard._fsdp_state import FSDPState

        used = {
            FSDPModule: ("_get_fsdp_state",),
            FSDPState: ("_fsdp_param_group",),
            FSDPParamGroup: ("fsdp_params", "post_backward", "_training_state"),
            FSDPParam: ("sharded_param", "_unsharded_param"),
        }
        missing = [f"{kind.__name__}.{name}" for kind, names in used.items() for name in names if not _has(kind, name)]
    except ImportError as error:
        missing = [str(error)]
    if missing:
        raise UserError(
            f"shard=true does not work with torch {torch.__version__}, which lacks {', '.join(missing)}; install torch "
            "2.13, or leave shard=true out"
        )


def _has(kind: type, name: str) -> bool:
    """Whether objects of a class have an attribute: the class has it, declares it, or its `__init__` names it."""
    start = getattr(kind.__init__, "__code__", None)
    return hasattr(kind, name) or name in kind.__annotations__ or (start is not None and name in start.co_names)


def _remove_hooks(module: nn.Module) -> None:
    """Remove the hooks by which FSDP takes part in a module's `state_dict` and `load_state_dict`: they expect shards,
    and our states do without them."""
    for hooks in (module._state_dict_pre_hooks, module._load_state_dict_post_hooks):
        for key in _keys_of_fsdp(hooks):
            del hooks[key]


def _take_hooks(modules: Iterable[nn.Module]) -> list[tuple[dict[int, Any], int, Any]]:
    """Take the hooks away by which FSDP gathers the weights of modules before their forward passes, for weights that
    are whole already: the hooks of a module, the key of one among them, and that one."""
    found = [hooks for module in modules for hooks in (module._forward_pre_hooks, module._forward_hooks)]
    return [(hooks, key, hooks.pop(key)) for hooks in found for key in _keys_of_fsdp(hooks)]


def _put_back(taken: Iterable[tuple[dict[int, Any], int, Any]]) -> None:
    """Undo `_take_hooks`."""
    for hooks, key, hook in taken:
        hooks[key] = hook


def _keys_of_fsdp(hooks: Mapping[int, Any]) -> list[int]:
    return [key for key, hook in hooks.items() if hook.__module__.startswith("torch.distributed.fsdp")]


def _local(tensor: Tensor) -> Tensor:
    """The shard of a tensor that is divided; any other as it is."""
    from torch.distributed.tensor import DTensor

    return tensor.to_local().detach() if isinstance(tensor, DTensor) else tensor


def _square(parameters: Sequence[nn.Parameter]) -> Tensor:
    """The sum of the squares of the gradients that there are; a scalar, float64, on the device of the parameters."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    if not gradients:
        return torch.zeros((), dtype=torch.float64, device=parameters[0].device if parameters else None)
    norms = torch._foreach_norm(gradients)  # pyright: ignore[reportPrivateImportUsage]
    return torch.stack(norms).double().square().sum()
