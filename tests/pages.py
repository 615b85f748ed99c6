"""What pages in docs/ hold, and whether it is right: excerpts of files, and commands with their keys."""

import inspect
import re
import shlex

import trilemma
from trilemma.arguments import parse_value
from trilemma.cli.arguments import take_verb
from trilemma.config import make
from trilemma.lessons.gallery import LESSONS, settings_of
from trilemma.pretrained.table import PREFIX
from trilemma.registry import get_recipe, list_models, sampling_keys
from trilemma.run.config import TrainConfig
from trilemma.run.text_to_image import Keys
from trilemma.training.request import check_settings, split_parts

SOURCE_LINK = re.compile(r"\]\(((?:\.\./)+src/[^)]+)\)")
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
TRAIN_KEYS = set(TrainConfig.model_fields) | set(inspect.signature(trilemma.train).parameters) - {"settings"}


def excerpts(text):
    """(file, code) of each block of Python: the file is the one that was linked last before it."""
    results = []
    for block in BLOCK.finditer(text):
        if block[1] == "python":
            links = SOURCE_LINK.findall(text[: block.start()])
            assert links, f"no file is named before\n{block[2]}"
            results.append((links[-1], block[2]))
    return results


def commands(text):
    """The words of each command on a page."""
    lines = [line for block in BLOCK.finditer(text) if not block[1] for line in block[2].splitlines()]
    return [shlex.split(line, comments=True) for line in lines if line.startswith("trilemma ")]


def titles(text):
    """What the headings of a page are called in links."""
    lines = [line for line in text.splitlines() if line.startswith("#")]
    return {re.sub(r"[^\w\- ]", "", line.lstrip("# ").lower()).replace(" ", "-") for line in lines}


def keys_and_words(words):
    pairs = [word.partition("=") for word in words]
    return {key: parse_value(value) for key, sign, value in pairs if sign}, [key for key, sign, _ in pairs if not sign]


def check_command(words):
    """The verb is there, the model or figure is, and so are all keys; values fit where that is cheap to see."""
    verb, rest = take_verb(words[1:])
    assert verb is not None and verb.function in trilemma.__all__, words
    keys, what = keys_and_words(rest)
    if verb.name == "train":
        recipe = get_recipe(what[0])
        parts, own = split_parts(recipe, keys)
        assert {key.partition(".")[0] for key in parts} <= recipe.parts.keys()
        check_settings(recipe, {k: v for k, v in own.items() if k not in TRAIN_KEYS})
    elif verb.name == "figure":
        make(settings_of(LESSONS[what[0]]), keys)
        inspect.signature(LESSONS[what[0]].draw).bind(*what[1:])
    else:
        own = set(verb.keys)
        if what and what[0].startswith(PREFIX):
            own |= set(Keys.model_fields)
        elif verb.open and set(keys) - own:  # further keys are those of the model's sampler
            own |= set(sampling_keys(get_recipe(preset_of(what[0]))).model_fields)
        assert set(keys) <= own


def preset_of(run):
    """The preset that stands at the start of a run's name, with or without a number at its end."""
    name = run.removeprefix("runs/")
    return max((preset for preset in list_models() if name.startswith(f"{preset}-")), key=len)


def trained_by(words):
    """The run that a command trains; None if it trains none."""
    if words[1] != "train":
        return None
    keys, (model, data) = keys_and_words(words[2:])
    return keys.get("out", f"runs/{model}-{data.replace(':', '-')}")


def runs_in(words):
    """The runs that a command uses."""
    return {word for word in words[2:] if word.startswith("runs/")}
