"""Images in one or a few calls, by consistency tuning of a trained diffusion model (Song et al. 2023, "Consistency
models"; Geng et al. 2025, "Consistency models made easy").

    f(x, t) = x0_hat of x = x0 + t eps, with f(x, 0) = x;    f is to be the same all along a path to noise

t and r are standard deviations of noise here, as in these papers, and no times of a schedule.

targets=teacher: the path is that of the model that is tuned, whose denoiser is D (Song et al. 2023, algorithm 2, with
any t in place of a table, and no average of the weights in the target; a step of Heun's, Karras et al. 2022, algorithm
1). Nothing is random in a target, so r may be far below t:

    loss = |f(x, t) - stop(f(x + (r - t) d, r))|,    d = ((x - D(x, t)) / t + (y - D(y, r)) / r) / 2,
    y = x + (r - t) (x - D(x, t)) / t,    r**(1/7) = t**(1/7) - T_MAX**(1/7) / levels,    t**(1/7) uniform

targets=data: the path of x0 and eps, as if they alone had led to x (Geng et al. 2025, algorithm 1). No teacher is
asked, and the gradient tends to that of the path's own equation as `gap` grows:

    loss = |f(x0 + t eps, t) - stop(f(x0 + r eps, r))| / (t - r),    log t ~ N(NOISE_MEAN, NOISE_STD**2)
    r = t max(0, 1 - (1 + 8 sigmoid(-t)) / gap)

with the same x0, eps and dropout in both. Where r = 0 the target is D(x, t), or x0. Noise is in units of twice the
spread of the data, which is 1 for data_std = 0.5.

With adversarial > 0 a critic, which another family brings (gans/adversary.py), compares f with the images of the batch
at the noise of the sampler's own calls, CALLS of them (Sauer et al. 2023, "Adversarial diffusion distillation"; Kim et
al. 2024, "Consistency trajectory models", section 3.3). It is a player of its own, with Adam:

    loss + adversarial * E softplus(D(x0) - D(f(x0 + t eps, t)))

An image takes one call from pure noise, x0_hat = f(t_max eps, t_max). Each further one adds noise again and takes it
out: n calls have n - 1 levels between, at quantiles 1 - k / (n + 1) of the law of t of targets=data, k = 1 ... n - 1.
Those of targets=teacher are the same, though its training draws t by another law; call_levels= gives others.

An image is drawn again (`edit`) from x0 + t eps on, with the t of a strength, by a call there and one at each of these
levels that is lower. Under a mask each is taken several times, and where the mask is 0 x0_hat is the image itself
before noise is added again (Song et al. 2023, algorithm 4, with the rounds of editing.py). Noise that an image has
already is taken out in one call, f(x, t). There are no codes: f tells where a path ends and not how it gets there. Were
it taken for the x0_hat of a path, that of Gaussian data would lead to noise of standard deviation 1/2.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal, Protocol, Self

import torch
from pydantic import Field, PositiveInt, model_validator
from torch import Tensor, nn

from trilemma import rng as random
from trilemma.arguments import word
from trilemma.config import Config, ModelConfig, only_for
from trilemma.diffusion.editing import ROUNDS, seen_of
from trilemma.diffusion.model import DATA_STD, PixelDiffusion
from trilemma.diffusion.schedule import log_snr
from trilemma.diffusion.steps import of_images
from trilemma.diffusion.weighting import evenly_spread
from trilemma.errors import UserError, check_images
from trilemma.modes import in_eval_mode
from trilemma.nets.network_input import NetworkInput
from trilemma.types import (
    NO_GUIDES,
    UNCONDITIONAL,
    Batch,
    Condition,
    Guides,
    Logs,
    Model,
    Phase,
    Player,
    Redraw,
    check_condition,
)

if TYPE_CHECKING:
    from trilemma.progress import OnStep

NOISE_MEAN, NOISE_STD = -1.1, 2.0  # of log t
T_MAX = 80.0  # noise that hides all of an image
NARROW = 8.0  # how much more of t lies between t and r where t is small
RHO = 7  # of the levels that a teacher's path has
CALLS = (1, 2, 4)  # for an image, at whose noise a critic compares
CRITIC_OPTIMIZER = {"optimizer": "adam", "betas": (0.0, 0.99), "clip": None}


class FewConfig(ModelConfig):
    """Settings of consistency tuning; those of the network are the tuned model's."""

    targets: Literal["teacher", "data"] = Field(
        default="teacher",
        description="pairs of noisy images lie on a path of the tuned model (teacher), or on a straight one from an "
        "image to noise (data)",
    )
    levels: float = Field(
        default=10.0,
        ge=1,
        description="targets=teacher: noise levels from pure noise to an image; a pair has two neighbours",
    )
    gap: float = Field(
        default=256.0,
        gt=1,
        description="targets=data: about t / (t - r), how near the two noise levels of a pair are",
    )

    adversarial: float = Field(
        default=0.0, ge=0, description="weight of the loss by a critic that compares drawn images with real ones"
    )
    critic_width: PositiveInt = Field(default=32, description="channels of the critic's largest map")
    critic_lr: float = Field(
        default=0.001, gt=0, description="learning rate of the critic, unless lr= names the critic"
    )

    @model_validator(mode="after")
    def _has_effect(self) -> Self:
        for key in ("critic_width", "critic_lr"):
            only_for(self, key, self.adversarial > 0, "adversarial= above 0")
        only_for(self, "gap", self.targets == "data", "targets=data")
        only_for(self, "levels", self.targets == "teacher", "targets=teacher")
        return self


