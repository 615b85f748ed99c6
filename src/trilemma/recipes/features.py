"""The classifiers behind the bundled feature networks. They generate nothing, so `trilemma list` leaves them out.

`python -m trilemma.classifiers.make_bundled` trains them and writes the files in classifiers/weights. The targets are
the largest errors on held-out images that a bundled network may have.
"""

from typing import Any

from trilemma.classifiers.classifier import Classifier, ClassifierConfig
from trilemma.registry import Recipe, register

TRAINING: dict[str, Any] = {
    "batch": 256,
    "lr": 0.004,
    "optimizer": "adamw",
    "weight_decay": 0.05,
    "schedule": "cosine",
    "warmup_images": 20_000,
    "channels_last": True,
    "monitor": None,
}


def _register(data: str, config: ClassifierConfig, training: dict[str, Any], error: float) -> None:
    register(
        Recipe(
            name=f"features-{data}",
            family="classifier",
            summary=f"small convolutional classifier of {data}, whose features the metrics use",
            source="He et al. 2016 (residual blocks); Ioffe & Szegedy 2015 (batch normalisation)",
            build=Classifier,
            config=config,
            training={**TRAINING, **training},
            data=data,
            targets={"test_error": error},
            listed=False,
        )
    )


_register(
    "digits",
    ClassifierConfig(shape=(1, 8, 8), widths=(24, 64)),
    {"epochs": 30, "batch": 32, "warmup_images": 1_000, "channels_last": False, "augment": ("shift",)},
    error=0.06,
)
_register(
    "mnist",
    ClassifierConfig(shape=(1, 28, 28), widths=(16, 32, 64)),
    {"epochs": 12, "augment": ("shift",)},
    error=0.01,
)
_register(
    "fashion-mnist",
    ClassifierConfig(shape=(1, 28, 28), widths=(24, 48, 96)),
    {"epochs": 12, "augment": ("flip", "shift")},
    error=0.09,
)
_register(
    "cifar10",
    ClassifierConfig(shape=(3, 32, 32), widths=(32, 64, 128)),
    {"epochs": 20, "augment": ("flip", "shift")},
    error=0.20,
)
