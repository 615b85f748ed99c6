"""What the parts of the project hand to each other: a batch, a phase of training, and what a model can do.

Ask what a model can do (`isinstance(model, Encodes)`), never what it is. Every flag that a model may have is declared
in `Model`, with what stands where a model says nothing.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any, Protocol, cast, runtime_checkable

import torch
from torch import Tensor, nn

from trilemma.config import Config, ModelConfig, keywords_of
from trilemma.errors import UserError, form_of
from trilemma.team import Team

Logs = dict[str, Tensor]
Loss = Callable[["Batch", torch.Generator], tuple[Tensor, Logs]]
Start = Callable[[Iterable["Batch"], int], dict[str, float]]
SAMPLE_ARGUMENTS = ("n", "seed", "first", "condition", "keys", "guides", "watch")  # besides settings of the sampler


class PhaseError(ValueError):
    """A player or a phase that does not fit; the text says what was given and what is allowed."""


@dataclass(frozen=True, eq=False)
class Condition:
    """What is asked of a model, for each of B images; None = not given.

    label: class index, int64 (B,).
    caption: one text per image.
    image: a smaller or a source image, float32 in [0, 1], (B, C, h, w).
    mask: 1 where pixels are to be made, (B, 1, H, W).
    """

    label: Tensor | None = None
    caption: Sequence[str] | None = None
    image: Tensor | None = None
    mask: Tensor | None = None

    @property
    def is_empty(self) -> bool:
        """Whether nothing is asked for."""
        return all(value is None for value in vars(self).values())

    def rows(self, rows: Tensor | slice) -> "Condition":
        """The condition of some of the images: by their numbers, int64 (N,), or a slice."""
        caption = self.caption
        if caption is not None:
            caption = caption[rows] if isinstance(rows, slice) else [str(caption[k]) for k in rows.tolist()]
        return self._mapped(lambda values: rows_of(values, rows), caption)

    def to(self, device: torch.device | str) -> "Condition":
        """The same on another device."""
        return self._mapped(lambda values: values.to(device), self.caption)

    def only(self, *names: str) -> "Condition":
        """The fields of these names alone."""
        return Condition(**{name: getattr(self, name) for name in names})

    def _mapped(self, change: Callable[[Tensor], Tensor], caption: Sequence[str] | None) -> "Condition":
        tensors = (self.label, self.image, self.mask)
        label, image, mask = (None if values is None else change(values) for values in tensors)
        return Condition(label, caption, image, mask)


UNCONDITIONAL = Condition()  # nothing is asked for


def rows_of(values: Tensor, rows: Tensor | slice) -> Tensor:
    """Some rows of a tensor: by their numbers, int64 (N,) on any device, or a slice."""
    return values[rows if isinstance(rows, slice) else rows.to(values.device)]


def check_condition(condition: Condition, count: int, n_classes: int = 0, takes: Sequence[str] = ()) -> None:
    """For models that take a label, 0 to n_classes - 1, with n_classes=0 none; and the other fields named in `takes`.

    Args:
        count: how many images or codes it is for.
    Raises:
        UserError: if there is more, or the labels are not int64 (count,), or one is not a class.
    """
    for name in ("caption", "image", "mask"):
        if getattr(condition, name) is not None and name not in takes:
            raise UserError(f"this model takes no {name}; leave it out")
    if condition.label is not None:
        check_labels(condition.label, n_classes)
    check_count(condition, count)


def check_labels(labels: Tensor, n_classes: int) -> None:
    """Raises UserError for labels that are not int64 (B,), or not classes of a model that takes `n_classes`."""
    if not n_classes:
        raise UserError(f"this model {LACKING[Conditional]}; leave label out")
    if not isinstance(labels, torch.Tensor) or labels.dtype != torch.int64 or labels.ndim != 1:
        raise UserError(
            f"labels were given as {form_of(labels)}; give an int64 tensor (B,), with 0 to {n_classes - 1} for each"
        )
    if torch.compiler.is_exporting():  # a graph has no values yet
        return
    outside = labels[(labels < 0) | (labels >= n_classes)]
    if len(outside):
        raise UserError(f"label {int(outside[0])} is not a class of this model; choose from 0 to {n_classes - 1}")


def no_label(advice: str) -> UserError:
    """The error for a model that needs a class and is given none."""
    return UserError(f"this model needs the class of each image or code; {advice}")


def check_count(condition: Condition, count: int) -> None:
    """Raises UserError for a field that is not one for each of `count` images or codes."""
    for name, values in vars(condition).items():
        if values is not None and len(values) != count:
            raise UserError(f"{len(values)} {name}s were given for {count} images or codes; give one for each")


def default_label(ids: Tensor, n_classes: int) -> Tensor:
    """The class of each image where none is asked for: image k has k % n_classes; int64, as the numbers `ids`."""
    return ids % n_classes


@dataclass(frozen=True)
class Batch:
    """Images with what is known of them.

    image: float32 in [0, 1], shape (B, C, H, W).
    condition: label and caption of each image, where the data have them.
    index: position of each image in its split, int64 (B,), or None for images from elsewhere.
    progress: share of the training that is done, in [0, 1], for what changes during training (a temperature).
    """

    image: Tensor
    condition: Condition = UNCONDITIONAL
    index: Tensor | None = None
    progress: float = 1.0

    def rows(self, rows: Tensor | slice) -> "Batch":
        """Some of the images, with what is known of them."""
        index = None if self.index is None else rows_of(self.index, rows)
        return Batch(rows_of(self.image, rows), self.condition.rows(rows), index, self.progress)


@dataclass(frozen=True, eq=False)
class Player:
    """Who moves: the parameters of one optimiser.

    optimizer: keys that differ from the run's: `lr`, `optimizer`, `betas`, `weight_decay`, `clip`, and `lr_factor`,
        times the learning rate. An `lr` of the run for this player (lr=NAME:0.001) goes before its own.
    after_step: is called after each of its steps, for instance to clip the weights.
    averaged: whether its weights are averaged where the run averages weights; those of a critic need not be.

    A parameter that nobody moves (a teacher, a frozen part) belongs to no player and has `requires_grad=False`.
    """

    name: str
    parameters: Iterable[nn.Parameter]
    optimizer: Mapping[str, Any] = field(default_factory=dict)
    after_step: Callable[[], None] | None = None
    averaged: bool = True

    def __post_init__(self) -> None:
        """Raises PhaseError; keeps the parameters as a tuple."""
        _check_name("player", self.name)
        is_list = isinstance(self.parameters, Iterable) and not isinstance(self.parameters, Tensor)
        parameters = tuple(self.parameters) if is_list else (None,)
        if not all(isinstance(parameter, nn.Parameter) for parameter in parameters):
            raise PhaseError(f'the player "{self.name}" needs a list of parameters, such as list(self.parameters())')
        object.__setattr__(self, "parameters", parameters)
        factor = self.optimizer.get("lr_factor", 1.0)
        if not _is_number(factor) or not 0 < factor < float("inf"):
            raise PhaseError(f'lr_factor={factor!r} of the player "{self.name}": give a number above 0')


@dataclass(frozen=True, eq=False)
class Phase:
    """What is lowered, and by whom.

    `loss(batch, rng)` returns the scalar to minimise, a mean over the images of a batch, and its named parts: scalars,
    or (2,), the sum over some of the images and their number, for a mean over those. The phase runs in every `every`-th
    step, and then counts `every` times, so that its expected gradient is that of a phase which runs in each (a lazy
    penalty). It runs `repeats` times in a step, each time on a batch of its own (a Wasserstein critic has repeats=5).
    Phases of one player that run in the same step add up their gradients, and the player moves once.

    The phase is active from the share `begin` of the training to the share `end`. The learning rate of a player goes
    through its whole schedule in the span of its phases: stages that follow each other are players whose spans do.

    start: is called once, before the phase's first step, with training images and a seed; returns values for the log.
        If memory runs out it is called again, with fewer images at a time.
    What it sets has to be a buffer, or a parameter that nobody moves, to be saved with the state.
    """

    name: str
    player: Player
    loss: Loss
    every: int = 1
    repeats: int = 1
    begin: float = 0.0
    end: float = 1.0
    start: Start | None = None

    def __post_init__(self) -> None:
        """Raises PhaseError."""
        _check_name("phase", self.name)
        of_phase = f'of the phase "{self.name}"'
        for key, value in (("every", self.every), ("repeats", self.repeats)):
            if not isinstance(value, int) or value < 1:
                raise PhaseError(f"{key}={value!r} {of_phase}: give a whole number of at least 1")
        if not (_is_number(self.begin) and _is_number(self.end) and 0 <= self.begin < self.end <= 1):
            raise PhaseError(
                f"begin={self.begin!r}, end={self.end!r} {of_phase}: give shares of the training, 0 <= begin < end <= 1"
            )

    def is_active(self, progress: float) -> bool:
        """Whether this share of the training is in its span."""
        return self.begin <= progress < self.end


def _check_name(kind: str, name: object) -> None:
    if not isinstance(name, str) or not re.fullmatch(r"[\w.-]+", name):
        raise PhaseError(f"the name of a {kind} is {name!r}: use letters, digits, and any of . _ -")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def players_of(phases: Sequence[Phase]) -> list[Player]:
    """Every player once, in the order of their first phases."""
    return list({id(phase.player): phase.player for phase in phases}.values())


def phases_of(player: Player, phases: Sequence[Phase]) -> list[Phase]:
    """The phases of a player among others."""
    return [phase for phase in phases if phase.player is player]


def repeats_of(phases: Sequence[Phase]) -> int:
    """How often a player with these phases moves in a step."""
    return max(phase.repeats for phase in phases)


def not_averaged(phases: Sequence[Phase]) -> list[nn.Parameter]:
    """The parameters of players whose weights are not averaged."""
    return [p for player in players_of(phases) if not player.averaged for p in player.parameters]


def span_of(player: Player, phases: Sequence[Phase]) -> tuple[float, float]:
    """From which share of the training to which a player moves."""
    own = phases_of(player, phases)
    return min(phase.begin for phase in own), max(phase.end for phase in own)


def check_together(phases: Sequence[Phase]) -> None:
    """Whether phases fit each other.

    Raises:
        PhaseError: two players or two phases have one name, a player has no parameters, or a parameter two players at
            the same time.
    """
    for one, other in combinations(phases, 2):
        if one.name == other.name:
            raise PhaseError(f'two phases are named "{one.name}"; give each a name of its own')
    for player in players_of(phases):
        if not player.parameters:
            raise PhaseError(f'the player "{player.name}" has no parameters to move')
    for first, second in combinations(players_of(phases), 2):
        if first.name == second.name:
            raise PhaseError(f'two players are named "{first.name}"; make one Player and give it to both phases')
        (begin, end), (other_begin, other_end) = span_of(first, phases), span_of(second, phases)
        shared = set(map(id, first.parameters)) & set(map(id, second.parameters))
        if shared and max(begin, other_begin) < min(end, other_end):
            raise PhaseError(
                f'the players "{first.name}" and "{second.name}" move the same parameters at the same time; make one '
                "Player and give it to both phases"
            )


def count_players(phases: Sequence[Phase]) -> int:
    """How many players move at the same time, at most: 2 for a GAN, 1 for stages that follow each other."""
    return max(len({id(other.player) for other in phases if other.is_active(phase.begin)}) for phase in phases)


class Likelihood(Protocol):
    """p(x|z): its name in a protocol, and whether it is a density over images in [0, 1]."""

    name: str
    density: bool


class Model(nn.Module):
    """A model that the training loop can train: settings, what is lowered by whom, and flags.

    config: a ModelConfig; phases: at least one.
    batch_statistics: whether a loss depends on statistics of the batch, which then cannot be divided. Any part of a
        model may say so, too.
    sums_statistics: whether those are of the whole batch where several processes have a part each (whole_batch.py).
    batch_averages: whether a buffer follows averages over batches, which differ between processes that have a part of
        each. Any part of a model may say so, too.
    n_classes: of the label that it can be asked for; 0: it takes no label.
    takes: the other fields of a Condition that it can be asked for.
    null_condition: whether it has learned to do without the label or caption that it takes.
    factor: how many times larger than the image that it is given it draws one.
    codes_need: fields of a Condition that `encode`, `decode`, `reconstruct` need; None: the label, where it takes one.
    code_length: numbers in a code; None: not known before one is made.
    code_bits: of a code that is choices out of finite sets, in a fixed length for each; None for any other.
    sampling_keys: settings of its sampler, which `sample` takes as `keys`; Config has none. None: `sample` has them as
        keywords of its own.
    takes_guides: whether `sample` takes as `guides` what the keys `guide` and `classifier` name.
    pixel_likelihood: p(x|z) behind the bound on the likelihood; None: a density without a name.
    """

    config: Any = None
    phases: Sequence[Phase]
    batch_statistics: bool = False
    sums_statistics: bool = False
    batch_averages: bool = False
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


@dataclass(frozen=True)
class Guides:
    """What comes to a sampler from outside its model.

    weak: a denoiser that is less able. classifier: images (B, C, H, W) in [0, 1] -> logits (B, n_classes). times: a
    grid that was optimised on images, decreasing, float64 (steps + 1,).
    """

    weak: nn.Module | None = None
    classifier: nn.Module | None = None
    times: Tensor | None = None

    @property
    def networks(self) -> list[nn.Module]:
        """Those whose forward calls are part of the cost of sampling."""
        weak = None if self.weak is None else sampling_network(self.weak)
        return [network for network in (weak, self.classifier) if network is not None]


NO_GUIDES = Guides()


@runtime_checkable
class Samples(Protocol):
    """Draws new images. Image k of a call depends on (seed, first + k) alone."""

    def sample(
        self, n: int, *, seed: int, first: int = 0, condition: Condition = UNCONDITIONAL, **settings: Any
    ) -> Tensor:
        """(n, C, H, W) in [0, 1]; the images numbered first ... first + n - 1 of `seed`.

        The settings of the sampler are one argument, `keys` of the kind `sampling_keys`, or keywords of its own.
        """
        ...


def sampling_network(model: object) -> nn.Module:
    """The network whose forward calls are the cost of sampling: `sampling_network` of a model, or all of it."""
    network = getattr(model, "sampling_network", model)
    assert isinstance(network, nn.Module)
    return network


def keys_of(model: Samples) -> type[Config]:
    """The settings of a model's sampler: as the model declares them, or else the keywords of its `sample`."""
    declared = flags(model).sampling_keys
    return keywords_of(model.sample, SAMPLE_ARGUMENTS) if declared is None else declared


