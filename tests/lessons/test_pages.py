"""The pages in docs/: excerpts are in their files, pictures have the commands that draw them, commands are right."""

import inspect
import re
import shlex
import textwrap
from pathlib import Path

import pytest

import trilemma
from trilemma.arguments import parse_value
from trilemma.config import make
from trilemma.lessons import list_figures
from trilemma.lessons.gallery import LESSONS, settings_of
from trilemma.registry import get_recipe, list_models, sampling_keys
from trilemma.run.config import TrainConfig
from trilemma.training.request import check_settings, split_parts
from trilemma.verbs import find

DOCS = Path(__file__).parents[2] / "docs"
PAGES = {"autoencoders.md": "autoencoder", "vaes.md": "vae", "gans.md": "gan", "diffusion.md": "diffusion"}
MORE = ("measuring.md", "editing.md", "latent.md", "text.md", "pretrained.md")  # pages of no family
SOURCE_LINK = re.compile(r"\]\((\.\./src/[^)]+)\)")
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
TRAIN_KEYS = set(TrainConfig.model_fields) | set(inspect.signature(trilemma.train).parameters) - {"settings"}
OTHER_NAMES = {"map": trilemma.latent_map}


def text_of(page):
    return (DOCS / page).read_text("utf-8")


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
    return [shlex.split(line) for line in lines if line.startswith("trilemma ")]


ALL_COMMANDS = [words for page in (*PAGES, *MORE) for words in commands(text_of(page))]
ALL_EXCERPTS = [excerpt for page in (*PAGES, *MORE) for excerpt in excerpts(text_of(page))]


def test_there_is_something_to_check():
    assert len(ALL_COMMANDS) > 60 and len(ALL_EXCERPTS) > 20
    assert excerpts("[a](../src/a.py)\n```python\nx\n```\n[b](../src/b.py)\n```python\ny\n```") == [
        ("../src/a.py", "x\n"),
        ("../src/b.py", "y\n"),
    ]


@pytest.mark.parametrize(("file", "code"), ALL_EXCERPTS, ids=lambda part: part.strip()[:40])
def test_an_excerpt_is_in_its_file(file, code):
    source = (DOCS / file).read_text("utf-8")
    assert code.strip() in source, f"{file} has no longer\n{textwrap.dedent(code)}"


@pytest.mark.parametrize("page", (*PAGES, *MORE))
def test_links_lead_somewhere(page):
    text = text_of(page)
    titles = {re.sub(r"[^\w\- ]", "", line.lstrip("# ").lower()).replace(" ", "-") for line in text.splitlines()
              if line.startswith("#")}  # fmt: skip
    for link in re.findall(r"\]\(([^)]+)\)", text):
        path, _, title = link.partition("#")
        if path.startswith("https://"):
            continue
        if path:
            assert (DOCS / path).is_file(), link
        else:
            assert title in titles, link


@pytest.mark.parametrize("page", PAGES)
def test_every_preset_of_the_family_is_there(page):
    presets = {name for name in list_models() if get_recipe(name).family == PAGES[page]}
    assert presets == {name for name in re.findall(r"`([\w-]+)`", text_of(page)) if name in presets}


def test_every_figure_is_drawn_on_some_page():
    drawn = {words[2] for words in ALL_COMMANDS if words[1] == "figure"}
    assert drawn == {entry.name for entry in list_figures()}


@pytest.mark.parametrize("page", (*PAGES, *MORE))
def test_a_command_stands_under_every_picture(page):
    for picture, after in re.findall(r"!\[[^]]+\]\((figures/[^)]+)\)(.*?\n\n.{10})", text_of(page), re.DOTALL):
        assert after.split("\n\n")[1].startswith("```\ntril"), picture
        assert 1000 < (DOCS / picture).stat().st_size < 300_000


def keys_and_words(words):
    pairs = [word.partition("=") for word in words]
    return {key: parse_value(value) for key, sign, value in pairs if sign}, [key for key, sign, _ in pairs if not sign]


@pytest.mark.parametrize("words", ALL_COMMANDS, ids=" ".join)
def test_a_command_is_right(words):
    """The verb is there, the model or figure is, and so are all keys; values fit where that is cheap to see."""
    verb = words[1]
    keys, what = keys_and_words(words[2:])
    if verb == "train":
        recipe = get_recipe(what[0])
        parts, own = split_parts(recipe, keys)
        assert {key.partition(".")[0] for key in parts} <= recipe.parts.keys()
        check_settings(recipe, {k: v for k, v in own.items() if k not in TRAIN_KEYS})
    elif verb == "figure":
        make(settings_of(LESSONS[what[0]]), keys)
        inspect.signature(LESSONS[what[0]].draw).bind(*what[1:])
    else:
        own = set(find(verb).keys)
        if find(verb).open and set(keys) - own:  # further keys are those of the model's sampler
            own |= set(sampling_keys(get_recipe(preset_of(what[0]))).model_fields)
        assert set(keys) <= own
        assert verb in trilemma.__all__ or verb in OTHER_NAMES


def preset_of(run):
    """The preset that stands at the start of a run's name, with or without a number at its end."""
    name = run.removeprefix("runs/")
    return max((preset for preset in list_models() if name.startswith(f"{preset}-")), key=len)


@pytest.mark.parametrize("page", (*PAGES, *MORE))
def test_runs_are_trained_before_they_are_used(page):
    """Each run that a page uses has a command on one of the pages that trains it."""
    trained = set()
    for words in ALL_COMMANDS:
        if words[1] == "train":
            keys, (model, data) = keys_and_words(words[2:])
            trained.add(keys.get("out", f"runs/{model}-{data}"))
    used = {word for words in commands(text_of(page)) for word in words[2:] if word.startswith("runs/")}
    assert used <= trained
