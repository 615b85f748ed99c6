"""How a recipe's settings follow the data at hand.

A recipe is tuned on data of its own: so many pixels, tens of thousands of images. Every training passes the rules
below. Each leaves the recipe's own data as it is, changes no key that the user gave, and says what it changed.

- Batch: at most an eighth of the training images, so that a pass over few of them has several steps. With a length in
  minutes, also no more pixels than the recipe's batch, so that large images leave time for as many steps. A model that
  compares the images of a group has whole groups in a batch.
- Learning rate: times the recipe's inputs / inputs of a fully connected layer that sees the pixels, where it has more
  of them here. One step of Adam moves each weight by about the rate, so it moves a sum over n inputs that pull alike,
  as those of a bright picture do, by n times that (Yang et al. 2022, "Tensor programs V", table 3). Without this, one
  step on photographs of 64 px can end every hidden unit, and the mean image is all that is left.
- Length, where the user gives none: at least LEAST_STEPS steps.
- Likelihood: a Gaussian decoder of the fixed variance s^2 weighs |x_hat - x|^2, a sum over D pixels, against a
  divergence that does not grow with D. With s^2 times D / (the recipe's D) an image of any size is as much evidence as
  one of the recipe's: stored with twice the sides it has the same code. Without this, small images lose their codes.
  A `beta` weighs the loss with this variance. A `variance` of the recipe's own or the user's stays, as does 1/2 where
  the divergence has a capacity to aim at. The number is written into the settings, so that they say all.

Warm-ups need no rule here: those of a recipe are over after a tenth of a training (optim.py), the half-life of averaged
weights is at most 5% of the images seen (ema.py), and schedules are functions of the share of a training that is over.
"""

import math
from collections.abc import Collection
from typing import Any

from trilemma.config import VARIANCE, ModelConfig
from trilemma.registry import Recipe, without_memory
from trilemma.run.config import LENGTHS, TrainConfig
from trilemma.types import Model, Player, UsesCodeMap, config_of, flags, players_of

SHARE = 8  # batches in a pass over the training images, at least
LEAST_BATCH, LEAST_STEPS = 16, 1_000
NEAR = 0.95  # a factor that is not worth a change: a label's inputs, beside the pixels

Rates = float | dict[str, float]


def fit_batch(batch: int, n_train: int, growth: float = 1.0, multiple: int = 1) -> int:
    """At most `batch`, an eighth of the training images, and batch / growth; a power of two if it changes, and not
    below LEAST_BATCH. Where that is not a multiple of `multiple`, the next one.

    Args:
        growth: pixels of an image over those of the recipe's, where a step may take no longer than there.
    """
    most = max(LEAST_BATCH, int(min(n_train / SHARE, batch / max(1.0, growth))))
    return _next_multiple(batch if batch <= most else 2 ** int(math.log2(most)), multiple)


def pixel_inputs(player: Player, n_pixels: int) -> int | None:
    """Inputs of the widest fully connected layer that a player moves, if it sees the pixels, and no maps of them."""
    if any(p.ndim > 2 for p in player.parameters):
        return None
    widest = max((p.shape[1] for p in player.parameters if p.ndim == 2), default=0)
    return widest if widest >= n_pixels else None


def width_factor(inputs: int | None, own: int | None) -> float:
    """Of the learning rate, for a layer with so many inputs that has `own` of them in the recipe; at most 1."""
    return min(1.0, own / inputs) if inputs and own else 1.0


def fit_model(recipe: Recipe, config: ModelConfig) -> tuple[ModelConfig, tuple[str, ...]]:
    """The model's settings, for the images at hand, with a variance for their number of pixels, and what was changed.

    A function of the settings alone: those that it returns, it returns again.
    """
    here, there = _pixels(config), _pixels(recipe.config)
    by_squares = config.get("reconstruction", "mse") == "mse" and "variance" in type(config).model_fields
    if not by_squares or config.get("variance") is not None:
        return config, ()
    if here == there or config.get("capacity_nats") is not None:
        return config.with_(variance=VARIANCE), ()
    variance = VARIANCE * here / there
    note = f"variance of a pixel {variance:.3g} ({VARIANCE:g} at {there:,} values; {here:,} here)"
    return config.with_(variance=variance), (note,)