def draw(
    model: Samples,
    n: int,
    *,
    seed: int,
    first: int = 0,
    condition: Condition = UNCONDITIONAL,
    keys: Config | None = None,
    guides: Guides = NO_GUIDES,
    watch: "Watch | None" = None,
) -> Tensor:
    """Images of a model, in whichever of the two ways its `sample` takes the settings of its sampler.

    Args:
        keys: settings of the kind `keys_of(model)`; default: the model's defaults.
        guides: for a model that takes them; watch: for one that denoises.
    Returns:
        (n, C, H, W) in [0, 1].
    """
    keywords: dict[str, Any] = {} if condition.is_empty else {"condition": condition}
    if keys is not None:
        keywords |= keys.given() if flags(model).sampling_keys is None else {"keys": keys}
    if guides is not NO_GUIDES:
        keywords["guides"] = guides
    if watch is not None:
        keywords["watch"] = watch
    return model.sample(n, seed=seed, first=first, **keywords)


@runtime_checkable
class Encodes(Protocol):
    """Turns images into codes, given the part of a condition that `for_codes` says."""

    def encode(self, image: Tensor, condition: Condition = UNCONDITIONAL) -> Tensor:
        """(B, C, H, W) in [0, 1] -> (B, Z)."""
        ...


@runtime_checkable
class Decodes(Protocol):
    """Turns codes into images."""

    def decode(self, z: Tensor, condition: Condition = UNCONDITIONAL) -> Tensor:
        """(B, Z) -> (B, C, H, W) in [0, 1]."""
        ...


