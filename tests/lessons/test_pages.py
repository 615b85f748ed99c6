"""The pages in docs/: excerpts are in their files, pictures have the commands that draw them, commands are right."""

import re
import shlex
import textwrap
from pathlib import Path

import pytest
from pages import check_command, commands, excerpts, runs_in, titles, trained_by
from PIL import Image

from trilemma.lessons import list_figures
from trilemma.pictures.grid import grid_size
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


PICTURE = re.compile(r"!\[[^]]+\]\((figures/[^)]+)\)")
SIDES = (28, 32, 64)  # px, of the images of these pages
DRAW_NONE = ("evaluate", "list", "doctor", "data")  # verbs without a picture


def block_under(text, at):
    """The commands under the picture that ends at a place of a page, as one text; "" where no block stands there."""
    after = text[at:].split("\n\n", 2)[1].rstrip()
    return (
        after.removeprefix("```\n").removesuffix("```") if after.startswith("```\n") and after.endswith("```") else ""
    )


def draws(line, size):
    """Whether a line can draw a picture of that (width, height)."""
    if line.startswith("python benchmarks/"):
        script, *words = shlex.split(line)[1:]
        source = (DOCS.parent / script).read_text("utf-8")
        return all(f'"{word}"' in source for word in words if word.startswith("--"))
    verb, *words = shlex.split(line, comments=True)[1:] if line.startswith("trilemma ") else ["list"]
    images = [int(word[2:]) for word in words if word.startswith("n=")]
    if verb == "sample" and images:
        return size in [grid_size(images[0], side, side) for side in SIDES]
    return verb not in DRAW_NONE


@pytest.mark.parametrize("page", (*PAGES, *MORE))
def test_the_command_that_draws_it_stands_under_every_picture(page):
    text = text_of(page)
    for match in PICTURE.finditer(text):
        picture, block = DOCS / match[1], block_under(text, match.end())
        lines = block.splitlines()
        lines = [line for line in lines if not line.startswith("trilemma train ")] or lines  # which draws its curves
        assert 1000 < picture.stat().st_size < 300_000
        with Image.open(picture) as image:
            assert any(draws(line, image.size) for line in lines), match[1]
        for file in re.findall(r"(?<=[ '\"])[\w-]+\.png", block):  # that a line makes before another one takes it
            assert f"'{file}'" in block.partition(f" {file}")[0], file


def test_a_line_that_draws_another_picture_is_noticed():
    assert draws("trilemma sample runs/codes n=24", (326, 326))  # 5 x 5 tiles of 64 px, with 1 px around each
    assert not draws("trilemma sample runs/codes n=500", (521, 261))
    assert not draws("trilemma evaluate runs/codes", (521, 261)) and not draws("python -c ''", (521, 261))
    assert draws("python benchmarks/latent.py --run runs/codes --images 500", (521, 261))
    assert not draws("python benchmarks/latent.py --runs runs/codes", (521, 261))
    assert block_under("![a](figures/a.png)\n\n```\nx\ny\n```\n\nz", 19) == "x\ny\n"
    assert block_under("![a](figures/a.png)\n\nx\n\n```\ny\n```\n", 19) == ""


@pytest.mark.parametrize("words", ALL_COMMANDS, ids=" ".join)
def test_a_command_is_right(words):
    check_command(words)


@pytest.mark.parametrize("page", (*PAGES, *MORE))
def test_runs_are_trained_before_they_are_used(page):
    """Each run that a page uses has a command on one of the pages that trains it."""
    trained = {trained_by(words) for words in ALL_COMMANDS}
    assert {run for words in commands(text_of(page)) for run in runs_in(words)} <= trained
