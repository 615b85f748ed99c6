import io
import re
from types import SimpleNamespace

import pytest
import torch
from comparison.stand_ins import FAMILIES, FIGURES, evaluation, make, score
from rich.console import Console

from trilemma.autoencoders.vae import VAE, VAEConfig
from trilemma.comparison import compare
from trilemma.comparison.document import further_scores
from trilemma.errors import UserError
from trilemma.metrics.likelihood import likelihood_scores
from trilemma.words import span

BOUNDS = [
    "ELBO (gaussian 0.5, continuous pixels)",
    "Likelihood bound of 5 samples (gaussian 0.5, continuous pixels)",
    "Bits per dimension of 5 samples (gaussian 0.5, continuous pixels)",
    "Active units of the code, of 3",
]


def vae_scores(data):
    """What a real VAE, not trained, says of the test images."""
    torch.manual_seed(0)
    model = VAE(VAEConfig(shape=data.shape, hidden=(8,), latent=3)).eval()
    scores, _ = likelihood_scores(model, data, "test", split_label="test", own=True, samples=5, n=100, seed=0)
    return scores


def with_bounds(stage):
    """The VAE alone has bounds."""
    scores = vae_scores(make())

    def measured(name, n):
        result = evaluation(name, n)
        result.scores += tuple(scores) if name == "vae" else ()
        return result

    stage.evaluation = measured


@pytest.fixture
def result(stage):
    """A comparison of four models, of which the VAE alone has bounds."""
    with_bounds(stage)
    return compare(quiet=True)


def printed(tables, width):
    console = Console(file=io.StringIO(), width=width)
    console.print(tables)
    return console.file.getvalue()


def words_of(report):
    """Every word that the tables may hold: of titles, names and units, and the values as they are printed wide."""
    texts = [
        "Model Metric Value 95% interval Unit",
        *(m.name for m in report.models),
        "Parameters Training seconds",
    ]
    texts += [c.title for c in report.columns] + [c.head for c in report.columns]
    texts += [score.unit for _, _, score in further_scores(report)]
    return set(" ".join(texts).split()) | {
        "to",
        "exact",
        "failed",
        "Further",
        "values,",
        "of",
        "some",
        "models",
        "only",
    }


@pytest.mark.parametrize("width", [46, 60, 70, 80, 100, 120, 160])
def test_no_word_is_broken(result, width):
    text = printed(result.table(), width)
    assert max(map(len, text.splitlines())) <= width
    tables = text[: text.index("Frechet distance refused")].replace("The 95% intervals do not fit this width; they are "
                                                                    "in the report.", "")  # fmt: skip
    words = words_of(result.report)
    for word in tables.split():
        number = re.fullmatch(r"\(?-?[\d,]+(\.\d+)?\)?", word)
        assert number or word.strip("():,") in {w.strip("():,") for w in words} or set(word) == {"─"}, word
    for name in FAMILIES:
        assert name in tables


def test_the_intervals_are_there_where_they_fit(result):
    for width in (60, 100, 120):
        text = printed(result.table(), width)
        for figures in FIGURES.values():
            assert all(span(v, (0.95 * v, 1.05 * v)) in text for v in figures[:4])


def test_models_are_rows_where_that_fits_and_columns_where_not(result):
    first = {width: printed(result.table(), width).splitlines() for width in (80, 140)}
    assert first[80][0].split() == list(FAMILIES)
    assert first[140][1].split()[0] == "Model"


def test_intervals_that_do_not_fit_are_said_to_be_in_the_report(result):
    text = " ".join(printed(result.table(), 80).split())
    assert "0.67 to 0.75" not in text
    assert "The 95% intervals do not fit this width; they are in the report." in text


def test_what_one_model_has_stands_apart_and_nothing_is_lost(result):
    shared = [c.name for c in result.report.columns if c.shared]
    assert shared == ["density", "coverage", "kernel_distance", "frechet_distance", "ms_per_image", "calls_per_image"]
    rows = further_scores(result.report)
    assert [(m.name, c.title) for m, c, _ in rows] == [("vae", title) for title in BOUNDS]
    assert [s.value for _, _, s in rows] == [s.value for s in vae_scores(make())]
    assert [c.receipt.protocol for _, c, _ in rows] == [s.protocol for s in vae_scores(make())]
    assert set(result.rows[1]) >= {c.name for c in result.report.columns}
    for text in (result.html.read_text("utf-8"), result._repr_html_(), printed(result.table(), 120)):
        main, _, rest = text.partition("Further values")
        assert all(title in rest and title not in main for title in BOUNDS)
    page = result.html.read_text("utf-8")
    head = page[page.index("<thead>") : page.index("</thead>")]
    assert "gaussian" not in head and head.count("<th ") == 6  # the model and five figures; one is refused