@runtime_checkable
class Reconstructs(Protocol):
    """Gives an image back after passing it through the model."""

    def reconstruct(self, image: Tensor, condition: Condition = UNCONDITIONAL) -> Tensor:
        """(B, C, H, W) in [0, 1] -> the same shape and range."""
        ...


@runtime_checkable
class HasCodeMap(Encodes, Decodes, Protocol):
    """Has codes that are a map over the image, for a model of such maps.

    Each channel has the mean 0 and the standard deviation 1 over training images.
    """

    map_shape: tuple[int, int, int]  # (channels, height, width)

    def to_map(self, image: Tensor) -> Tensor:
        """(B, C, H, W) in [0, 1] -> (B, *map_shape)."""
        ...

    def from_map(self, code: Tensor) -> Tensor:
        """Any maps (B, *map_shape) -> (B, C, H, W) in [0, 1]."""
        ...


@runtime_checkable
class UsesCodeMap(Protocol):
    """Draws code maps, which an autoencoder of its own turns into images.

    checks_autoencoder: whether that has to be good enough before the training begins.
    """

    autoencoder: HasCodeMap

    @property
    def checks_autoencoder(self) -> bool: ...


@runtime_checkable
class Precomputes(Protocol):
    """Works out something of each training image once, for its losses."""

    def precompute(self, images: Callable[[int, int], Tensor], total: int, team: Team) -> None:
        """Before the first step in a process.

        Args:
            images: (first, count) -> so many training images as they are, from number `first` of their split on; total:
                their number; team: the processes that divide the work.
        """
        ...


