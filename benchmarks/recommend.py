"""Is what a short comparison recommends right for longer trainings? python benchmarks/recommend.py DATA [DATA ...]

Models are compared after --short minutes of training each, and after --long. The one that the short comparison
recommends (for --want) must be, in the long one, among those that no other is shown to beat in what is wanted. Beside
it, of each model, the kernel distance that its learning curve predicted for --long minutes, and what was reached.

    python benchmarks/recommend.py mnist CLIPART --models vae,gan-dcgan,diffusion-small,diffusion
"""

import argparse
from pathlib import Path
from typing import Any

import trilemma
from trilemma.comparison.content import WANTS
from trilemma.comparison.learning import forecast

MODELS = "vae,gan-dcgan,diffusion-small,diffusion"


def compared(data: str, minutes: float, given: argparse.Namespace) -> Any:
    """The document of a comparison, which is taken up where it was stopped."""
    out = given.out / f"{Path(data).name}-{minutes:g}min"
    keys = {"models": given.models.split(","), "minutes": minutes, "want": given.want, "seed": given.seed, "out": out}
    return trilemma.compare(data=data, **keys).report


def _for_axis(document: Any, axis: str) -> list[str]:
    """The models that the answer recommends for one axis: of a trade-off, those that lead on it."""
    names = list(document.answer[0].models)
    leading = [name for name in names if name in document.verdict.axes[axis].first]
    return leading or names


def right(data: str, given: argparse.Namespace) -> bool:
    """Print both answers and the foretold distances; whether the short answer holds."""
    short, long = (compared(data, minutes, given) for minutes in (given.short, given.long))
    use = short.answer[0]
    best = {axis: long.verdict.axes[axis].first for axis in WANTS[given.want]}
    advised = {axis: _for_axis(short, axis) for axis in best}
    held = bool(use.models) and all(name in best[axis] for axis, names in advised.items() for name in names)
    print(f"{data}: {given.short:g} min: {use.text}\n    {given.long:g} min: {long.answer[0].text}", flush=True)
    print(f"    unbeaten after {given.long:g} min: {best}; the recommendation {'holds' if held else 'does not hold'}")
    for model, later in zip(short.models, long.models, strict=True):
        score = later.scores.get("kernel_distance")
        ahead = forecast(model.learning, given.long / given.short) if model.forecast else None  # a whole curve
        if ahead and score and score.value is not None and score.interval:
            (low, high), (least, most) = ahead.interval, score.interval
            inside = low <= most and least <= high  # both have an error
            text = f"predicted {ahead.value:.4g} ({ahead.interval[0]:.4g} to {ahead.interval[1]:.4g})"
            print(
                f"    {model.name}: kernel distance {text}, reached {score.value:.4g}, {'in' if inside else 'out'}side"
            )
    return held


def main() -> None:
    """Exit code 1 where a recommendation does not hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="+")
    parser.add_argument("--models", default=MODELS)
    parser.add_argument("--short", type=float, default=3)
    parser.add_argument("--long", type=float, default=10)
    parser.add_argument("--want", default="balance", choices=list(WANTS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("runs/recommend"))
    given = parser.parse_args()
    results = [right(data, given) for data in given.data]
    raise SystemExit(0 if all(results) else 1)


if __name__ == "__main__":
    main()
