"""Do the warnings name what is planted in a GAN's training? python benchmarks/planted.py [KIND ...]

Trainings on the 8x8 digits, TEN of each kind, spread over the presets in RUNS, each with a seed of its own:

- healthy: the settings in RUNS. Counted are those with a warning of any kind, which would be false.
- collapse: four of them draw from next to no noise (z times SHRUNK), which a generator turns into next to one image;
  the others have a generator that is much faster than its critic. Right is "mode collapse", or samples that are all one
  image.
- divergence: both players are much too fast, and no gradient is clipped. Right is "divergence", exploding gradients, or
  a training that ends with numbers that are not finite; vanishing gradients, too, as the critic may win before the
  generator has moved, but how many are named by these alone is counted by itself.

Beside each training stand the precision and recall of its final samples against the test split, of which the warnings
know nothing: whether what was planted came up. Every preset has both kinds of collapse.

Exit status 1 if fewer than nine in ten of a kind are named, or more than one in ten healthy trainings warned. The
trainings, of 10 to 20 seconds on a core each, are one after the other; kinds that are given to processes of their own
can run at the same time.
"""

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import trilemma
from trilemma.errors import Diverged
from trilemma.gans.gan import GAN
from trilemma.registry import get_recipe
from trilemma.run.log import read_log

TEN = 10
SHRUNK = 1e-6  # times z
FAST, TOO_FAST = 30.0, 300.0  # times the rates of the preset
FIRST_SEED = 200  # the thresholds were chosen on seeds below
R3 = {"loss": "relativistic", "penalty": "r1r2", "penalty_weight": 0.1}
RUNS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("gan", {"steps": 1500}),
    ("gan-dcgan-28", {"batch": 32, "steps": 600}),
    ("gan-dcgan-28", {"batch": 32, "steps": 600, **R3}),
    ("gan-wgan-gp", {"batch": 32, "steps": 600, "width": 32, "critic_steps": 2}),
)
VANISHING = "vanishing gradients"  # a divergence by another name
NAMED = {
    "collapse": ("mode collapse", "all samples are the same image"),
    "divergence": ("(divergence)", "exploding gradients", "the training diverged", VANISHING),
}


def rates(model: str, critic: float, generator: float) -> dict[str, float]:
    """So many times those of a preset."""
    own = get_recipe(model).training["lr"]
    factors = {"critic": critic, "generator": generator}
    return {name: factor * (own[name] if isinstance(own, dict) else own) for name, factor in factors.items()}


def healthy(model: str, number: int) -> dict[str, Any]:
    """The preset's own."""
    return {}


def collapse(model: str, number: int) -> dict[str, Any]:
    """Some of the trainings of each preset are fed no noise."""
    return {"noise": SHRUNK} if number // len(RUNS) % 2 else {"lr": rates(model, 1.0, FAST)}


def divergence(model: str, number: int) -> dict[str, Any]:
    """Both are too fast."""
    return {"lr": rates(model, TOO_FAST, TOO_FAST), "clip": None}


KINDS: dict[str, Callable[[str, int], dict[str, Any]]] = {
    "healthy": healthy,
    "collapse": collapse,
    "divergence": divergence,
}


def warnings_of(kind: str, number: int, folder: Path) -> tuple[str, list[str], str]:
    """The preset and the warnings of a training, and the precision and recall of its samples in words."""
    model, keys = RUNS[number % len(RUNS)]
    planted = KINDS[kind](model, number)
    factor, build = planted.pop("noise", 1.0), GAN.make_generator
    said, reached = list[str](), "no samples"
    with patch.object(GAN, "make_generator", lambda gan, inputs: _fed(build(gan, inputs), factor)):
        try:
            trilemma.train(model, "digits", out=folder, quiet=True, seed=FIRST_SEED + number, **keys, **planted)
            reached = _reached(folder)
        except Diverged:
            said = ["the training diverged"]
    log = [f"step {row['step']:,}: {row['warning']}" for row in read_log(folder / "log.jsonl") if "warning" in row]
    return f"{model}{' ' + keys['loss'] if 'loss' in keys else ''}", log + said, reached


def _reached(folder: Path) -> str:
    """Precision and recall in words."""
    scores = trilemma.evaluate(folder, n=360, bound_samples=0)
    values = {name: scores[name].value for name in ("precision", "recall")}
    return ", ".join(f"{name} {'refused' if value is None else f'{value:.2f}'}" for name, value in values.items())


def _fed(generator: Any, factor: float) -> Any:
    """A generator whose input is multiplied by a factor."""
    generator.register_forward_pre_hook(lambda _, inputs: (factor * inputs[0], *inputs[1:]))
    return generator


def check(kind: str, folder: Path) -> bool:
    """Print the warnings of ten trainings of a kind; whether enough of them are right."""
    right, vanishing_alone = 0, 0
    for number in range(TEN):
        model, said, reached = warnings_of(kind, number, folder / f"{kind}-{number}")
        names = names_in(said, kind)
        is_right = bool(names) == (kind != "healthy")
        right += is_right
        vanishing_alone += names == {VANISHING}
        first = said[0][:100] if said else "no warning"
        print(f"{kind} {number}, {model}: {'right' if is_right else 'WRONG'}: {first} ({reached})", flush=True)
    alone = f"; {vanishing_alone} by {VANISHING} alone" if VANISHING in NAMED.get(kind, ()) else ""
    print(f"{kind}: right about {right} of {TEN}{alone}", flush=True)
    return right >= 0.9 * TEN


def names_in(said: list[str], kind: str) -> set[str]:
    """The names of a kind that are in the warnings of a training; of a healthy one, {""} for any warning."""
    return {name for name in NAMED.get(kind, ("",)) if any(name in text for text in said)}


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        wanted = [kind for kind in KINDS if kind in sys.argv[1:]] or list(KINDS)
        missed = [kind for kind in wanted if not check(kind, Path(name))]
    sys.exit(1 if missed else 0)