class FewKeys(Config):
    """Settings of the sampler."""

    steps: int = Field(default=2, ge=1, le=16, description="network calls per image; 1, 2 and 4 are usual")
    call_levels: tuple[float, ...] | None = Field(
        default=None,
        description="noise of the calls after the first, over twice the spread of the images (default: by steps)",
    )

    @model_validator(mode="after")
    def _levels_fit(self) -> Self:
        levels = self.call_levels
        if levels is None:
            return self
        if len(levels) != self.steps - 1:
            raise ValueError(
                f"call_levels={word(levels)}: give {self.steps - 1} for steps={self.steps}, one for each call after "
                f"the first, or steps={len(levels) + 1}"
            )
        if any(after >= before for before, after in pairwise((T_MAX, *levels, 0.0))):
            raise ValueError(f"call_levels={word(levels)}: give numbers that fall, below {T_MAX:g} and above 0")
        return self

    @property
    def levels(self) -> list[float]:
        """Noise levels of the calls for an image, in units of twice the spread of the data."""
        return noise_levels(self.steps) if self.call_levels is None else [T_MAX, *self.call_levels]

    @property
    def adds_noise(self) -> bool:
        """Whether noise is drawn on the way of an image out of its own noise, which is one call."""
        return False


class Adversary(Protocol):
    """A module that compares drawn images with real ones, both (B, C, H, W); label (B,), None without classes."""

    def critic_loss(self, label: Tensor | None, *, real: Tensor, fake: Tensor) -> tuple[Tensor, Logs]:
        """What its own weights lower, with parts."""
        ...

    def model_loss(self, label: Tensor | None, *, real: Tensor, fake: Tensor) -> Tensor:
        """What the model lowers that drew the images."""
        ...


MakeAdversary = Callable[[tuple[int, int, int], int, int], Any]  # shape of images, width, classes -> an Adversary


