"""Train the bundled feature networks: python -m trilemma.classifiers.make_bundled [NAME ...]

For each name (digits-cnn, mnist-cnn, ...; default: all): train its recipe, measure the accuracy in
float32 on the held-out split, and write NAME.safetensors and its card NAME.json into classifiers/weights.
"""

import argparse
from pathlib import Path
from typing import Any

from trilemma.classifiers.bundled import BUNDLED, REMAKE, WEIGHTS
from trilemma.classifiers.classifier import Classifier, scores_of
from trilemma.errors import UserError, unknown
from trilemma.files import sha256_of, write_json
from trilemma.hardware import tune_allocator
from trilemma.metrics.intervals import wilson
from trilemma.metrics.receipt import versions
from trilemma.registry import get_recipe

LARGEST_BYTES = 2_000_000
ORIGIN = {
    "digits": "Optical Recognition of Handwritten Digits, E. Alpaydin & C. Kaynak, UCI repository, CC BY 4.0; the part "
    "that scikit-learn carries",
    "mnist": "MNIST, Y. LeCun, C. Cortes & C. Burges, CC BY-SA 3.0",
    "fashion-mnist": "Fashion-MNIST, Zalando SE, MIT licence",
    "cifar10": "CIFAR-10, A. Krizhevsky 2009, no licence stated; where it is read from JPEG files its pixels differ "
    "from the published ones",
}


def main(names: list[str], out: Path = WEIGHTS, **length: Any) -> None:
    """Make networks by name (default: all); `length` (epochs=..., steps=...) overrides the recipe's."""
    tune_allocator()
    by_name = {network: data for data, network in BUNDLED.items()}
    for name in names or list(by_name):
        if name not in by_name:
            raise unknown("feature network", name, by_name)
        card = make_network(name, by_name[name], out, **length)
        low, high = card["test"]["interval"]
        print(f"{name}: accuracy {card['test']['accuracy']:.4f} [{low:.4f}, {high:.4f}], {card['bytes']:,} bytes")


def make_network(name: str, data: str, out: Path, **length: Any) -> dict[str, Any]:
    """Train one network and write its two files.

    Raises:
        UserError: if it misses the accuracy its recipe demands, or is too large; then nothing is written.
    """
    from trilemma.run.tensor_files import write_tensors
    from trilemma.training import train

    recipe = get_recipe(f"features-{data}")
    run = train(recipe.name, data, **length)
    model, (split_name, split) = run.model, run.data.held_out
    assert isinstance(model, Classifier)
    accuracy, cross_entropy = scores_of(model, split)
    tensors = model.state_dict()
    size = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    if size > LARGEST_BYTES or (not length and 1 - accuracy > recipe.targets["test_error"]):
        bars = f"at least {1 - recipe.targets['test_error']:.2f} and at most {LARGEST_BYTES:,} bytes are wanted"
        raise UserError(f"{name}: accuracy {accuracy:.4f}, {size:,} bytes; {bars}: change recipes/features.py")
    out.mkdir(parents=True, exist_ok=True)
    weights = out / f"{name}.safetensors"
    write_tensors(weights, tensors)
    card = {
        "name": name,
        "data": data,
        "classes": list(run.data.classes),
        "data_fingerprint": run.data.fingerprint,
        "data_notes": list(run.data.notes),
        "origin": ORIGIN[data],
        "recipe": recipe.name,
        "config": model.config.to_json(),
        "training": {**run.config["training"], **run.config["data_config"]},
        "images": run.summary.get("images"),
        "test": {
            "split": split_name,
            "n": len(split),
            "accuracy": accuracy,
            "interval": list(wilson(round(accuracy * len(split)), len(split)).interval),
            "interval_is": "Wilson 95%",
            "cross_entropy_nats": cross_entropy,
            "precision": "float32",
        },
        "sha256": sha256_of(weights),
        "bytes": weights.stat().st_size,
        "versions": versions(),
        "make_again": f"{REMAKE} {name}",
    }
    write_json(out / f"{name}.json", card)
    return card


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("names", nargs="*", help=f"any of {', '.join(BUNDLED.values())}")
    parser.add_argument("--out", type=Path, default=WEIGHTS, help="folder for the files")
    arguments = parser.parse_args()
    main(arguments.names, arguments.out)
