import base64
import hashlib
import io
import json
import math
import re
from dataclasses import replace
from html.parser import HTMLParser
from types import SimpleNamespace

import pytest
import torch
from comparison.stand_ins import FLAT, evaluation, finished, make, reference, score
from rich.console import Console

from trilemma.comparison import images, report
from trilemma.comparison.content import (
    Asked,
    Control,
    Curve,
    Item,
    LearningPoint,
    Model,
    SamplerPoint,
    Training,
    receipt_of,
)
from trilemma.comparison.document import columns, document
from trilemma.comparison.entries import Entry
from trilemma.comparison.images import UNKNOWN_TRAINING
from trilemma.comparison.learning import forecast
from trilemma.comparison.rows import NOTES
from trilemma.comparison.terminal import Tables
from trilemma.comparison.trained import curves
from trilemma.language import in_language, translated
from trilemma.metrics.controls import NOTHING, TITLES, nothing_text
from trilemma.metrics.features import extract
from trilemma.metrics.reals import AMONG, FEW, SEEN, UNKNOWN_ROLE, Caveat
from trilemma.run.contestant import contestant_of

LOADS = {"src", "href", "srcset", "data", "poster", "action", "background", "xlink:href"}
VOID = {"meta", "img", "br", "link", "input", "hr"}