class FewSteps(Model):
    """A copy of a diffusion model, tuned to draw in few calls.

    Args:
        parts: init, the model that is tuned; make_adversary: makes the critic of adversarial > 0.
    """

    sampling_keys = FewKeys
    whole_because = ""
    adversary: Adversary | None

    def __init__(
        self, config: FewConfig, parts: Mapping[str, nn.Module], make_adversary: MakeAdversary | None = None
    ) -> None:
        super().__init__()
        self.config = config
        teacher = parts["init"]
        if not isinstance(teacher, PixelDiffusion) or teacher.prediction not in ("edm", "wiener"):
            raise UserError(
                "the part init: consistency tuning begins with a diffusion model of pixels with prediction=edm or "
                "wiener; give a run of diffusion, or of a preset like it"
            )
        if teacher.config.upscale or teacher.config.inpaint:
            task = "enlarges images" if teacher.config.upscale else "draws under a mask"
            raise UserError(
                f"the part init: a model that {task} is not tuned, since one of few steps is given noise alone; give a "
                "run of diffusion or diffusion-text, or use that model itself with a small steps="
            )
        self.student = PixelDiffusion(teacher.config.with_(augment_p=0.0))  # whose images are as they are
        if not any(parameter.is_meta for parameter in self.student.parameters()):
            own = self.student.state_dict().keys()
            self.student.load_state_dict({name: value for name, value in teacher.state_dict().items() if name in own})
        self._teacher = [teacher] if config.targets == "teacher" else []  # no part of the model, which draws without it
        self.n_classes, self.takes = self.student.n_classes, self.student.takes
        self.null_condition = self.student.null_condition
        self.unit = self.student.data_std / DATA_STD
        self.phases = [Phase("consistency", Player("consistency", list(self.student.parameters())), self.loss)]
        self.adversary = None
        if config.adversarial:
            assert make_adversary is not None
            adversary = self.adversary = make_adversary(self.student.config.shape, config.critic_width, self.n_classes)
            own = CRITIC_OPTIMIZER | {"lr": config.critic_lr}
            critic = Player("critic", list(adversary.parameters()), averaged=False, optimizer=own)
            self.phases.insert(0, Phase("critic", critic, self.critic_loss))

    def release(self) -> None:
        """Let go of the teacher."""
        self._teacher.clear()

    @property
    def sampling_network(self) -> nn.Module:
        """One call per step."""
        return self.student.network

    @property
    def estimator(self) -> PixelDiffusion:
        """What estimates x0_hat in each call."""
        return self.student

    def unknown_words(self, caption: str) -> list[str]:
        """Words of a caption that have no token."""
        return self.student.unknown_words(caption)

    def captions_cut(self, captions: Iterable[str]) -> int:
        """How many captions are longer than the model reads."""
        return self.student.captions_cut(captions)

    def loss(self, batch: Batch, rng: torch.Generator) -> tuple[Tensor, Logs]:
        """Mean over images of the distance, with targets=data over t - r; parts: distance, per pixel, before that.

        With a critic its loss is added; part: adversarial, before its weight.
        """
        config = self.student.config
        distance, interval = self._distances(batch, rng, config.label_dropout, config.spelling_p)
        loss, parts = (distance / interval).mean(), {"distance": distance.detach().mean()}
        if self.adversary is None:
            return loss, parts
        fake = self._draw(batch, rng)
        adversarial = self.adversary.model_loss(self._label(batch), real=batch.image, fake=fake)
        return loss + self.config.adversarial * adversarial, {**parts, "adversarial": adversarial.detach()}

    def critic_loss(self, batch: Batch, rng: torch.Generator) -> tuple[Tensor, Logs]:
        """The critic's turn; parts: see `gans.adversary`."""
        assert self.adversary is not None
        with torch.no_grad():
            fake = self._draw(batch, rng)
        return self.adversary.critic_loss(self._label(batch), real=batch.image, fake=fake)

    @torch.no_grad()
    def validation(self, batch: Batch, rng: torch.Generator) -> dict[str, Tensor]:
        """Per image (B,): consistency, the loss at one random t, with its label."""
        distance, interval = self._distances(batch, rng, 0.0)
        return {"consistency": distance / interval}

    @torch.no_grad()
    def sample(
        self, n: int, *, seed: int, first: int = 0, condition: Condition = UNCONDITIONAL, keys: FewKeys = FewKeys()
    ) -> Tensor:
        """Images numbered first ... first + n - 1 of `seed`, (n, C, H, W) in [0, 1].

        Raises:
            UserError: for a condition that the model does not take, or one that it cannot do without.
        """
        student, ids = self.student, torch.arange(first, first + n)
        check_condition(condition, n, self.n_classes, self.takes)
        student.check_captions(condition)
        condition = student.by_default(condition, ids, self.n_classes)
        student.check_asked(condition)
        inputs = student.embed(condition, n)
        nothing = torch.zeros(n, *student.x_shape, device=next(student.parameters()).device)
        with in_eval_mode(student.network):
            return student.to_image(self._after_calls(nothing, self.levels(keys), ids, seed, inputs))

    @torch.no_grad()
    def redraw(
        self,
        image: Tensor,
        how: Redraw,
        *,
        seed: int,
        first: int = 0,
        condition: Condition = UNCONDITIONAL,
        keys: FewKeys = FewKeys(),
        guides: Guides = NO_GUIDES,
        on_step: "OnStep | None" = None,
    ) -> Tensor:
        """Images (B, C, H, W) in [0, 1] drawn again with the noise of those numbered first ... of `seed`; without a
        label as images of no class.

        Args:
            on_step: is told each call of the network: how many are done, of how many.
        Raises:
            UserError: for a condition that it does not take, keys of several calls where one is taken, or images of
                another shape.
        """
        student, n = self.student, len(image)
        check_images(image, student.config.shape)
        student.check_call(condition, n, NO_GUIDES)
        student.check_asked(condition)
        if how.noise is not None and (key := next(iter(keys.given()), None)):
            value = word(keys.get(key))
            raise UserError(f"{key}={value}: the noise of an image is taken out in one call; leave {key} out")
        if how.strength == 0 and how.noise is None:
            return image.clone()
        inputs, ids = student.embed(condition, n), torch.arange(first, first + n)
        x0 = student.to_x(seen_of(image, how))
        with in_eval_mode(student.network):
            return student.to_image(self._after_calls(x0, self.levels_from(how, keys), ids, seed, inputs, how, on_step))

    def levels(self, keys: FewKeys) -> list[float]:
        """Noise levels of the calls for an image, in the units of x."""
        return [self.unit * level for level in keys.levels]

    def levels_from(self, how: Redraw, keys: FewKeys) -> list[float]:
        """Those for an image that is drawn again: that of the strength, and what is lower in `levels`; or that of its
        own noise alone."""
        if how.noise is not None:
            return [2 * how.noise]  # of images in [-1, 1]
        levels = self.levels(keys)
        begin = min(float((-log_snr(self.student.schedule, how.strength) / 2).exp()), levels[0])
        return [begin, *(level for level in levels if level < begin)]

    def _after_calls(
        self,
        x0: Tensor,
        levels: Sequence[float],
        ids: Tensor,
        seed: int,
        inputs: NetworkInput,
        how: Redraw = Redraw(),
        on_step: "OnStep | None" = None,
    ) -> Tensor:
        """x0_hat (B, C, H, W) of images number `ids` after a call at each noise level, or under a mask several."""
        rounds = 1 if how.mask is None else ROUNDS if how.rounds is None else how.rounds
        x0_hat, all_levels = x0, [level for level in levels for _ in range(rounds)]
        for call, level in enumerate(all_levels):
            eps = random.normal(ids, self.student.x_shape, seed, "few", call).to(x0)
            x = x0_hat if how.noise is not None else x0_hat + level * eps
            x0_hat = self.f(x, torch.full((len(x),), level, dtype=torch.float64), inputs)
            if how.mask is not None:
                x0_hat = torch.where(how.mask > 0, x0_hat, x0)
            if on_step is not None:
                on_step(call + 1, len(all_levels))
        return x0_hat

    def f(self, x: Tensor, t: Tensor, inputs: NetworkInput) -> Tensor:
        """f(x, t) of x (B, C, H, W) with noise t float64 (B,): x itself where t is 0."""
        noisy = t.clamp(min=1e-6)
        x0_hat = self.student.denoise_at(x, torch.ones_like(noisy), noisy, inputs)
        return torch.where(of_images((t > 0).to(x.device)), x0_hat, x)

    def draw_levels(self, n: int, rng: torch.Generator) -> Tensor:
        """t of n images, float64 (n,), spread evenly over their law."""
        u = evenly_spread(n, rng)
        if self.config.targets == "teacher":
            return self.unit * (u * T_MAX ** (1 / RHO)) ** RHO
        return self.unit * (NOISE_MEAN + NOISE_STD * torch.special.ndtri(u)).exp().clamp(max=T_MAX)

    def earlier(self, t: Tensor) -> Tensor:
        """r of t, in the same units."""
        if self.config.targets == "teacher":
            return (
                self.unit * ((t / self.unit) ** (1 / RHO) - T_MAX ** (1 / RHO) / self.config.levels).clamp(min=0) ** RHO
            )
        share = (1 + NARROW * torch.sigmoid(-t / self.unit)) / self.config.gap
        return t * (1 - share).clamp(min=0)

    def _draw(self, batch: Batch, rng: torch.Generator) -> Tensor:
        """f of a batch's images with the noise of a call of the sampler's, (B, C, H, W), which may leave [0, 1]."""
        student, x0 = self.student, self.student.x_of(batch)
        inputs = student.embed(student.training_condition(batch, rng, 0.0), len(x0))
        levels = torch.tensor([t for steps in CALLS for t in noise_levels(steps)], dtype=torch.float64, device="cpu")
        t = self.unit * levels[(len(levels) * evenly_spread(len(x0), rng)).long()]
        eps = torch.randn(x0.shape, generator=rng, dtype=x0.dtype, device=rng.device).to(x0.device)
        return (self.f(x0 + of_images(t.to(x0)) * eps, t, inputs) + 1) / 2

    def _label(self, batch: Batch) -> Tensor | None:
        """What the critic is told of a batch."""
        return batch.condition.label if self.n_classes else None

    def _distances(
        self, batch: Batch, rng: torch.Generator, label_dropout: float, spelling_p: float = 0.0
    ) -> tuple[Tensor, Tensor]:
        """Root mean square over pixels between f at t and at r, and what it counts over: (B,) each. The teacher reads
        words as they are."""
        student, x0 = self.student, self.student.x_of(batch)
        condition = student.training_condition(batch, rng, label_dropout)
        inputs = student.embed(condition, len(x0), spelled=student.spell(len(x0), rng, spelling_p))
        t = self.draw_levels(len(x0), rng)
        r = self.earlier(t)
        eps = torch.randn(x0.shape, generator=rng, dtype=x0.dtype, device=rng.device).to(x0.device)
        x_t = x0 + of_images(t.to(x0)) * eps
        before = rng.get_state()  # dropout draws from it, and is to be the same in both
        later = self.f(x_t, t, inputs)
        after = rng.get_state()
        rng.set_state(before)
        by_teacher = self.config.targets == "teacher"
        with torch.no_grad():
            x_r = self.along_path(x_t, t, r, condition) if by_teacher else x0 + of_images(r.to(x0)) * eps
            target = self.f(x_r, r, inputs)
        rng.set_state(after)
        distance = (later - target).square().flatten(1).mean(1).add(1e-12).sqrt()
        return distance, torch.ones_like(distance) if by_teacher else ((t - r) / self.unit).to(distance)

    def along_path(self, x: Tensor, t: Tensor, r: Tensor, condition: Condition) -> Tensor:
        """A step of Heun's by the teacher, from x (B, C, H, W) with noise t to noise r, float64 (B,) each; where r is
        0, D(x, t)."""
        (teacher,) = self._teacher
        teacher = teacher.to(x.device, x.dtype, memory_format=torch.channels_last)  # type: ignore[call-overload]
        inputs = teacher.embed(condition, len(x))
        one, least = torch.ones_like(t), t.clamp(min=1e-6)
        lower, span = r.clamp(min=1e-6), of_images((r - t).to(x))
        slope = (x - teacher.denoise_at(x, one, least, inputs)) / of_images(least.to(x))
        y = x + span * slope
        after = (y - teacher.denoise_at(y, one, lower, inputs)) / of_images(lower.to(x))
        return torch.where(of_images((r > 0).to(x.device)), x + span * (slope + after) / 2, y)


def noise_levels(steps: int) -> list[float]:
    """Of the calls for an image, in units of twice the spread of the data."""
    quantiles = 1 - torch.arange(1, steps, dtype=torch.float64) / (steps + 1)
    between = (NOISE_MEAN + NOISE_STD * torch.special.ndtri(quantiles)).exp()
    return [T_MAX, *between.tolist()]
