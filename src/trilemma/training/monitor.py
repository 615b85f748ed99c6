"""Says in words when a training goes wrong in the way of its family, and what to do about it.

It asks what the model can do and what its log says, never what it is. Each rule returns a sentence or None; the trainer
says it once, and again only after the rule was quiet in between.

- Collapse: samples of different latents are alike. Measured as the mean distance between pairs of samples, relative to
  that between pairs of training images (1 is as varied as the data).
- Overpowered critic: it tells real from generated without error, so that the generator's gradient vanishes.
- Posterior collapse (Bowman et al. 2016): codes that say nothing about the image. A unit is active if the variance of
  its posterior mean over images is above 0.01 (Burda et al. 2016, section 5.2).
- Dead codes (van den Oord et al. 2017): entries of a codebook that no image chooses.
"""

from itertools import repeat
from typing import Any

import torch
from torch import Tensor, nn

from trilemma.memory import halving
from trilemma.types import Batch, BoundsLikelihood, Conditional, Encodes

COLLAPSED = 0.25  # of the variety of the data
ACTIVE = 0.01
ENOUGH = 5  # active units that are no collapse, however many there are: a ladder has thousands
IN_USE = 0.5  # share of a codebook
SURE = 0.98  # mean probability of being right at which a critic leaves nothing to learn


def variety(images: Tensor) -> float:
    """Mean Euclidean distance between pairs of images: (n, C, H, W) -> one number."""
    flat = images.flatten(1).float()
    return float(torch.cdist(flat, flat).sum() / (len(flat) * (len(flat) - 1)))


def collapse(samples: Tensor, real: Tensor) -> str | None:
    """Whether the samples are alike where the data is not."""
    if len(real) < 2:
        return None
    share = variety(samples) / max(variety(real), 1e-12)
    if share >= COLLAPSED:
        return None
    return (
        f"the samples are alike: their variety is {share:.0%} of the data's (mode collapse). "
        "Lower the generator's lr=, raise batch=, or choose a model with another loss"
    )


def critic_too_strong(row: dict[str, Any]) -> str | None:
    """Whether a critic is right about nearly every image, from a row of the log."""
    real, fake = row.get("critic/d_real"), row.get("critic/d_fake")
    if real is None or fake is None or real < SURE or fake > 1 - SURE:
        return None
    return (
        f"the critic is right about nearly every image (real {real:.3f}, generated {fake:.3f}), so the generator "
        "learns little. Lower the critic's lr= (lr=critic:...,generator:...) or give more images"
    )


def active_units(codes: Tensor) -> int:
    """Units of a code whose posterior mean moves with the image: (N, Z) -> count."""
    return int((codes.float().var(0) > ACTIVE).sum())


def posterior_collapse(model: nn.Module, batch: Batch) -> str | None:
    """Whether fewer than one in ten units of a variational code are in use, and fewer than ENOUGH."""
    if not (isinstance(model, Encodes) and isinstance(model, BoundsLikelihood)) or len(batch.image) < 2:
        return None
    labels = batch.label if isinstance(model, Conditional) else None

    def codes_of(size: int) -> Tensor:
        parts = zip(batch.image.split(size), labels.split(size) if labels is not None else repeat(None), strict=False)
        return torch.cat([model.encode(*part) for part in parts])

    with torch.no_grad():
        codes = halving(codes_of, len(batch.image))
    active = active_units(codes)
    if active >= min(max(1, codes.shape[1] // 10), ENOUGH):
        return None
    advice = (
        "Lower beta=, or raise it slowly from 0" if hasattr(model.config, "beta") else "Raise warmup= or free_nats="
    )
    return f"{active} of {codes.shape[1]} units of the code are active (posterior collapse). {advice}"


def dead_codes(row: dict[str, Any]) -> str | None:
    """Whether fewer than half of the codes of a codebook are in use, from a row of the log."""
    used = min((value for name, value in row.items() if name.endswith("/used_codes")), default=1.0)
    if used >= IN_USE:
        return None
    return (
        f"only {used:.0%} of the codes are in use (dead codes). Give restart=true, raise batch=, lower lr=, or take "
        "fewer codes="
    )


class Said:
    """Remembers what was said, so that a warning that stays is not repeated."""

    def __init__(self) -> None:
        self.standing: set[str] = set()

    def news(self, rule: str, text: str | None) -> str | None:
        """The text if it is new; a rule that is quiet may speak again later."""
        if text is None:
            self.standing.discard(rule)
            return None
        if rule in self.standing:
            return None
        self.standing.add(rule)
        return text
