"""Generative adversarial networks (Goodfellow et al. 2014): two players, two phases of training.

    min_G max_D  E_x log D(x) + E_z log(1 - D(G(z))),    z ~ N(0, I)

The critic learns to tell images from G(z); the generator learns to be taken for real. Each phase draws its own z. A
preset is a combination of parts: a pair of networks, a loss for either player (losses.py), a bound on the slope of the
critic (penalties.py, clipped weights, or spectral normalisation), what images go through before the critic sees them
(augmentation.py), and classes.

With classes, the label's embedding is joined to z, and the critic's logit is (Miyato & Koyama 2018, eq. 3)

    D(x, y) = head(phi(x)) + <embedding of y, phi(x)>,    phi(x) its last features

At the end of a training the statistics of batch norms are measured anew, for the averaged weights that are kept.
"""

import math
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from trilemma import rng as random
from trilemma.errors import UserError, check_images
from trilemma.gans.augmentation import Adaptive, differentiable
from trilemma.gans.codes import CodesModel
from trilemma.gans.config import NETWORKS, GANConfig, GANKeys
from trilemma.gans.losses import LOSSES, AdversarialLoss, margins
from trilemma.gans.modes import measure_statistics
from trilemma.gans.penalties import TWICE, gradient_penalty, zero_centred
from trilemma.gans.separation import auroc
from trilemma.gans.spectral import normalise
from trilemma.modes import in_eval_mode, without_gradients
from trilemma.nets.critic import Critic, ProjectionCritic
from trilemma.types import (
    UNCONDITIONAL,
    Batch,
    Condition,
    Logs,
    Phase,
    Player,
    check_condition,
    no_label,
)

LABEL_NUMBERS = 32  # of the embedding that is joined to z
STATISTICS, STATISTICS_BATCH = 2_000, 100  # images behind the statistics of a batch norm, and drawn together


