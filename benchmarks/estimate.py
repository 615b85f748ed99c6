"""How long a comparison takes beside what it states at its start: python benchmarks/estimate.py [DATA] [--seeds 3]

Six models, one after the other, --minutes of training each, in a new folder; printed are both times and their ratio
(bar: at most BAR). With several seeds also what the answer says of the order of the models with each. Nothing else is
to run on the machine: five minutes each take about an hour, with three seeds about three.
"""

import argparse
import tempfile
from pathlib import Path

import trilemma
from trilemma.comparison.progress import in_words

MODELS = "ae-stacked,vae,vae-vq,gan-dcgan,diffusion-small,diffusion"
BAR = 1.2


def main() -> None:
    """Exit code 1 where it takes longer than the bar allows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="?", default="fashion-mnist")
    parser.add_argument("--models", default=MODELS)
    parser.add_argument("--minutes", type=float, default=5)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("runs/estimate"), help="folder of the folder of the report")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    out = tempfile.mkdtemp(dir=given.out)  # what was trained or measured before would take no time
    models = given.models.split(",")
    result = trilemma.compare(data=given.data, models=models, minutes=given.minutes, seeds=given.seeds, out=out)
    ratio = result.took_s / result.estimated_s
    print(
        f"{given.data}, {len(models)} models, seeds: {given.seeds}: stated {in_words(result.estimated_s)}, took "
        f"{in_words(result.took_s)}: {ratio:.2f} x (bar {BAR} x)"
    )
    for item in result.report.answer:
        if item.kind == "seeds":
            print(item.text)
    for model in result.report.models:
        if model.error:
            print(f"{model.name} failed: {model.error}")
    raise SystemExit(1 if ratio > BAR else 0)


if __name__ == "__main__":
    main()
