"""Which parts of a model have their weights gathered by themselves, where they are divided over processes: its blocks.

A block is an entry of an `nn.ModuleList` or an `nn.Sequential`, of which networks are made, with LEAST numbers or more.
One with more than a SHARE-th of all weights is divided into the blocks inside it, as far as there are any. Its weights
are whole during its forward pass, and again during its backward pass. So it has to be used by its forward pass alone:
an entry with other public methods, or with weights that something else has, too, is no block. Nor may a gradient be
taken of its gradient, because what that needs of its weights is no longer there. A generic rule cannot know the latter:
models say so, and say why of the parts that are to stay whole (`whole_because`).
"""

from collections.abc import Iterator

from torch import nn

from trilemma.types import flags
from trilemma.words import counted

LEAST = 2**16  # numbers in a block: to gather fewer takes longer than it saves memory
SHARE = 8
UNSAID = 'it does not say whole_because="", that its blocks are used by their forward passes alone'


def blocks_of(model: nn.Module) -> list[nn.Module]:
    """The blocks of a model, those inside others first; [] for one that has none, or whose weights stay whole."""
    most = max(LEAST, size_of(model) // SHARE)
    return list(dict.fromkeys(_blocks(model, _Owners(model), most, reason=UNSAID, is_entry=False)))


def division(model: nn.Module, blocks: list[nn.Module]) -> str:
    """In words, what is gathered when, and why."""
    unsaid = [("", UNSAID)] if flags(model).whole_because is None else []
    reasons = [f"{name or 'the model'} because {reason}" for name, reason in (*unsaid, *_reasons(model))]
    if not blocks:
        because = ", ".join(reasons) or f"it has no blocks of {LEAST:,} numbers"
        return f"shard=true: all weights are gathered for each loss ({because})"
    total, own = size_of(model), {block: size_of(block, blocks) for block in blocks}
    are = "is" if len(blocks) == 1 else "are"
    text = (
        f"shard=true: {counted(len(blocks), 'block')} with {sum(own.values()) / total:.0%} of the weights {are} "
        f"gathered when they are used, the largest with {max(own.values()) / total:.1%}; all else for each loss"
    )
    return f"{text} ({', '.join(reasons)})" if reasons else text


def size_of(module: nn.Module, without: list[nn.Module] | None = None) -> int:
    """The numbers of a module's weights, without those of the modules inside it that are given."""
    left_out = {
        id(p) for inner in without or () if inner is not module and _is_in(inner, module) for p in inner.parameters()
    }
    return sum(p.numel() for p in module.parameters() if id(p) not in left_out)


class _Owners:
    """The modules that have each parameter of a model as their own."""

    def __init__(self, model: nn.Module) -> None:
        self._of: dict[int, set[int]] = {}
        for module in model.modules():
            for parameter in module.parameters(recurse=False):
                self._of.setdefault(id(parameter), set()).add(id(module))

    def has_all(self, module: nn.Module) -> bool:
        """Whether no module outside of this one has a parameter of it."""
        inside = set(map(id, module.modules()))
        return all(self._of[id(parameter)] <= inside for parameter in module.parameters())


def _blocks(module: nn.Module, owners: _Owners, most: int, *, reason: str, is_entry: bool) -> list[nn.Module]:
    """The blocks among a module and what is inside it.

    Args:
        most: numbers in a block that has others inside; reason: why weights stay whole, unless the module says; ""
            where they need not; is_entry: whether the module is one of a list or a sequence.
    """
    said = flags(module).whole_because
    reason = reason if said is None else said
    may_be = (
        is_entry and not reason and _is_called_only(module) and owners.has_all(module) and not list(_reasons(module))
    )
    if may_be and LEAST <= size_of(module) <= most:
        return [module]
    entries = isinstance(module, nn.ModuleList | nn.Sequential)
    inside = [
        block for child in module.children() for block in _blocks(child, owners, most, reason=reason, is_entry=entries)
    ]
    return [*inside, module] if may_be and size_of(module, inside) >= LEAST else inside


def _is_called_only(module: nn.Module) -> bool:
    """Whether it has a forward pass, and no public method beside it."""
    own = [kind for kind in type(module).__mro__ if not kind.__module__.startswith("torch.") and kind is not object]
    names = {name for kind in own for name, value in vars(kind).items() if callable(value) and not name.startswith("_")}
    return names <= {"forward"} and type(module).forward is not nn.Module.forward


def _reasons(model: nn.Module) -> Iterator[tuple[str, str]]:
    """The parts of a model whose weights are to stay whole, by name, and why: the outermost ones of LEAST numbers."""
    inside: set[int] = set()
    for name, module in model.named_modules():
        if id(module) in inside:
            continue
        if (reason := flags(module).whole_because) and size_of(module) >= LEAST:
            inside.update(map(id, module.modules()))
            yield name, reason


def _is_in(inner: nn.Module, module: nn.Module) -> bool:
    return any(part is inner for part in module.modules())