def test_what_every_model_has_is_in_the_table(stage):
    """Two VAEs of one likelihood: their bounds compare."""
    scores = tuple(vae_scores(make()))

    def measured(name, n):
        result = evaluation(name, n)
        result.scores += scores
        return result

    stage.evaluation = measured
    result = compare(models="vae,gan-dcgan", quiet=True)
    assert further_scores(result.report) == []
    assert "Further values" not in printed(result.table(), 80) + result.html.read_text("utf-8")
    assert "ELBO, nats" in printed(result.table(), 80)


def test_a_model_that_failed_takes_no_figure_from_the_others(stage):
    stage.broken = {"vae": UserError("the loss is [red]nan")}
    result = compare(models="vae,gan-dcgan", quiet=True)
    assert further_scores(result.report) == []
    for width in (40, 80, 160):
        text = " ".join(printed(result.table(), width).split())
        assert "0.85" in text and "failed" in text and "vae failed. The loss is [red]nan." in text


@pytest.fixture
def in_vietnamese(stage):
    """A comparison of four models, of which one failed."""
    with_bounds(stage)
    stage.broken = {"gan-dcgan": UserError("the loss is nan")}
    return compare(lang="vi", quiet=True)


@pytest.mark.parametrize("width", [24, 46, 80, 100, 160])
def test_the_tables_are_in_the_language_of_the_report(in_vietnamese, width):
    """In every layout; what a score or an error says of itself stays English."""
    text = " ".join(printed(in_vietnamese.table(), width).split())
    english = "Model Metric Value interval intervals Unit Further failed refused Parameters Training seconds none next"
    assert not set(english.split()) & set(re.findall(r"\w+", text))
    for one in ("Các giá trị khác", "thất bại", "bị từ chối: 10 images are too few.", "tiếp theo: trilemma"):
        assert one in text
    assert ("báo cáo có chúng" in text) == (width == 80)


def control(name, title, precision):
    values = [score("density", precision, (0.9 * precision, precision), "higher")]
    return SimpleNamespace(name=name, title=title, scores=values, spreads={})


NOTHING = "learned nothing yet: its samples are no nearer the real images than the mean image"
CONTROLS = {"Held-out images": 0.9, "Training images (a copier)": 0.8, "Mean image": 0.05, "Static": 0.01}


@pytest.fixture
def controlled(stage):
    """Two models beside the controls; the VAE learned nothing."""
    names = ("real", "training", "mean", "static")

    def measured(name, n):
        result = evaluation(name, n)
        result.controls = tuple(control(k, *row) for k, row in zip(names, CONTROLS.items(), strict=True))
        result.learned_nothing = NOTHING if name == "vae" else None
        return result

    stage.evaluation = measured
    return compare(models="vae,gan-dcgan", quiet=True)


@pytest.mark.parametrize("width", [40, 60, 80, 120, 160])
def test_the_controls_stand_under_the_models_in_every_layout(controlled, width):
    """Each by its title, whose words may stand under each other, with its figure, after those of the models."""
    text = printed(controlled.table(), width)
    table = text[: text.index("Frechet")]
    for title in CONTROLS:
        assert all(word in table for word in title.split())
    assert all(f"{value:.2f}" in table or f"{value:.3f}" in table for value in CONTROLS.values())
    assert table.index("Static") > table.index("gan-dcgan")
    assert max(map(len, text.splitlines())) <= width


@pytest.mark.parametrize("width", [40, 60, 80, 120, 160])
def test_a_model_that_learned_nothing_is_marked_in_the_table_and_in_the_words(controlled, width):
    text = printed(controlled.table(), width)
    table, _, rest = text.partition("Frechet")
    assert "learned" in table and "nothing yet" in " ".join(table.split())
    message = " ".join(rest.split())
    assert f"vae {NOTHING}." in message
    assert "Use gan-dcgan" in message


def test_the_controls_are_explained_once(controlled):
    text = " ".join(printed(controlled.table(), 80).split())
    assert text.count("Held-out images: what a perfect model would get") == 1
    assert text.index("Controls:") < text.index("Use gan-dcgan")


@pytest.mark.parametrize("width", [40, 80, 200])
def test_a_command_can_be_copied_at_any_width(controlled, width):
    """A line that does not fit is continued as a shell does."""
    text = printed(controlled.table(), width).partition("next: trilemma compare")[2].replace(" \\\n", " ")
    words = "data=digits models=vae,gan-dcgan n=14 seed=0 minutes=2"
    assert " ".join(text.split()).startswith(words)
