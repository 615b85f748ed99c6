"""Writes words.json: python -m trilemma.cli.collect"""

import json
from typing import Any

from trilemma.data import list_sources
from trilemma.lessons.gallery import LESSONS, settings_of
from trilemma.registry import get_recipe, list_models, sampling_keys
from trilemma.training.train import training_keys
from trilemma.vocabulary import FILE


def collect() -> dict[str, Any]:
    """The words as the code has them."""
    recipes = [get_recipe(name) for name in list_models()]
    own = {recipe.name: [key for key in type(recipe.config).model_fields if key != "shape"] for recipe in recipes}
    return {
        "models": {name: " ".join(keys) for name, keys in own.items()},
        "sampling": {recipe.name: " ".join(sampling_keys(recipe).model_fields) for recipe in recipes},
        "training": " ".join(training_keys()),
        "data": " ".join(word for word, _, _ in list_sources()),
        "figures": {name: " ".join(settings_of(lesson).model_fields) for name, lesson in LESSONS.items()},
    }


if __name__ == "__main__":
    FILE.write_text(json.dumps(collect(), indent=1) + "\n", "utf-8")
