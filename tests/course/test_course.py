"""docs/course: both languages have the same pages, commands, equations and exercises; every command runs."""

import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from pages import BLOCK, check_command, commands, excerpts, keys_and_words, runs_in, titles, trained_by
from PIL import Image
from pretrained.hub import publishing
from pretrained.pipelines import save, tiny_pipeline

import trilemma
from trilemma import vocabulary
from trilemma.cli import main as cli
from trilemma.cli.arguments import normalise
from trilemma.course.exercises import exercises
from trilemma.language import in_language
from trilemma.pictures.png import read_metadata
from trilemma.pretrained.table import CHECKPOINTS
from trilemma.run.run import Run

COURSE = Path(__file__).parents[2] / "docs" / "course"
LANGS = ("en", "vi")
NAMES = "trilemma autoencoder vae gan diffusion sampling latent text stable-diffusion choosing"
PAGES = ("README.md", *(f"{number}-{name}.md" for number, name in enumerate(NAMES.split(), 1)))
EVERY = [(lang, page) for lang in LANGS for page in PAGES]


def text_of(lang, page):
    return (COURSE / lang / page).read_text("utf-8")


def number_of(page):
    return int(page.partition("-")[0])


def inline(text):
    """Commands in the sentences of a page."""
    return [" ".join(line.split()) for line in re.findall(r"`(trilemma [^`]+)`", BLOCK.sub("", text))]


COMMANDS = {lang: [words for page in PAGES for words in commands(text_of(lang, page))] for lang in LANGS}
LINES = sorted({shlex.join(words) for lang in LANGS for words in COMMANDS[lang]})


def test_there_is_something_to_check():
    assert len(COMMANDS["en"]) > 40
    for lang in LANGS:
        assert {path.name for path in (COURSE / lang).iterdir()} == set(PAGES)


# --- both languages -------------------------------------------------------------------------------------------------


def without_language(text):
    return text.replace(" lang=vi", "")


@pytest.mark.parametrize("page", PAGES)
def test_both_languages_have_the_same_commands_equations_and_excerpts(page):
    blocks = [BLOCK.findall(without_language(text_of(lang, page))) for lang in LANGS]
    assert blocks[0] == blocks[1] and blocks[0]


@pytest.mark.parametrize("page", PAGES)
def test_both_languages_have_the_same_parts_links_and_sources(page):
    texts = [text_of(lang, page) for lang in LANGS]
    headings = [[line.split(" ")[0] for line in text.splitlines() if line.startswith("#")] for text in texts]
    tables = [sum(line.startswith("|") for line in text.splitlines()) for text in texts]
    links = [[link.replace("/vi/", "/en/") for link in re.findall(r"\]\(([^)]+)\)", text)] for text in texts]
    years = [sorted(re.findall(r"\b(?:19|20)\d\d\b", BLOCK.sub("", text))) for text in texts]
    paragraphs = [len(re.split(r"\n\n+", text.strip())) for text in texts]
    for pair in (headings, tables, links, years, paragraphs):
        assert pair[0] == pair[1]
    lines = [{without_language(line) for line in inline(text)} for text in texts]
    assert lines[0] == lines[1]


def test_a_page_in_vietnamese_asks_for_vietnamese():
    for words in COMMANDS["vi"]:
        speaks = words[1] == "quiz" or words[:2] == ["trilemma", "compare"]
        assert ("lang=vi" in words) == speaks, words
    assert not any("lang=vi" in words for words in COMMANDS["en"])


@pytest.mark.parametrize(("lang", "page"), EVERY)
def test_exercises_are_those_that_are_checked(lang, page):
    """Each stands on its page, word for word, above the command that checks it."""
    names = [words[3] for words in commands(text_of(lang, page)) if words[1:3] == ["quiz", "check"] and len(words) > 3]
    names = [name for name in names if "=" not in name]
    with in_language(lang):
        here = [own for own in exercises() if page != "README.md" and own.page == number_of(page)]
        tasks = [own.task for own in here]
    assert names == [own.name for own in here] and (names or page == "README.md")
    parts = text_of(lang, page).split("## ")[-1]
    for name, task in zip(names, tasks, strict=True):
        before = parts.split(f"quiz check {name}")[0]
        assert task in " ".join(before.replace("`", "").split()), name


# --- what pages say -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("lang", "page"), EVERY)
def test_every_excerpt_is_in_its_file(lang, page):
    found = excerpts(text_of(lang, page))
    assert found or page == "README.md"
    for file, code in found:
        assert code.rstrip("\n") in (COURSE / lang / file).read_text("utf-8"), f"{file} has no longer\n{code}"


@pytest.mark.parametrize(("lang", "page"), EVERY)
def test_links_lead_somewhere(lang, page):
    for link in re.findall(r"\]\(([^)]+)\)", text_of(lang, page)):
        path, _, title = link.partition("#")
        target = COURSE / lang / path
        assert target.is_file(), link
        assert not title or title in titles(target.read_text("utf-8")), link


@pytest.mark.parametrize("lang", LANGS)
def test_pages_lead_to_each_other_in_order(lang):
    contents = re.findall(r"\]\((\d+-[^)]+)\)", text_of(lang, "README.md"))
    assert contents == list(PAGES[1:])
    for page, following in zip(PAGES[1:], [*PAGES[2:], "README.md"], strict=True):
        assert re.findall(r"\]\(([^)]+)\)", text_of(lang, page))[-1] == following
        assert text_of(lang, page).startswith(f"# {number_of(page)}. ")


