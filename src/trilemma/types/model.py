"""What the training loop and the verbs ask of a module: its flags, with what stands where it says nothing."""

from collections.abc import Sequence
from typing import Any, Protocol, cast

from torch import nn

from trilemma.config import Config, ModelConfig
from trilemma.types.phases import Phase, Player, players_of


class Likelihood(Protocol):
    """p(x|z): its name in a protocol, and whether it is a density over images in [0, 1]."""

    name: str
    density: bool


class Model(nn.Module):
    """A model that the training loop can train: settings, what is lowered by whom, and flags.

    config: a ModelConfig; phases: at least one.
    batch_statistics: whether a loss depends on statistics of the batch, which then cannot be divided. Any part of a
        model may say so, too.
    sums_statistics: whether a loss sums statistics over the processes that have a part of the batch each, which then
        wait for each other in it (whole_batch.py); those of `batch_statistics` are of the whole batch there. Any part
        of a model may say so, too.
    batch_averages: whether a buffer follows averages over batches, which differ between processes that have a part of
        each. Any part of a model may say so, too.
    batch_multiple: number of images that a batch is a multiple of, where nobody gives one.
    whole_because: where several processes have parts of each weight (shard=true), why those of this model are all
        gathered for each loss. "": those of its blocks are gathered one after the other, since the entries of its lists
        and sequences of modules are used by their forward passes alone, in all processes alike, and no loss has a
        gradient of a gradient through them. Any part of a model may say so of itself, too; None: as what it is part of.
    n_classes: of the label that it can be asked for; 0: it takes no label.
    takes: the other fields of a Condition that it can be asked for.
    null_condition: whether it has learned to do without the label or caption that it takes.
    factor: how many times larger than the image that it is given it draws one.
    codes_need: fields of a Condition that `encode`, `decode`, `reconstruct` need; None: the label where it
        takes one, and the caption where it was never without.
    code_length: numbers in a code; None: not known before one is made.
    code_bits: of a code that is choices out of finite sets, in a fixed length for each; None for any other.
    sampling_keys: settings of its sampler, which `sample` takes as `keys`; Config has none. None: `sample` has them as
        keywords of its own.
    takes_guides: whether `sample` takes as `guides` what the keys `guide` and `classifier` name.
    pixel_likelihood: p(x|z) behind the bound on the likelihood; None: a density without a name.
    place_numbers: numbers of an image, or of its code, at a place of a network whose `width` should be no less; None:
        it has no such network.
    """

    config: Any = None
    phases: Sequence[Phase]
    batch_statistics: bool = False
    sums_statistics: bool = False
    batch_averages: bool = False
    batch_multiple: int = 1
    whole_because: str | None = None
    n_classes: int = 0
    takes: tuple[str, ...] = ()
    null_condition: bool = True
    factor: int = 1
    codes_need: tuple[str, ...] | None = None
    code_length: int | None = None
    code_bits: float | None = None
    pixel_likelihood: Likelihood | None = None
    sampling_keys: type[Config] | None = None
    takes_guides: bool = False
    place_numbers: int | None = None

    def check_batch(self, size: int) -> None:
        """Raises UserError for a number of images in a step with which this model cannot be trained."""

    def release(self) -> None:
        """Let go of what only a training needs; called on a model that is loaded to be used."""

    @property
    def players(self) -> list[Player]:
        """Who moves, in the order in which they do."""
        return players_of(self.phases)


class _WithDefaults:
    """The attributes of a plain module, and those of `Model` that it does not have."""

    def __init__(self, module: object) -> None:
        self._module = module

    players = Model.players
    check_batch, release = Model.check_batch, Model.release

    def __getattr__(self, name: str) -> Any:
        return getattr(self._module, name, getattr(Model, name, None))


def flags(model: object) -> Model:
    """The flags of any module, a user's plain `nn.Module` too, as `Model` declares them."""
    return model if isinstance(model, Model) else cast(Model, _WithDefaults(model))


def config_of(model: object) -> ModelConfig | None:
    """A model's settings; None for a module without any."""
    config = flags(model).config
    return config if isinstance(config, ModelConfig) else None
