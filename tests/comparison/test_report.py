import json
import re
from html.parser import HTMLParser

import pytest
import torch
from comparison.stand_ins import evaluation, finished, make, score

from trilemma.comparison import report
from trilemma.comparison.document import Entry, clean, columns, curves, document

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


@pytest.fixture
def page(stage):
    def build(
        names=("ae-stacked", "vae", "gan-dcgan", "diffusion-small"), data=None, entries=None, split="test", caveats=()
    ):
        data = data or make()
        entries = entries or [Entry(n, finished(n, f"runs/{n}", data), evaluation(n)) for n in names]
        request = {"command": "trilemma compare data=digits", "minutes": 0.5, "n": 10, "batch": 1, "seed": 0}
        request |= {"split": split, "caveats": caveats}
        machine = {"device_name": "a processor", "cores": 2, "device": "cpu", "torch": "2.13.0"}
        values = document(entries, data, request, machine)
        pictures, near = report.pictures_of(entries, data, split, 0)
        for model in values["models"]:
            model["nearest"] = clean(near.get(model["name"]))
        return values, report.render(values, pictures)

    return build


def test_the_page_needs_nothing_from_anywhere(page):
    _, text = page()
    found = Page(text)
    assert found.images
    assert all(image["src"].startswith("data:image/png;base64,") and image["alt"] for image in found.images)
    assert all(load.startswith(("data:", "#")) for load in found.loads)
    assert not {"script", "link", "iframe", "object", "embed"} & set(found.tags)
    assert not re.search(r"@import|url\((?!#)", text)
    assert "default-src 'none'" in text


def test_every_model_is_there_with_the_figures_of_the_json(page):
    values, text = page()
    found = Page(text)
    shown = " ".join(found.texts)
    for model in values["models"]:
        assert model["name"] in shown
        for s in model["scores"].values():
            if s["value"] is not None:
                assert s["value"] in found.values
            if s["interval"] and s["interval"] != [s["value"]] * 2:
                assert set(s["interval"]) <= set(found.values)
        for key in ("parameters", "images", "seconds", "images_per_second"):
            assert model[key] in found.values
    for column in values["columns"]:
        assert column["receipt"]["protocol"] in shown
    assert values["verdict"]["text"] in shown
    assert values["data"]["fingerprint"] in shown
    assert values["again"]["all"] in shown


def test_each_column_is_one_metric_in_one_order(page):
    values, _ = page()
    names = [c["name"] for c in values["columns"]]
    assert names == ["precision", "recall", "kernel_distance", "frechet_distance", "ms_per_image", "calls_per_image"]
    best = {c["name"]: c["best"] for c in values["columns"]}
    assert best["kernel_distance"] == ["diffusion-small"]
    assert best["precision"] == ["gan-dcgan", "diffusion-small"]  # 0.85 and 0.83, 5% either way
    assert best["frechet_distance"] == []


def test_refused_figures_say_why(page):
    _, text = page()
    assert "Frechet distance refused: 10 images are too few" in text  # once, as all refuse alike
    data = make()
    mixed = evaluation("vae")
    mixed.scores = (score("precision", None, None, "higher", "the images <are> equal"), *mixed.scores[1:])
    entries = [Entry(n, finished(n, n, data), mixed if n == "vae" else evaluation(n)) for n in ("vae", "gan-dcgan")]
    _, text = page(entries=entries, data=data)
    assert "refused: the images &lt;are&gt; equal" in text


def test_names_from_outside_are_escaped(page):
    data = make(name="b", source="/photos/<b>&'\"")
    entries = [Entry("<i>vae", finished("vae", "runs/<i>vae", data), evaluation("vae"))]
    entries.append(Entry("bad", None, None, "<script>alert(1)</script>"))
    _, text = page(entries=entries, data=data)
    assert not {"b", "i", "script"} & set(Page(text).tags)
    assert "&lt;b&gt;&amp;" in text
    assert "&lt;script&gt;" in text


