"""Writes words.json: python -m trilemma.cli.collect"""

import json
from typing import Any

from trilemma.data import list_sources
from trilemma.lessons.gallery import LESSONS, settings_of
from trilemma.registry import get_recipe, list_models
from trilemma.run.command import own_keys
from trilemma.training import train
from trilemma.training.request import key_names
from trilemma.vocabulary import FILE, sampling_keys


def collect() -> dict[str, Any]:
    """The words as the code has them."""
    recipes = [get_recipe(name) for name in list_models()]
    own = {recipe.name: [*own_keys(recipe), *recipe.parts] for recipe in recipes}
    return {
        "models": {name: " ".join(keys) for name, keys in own.items()},
        "sampling": {recipe.name: " ".join(sampling_keys(recipe.build)) for recipe in recipes},
        "training": " ".join(key_names(train)),
        "data": " ".join(word for word, _, _ in list_sources()),
        "figures": {name: " ".join(settings_of(lesson).model_fields) for name, lesson in LESSONS.items()},
    }


if __name__ == "__main__":
    FILE.write_text(json.dumps(collect(), indent=1) + "\n", "utf-8")