def fit_training(
    recipe: Recipe, training: TrainConfig, user_keys: Collection[str], module: Model, n_train: int
) -> tuple[TrainConfig, tuple[str, ...]]:
    """Batch, learning rate and length for the images at hand, and a line for each change.

    Args:
        training: the recipe's keys with the user's in their place; user_keys: the names of the user's.
        module: the model for images of their size.
    """
    changes: dict[str, Any] = {}
    notes: list[str] = []
    here, there = _seen(module, recipe), _pixels(recipe.config)
    growth = here / there if training.minutes is not None else 1.0
    multiple = flags(module).batch_multiple
    if "batch" not in user_keys and (batch := fit_batch(training.batch, n_train, growth, multiple)) != training.batch:
        changes["batch"] = batch
        notes.append(f"batch {batch} ({_reason(batch, training.batch, multiple)})")
    if "lr" not in user_keys:
        own = _of_players(training.lr, module)
        changes["lr"] = fit_rates(recipe, own, module)
        if changes["lr"] != own:
            notes.append(f"learning rate {_rates(changes['lr'])} ({_rates(own)} for images of the recipe's size)")
    if not any(name in user_keys for name in LENGTHS) and training.epochs is not None:
        epochs = math.ceil(LEAST_STEPS * changes.get("batch", training.batch) / n_train)
        if epochs > training.epochs:
            changes["epochs"] = epochs
            notes.append(
                f"{epochs:,} epochs ({training.epochs:g} for data that make them at least {LEAST_STEPS:,} steps)"
            )
    return training.with_(**changes), tuple(notes)


def too_narrow(module: object, config: ModelConfig) -> str | None:
    """That a network has fewer channels than a place of the images, or of their codes, has numbers; or None."""
    width, numbers = config.get("width"), flags(module).place_numbers
    if width is None or numbers is None or width >= numbers:
        return None
    of = "codes" if isinstance(module, UsesCodeMap) else "images"
    smaller = ", or a smaller patch=" if (config.get("patch") or 1) > 1 else ""
    return (
        f"a place of the {of} has {numbers} numbers and the network {width} channels: noise that they cannot hold "
        f"stays in the images; give width={numbers} or more{smaller}"
    )


def fit_rates(recipe: Recipe, lr: Rates, module: Model) -> Rates:
    """The learning rates for layers of these widths."""
    sizes = _pixels(config_of(module) or recipe.config), _pixels(recipe.config)
    inputs = {player.name: pixel_inputs(player, sizes[1]) for player in players_of(without_memory(recipe).phases)}
    factors = {
        player.name: width_factor(pixel_inputs(player, sizes[0]), inputs.get(player.name))
        for player in players_of(module.phases)
    }
    if isinstance(lr, dict):
        return {name: _scale_rate(rate, factors.get(name, 1.0)) for name, rate in lr.items()}
    return _scale_rate(lr, min(factors.values()))


def _reason(batch: int, own: int, multiple: int) -> str:
    """Why a batch is not the recipe's own."""
    usual = _next_multiple(own, multiple)
    if batch < usual:
        return f"{usual} for more training images, or smaller ones"
    return f"{own} is not a multiple of {multiple}"


def _next_multiple(n: int, multiple: int) -> int:
    """n, or the next number above it that `multiple` divides."""
    return multiple * math.ceil(n / multiple)


def _of_players(lr: Rates, module: Model) -> Rates:
    """A recipe's rates, without those of players that a model with other settings does not have."""
    names = {player.name for player in players_of(module.phases)}
    return {name: rate for name, rate in lr.items() if name in names} if isinstance(lr, dict) else lr


def _seen(module: object, recipe: Recipe) -> int:
    """Values that a network sees of an image: of a model of codes, those of its code."""
    if isinstance(module, UsesCodeMap):
        return math.prod(module.autoencoder.map_shape)
    return _pixels(config_of(module) or recipe.config)


def _pixels(config: ModelConfig) -> int:
    """Values of an image."""
    return math.prod(config.shape)


def _scale_rate(rate: float, factor: float) -> float:
    """In two digits, as rates are written; the rate itself for a factor of about 1."""
    return rate if factor > NEAR else float(f"{rate * factor:.2g}")


def _rates(lr: Rates) -> str:
    return ", ".join(f"{name} {rate:g}" for name, rate in lr.items()) if isinstance(lr, dict) else f"{lr:g}"