Watch = Callable[[float, Tensor, Tensor], None]  # (t, x_t, x0_hat), images (B, C, H, W) in [0, 1]


@runtime_checkable
class Inverts(Protocol):
    """Turns images into what it draws them from, and back, by many network calls for each.

    It is not an `Encodes`: what takes the codes of thousands of images does not take these, or takes fewer of them.
    """

    def invert(
        self, image: Tensor, condition: Condition = UNCONDITIONAL, *, steps: int | None = None, seed: int = 0
    ) -> Tensor:
        """(B, C, H, W) in [0, 1] -> (B, Z).

        steps: network calls for each image, about; None: the model's own number. seed: of what is random in a search.
        """
        ...

    def generate(self, z: Tensor, condition: Condition = UNCONDITIONAL) -> Tensor:
        """(B, Z) -> (B, C, H, W) in [0, 1]."""
        ...


@runtime_checkable
class DrawsCodes(Inverts, Protocol):
    """Draws codes first, and its images from them."""

    def draw_codes(self, n: int, *, seed: int, condition: Condition = UNCONDITIONAL) -> Tensor:
        """As its images are drawn from, (n, Z)."""
        ...

    def in_z(self) -> Inverts:
        """The model with its latents z for codes, where they are styles."""
        ...


@runtime_checkable
class HasStyles(Protocol):
    """Draws images by way of a style w, W numbers that depend on a code z."""

    def mean_w(self) -> Tensor:
        """The average style, (W,)."""
        ...

    def to_w(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        """z (B, latent), label (B,) where the model has classes -> w (B, W)."""
        ...

    def from_w(self, w: Tensor, ids: Tensor | None = None, *, seed: int = 0) -> Tensor:
        """w (B, W) -> (B, C, H, W) in [0, 1], through which gradients pass; all else that is random in them depends on
        (seed, ids[b]) alone. Default: all have that of image 0."""
        ...


@runtime_checkable
class TakesNoise(Protocol):
    """Draws images from latents z and from noise inputs, `n_noise` numbers for an image."""

    @property
    def n_noise(self) -> int: ...

    def from_noise(self, z: Tensor, noise: Tensor, label: Tensor | None = None) -> Tensor:
        """z (B, latent), noise (B, n_noise), label (B,) where the model has classes -> (B, C, H, W) in [0, 1]."""
        ...


@runtime_checkable
class JudgesRealness(Protocol):
    """Says how real an image looks."""

    def realness(self, image: Tensor) -> Tensor:
        """(B, C, H, W) in [0, 1] -> (B,), higher for what looks more real."""
        ...


@dataclass(frozen=True)
class Coder:
    """A model that inverts, as one that encodes, decodes and reconstructs."""

    model: Inverts

    def encode(self, image: Tensor, condition: Condition = UNCONDITIONAL) -> Tensor:
        return self.model.invert(image, condition)

    def decode(self, z: Tensor, condition: Condition = UNCONDITIONAL) -> Tensor:
        return self.model.generate(z, condition)

    def reconstruct(self, image: Tensor, condition: Condition = UNCONDITIONAL) -> Tensor:
        return self.decode(self.encode(image, condition), condition)


@runtime_checkable
class Denoises(Samples, Protocol):
    """Estimates the clean image behind a noisy one, and draws images in steps that can be watched.

    `sample` takes `watch`, which sees every call of the denoiser.
    """

    def sample(
        self,
        n: int,
        *,
        seed: int,
        first: int = 0,
        condition: Condition = UNCONDITIONAL,
        watch: Watch | None = None,
        **settings: Any,
    ) -> Tensor:
        """As that of `Samples`."""
        ...

    def denoise(self, x_t: Tensor, t: Tensor) -> Tensor:
        """x_t (B, C, H, W) in the family's own range, t (B,) in [0, 1] with 1 = noise -> x0_hat, as x_t."""
        ...


@dataclass(frozen=True, eq=False)
class Redraw:
    """How images are drawn again.

    strength: the time of the noise that they are drawn from, from 0 (nothing changes) to 1 (nothing is left).
    mask: 1 where pixels are drawn, 0 where they stay, (B, 1, H, W); rounds: how often each step is then taken, None for
    as often as the model needs it.
    noise: standard deviation of the noise that the images have already, in [0, 1]; none is added then.
    """

    strength: float = 1.0
    mask: Tensor | None = None
    rounds: int | None = None
    noise: float | None = None


@runtime_checkable
class Redraws(Samples, Protocol):
    """Draws images again, from a noisier state of themselves on."""

    def redraw(
        self,
        image: Tensor,
        how: Redraw,
        *,
        seed: int,
        first: int = 0,
        condition: Condition = UNCONDITIONAL,
        keys: Any = ...,
        guides: Guides = ...,
    ) -> Tensor:
        """(B, C, H, W) in [0, 1] -> the same shape and range; the noise of image b depends on (seed, first + b)."""
        ...


@runtime_checkable
class DenoisesOnAnySchedule(Protocol):
    """Estimates the clean image at the times of any schedule, as what guides another model must.

    x_shape: of x, (channels, height, width).
    """

    @property
    def x_shape(self) -> tuple[int, int, int]: ...

    def denoiser(
        self, schedule: Any, condition: Condition, n: int, *, clips: bool = True
    ) -> Callable[[Tensor, Tensor], Tensor]:
        """(x_t, t) -> x0_hat for n images at times of a schedule, of the part of a condition that it takes; clips:
        whether to keep it in [-1, 1], if that is how the model draws."""
        ...


@runtime_checkable
class HasEstimator(Protocol):
    """Draws by the estimates of a model that is a part of it, as they are: not kept in [-1, 1]."""

    @property
    def estimator(self) -> DenoisesOnAnySchedule: ...


@dataclass(frozen=True, eq=False)
class DiffusersParts:
    """A diffusion model in the terms of diffusers.

    unet: settings of UNet2DModel; weights: by its names; scheduler: settings of DDIMScheduler.
    start: (numbers of images, seed) -> x_T; keys: steps -> settings of the model's own sampler that takes the same.
    """

    unet: Mapping[str, Any]
    weights: Mapping[str, Tensor]
    scheduler: Mapping[str, Any]
    start: Callable[[Tensor, int], Tensor]
    keys: Callable[[int], Config]


@runtime_checkable
class HasDiffusersParts(Samples, Protocol):
    """Can be said in the terms of diffusers, under settings of its own."""

    def as_diffusers(self) -> DiffusersParts:
        """See `DiffusersParts`.

        Raises:
            UserError: not with these settings; the text is a reason.
        """
        ...


@runtime_checkable
class BoundsLikelihood(Protocol):
    """Bounds the log-likelihood of an image from below."""

    def elbo(self, image: Tensor, rng: torch.Generator, condition: Condition = UNCONDITIONAL) -> Tensor:
        """(B, C, H, W) -> nats per image (B,)."""
        ...


@runtime_checkable
class WeighsCodes(BoundsLikelihood, Protocol):
    """Bounds it by codes, so that several of them give a tighter bound."""

    def log_weight(self, image: Tensor, rng: torch.Generator, condition: Condition = UNCONDITIONAL) -> Tensor:
        """log p(x, z) - log q(z|x) of one z ~ q(z|x): (B, C, H, W) -> nats per image (B,). Its mean is the ELBO, and
        the log of the mean exponential of k of them the importance-weighted bound."""
        ...


@runtime_checkable
class BoundsByPath(BoundsLikelihood, Protocol):
    """Bounds it for images of 256 levels, by a path to noise; `calls` are points of it, for each image."""

    def bound(self, image: Tensor, rng: torch.Generator, condition: Condition = UNCONDITIONAL, *, calls: int) -> Tensor:
        """The variational bound: (B, C, H, W) -> nats per image (B,)."""
        ...

    def flow_bound(
        self, image: Tensor, rng: torch.Generator, condition: Condition = UNCONDITIONAL, *, calls: int
    ) -> Tensor:
        """By the density along the probability-flow path: (B, C, H, W) -> nats per image (B,)."""
        ...


@runtime_checkable
class HasPosterior(Protocol):
    """Gives an image a Gaussian of codes with independent entries."""

    def posterior(self, image: Tensor, condition: Condition = UNCONDITIONAL) -> tuple[Tensor, Tensor]:
        """mu and logvar of q(z|x): (B, C, H, W) -> two (B, Z)."""
        ...


class _TakesLabel(type):
    def __instancecheck__(cls, model: object) -> bool:
        return flags(model).n_classes > 0


class Conditional(metaclass=_TakesLabel):
    """Draws what is asked for: the label of a condition, one of `n_classes`, is obeyed."""

    n_classes: int


class _TakesCaption(type):
    def __instancecheck__(cls, model: object) -> bool:
        return "caption" in flags(model).takes


class ReadsCaptions(metaclass=_TakesCaption):
    """Draws what the caption of a condition says."""

    def unknown_words(self, caption: str) -> list[str]:
        """Words of a caption that were in none of the training."""
        raise NotImplementedError

    def captions_cut(self, captions: Iterable[str]) -> int:
        """How many captions are longer than the model reads."""
        raise NotImplementedError


def needs_caption(model: object) -> bool:
    """Whether a model reads captions, and has never done without one."""
    return isinstance(model, ReadsCaptions) and not flags(model).null_condition


class _Enlarges(type):
    def __instancecheck__(cls, model: object) -> bool:
        return flags(model).factor > 1


class Upscales(metaclass=_Enlarges):
    """Enlarges images `factor` times, and draws what the small ones do not show."""

    factor: int

    def upscale(
        self,
        image: Tensor,
        *,
        seed: int,
        first: int = 0,
        condition: Condition = UNCONDITIONAL,
        keys: Any = ...,
        guides: Guides = NO_GUIDES,
    ) -> Tensor:
        """(B, C, h, w) in [0, 1] -> (B, C, factor h, factor w); the noise of image b depends on (seed, first + b)."""
        raise NotImplementedError


def codes_need(model: object) -> tuple[str, ...]:
    """Fields of a Condition that `encode`, `decode` and `reconstruct` of a model need."""
    named = flags(model).codes_need
    return named if named is not None else ("label",) if isinstance(model, Conditional) else ()


def for_codes(model: object, condition: Condition) -> Condition:
    """The part of a condition that `encode`, `decode` and `reconstruct` of a model need."""
    return condition.only(*codes_need(model))


LACKING = {  # why a model without a capability cannot do what needs it
    Samples: "does not draw samples",
    Encodes: "has no encoder",
    Decodes: "has no decoder",
    Inverts: "does not search for what it draws an image from",
    JudgesRealness: "has no critic",
    Redraws: "does not draw images out of noisy ones",
    BoundsLikelihood: "has no bound on the likelihood",
    BoundsByPath: "has no path from images to noise",
    Conditional: "was trained without labels",
    ReadsCaptions: "was trained without captions",
    Upscales: "was not trained to enlarge images",
}


TRAINED_WITH = {Conditional: "classes", ReadsCaptions: "captions"}  # the setting of models that may have a capability


@runtime_checkable
class Finishes(Protocol):
    """Has a last step after (or between) training: for instance a density fitted on the codes."""

    def finish(self, batches: Iterable[Batch], *, seed: int) -> dict[str, float]:
        """Sees some training images once; the result is stored in the model's buffers. Returns values for the card."""
        ...


@runtime_checkable
class Validates(Protocol):
    """Has values of its own to follow on held-out images."""

    def validation(self, batch: Batch, rng: torch.Generator) -> dict[str, Tensor]:
        """Named values per image, each (B,). The trainer averages them over the split; a name that ends in
        `mse` is also reported as its square root with `rmse` in its place."""
        ...


@runtime_checkable
class HasCritic(Protocol):
    """Has a critic, which gives real images higher logits than generated ones."""

    def critic_logits(self, batch: Batch, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """Logits of a batch's images and of as many generated ones, each (B,), by the critic as it is in training."""
        ...