class Page(HTMLParser):
    """What a page would load, its pictures and its texts, and whether its elements are closed in order."""

    def __init__(self, text):
        super().__init__()
        self.loads, self.images, self.values, self.tags, self.open, self.texts = [], [], [], [], [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        attrs = dict(attrs)
        self.loads += [value for key, value in attrs.items() if key in LOADS]
        if tag == "img":
            self.images.append(attrs)
        if tag == "data":
            self.values.append(float(attrs["value"]))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.handle_endtag(tag)

    def handle_data(self, text):
        self.texts.append(text)


def answered(content):
    """The document with an answer, a control, and nothing to warn of."""
    names = [m.name for m in content.models]
    answer = [Item("use", f"Use {names[0]}.", names[:1], "trilemma sample x")]
    scores = {"density": score("density", 0.875, (0.86, 0.89), "higher")}
    controls = [Control("real", "Real images", "A perfect model.", scores)]
    models = [replace(model, warnings=[], learned_nothing=None, trainings=[]) for model in content.models]
    return replace(content, answer=answer, controls=controls, models=models)


def changed(content, number, **changes):
    """The document with one model changed."""
    models = [replace(model, **changes) if k == number else model for k, model in enumerate(content.models)]
    return replace(content, models=models)


@pytest.fixture
def page(stage):
    def build(
        names=("ae-stacked", "vae", "gan-dcgan", "diffusion"),
        data=None,
        entries=None,
        split="test",
        caveats=(),
        change=lambda content: content,
        own=True,
    ):
        data = data or make()
        entries = entries or [Entry(n, finished(n, f"runs/{n}", data), evaluation(n)) for n in names]
        length = {"minutes": 0.5} if own else {}
        asked = Asked("trilemma compare data=digits", length, 10, 1, 0, split, caveats, own=own)
        machine = {"device_name": "a processor", "cores": 2, "device": "cpu", "torch": "2.13.0"}
        content = answered(document(entries, data, asked, machine))
        pictures, near = report.pictures_of(entries, reference(data, split, own=own))
        content = replace(content, models=[replace(m, nearest=near.get(m.name)) for m in content.models])
        content = change(content)
        return content.to_json(), report.render(content, pictures)

    return build


def test_the_page_needs_nothing_from_anywhere(plots, page):
    _, text = page()
    result = Page(text)
    assert result.images
    assert all(image["src"].startswith("data:image/png;base64,") and image["alt"] for image in result.images)
    assert all(load.startswith(("data:", "#")) for load in result.loads)
    assert not {"link", "iframe", "object", "embed"} & set(result.tags) and result.tags.count("script") == 1
    (script,) = re.findall("<script[^>]*>(.*?)</script>", text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src &#39;sha256-{digest}&#39;" in text or f"script-src 'sha256-{digest}'" in text
    assert script == report.SCRIPT.read_text("utf-8")
    assert not re.search(r"@import|url\((?!#)", text)
    assert "default-src 'none'" in text


def test_every_model_is_there_with_the_figures_of_the_json(plots, page):
    values, text = page()
    result = Page(text)
    shown = " ".join(result.texts)
    for model in values["models"]:
        assert model["name"] in shown
        for s in model["scores"].values():
            if s["value"] is not None:
                assert s["value"] in result.values
            if s["interval"] and s["interval"] != [s["value"]] * 2:
                assert set(s["interval"]) <= set(result.values)
        for key in ("parameters", "images", "seconds", "images_per_second"):
            assert model[key] in result.values
    for column in values["columns"]:
        assert column["receipt"]["protocol"] in shown
    assert values["data"]["fingerprint"] in shown
    assert values["again"]["all"] in shown


def test_each_column_is_one_metric_in_one_order(page):
    values, _ = page()
    names = [c["name"] for c in values["columns"]]
    assert names == ["density", "coverage", "kernel_distance", "frechet_distance", "ms_per_image", "calls_per_image"]
    best = {c["name"]: c["best"] for c in values["columns"]}
    assert best["kernel_distance"] == ["diffusion"]
    assert best["density"] == ["gan-dcgan", "diffusion"]  # 0.85 and 0.83, 5% either way
    assert best["frechet_distance"] == []


def test_refused_figures_say_why(page):
    _, text = page()
    assert "Frechet distance refused: 10 images are too few" in text  # once, as all refuse alike
    data = make()
    mixed = evaluation("vae")
    mixed.scores = (score("density", None, None, "higher", "the images <are> equal"), *mixed.scores[1:])
    entries = [Entry(n, finished(n, n, data), mixed if n == "vae" else evaluation(n)) for n in ("vae", "gan-dcgan")]
    _, text = page(entries=entries, data=data)
    assert "refused: the images &lt;are&gt; equal" in text


def test_names_from_outside_are_escaped(plots, page):
    data = make(name="b", source="/photos/<b>&'\"")
    entries = [Entry("<i>vae", finished("vae", "runs/<i>vae", data), evaluation("vae"))]
    entries.append(Entry("bad", None, None, "<script>alert(1)</script>"))
    _, text = page(entries=entries, data=data)
    assert not {"b", "i"} & set(Page(text).tags) and Page(text).tags.count("script") == 1
    assert "&lt;b&gt;&amp;" in text
    assert "&lt;script&gt;" in text


def test_bytes_that_are_no_utf8_in_a_name_do_not_stop_the_report(plots, page):
    values, text = page(data=make(source="fotos\udcff"))
    assert values["data"]["source"] == "fotos\ufffd"
    text.encode("utf-8")
    json.dumps(values, allow_nan=False).encode("utf-8")


def test_a_failed_model_is_shown_with_its_error(page):
    data = make()
    entries = [
        Entry("vae", finished("vae", "vae", data), evaluation("vae")),
        Entry("gan-dcgan", error="the loss is nan"),
    ]
    values, text = page(entries=entries, data=data)
    assert text.count("failed: the loss is nan") == 1
    assert values["models"][1]["error"] == "the loss is nan"
    assert "Failed: gan-dcgan." in values["verdict"]["text"]


def test_no_number_of_the_document_is_nan(page):
    """A score is finite; what a training left need not be."""
    data = make()
    run = finished("vae", "vae", data)
    run.summary = run.summary | {"valid_rmse": math.nan}
    run.config["training"]["lr"] = math.inf
    values, _ = page(entries=[Entry("vae", run, evaluation("vae"))], data=data)
    json.dumps(values, allow_nan=False)
    assert values["models"][0]["valid"] == {} and values["models"][0]["training"]["lr"] is None


def test_curves_hold_every_part_thinned_with_both_ends():
    log = [{"step": i, "seconds": i / 10, "a/loss": float(i), "b/kl": "nan", "lr": 1.0} for i in range(1000)]
    log[-1]["valid_rmse"] = 0.5
    result = {c.name: c for c in curves(log)}
    assert list(result) == ["a/loss", "b/kl", "valid_rmse"]
    assert len(result["a/loss"].values) == 200
    assert result["a/loss"].values[0] == 0.0
    assert result["a/loss"].values[-1] == 999.0
    assert result["a/loss"].seconds == [v / 10 for v in result["a/loss"].values]
    assert result["b/kl"].values == []
    assert result["valid_rmse"] == Curve("valid_rmse", [99.9], [0.5])


def test_the_nearest_training_image_of_a_copy_is_itself(stage):
    data = make()
    copies = evaluation("vae")
    copies.fakes = data.train.images[[3, 1, 2]]
    copies.features = extract(FLAT, copies.fakes)
    _, near = report.pictures_of([Entry("vae", finished("vae", "vae", data), copies)], reference(data))
    assert near["vae"].index == [3, 1, 2]
    assert near["vae"].distance == [0.0, 0.0, 0.0]
    assert near["vae"].different == 3
    assert [part.share for part in near["vae"].closeness] == [1.0]  # 10 images: one rank
    others = torch.cdist(data.held_out[1].images.double().flatten(1), data.train.images.double().flatten(1)).amin(1)
    assert near["vae"].closeness[0].threshold == pytest.approx(others.min().item() / 255, rel=1e-5)


def test_pictures_hold_the_pixels_one_for_one():
    import base64
    import io

    from PIL import Image

    levels = torch.arange(4 * 64, dtype=torch.uint8).reshape(4, 1, 8, 8)
    result = images.picture(levels)
    sheet = Image.open(io.BytesIO(base64.b64decode(result.uri.partition(",")[2])))
    assert sheet.size == (19, 19)  # 2 tiles of 8 and 3 lines of 1
    assert [sheet.getpixel((x, 1)) for x in range(1, 9)] == [(level, 255) for level in range(8)]
    assert sheet.getchannel("A").histogram()[0] == 19 * 19 - levels.numel()  # the gaps, and nothing else, let through
    assert result.width % 19 == 0 and result.enlarged
    assert not images.picture(
        torch.zeros(4, 3, 200, 200)
    ).enlarged  # it may be shrunk to the page: not by leaving out lines


def test_unequal_budgets_are_said(page):
    data = make()
    runs = {"vae": 30.0, "gan-dcgan": 60.0}
    entries = [Entry(n, finished(n, n, data, seconds), evaluation(n)) for n, seconds in runs.items()]
    values, text = page(entries=entries, data=data)
    assert not values["budget"]["equal"]
    assert "The training budgets were not equal." in text
    assert page()[0]["budget"]["equal"]


def test_the_page_says_what_the_real_images_were_in_training(page):
    texts = {"test": "never seen in training", "valid": "used to select the best checkpoint", "train": "(trained on)"}
    for split, text in texts.items():
        values, html = page(split=split, caveats=[Caveat("few & rough", {})])
        assert values["real"]["split"] == split
        assert [other in html for other in texts.values()] == [other == text for other in texts.values()]
        assert "Note: few &amp; rough." in html
    assert "no model saw" not in html


def test_of_images_alone_nothing_is_said_of_a_training(page):
    """What they were made from is not known; beside a run, what the real images were to it."""
    data = make()
    photos = Entry("photos", contestant_of(data.train.images), evaluation("vae"))
    values, text = page(entries=[photos], data=data, own=False)
    assert values["real"]["role"] == UNKNOWN_ROLE and text.count(UNKNOWN_ROLE) == 3
    assert values["models"][0]["nearest"] == {"refused": UNKNOWN_TRAINING}
    assert f"Nearest training images: {UNKNOWN_TRAINING}" in text and "copying" not in text
    assert values["budget"]["text"] == "What it took to train these is not known."
    assert "measured by images of 8 x 8 px" in text and "trained on 12 images" not in text
    values, text = page(entries=[photos, Entry("vae", finished("vae", "runs/vae", data), evaluation("vae"))], data=data)
    assert values["real"]["role"] == "for the runs: never seen in training"
    assert not any("refused" in model["nearest"] for model in values["models"])
    assert "measured by images of 8 x 8 px" in text and "trained on 12 images" not in text
    assert "trained on 12 images of 8 x 8 px" in page(data=data)[1]


def test_no_english_of_controls_and_caveats_is_left_in_a_vietnamese_report(stage):
    """Neither in the page nor in the terminal; what the evaluations noted in English is the same caveats."""
    data, scores = make(), evaluation("vae").scores
    sentences = [nothing_text(control, name) for control, names in NOTHING.items() for name in names]
    caveats = [Caveat(SEEN, {"name": "valid", "n": 2}), Caveat(AMONG, {}), Caveat(FEW, {"n": 10})]
    measured = evaluation("vae")
    measured.controls = tuple(SimpleNamespace(name=n, title=t, scores=scores, spreads={}) for n, t in TITLES.items())
    measured.notes = tuple(map(str, caveats))
    entries = [
        Entry(f"m{k}", finished("vae", f"runs/{k}", data), replace(measured, learned_nothing=text))
        for k, text in enumerate(sentences)
    ]
    asked = Asked("trilemma compare data=digits lang=vi", {"minutes": 0.5}, 10, 1, 0, "test", caveats)
    with in_language("vi"):
        content = document(entries, data, asked, {})
        expected = [translated(text) for text in (*TITLES.values(), *NOTES.values(), *sentences)]
        expected += [translated(caveat.form, **caveat.values) for caveat in caveats]
    console = Console(file=io.StringIO(), width=400)
    console.print(Tables(content))
    assert content.notes == []
    pictures, near = report.pictures_of(entries, reference(data))
    content = replace(content, models=[replace(m, nearest=near.get(m.name)) for m in content.models])
    page = report.render(content, pictures)
    english = [*TITLES.values(), *NOTES.values(), *sentences, *map(str, caveats), "learned nothing yet", "Note: "]
    for text in (page, " ".join(console.file.getvalue().split())):
        assert [one for one in english if one in text] == []
        assert [one for one in expected[:10] + expected[-3:] if one not in text] == []
    assert [one for one in expected if one not in page] == []


def test_the_page_is_the_same_for_the_same_inputs(plots, page):
    assert page() == page()


def test_a_metric_nobody_knows_yet_gets_a_column_of_its_own():
    one = Model("a", scores={"classes_x_10": score("class_obeyed", 0.5, None, "higher")})
    assert [c.name for c in columns([one])] == ["classes_x_10"]


def test_the_page_begins_with_the_answer_then_shows_eight_of_each_model_beside_real_images(page):
    values, text = page()
    texts = [result.strip() for result in Page(text).texts if result.strip()]
    assert texts[texts.index("Which model to use") + 1 :][:4] == ["Use", "ae-stacked", ".", "trilemma sample x"]
    assert "Use <strong>ae-stacked</strong>." in text
    rows = text[text.index('<table class="beside">') :].partition("</table>")[0].split("<tr>")[1:]
    names = [re.sub("<[^>]+>", " ", row).split()[0] for row in rows]
    assert names == ["Real", *(m["name"] for m in values["models"])]
    for row in rows:  # two strips of four
        assert [alt.split()[0] for alt in re.findall('alt="([^"]*)"', row)] == ["4", "4"]


def test_every_link_of_the_page_leads_to_a_place_on_it_and_the_settings_are_one_away(plots, page):
    values, text = page()
    links, places = re.findall(r'href="#([^"]+)"', text), re.findall(r'id="([^"]+)"', text)
    assert set(links) <= set(places) and len(places) == len(set(places))
    for k in range(1, len(values["models"]) + 1):
        assert {f"model-{k}", f"settings-{k}"} <= set(links)
        assert f'<details id="settings-{k}">' in text  # a link opens the details that it leads to, not what is in them


def test_controls_stand_under_the_models(page):
    _, text = page()
    table = text[text.index('<table class="figures">') :].partition("</table>")[0]
    assert table.index("diffusion") < table.index("Real images") < table.index("A perfect model.")
    assert 0.875 in Page(f"{table}</table>").values


def test_what_went_wrong_stands_in_the_row_and_the_section_of_its_model(page):
    def change(content):
        return changed(content, 1, learned_nothing="The mean image is better.", warnings=["3 of 32 <units>"])

    _, text = page(change=change)
    table = text[text.index('<table class="figures">') :].partition("</table>")[0]
    row = table[table.index(">vae<") if ">vae<" in table else table.index("vae") : table.index("gan-dcgan")]
    section = text[text.index('id="model-2"') : text.index('id="model-3"')]
    for part in (row, section):
        assert "The mean image is better." in part and "3 of 32 &lt;units&gt;" in part
    assert text.count("learned nothing yet</span>") == 3  # beside its samples, in the table, over its section


def nearest(copies, different, learned_nothing=None):
    def change(content):
        near = replace(content.models[0].nearest, copies=copies, different=different)
        return changed(content, 0, nearest=near, learned_nothing=learned_nothing)

    return change


def test_copies_are_named_only_where_they_are_significant_and_the_model_has_learned(page):
    assert "look for copies" in page(names=["vae"], change=nearest(True, 8))[1]
    assert "look for copies" not in page(names=["vae"], change=nearest(False, 8))[1]
    _, text = page(names=["vae"], change=nearest(True, 8, "The mean image is better."))
    assert "look for copies" not in text and "says nothing about copying" in text


def test_one_training_image_nearest_to_all_samples_is_named(page):
    texts = {1: "same training image is nearest to all", 4: "Only 4 different training images"}
    for different, sentence in {1: texts[1], 4: texts[4], 5: None}.items():
        _, text = page(names=["vae"], change=nearest(False, different))
        assert [other in text for other in texts.values()] == [other == sentence for other in texts.values()]


def test_trainings_that_differ_in_their_seed_are_listed_under_one_row(page):
    def change(content):
        scores = content.models[0].scores
        return changed(content, 0, trainings=[Training(f"vae-seed-{k}", k, scores=scores) for k in (3, 4)])

    _, text = page(names=["vae"], change=change)
    assert "mean of 2 trainings" in text and "vae-seed-3" in text and "vae-seed-4" in text
    assert "Each training" not in page(names=["vae"])[1]


def test_names_inside_other_names_are_not_bold():
    assert str(report._bold("vae-2 < vae, not vae-20", ["vae", "vae-2"])) == (
        "<strong>vae-2</strong> &lt; <strong>vae</strong>, not vae-20"
    )


def with_curves(content):
    """The first model with a learning curve, whose last point is measured as the column is, and settings of its
    sampler."""
    last = content.models[0].scores["kernel_distance"]
    of_last, fewer = ({"kernel_distance": receipt_of(one)} for one in (last, replace(last, protocol="few", n_fake=5)))
    points = [
        LearningPoint(100 * k, 2.0**k, 0.5**k, [0.4**k, 0.6**k], 0.01, 0.05 * 0.5**k, of_last if k == 4 else fewer)
        for k in range(1, 5)
    ]
    of_setting = {"density": receipt_of(replace(content.models[0].scores["density"], protocol="density_few"))}
    samplers = [
        SamplerPoint("steps=50", True, 20.25, 0.9, [0.8, 1.0], 0.7, [0.6, 0.75], 360, of_setting, {}, frontier=True),
        SamplerPoint("steps=5", False, 2.125, 0.5, [0.4, 0.6], 0.3, [0.2, 0.35], 360, of_setting, {}),
    ]
    return changed(content, 0, learning=points, forecast=forecast(points), samplers=samplers)


def test_curves_are_shown_with_their_values(plots, page):
    values, text = page(change=with_curves)
    result = Page(text)
    assert {2.125, 20.25, 0.9, 0.3} <= set(result.values) and "steps=5" in text
    assert text.count('id="samplers"') == text.count('id="learning"') == 1
    assert "This compares the values, of 360 images each, and not their intervals" in text
    assert 'href="#samplers"' in text and 'href="#learning"' in text
    assert "Kernel distance over the training: " in text and "Coverage and density over images per second of " in text
    first = values["models"][0]
    assert [p["seconds"] for p in first["learning"]] == [2, 4, 8, 16] and first["forecast"]["seconds"] == 64
    assert [p["frontier"] for p in first["samplers"]] == [True, False]


def test_every_point_of_a_curve_has_a_receipt(page):
    """Which points of one protocol share; on the page it has a row where it is not that of a column."""
    values, text = page(change=with_curves)
    first, receipts = values["models"][0], values["point_receipts"]
    own = first["scores"]["kernel_distance"]["protocol"]
    assert [p["protocols"] for p in first["learning"]] == [{"kernel_distance": name} for name in ["few"] * 3 + [own]]
    assert [p["protocols"] for p in first["samplers"]] == [{"density": "density_few"}] * 2
    assert not [p for p in (*first["learning"], *first["samplers"]) if "receipts" in p]
    assert {name: one["n_fake"] for name, one in receipts.items()} == {"few": 5, own: 10, "density_few": 10}
    assert receipts[own].items() >= values["columns"][2]["receipt"].items() and receipts[own]["unit"] == "units"
    assert text.count("<code>few</code>") == text.count("<code>density_few</code>") == 1
    assert text.count(f"<code>{own}</code>") == 1 and text.count(", on the curves</th>") == 2


def measured_with(name, features, **scores):
    """An evaluation whose features are by this network; scores: the versions that further ones name."""
    known = {"torch": "2.13.0", "feature_weights_sha256": features}
    result = evaluation(name, versions=known)
    result.scores += tuple(score(k, 0.5, None, "lower", versions=known | more) for k, more in scores.items())
    return result


def test_what_not_all_values_were_made_with_stands_in_the_rows_of_the_receipts(page):
    """The classes are told by another network than that of the features, and each model has a batch of its own."""
    data, classes = make(), {"feature_weights_sha256": "d00d"}
    evaluations = {
        "vae": measured_with("vae", "beef", class_f_score=classes, ms_best_batch={"best_batch": "16"}),
        "gan-dcgan": measured_with("gan-dcgan", "beef", ms_best_batch={"best_batch": "64"}),
    }
    entries = [Entry(n, finished(n, n, data), one) for n, one in evaluations.items()]
    values, text = page(entries=entries, data=data)
    assert values["versions"] == {"torch": "2.13.0"}
    receipts = {c["name"]: c["receipt"]["versions"] for c in values["columns"]}
    assert receipts["density"] == {"torch": "2.13.0", "feature_weights_sha256": "beef"}
    assert receipts["ms_best_batch"] == receipts["density"]
    assert values["models"][1]["scores"]["ms_best_batch"]["versions"]["best_batch"] == "64"
    protocols = {c["name"]: f"<code>{c['receipt']['protocol']}</code>" for c in values["columns"]}
    rows = {name: text.partition(protocol)[2].partition("</td>")[0] for name, protocol in protocols.items()}
    shown = {name: re.sub("<[^>]+>", "|", row).strip("|") for name, row in rows.items()}
    assert shown["density"] == "feature weights sha256: beef"
    assert shown["class_f_score"] == "feature weights sha256: d00d"
    assert shown["ms_best_batch"] == "feature weights sha256: beef||best batch: 16 (vae) and 64 (gan-dcgan)"
    assert shown["frechet_distance"] == "" and "beef" not in text.partition("<dl>")[2].partition("</dl>")[0]


def test_without_curves_there_is_no_place_for_them(page):
    values, text = page()
    assert 'id="samplers"' not in text and 'id="learning"' not in text and "#learning" not in text
    assert values["models"][0]["forecast"] is None and values["point_receipts"] == {}