class GAN(CodesModel):
    """Generator z (B, latent) -> image (B, C, H, W) in [0, 1], and critic image -> logits (B,)."""

    sampling_keys = GANKeys
    whole_because = ""
    penalty_weights: ClassVar[dict[str, float]] = {"gradient": 10.0, "r1": 1.0, "r1r2": 1.0}  # where none is given

    def __init__(self, config: GANConfig) -> None:
        super().__init__()
        self.config = config
        self.n_classes = (config.n_classes or 0) if config.classes else 0
        self.generator = self.make_generator(config.latent + (LABEL_NUMBERS if self.n_classes else 0))
        critic = self.make_critic()
        if self.n_classes:
            self.label_embedding = nn.Embedding(self.n_classes, LABEL_NUMBERS)
        bounded = config.spectral_norm or config.weight_clip is not None
        self.critic = ProjectionCritic(critic, self.n_classes, bounded=bounded) if self.n_classes else critic
        if config.spectral_norm:
            normalise(self.critic)
        if config.penalty != "none":
            self.critic.whole_because = TWICE
        self.adaptive = Adaptive() if config.critic_augment == "adaptive" else None
        self.phases = self.make_phases()

    def check_batch(self, size: int) -> None:
        """Raises UserError for batches of one image where there is a batch norm."""
        if size < 2 and any(isinstance(module, _BatchNorm) for module in self.modules()):
            raise UserError(
                "batch=1: batch norm compares the images of a batch; choose batch=2 or more, or network=plain"
            )

    def make_generator(self, inputs: int) -> nn.Module:
        """The network from `inputs` numbers to an image."""
        config = self.config
        options: dict[str, Any] = {"group": config.group} if config.network == "r3" else {}
        return NETWORKS[config.network][0](config.shape, inputs, config.width, **options)

    def make_critic(self) -> Critic:
        """The network from an image to a logit."""
        config = self.config
        own = {"dcgan": {"batch_norm": not config.bounds_slope}, "r3": {"group": config.group}}
        options: dict[str, Any] = own.get(config.network, {})
        return NETWORKS[config.network][1](config.shape, config.width, **options)

    def make_phases(self) -> list[Phase]:
        """The critic moves first, and does not count for the average of the weights."""
        critic = Player("critic", list(self.critic.parameters()), averaged=False, after_step=self._after_step())
        generator = Player("generator", self.generator_parameters())
        phases = [Phase("critic", critic, self.critic_loss, repeats=self.config.critic_steps)]
        if self.config.penalty != "none" and self.config.penalty_every > 1:
            lazy = {"every": self.config.penalty_every, "repeats": self.config.critic_steps}
            phases.append(Phase("penalty", critic, self.penalty_loss, **lazy))
        return [*phases, Phase("generator", generator, self.generator_loss)]

    def generator_parameters(self) -> list[nn.Parameter]:
        """What the generator's player moves."""
        embedding = list(self.label_embedding.parameters()) if self.n_classes else []
        return [*self.generator.parameters(), *embedding]

    @property
    def sampling_network(self) -> nn.Module:
        """The generator: one call per batch of samples."""
        return self.generator

    @property
    def adversarial(self) -> AdversarialLoss:
        """What the players lower."""
        return LOSSES[self.config.loss]

    def penalty_weight(self, progress: float) -> float:
        """Of the penalty, at a share of the training: from its start to `penalty_end` of it, along half a cosine."""
        end, left = self.config.penalty_end, (1 + math.cos(math.pi * progress)) / 2
        return (self.config.penalty_weight or self.penalty_weights[self.config.penalty]) * (end + (1 - end) * left)

    def critic_loss(self, batch: Batch, rng: torch.Generator) -> tuple[Tensor, Logs]:
        """The critic's turn.

        Parts: loss; what each half is given on average: d_real and d_fake, the probability of being real, or, where
        logits stand for no probability, logit_real and logit_fake; auroc, of real against generated images (of a batch
        that several processes have, the mean over their parts); penalty, before its weight; augment_p, the probability
        of the adaptive transforms.
        """
        label = self._label(batch)
        fake = self._fake_still(batch, label, rng)
        with _full_precision(fake) if self._penalises_each_step else nullcontext():
            real = self._judged(batch.image, label, rng, slope=self._penalises_each_step)
            fake = self._judged(fake, label, rng, slope=self._penalises_each_step and self.config.penalty == "r1r2")
            loss = self.adversarial.critic(real=real.logits, fake=fake.logits)
            penalty = self._penalty(label, rng, real=real, fake=fake) if self._penalises_each_step else None
        parts = {"loss": loss.detach(), **self._means(real=real.logits.detach(), fake=fake.logits.detach())}
        if self.adaptive is not None:
            parts["augment_p"] = self.adaptive.p.clone()
            self.adaptive.update(margins(self.adversarial, real=real.logits, fake=fake.logits), batch.progress)
        if penalty is None:
            return loss, parts
        return loss + self.penalty_weight(batch.progress) * penalty, {**parts, "penalty": penalty.detach()}

    def penalty_loss(self, batch: Batch, rng: torch.Generator) -> tuple[Tensor, Logs]:
        """The penalty by itself, where it is not of every step; part: loss, before its weight."""
        label = self._label(batch)
        with _full_precision(batch.image):
            if self.config.penalty == "gradient":
                fake = self._fake_still(batch, label, rng)
                penalty = self._penalty_between(label, rng, real=batch.image, fake=fake)
            else:
                halves = [self._judged(batch.image, label, rng, slope=True)]
                if self.config.penalty == "r1r2":
                    halves.append(self._judged(self._fake_still(batch, label, rng), label, rng, slope=True))
                penalty = _zero_centred(*halves)
        return self.penalty_weight(batch.progress) * penalty, {"loss": penalty.detach()}

    def generator_loss(self, batch: Batch, rng: torch.Generator) -> tuple[Tensor, Logs]:
        """The generator's turn; part: loss. Gradients pass through the critic and leave none in it."""
        label = self._label(batch)
        fake = self.fake(batch, label, rng)
        with without_gradients(self.critic):
            logits_fake = self.judge(fake, label, rng)
            logits_real = self.judge(batch.image, label, rng) if self.adversarial.pairs else logits_fake
        loss = self.adversarial.generator(real=logits_real, fake=logits_fake)
        return loss, {"loss": loss.detach()}

    def fake(self, batch: Batch, label: Tensor | None, rng: torch.Generator) -> Tensor:
        """As many generated images as there are in a batch, on its device, in [0, 1]."""
        return self.from_z(random.batch_normal(self.config.latent, batch.image, rng).T, label)

    def judge(self, image: Tensor, label: Tensor | None, rng: torch.Generator) -> Tensor:
        """The critic's logits (B,) of images (B, C, H, W), as it sees them in training."""
        image = self.augmented(image, rng)
        return self.critic(image) if label is None else self.critic(image, label)

    def augmented(self, image: Tensor, rng: torch.Generator) -> Tensor:
        """Images (B, C, H, W) as the critic is shown them, real and generated ones alike."""
        if self.adaptive is not None:
            return self.adaptive(image, rng)
        return differentiable(image, rng) if self.config.critic_augment == "differentiable" else image

    @torch.no_grad()
    def critic_logits(self, batch: Batch, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """The critic's logits of a batch's images and of as many generated ones, each (B,), as in its turn."""
        label = self._label(batch)
        return self.judge(batch.image, label, rng), self.judge(self.fake(batch, label, rng), label, rng)

    @torch.no_grad()
    def sample(
        self, n: int, *, seed: int, first: int = 0, condition: Condition = UNCONDITIONAL, keys: GANKeys = GANKeys()
    ) -> Tensor:
        """Images numbered first ... first + n - 1 of `seed`, (n, C, H, W) in [0, 1].

        Raises:
            UserError: for a condition that the model does not take.
        """
        check_condition(condition, n, self.n_classes)
        ids = torch.arange(first, first + n)
        device = next(self.generator.parameters()).device
        z = keys.temperature * random.normal(ids, (self.config.latent,), seed, "latent").to(device)
        label = self.label_for(ids, condition)
        with in_eval_mode(self.generator):
            return self.from_z(z, label)

    @torch.no_grad()
    def finish(self, batches: Iterable[Batch], *, seed: int) -> dict[str, float]:
        """Measure the statistics of the generator's batch norms: those of training are of the weights step by step, and
        images are drawn with their average. No training image is looked at."""
        norms = [module for module in self.generator.modules() if isinstance(module, _BatchNorm)]
        if norms:
            with measure_statistics(self.generator, norms):
                for first in range(0, STATISTICS, STATISTICS_BATCH):
                    ids = torch.arange(first, first + STATISTICS_BATCH)
                    z = random.normal(ids, (self.config.latent,), seed, "statistics").to(norms[0].weight.device)
                    self.from_z(z, self.label_for(ids, UNCONDITIONAL))
        return {}

    def from_z(self, z: Tensor, label: Tensor | None) -> Tensor:
        """The generator's images (B, C, H, W) in [0, 1] of latents (B, latent); label (B,), None without classes."""
        return self.generator(self._with_label(z, label))

    @torch.no_grad()
    def realness(self, image: Tensor) -> Tensor:
        """The critic's logit of images (B, C, H, W) in [0, 1], (B,): high for real; its mean over the classes."""
        check_images(image, self.config.shape)
        with in_eval_mode(self.critic):
            return self.critic(image)

    @property
    def _penalises_each_step(self) -> bool:
        return self.config.penalty != "none" and self.config.penalty_every == 1

    @torch.no_grad()
    def _fake_still(self, batch: Batch, label: Tensor | None, rng: torch.Generator) -> Tensor:
        """Generated images through which no gradient passes."""
        return self.fake(batch, label, rng)

    def _judged(self, image: Tensor, label: Tensor | None, rng: torch.Generator, *, slope: bool) -> "_Judged":
        """Images and their logits; slope: whether that there is penalised."""
        image = image.detach().requires_grad_(slope and self.config.penalty != "gradient")
        return _Judged(image, self.judge(image, label, rng))

    def _penalty(self, label: Tensor | None, rng: torch.Generator, *, real: "_Judged", fake: "_Judged") -> Tensor:
        if self.config.penalty == "gradient":
            return self._penalty_between(label, rng, real=real.image, fake=fake.image)
        return _zero_centred(real) if self.config.penalty == "r1" else _zero_centred(real, fake)

    def _penalty_between(self, label: Tensor | None, rng: torch.Generator, *, real: Tensor, fake: Tensor) -> Tensor:
        """The gradient penalty; the critic is shown the images between real and generated ones (B, C, H, W), alone."""
        u = torch.rand(len(real), generator=rng, dtype=torch.float32, device=rng.device)
        return gradient_penalty(lambda image: self.judge(image, label, rng), u, real=real, fake=fake)

    def _means(self, *, real: Tensor, fake: Tensor) -> Logs:
        """What the log has of logits."""
        halves = {"real": real, "fake": fake}
        share = {"auroc": auroc(real=real, fake=fake)}
        if self.adversarial.probabilities:
            return {f"d_{name}": logits.sigmoid().mean() for name, logits in halves.items()} | share
        return {f"logit_{name}": logits.mean() for name, logits in halves.items()} | share

    def _label(self, batch: Batch) -> Tensor | None:
        """A batch's labels for a model of classes."""
        if not self.n_classes:
            return None
        if batch.condition.label is None:
            raise no_label("give a batch with a label for each image")
        return batch.condition.label

    def _with_label(self, z: Tensor, label: Tensor | None) -> Tensor:
        """The generator's input: z (B, latent), joined to the embedding of labels."""
        return z if label is None else torch.cat([z, self.label_embedding(label.to(z.device))], dim=1)

    def _after_step(self) -> Callable[[], None] | None:
        """What follows each of the critic's steps."""
        bound = self.config.weight_clip
        return None if bound is None else partial(_clip, self.critic, bound)


class _Judged(NamedTuple):
    """Images (B, C, H, W) and their logits (B,)."""

    image: Tensor
    logits: Tensor


def _zero_centred(*halves: _Judged) -> Tensor:
    """R1 of real images, with R2 where generated ones are given, too."""
    return torch.stack([zero_centred(half.logits, half.image) for half in halves]).sum()


@torch.no_grad()
def _clip(critic: nn.Module, bound: float) -> None:
    """Cut each weight to [-bound, bound]."""
    for parameter in critic.parameters():
        parameter.clamp_(-bound, bound)


def _full_precision(like: Tensor) -> AbstractContextManager[Any]:
    """Inside, nothing is computed in bfloat16 (a GPU may still use TF32)."""
    return torch.autocast(like.device.type, enabled=False)