def test_bytes_that_are_no_utf8_in_a_name_do_not_stop_the_report(page):
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
    class Loose:
        name = "precision"

        def to_json(self):
            return score("precision", 0.5, (0.1, 0.9), "higher").to_json() | {"value": float("nan")}

    data = make()
    broken = evaluation("vae")
    broken.scores = (Loose(), *broken.scores[1:])
    values, text = page(entries=[Entry("vae", finished("vae", "vae", data), broken)], data=data)
    json.dumps(values, allow_nan=False)
    assert values["models"][0]["scores"]["precision"]["refused"] == "the value is not a finite number"
    assert "refused: the value is not a finite number" in text


def test_curves_hold_every_part_thinned_with_both_ends():
    log = [{"step": i, "seconds": i / 10, "a/loss": float(i), "b/kl": "nan", "lr": 1.0} for i in range(1000)]
    log[-1]["valid_rmse"] = 0.5
    found = {c["name"]: c for c in curves(log)}
    assert list(found) == ["a/loss", "b/kl", "valid_rmse"]
    assert len(found["a/loss"]["values"]) == 200
    assert found["a/loss"]["values"][0] == 0.0
    assert found["a/loss"]["values"][-1] == 999.0
    assert found["a/loss"]["seconds"] == [v / 10 for v in found["a/loss"]["values"]]
    assert found["b/kl"]["values"] == []
    assert found["valid_rmse"] == {"name": "valid_rmse", "seconds": [99.9], "values": [0.5]}


def test_the_nearest_training_image_of_a_copy_is_itself(stage):
    data = make()
    copies = evaluation("vae")
    copies.fakes = data.train.images[[3, 1, 2]].float() / 255
    _, near = report.pictures_of([Entry("vae", finished("vae", "vae", data), copies)], data, "test", 0)
    assert near["vae"]["index"] == [3, 1, 2]
    assert near["vae"]["distance"] == [0.0, 0.0, 0.0]
    assert near["vae"]["real_median"] > 0


def test_pictures_hold_the_pixels_one_for_one():
    import base64
    import io

    from PIL import Image

    images = torch.arange(4 * 64, dtype=torch.uint8).reshape(4, 1, 8, 8)
    found = report.picture(images)
    sheet = Image.open(io.BytesIO(base64.b64decode(found["uri"].partition(",")[2])))
    assert sheet.size == (19, 19)  # 2 tiles of 8 and 3 lines of 1
    assert [sheet.getpixel((x, 1)) for x in range(1, 9)] == list(range(8))
    assert found["width"] % 19 == 0 and found["enlarged"]
    assert not report.picture(torch.zeros(4, 3, 200, 200))[
        "enlarged"
    ]  # it may be shrunk to the page: not by leaving out lines


def test_unequal_budgets_are_said(page):
    data = make()
    runs = {"vae": 30.0, "gan-dcgan": 60.0}
    entries = [Entry(n, finished(n, n, data, seconds), evaluation(n)) for n, seconds in runs.items()]
    values, text = page(entries=entries, data=data)
    assert not values["budget"]["equal"]
    assert "The training budgets were not equal." in text
    assert page()[0]["budget"]["equal"]


def test_the_page_says_what_the_real_images_were_in_training(page):
    texts = {"test": "never seen in training", "valid": "the best weights were chosen by them", "train": "(trained on)"}
    for split, text in texts.items():
        values, html = page(split=split, caveats=["few & rough"])
        assert values["real"]["split"] == split
        assert [other in html for other in texts.values()] == [other == text for other in texts.values()]
        assert "Note: few &amp; rough." in html
    assert "no model saw" not in html


def test_the_page_is_the_same_for_the_same_inputs(page):
    assert page() == page()


def test_a_metric_nobody_knows_yet_gets_a_column_of_its_own():
    one = {"name": "a", "scores": {"coverage": score("recall", 0.5, None, "higher").to_json() | {"name": "coverage"}}}
    assert [c["name"] for c in columns([one])] == ["coverage"]
