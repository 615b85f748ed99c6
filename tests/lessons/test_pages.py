"""The pages in docs/: excerpts are in their files, pictures have the commands that draw them, commands are right."""

import re
import textwrap
from pathlib import Path

import pytest
from pages import check_command, commands, excerpts, runs_in, titles, trained_by

from trilemma.lessons import list_figures
from trilemma.registry import get_recipe, list_models

DOCS = Path(__file__).parents[2] / "docs"
PAGES = {"autoencoders.md": "autoencoder", "vaes.md": "vae", "gans.md": "gan", "diffusion.md": "diffusion"}
MORE = ("measuring.md", "editing.md", "latent.md", "text.md", "pretrained.md", "sharing.md")  # pages of no family


def text_of(page):
    return (DOCS / page).read_text("utf-8")


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
    for link in re.findall(r"\]\(([^)]+)\)", text):
        path, _, title = link.partition("#")
        if path.startswith("https://"):
            continue
        if path:
            assert (DOCS / path).is_file(), link
        else:
            assert title in titles(text), link


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


@pytest.mark.parametrize("words", ALL_COMMANDS, ids=" ".join)
def test_a_command_is_right(words):
    check_command(words)


@pytest.mark.parametrize("page", (*PAGES, *MORE))
def test_runs_are_trained_before_they_are_used(page):
    """Each run that a page uses has a command on one of the pages that trains it."""
    trained = {trained_by(words) for words in ALL_COMMANDS}
    assert {run for words in commands(text_of(page)) for run in runs_in(words)} <= trained