@pytest.mark.parametrize("line", LINES)
def test_a_command_is_right(line):
    words = shlex.split(line)
    check_command(words)
    normalise(words[1:])  # refuses values that do not fit
    if words[1] == "train":
        vocabulary.check_data(keys_and_words(words[2:])[1][1])


@pytest.mark.parametrize("line", sorted({line for lang, page in EVERY for line in inline(text_of(lang, page))}))
def test_a_command_in_a_sentence_is_right(line):
    check_command(shlex.split(line))


def test_runs_are_trained_before_they_are_used():
    trained = set()
    for words in COMMANDS["en"]:
        assert runs_in(words) <= trained, words
        trained.add(trained_by(words))


# --- what commands do -----------------------------------------------------------------------------------------------


def coverages(run):
    (file,) = (run.path / "metrics").glob("coverage_*.json")
    return json.loads(file.read_text("utf-8"))["interval"]


@pytest.mark.slow
def test_every_command_runs_and_shows_what_the_pages_say(tmp_path, monkeypatch, capsys):
    """As they are written, one after the other, in a folder of their own; in Vietnamese those that speak it."""
    monkeypatch.chdir(tmp_path)
    for words in [*COMMANDS["en"], *(words for words in COMMANDS["vi"] if "lang=vi" in words)]:
        assert cli.main(words[1:]) == 0, (words, capsys.readouterr().err)
        assert capsys.readouterr().out, words
    runs = {name: Run(f"runs/{name}") for name in ("ae-stacked-digits", "ae-two", "vae-digits", "vae-heavy")}
    heavy, plain = runs["vae-heavy"].summary, runs["vae-digits"].summary
    assert heavy["valid_active_units"] == 0 < plain["valid_active_units"]  # page 3: posterior collapse
    assert heavy["valid_mean_code_mse"] == pytest.approx(heavy["mean_image_rmse"] ** 2, rel=0.05)
    assert runs["ae-stacked-digits"].summary["valid_mse"] < plain["valid_mean_code_mse"]  # page 3: the plain one
    assert trilemma.quiz("check", "code", "runs/ae-two").right == 0  # page 2: something is left to be done
    low, high = coverages(runs["vae-digits"])
    assert trilemma.quiz("check", "covered", "runs/vae-digits").right == int(low > 0.5) and low < high


SHORTER = {  # what a command in a sentence says, and what is run in its place: a folder of a few images, and less time
    "minutes=60": ["minutes=0.02"],
    "data=FOLDER": ["data=photos", "models=ae-stacked,vae", "minutes=0.02"],
}


def write_photos(folder):
    """Images that anyone may have, of two sorts."""
    for k in range(120):
        place = folder / ("bright" if k % 2 else "dark")
        place.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(k).integers(0, 256, (8, 8)) // (1 if k % 2 else 4)
        Image.fromarray(pixels.astype(np.uint8)).save(place / f"{k}.png")


@pytest.mark.slow
def test_commands_in_sentences_run(tmp_path, monkeypatch, capsys):
    """Those that stand in no block; `imagine` is run below."""
    monkeypatch.chdir(tmp_path)
    write_photos(tmp_path / "photos")
    lines = {line for lang, page in EVERY for line in inline(text_of(lang, page))} - set(LINES)
    changed = set()
    for line in sorted(line for line in lines if not line.startswith("trilemma imagine ")):
        words = [new for word in shlex.split(line)[1:] for new in SHORTER.get(word, [word])]
        changed |= SHORTER.keys() & set(shlex.split(line))
        assert cli.main(words) == 0, (line, capsys.readouterr().err)
    assert changed == SHORTER.keys()


@pytest.mark.slow
def test_stable_diffusion_draws_from_a_text_as_page_9_says(tmp_path, monkeypatch):
    """By a pipeline of its form with random weights, which a hub of our own has under the name of the repository."""
    pytest.importorskip("diffusers")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TRILEMMA_CACHE", str(tmp_path / "cache"))
    folder = save(tiny_pipeline, tmp_path / "tiny")
    lines = {line for lang in LANGS for line in inline(text_of(lang, PAGES[9]))}
    (words,) = (shlex.split(line) for line in lines if line.startswith("trilemma imagine "))
    name = keys_and_words(words)[0]["model"]
    with publishing(folder, CHECKPOINTS[name].repository, tmp_path / "home", monkeypatch):
        assert cli.main(words[1:]) == 0
    (picture,) = tmp_path.glob("*.png")
    entry = read_metadata(picture)
    assert (entry["prompts"], entry["repository"]) == (["TEXT"], CHECKPOINTS[name].repository)
    assert {key: entry[key] for key in CHECKPOINTS[name].keys} == dict(CHECKPOINTS[name].keys)


@pytest.mark.slow
def test_the_exercises_about_runs_can_be_solved(tmp_path):
    """Page 2: by more steps. Page 10: by a plain autoencoder with a mixture of Gaussians on its codes."""
    short = trilemma.train("ae-stacked", "digits", latent=2, steps=4000, out=tmp_path / "short", quiet=True)
    assert trilemma.quiz("check", "code", short.path).right == 1
    wide = trilemma.train("ae-stacked", "digits", steps=1000, out=tmp_path / "wide", quiet=True)
    trilemma.evaluate(wide)
    assert trilemma.quiz("check", "covered", wide.path).right == 1
