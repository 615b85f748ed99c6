"""Capabilities: drawing images, again from noisier states of themselves, or larger than what is given."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from torch import Tensor, nn

from trilemma.config import Config, keywords_of
from trilemma.types.batch import UNCONDITIONAL, Condition
from trilemma.types.model import flags

if TYPE_CHECKING:
    from trilemma.progress import OnStep

SAMPLE_ARGUMENTS = ("n", "seed", "first", "condition", "keys", "guides", "watch")  # besides settings of the sampler


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
Watch = Callable[[float, Tensor, Tensor], None]  # (t, x_t, x0_hat), images (B, C, H, W) in [0, 1]


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
        on_step: "OnStep | None" = None,
    ) -> Tensor:
        """(B, C, H, W) in [0, 1] -> the same shape and range; the noise of image b depends on (seed, first + b).

        Args:
            on_step: is told after each network call how many steps are done, of how many.
        """
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
class DiffusersNetwork:
    """A network in the terms of diffusers: settings of its class, and weights by their names there."""

    settings: Mapping[str, Any]
    weights: Mapping[str, Tensor]


@dataclass(frozen=True, eq=False)
class DiffusersParts:
    """A diffusion model in the terms of diffusers.

    unet: a UNet2DModel; scheduler: settings of DDIMScheduler; autoencoder: an AutoencoderKL, for a model of codes.
    start: (numbers of images, seed) -> x_T; keys: steps -> settings of the model's own sampler that takes the same.
    """

    unet: DiffusersNetwork
    scheduler: Mapping[str, Any]
    start: Callable[[Tensor, int], Tensor]
    keys: Callable[[int], Config]
    autoencoder: DiffusersNetwork | None = None


@runtime_checkable
class HasDiffusersParts(Samples, Protocol):
    """Can be said in the terms of diffusers, under settings of its own."""

    def as_diffusers(self) -> DiffusersParts:
        """See `DiffusersParts`.

        Raises:
            UserError: not with these settings; the text is a reason.
        """
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
        """Words of a caption that have no token."""
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
        on_step: "OnStep | None" = None,
    ) -> Tensor:
        """(B, C, h, w) in [0, 1] -> (B, C, factor h, factor w); the noise of image b depends on (seed, first + b).

        Args:
            on_step: is told after each network call how many steps are done, of how many.
        """
        raise NotImplementedError
