"""What goes wrong between a generator and a critic, by the values of a log; rules as in monitor.py.

- Overpowered critic: it is sure of nearly every image. Only where logits stand for probabilities: a Wasserstein critic
  is to be as good as it can be.
- Vanishing gradients (Arjovsky & Bottou 2017): the critic orders nearly every pair of a real and a generated image
  right, and the generator's gradient is next to nothing beside what it was. Norms are of steps without a lazy term
  (path lengths, a lazy penalty): it counts as often as it is left out, and would stand for the gradient that is lost.
- Exploding gradients: those of the critic are a thousand times what they were, or so is the penalty on its slope.
- Overfit critic (Karras et al. 2020, "Training generative adversarial networks with limited data", eq. 1):

      r_v = (E D(training images) - E D(held-out images)) / (E D(training images) - E D(generated images))

  0 where the critic takes held-out images for real ones as much as those that it learns from, 1 where it takes them for
  generated ones: it knows the training images by heart.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from trilemma import rng
from trilemma.config import ModelConfig
from trilemma.data import Loader, Split
from trilemma.healthy import EXPLODED, OVERFIT, SURE, VANISHED
from trilemma.metrics.ranking import auroc
from trilemma.training.in_use import ModelInUse
from trilemma.training.monitor import FEWEST
from trilemma.types import HasCritic

Row = dict[str, Any]
Comparison = Callable[[float, float, Row], str | None]  # of a value, what it usually is, and their row

SEPARATED = 0.95  # AUROC from which a critic separates the images
TINY = torch.finfo(torch.float32).tiny  # below which a norm is 0, whatever it was
LONG = 3  # validations in a row, after which that is no chance
JUDGED = 512  # images of a kind behind r_v
TELLS = 0.7  # AUROC of training images against generated ones below which r_v is noise over noise
FEW = 300  # training images below which GANs collapse without augmentation


def critic_too_strong(row: Row) -> str | None:
    """Whether a critic is right about nearly every image, from a row of the log."""
    real, fake = row.get("critic/d_real"), row.get("critic/d_fake")
    if real is None or fake is None or real < SURE or fake > 1 - SURE:
        return None
    return (
        f"the critic is right about nearly every image (real {real:.3f}, generated {fake:.3f}), so the generator "
        "learns little. Lower the critic's lr= (lr=critic:...,generator:...) or give more images"
    )


def vanishing_gradient(norm: float, before: float, row: Row) -> str | None:
    """Whether the generator's gradient, which usually has the norm `before`, is gone while the critic separates."""
    right = row.get("critic/auroc")
    if right is None or right < SEPARATED or norm >= max(VANISHED * before, TINY):
        return None
    return (
        f"the generator's gradient is next to nothing (norm {norm:.2g}, usually {before:.2g}), and the critic is right "
        f"about {right:.1%} of the pairs of a real and a generated image (vanishing gradients). Lower the critic's "
        "lr=, or take penalty=r1 or another loss="
    )


def exploding_gradient(norm: float, before: float, row: Row) -> str | None:
    """Whether the critic's gradient is far above its usual norm."""
    if not 0 < EXPLODED * before < norm:
        return None
    return (
        f"the critic's gradient has a norm of {norm:.2g}, and usually {before:.2g} (exploding gradients). Lower the "
        "critic's lr=, give clip=1, or take penalty=r1"
    )


def exploding_penalty(penalty: float, before: float, row: Row) -> str | None:
    """Whether the penalty on the critic's slope is far above what it usually is."""
    if not 0 < EXPLODED * before < penalty:
        return None
    return (
        f"the penalty on the critic's slope is {penalty:.2g}, and usually {before:.2g} (exploding gradients). Raise "
        "penalty_weight=, or lower the critic's lr="
    )


EARLIER: dict[str, Comparison] = {  # rules that compare a value with earlier ones
    "generator/gradient_norm": vanishing_gradient,
    "critic/gradient_norm": exploding_gradient,
    "critic/penalty": exploding_penalty,
    "penalty/loss": exploding_penalty,
}


def overfit_ratio(in_use: ModelInUse) -> float | None:
    """r_v of a model with a critic, as it is in training; None where that is not known, or tells nothing.

    All batches have the size of those in training, as some critics compare the images of a batch.
    """
    splits = in_use.data.train, in_use.data.valid
    if not isinstance(in_use.model, HasCritic) or min(map(len, splits)) < FEWEST:
        return None
    count = max(1, min(JUDGED, *map(len, splits)) // in_use.config.batch)
    with in_use.buffers_kept(), in_use.whole():
        (train, generated), (held_out, more) = (_logits(in_use, split, count) for split in splits)
    generated = torch.cat([generated, more])
    if auroc(normal=generated, abnormal=train) < TELLS:
        return None
    ratio = float((train.mean() - held_out.mean()) / (train.mean() - generated.mean()))
    return ratio if math.isfinite(ratio) else None


def _logits(in_use: ModelInUse, split: Split, count: int) -> tuple[Tensor, Tensor]:
    """Of `count` batches of a split and of as many generated images, on the CPU."""
    model, config, pairs = in_use.model, in_use.config, []
    assert isinstance(model, HasCritic)
    loader = Loader(split, batch=config.batch, seed=config.seed)
    for number in range(count):
        batch = loader.batch_at(number * config.batch)
        batch = replace(batch, image=batch.image.to(in_use.device), condition=batch.condition.to(in_use.device))
        pairs.append(model.critic_logits(batch, rng.generator(config.seed, "critic", number, device=in_use.device)))
    real, fake = (torch.cat(logits).cpu() for logits in zip(*pairs, strict=True))
    return real, fake


def critic_overfit(ratio: float, config: ModelConfig | None) -> str | None:
    """Whether r_v is near 1."""
    if ratio < OVERFIT:
        return None
    return (
        "the critic knows the training images by heart: by its mean logits, held-out images are "
        f"{min(ratio, 1):.0%} of the way from training images to generated ones (overfit critic). "
        f"{_more_images(config)}"
    )


def few_images(count: int, augment: Sequence[str], config: ModelConfig | None) -> str | None:
    """Whether there are so few training images that the critic will know them by heart, before a training."""
    augmented = {"flip", "shift"} & {*augment} or (
        config is not None and config.get("critic_augment") not in (None, "none")
    )
    if count >= FEW or augmented:
        return None
    return (
        f"a GAN tends to collapse on fewer than {FEW} training images without augmentation; here are {count}. "
        f"{_more_images(config)}"
    )


def _more_images(config: ModelConfig | None) -> str:
    has_own = config is not None and "critic_augment" in type(config).model_fields
    return f"Give {'critic_augment=adaptive, ' if has_own else ''}augment=shift (or flip,shift), or more images"
