"""Runs, folders and archives of images side by side, from the files to the document, the page and the terminal."""

import io
import json
import zipfile
from pathlib import Path

import pytest
import torch
from comparison.stand_ins import FLAT, finished, make, score
from markupsafe import escape
from PIL import Image
from rich.console import Console
from torch import nn

from trilemma.classifiers.bundled import FeatureNetwork
from trilemma.cli.main import main
from trilemma.comparison import compare
from trilemma.comparison.answer import NO_COST
from trilemma.comparison.content import Model, Training
from trilemma.comparison.document import columns
from trilemma.comparison.entries import entries_of, prepare_images
from trilemma.data import load_data
from trilemma.data.decoding.size import fit
from trilemma.errors import UserError
from trilemma.metrics import evaluate
from trilemma.metrics.catalogue import COST, DETAILS, QUALITY, names_that_need
from trilemma.metrics.reals import UNKNOWN_ROLE
from trilemma.run.compute import ImageBatch
from trilemma.run.contestant import contestant_of

N = 14  # test images of the made-up data


class Noise(nn.Module):
    """Draws static, one pass of its network each."""

    def __init__(self):
        super().__init__()
        self.sampling_network = nn.Linear(1, 1)

    def sample(self, n, *, seed, first=0, condition=None):
        self.sampling_network(torch.zeros(n, 1))
        generator = torch.Generator().manual_seed(seed)
        return torch.rand(first + n, 1, 8, 8, generator=generator)[first:]


class Counted(nn.Module):
    """Features of an image, its pixels; and every image that came through."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def features(self, image):
        self.seen += [tuple((255 * one).round().int().flatten().tolist()) for one in image]
        return image.flatten(1)


def save(folder, levels):
    folder.mkdir(parents=True, exist_ok=True)
    for k, image in enumerate(levels):
        Image.fromarray(image[0].numpy()).save(folder / f"{k:03}.png")
    return folder


def zipped(folder):
    with zipfile.ZipFile(folder.with_suffix(".zip"), "w") as archive:
        for file in sorted(folder.iterdir()):
            archive.write(file, file.name)
    return folder.with_suffix(".zip")


def levels(n, seed, side=8):
    return torch.randint(0, 256, (n, 1, side, side), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


def run_in(folder):
    folder.mkdir()
    run = finished("vae", folder, make())
    run.model = Noise().eval()
    return run


@pytest.fixture(scope="module")
def mixture(tmp_path_factory):
    """A run, a folder and a zip compared, and what the feature network saw."""
    place, network = tmp_path_factory.mktemp("mixture"), Counted()
    counted = FeatureNetwork("counted", network, (1, 8, 8))
    folder, archive = save(place / "photos", levels(20, 5)), zipped(save(place / "prints", levels(30, 6)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("trilemma.metrics.features.feature_network", lambda *_: counted)
        patch.setattr("trilemma.comparison.progress.seconds_per_image", lambda model, shape: 0.001)
        patch.setattr("trilemma.metrics.cost.REPEATS", 3)
        report = compare(folder, [run_in(place / "run"), archive], quiet=True, out=place / "out")
    return report, network.seen, folder


def test_a_run_a_folder_and_a_zip_share_the_axes_that_need_no_model(mixture):
    result, _, folder = mixture
    photos, vae, prints = result.report.models
    assert [(m.name, m.kind) for m in result.report.models] == [
        ("photos", "images"),
        ("run", "model"),
        ("prints.zip", "images"),
    ]
    cost = {*names_that_need("sampler"), *names_that_need("sampler", detail=True)} - {"joules_per_image"}
    if "joules_per_image" in vae.scores:  # where the machine tells it
        cost.add("joules_per_image")
    assert set(photos.scores) == set(prints.scores) == set(vae.scores) - cost and set(vae.scores) >= cost
    of_quality = [s for m in (photos, vae, prints) for s in m.scores.values() if s.name in QUALITY]
    assert of_quality and all(s.n_fake == s.n_real == N for s in of_quality)
    assert photos.place["speed"] is None and vae.place["speed"] and photos.place["fidelity"]
    assert [column.name for column in result.report.columns if column.shared] == [*QUALITY, *COST]
    assert {column.name for column in result.report.columns if not column.shared} <= {*DETAILS}
    assert {(p.a, p.b) for p in result.report.differences["coverage"]} == {
        ("photos", "run"), ("photos", "prints.zip"), ("run", "prints.zip")
    }  # fmt: skip
    assert f"the generated images are {N} of the 20 of photos" in " ".join(photos.notes)
    assert f"{N} real images of digits (test: never seen in training)" in " ".join(vae.notes)
    assert f"{N} real images of digits (test) against {N} generated" in " ".join(photos.notes)
    assert result.document["real"]["role"] == "for the runs: never seen in training"
    assert result.rows[0]["parameters"] is None and result.rows[1]["parameters"] == 1234567
    words = result.document["again"]["all"].split()
    assert words[2:5] == [str(folder), str(folder.with_name("run")), str(folder.with_name("prints.zip"))]


def test_images_stand_in_the_document_the_page_and_the_terminal_and_their_missing_cost_is_explained(mixture):
    result, *_ = mixture
    values = json.loads(result.json.read_text("utf-8"))
    assert values == result.document and values["models"][0]["kind"] == "images"
    assert "seconds" not in values["models"][0] and values["models"][1]["seconds"] == 30.0
    console = Console(file=io.StringIO(), width=160)
    console.print(result.table())
    said = f"Of photos and prints.zip only the images are known: {NO_COST}"
    for text in (result.html.read_text("utf-8"), " ".join(console.file.getvalue().split())):
        assert said in text.replace("<strong>", "").replace("</strong>", "")
    assert "its cost is not known without its model" in result.html.read_text("utf-8")


def test_every_command_of_the_document_stands_on_the_page(mixture):
    """Of the sets of images, too; the contents lead to them."""
    page, models = mixture[0].html.read_text("utf-8"), mixture[0].report.models
    assert [list(model.commands) for model in models] == [["evaluate"], ["train", "sample", "evaluate"], ["evaluate"]]
    for number, model in enumerate(models, 1):
        part = page.partition(f'<details id="settings-{number}">')[2].partition("</details>")[0]
        assert all(str(escape(command)) in part for command in model.commands.values())
        assert part.startswith(f"<summary>{'Settings and commands' if model.trained else 'Commands'}</summary>")
        assert f'href="#settings-{number}"' in page


def test_each_real_image_goes_through_the_network_once(mixture):
    """Whatever is measured by them, and the nearest training images are sought by the same features."""
    _, seen, _ = mixture
    images = make().splits["test"].images
    assert [seen.count(tuple(image.flatten().tolist())) for image in images] == [1] * N


def test_a_column_that_a_set_of_images_cannot_have_is_shared_by_the_models():
    def model(name, kind, *names):
        scores = {name: score(name, 1.0, None, "lower") for name in names}
        return Model(name, scores=scores, kind=kind, trainings=[Training(name, scores=scores)])

    a, b = model("a", "model", "coverage", "ms_per_image"), model("b", "images", "coverage")
    assert [(c.name, c.shared) for c in columns([a, b])] == [("coverage", True), ("ms_per_image", True)]
    other = model("c", "model", "coverage")
    assert [c.shared for c in columns([a, b, other])] == [True, False]


@pytest.mark.slow
def test_a_set_of_images_is_not_measured_again_by_a_comparison_that_is_resumed(tmp_path, monkeypatch):
    """Unless its images are other ones."""
    photos, prints = save(tmp_path / "photos", levels(20, 5)), zipped(save(tmp_path / "prints", levels(20, 6)))
    measured = []

    def stopped_at_the_second(images, **settings):
        measured.append(images.name)
        if measured.count("prints.zip") in (1, 2) and images.name == "prints.zip":
            raise KeyboardInterrupt
        return evaluate(images, **settings)

    monkeypatch.setattr("trilemma.metrics.evaluate", stopped_at_the_second)
    keys = {"against": make(), "features": "digits-cnn", "quiet": True, "out": tmp_path / "out"}
    with pytest.raises(KeyboardInterrupt):
        compare(photos, prints, **keys)
    with pytest.raises(KeyboardInterrupt):
        compare(photos, prints, **keys)
    assert measured == ["photos", "prints.zip", "prints.zip"]
    save(photos, levels(20, 7))
    result = compare(photos, prints, **keys)
    assert measured[3:] == ["photos", "prints.zip"] and not (tmp_path / "out" / "measured").exists()
    expected = evaluate(photos, against=make(), features="digits-cnn", n=N)
    assert result.report.models[0].scores["kernel_distance"].value == expected["kernel_distance"].value


def test_training_images_are_better_than_noise_on_the_command_line(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    save(Path("real"), load_data("digits").train.images[:60])
    save(Path("noise"), levels(60, 1))
    assert main(["compare", "noise", "real", "against=digits", "out=out"]) == 0
    values = json.loads(Path("out/report.json").read_text("utf-8"))
    assert [values["verdict"]["axes"][axis]["first"] for axis in ("fidelity", "diversity")] == [["real"], ["real"]]
    assert values["answer"][0]["text"].startswith("Use real: ")
    noise, real = values["models"]
    assert values["real"]["role"] == UNKNOWN_ROLE
    assert noise["nearest"] == {"refused": "what these images were made from is not known"}
    assert noise["scores"]["kernel_distance"]["interval"][0] > real["scores"]["kernel_distance"]["interval"][1]
    assert "against=digits" in values["again"]["all"] and values["data"]["name"] == "digits"
    assert "Of noise and real only the images are known" in " ".join(capsys.readouterr().out.split())


class Larger:
    """Draws images of 12 x 12, and must not be asked to."""

    name, shape, classes, count = "larger", (1, 12, 12), (), None

    def draw(self, n, *, seed, first, batch, **settings):
        pytest.fail("images were drawn")


class Static:
    """Draws static, image k of a seed whatever the batch."""

    name, shape, classes, count = "static", (1, 8, 8), (), None

    def draw(self, n, *, seed, first, batch, **settings):
        images = levels(first + n, seed)
        for start in range(first, first + n, batch):
            part = images[start : min(start + batch, first + n)]
            yield ImageBatch(part, start, (start, len(part)))


def test_a_contestant_that_draws_is_not_called_a_set_of_images(tmp_path, capsys):
    result = compare(Static(), levels(20, 5), against=make(), features="digits-cnn", n=N, out=tmp_path / "out")
    assert "1 set of images and 1 contestant to measure" in capsys.readouterr().err
    assert [model.name for model in result.report.models] == ["static", "images-2"]
    page = result.html.read_text("utf-8")
    assert "set of images" not in page and "Only the images are known: its cost is not known without its model." in page


def test_what_lies_in_memory_has_its_own_name(tmp_path):
    """Numbered where there are several of one name; an array has none, and is numbered among all."""
    photos = save(tmp_path / "photos", levels(20, 5))
    things = [Larger(), photos, make(), levels(20, 6), make(seed=1), Larger(), Larger(), make(name="photos")]
    names = [entry.name for entry in entries_of(things)]
    folder, data = f"{tmp_path.name}/photos", "photos"  # of one name
    assert names == ["larger", folder, "digits", "images-4", "digits-2", "larger-2", "larger-3", data]


def test_what_does_not_fit_is_refused_before_anything_is_measured(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = run_in(Path("run"))
    photos = save(Path("photos"), levels(20, 5))
    with pytest.raises(UserError, match=r"photos: these are images; add what to measure them against.*against="):
        compare(photos, quiet=True)
    with pytest.raises(UserError, match=r"draws images of 1 x 12 x 12 .* digits are 1 x 8 x 8; resize them"):
        compare(run, Larger(), quiet=True)
    with pytest.raises(UserError, match=r"size=16: finished runs are compared as they are"):
        compare(run, photos, size=16, quiet=True)
    with pytest.raises(UserError, match=r"against=digits: finished runs are compared as they are"):
        compare(run, photos, against="digits", quiet=True)
    with pytest.raises(UserError, match="both name the real images"):
        compare(photos, against="digits", data="digits", quiet=True)
    with pytest.raises(UserError, match="photos is given twice"):
        compare(photos, "./photos", quiet=True)
    with pytest.raises(UserError, match="to train models, give data="):
        compare(against="digits", quiet=True)
    with pytest.raises(UserError, match=r"n=21: .* there are 20 generated ones; choose n from 12 to"):
        compare(photos, against=make(), n=21, quiet=True)


def test_images_are_read_in_the_shape_that_a_run_draws(tmp_path):
    """A folder and an array of larger images; what is in colour becomes grey, and both is said."""
    large = save(tmp_path / "large", levels(20, 5, side=12))
    array = levels(20, 6, side=16).expand(-1, 3, -1, -1)
    entries = entries_of([run_in(tmp_path / "run"), large, array])
    prepare_images(entries, (1, 8, 8), "digits")
    _, folder, memory = (entry.contestant for entry in entries)
    expected = load_data(large, size=8)
    assert {tuple(x.flatten().tolist()) for x in folder.images.take(torch.arange(20)).images} == {
        tuple(x.flatten().tolist()) for split in expected.splits.values() for x in split.images
    }
    (scaled,) = folder.notes
    assert scaled.startswith("all images are 12x12: each is scaled (Lanczos) to cover 8x8")
    assert torch.equal(memory.images.take(torch.arange(20)).images, fit(levels(20, 6, side=16), (8, 8), 1))
    assert memory.notes[1] == "colour images, measured as grey" and memory.shape == (1, 8, 8)


@pytest.mark.slow
def test_sets_of_images_are_compared_in_the_size_asked_for(tmp_path):
    """Which is in the commands, too: the same again measures the same."""
    sets = [save(tmp_path / name, levels(20, k, side=9 + k)) for k, name in enumerate(("photos", "prints"))]
    real = save(tmp_path / "real", levels(60, 9, side=12))
    keys = {"against": real, "features": "digits-cnn", "quiet": True, "n": N, "out": tmp_path / "out"}
    report = compare(*sets, size=6, **keys).report
    assert [*report.data.shape] == [1, 6, 6] and "size=6x6" in report.again["all"]
    again = report.models[0].commands["evaluate"]
    score = evaluate(sets[0], against=real, features="digits-cnn", n=N, size=6, split="all")["density"]
    assert "size=6x6" in again and report.models[0].scores["density"].value == score.value


def test_a_set_of_images_draws_by_number_and_its_seed_only_chooses_the_order(tmp_path):
    images = levels(20, 5)
    photos = contestant_of(save(tmp_path / "photos", images))
    assert (photos.name, photos.shape, photos.count) == ("photos", (1, 8, 8), 20)

    def drawn(n, **keys):
        return torch.cat([part.images for part in photos.draw(n, **keys)])

    whole = drawn(20, seed=3)
    assert torch.equal(whole[4:13], torch.cat([drawn(5, seed=3, first=4, batch=2), drawn(4, seed=3, first=9)]))
    assert not torch.equal(whole, drawn(20))
    for order in (whole, drawn(20)):
        assert sorted(order.flatten(1).tolist()) == sorted(images.flatten(1).tolist())
    with pytest.raises(UserError, match="photos holds 20 images"):
        drawn(15, first=6)
    with pytest.raises(UserError, match="steps: sampling settings are for a run"):
        drawn(15, steps=3)


@pytest.mark.slow
def test_a_folder_a_zip_an_array_file_and_an_array_are_measured_alike(tmp_path):
    import numpy as np

    images = levels(20, 5)
    folder = save(tmp_path / "photos", images)
    np.save(tmp_path / "photos.npy", images[:, 0].numpy())
    things = (folder, zipped(folder), tmp_path / "photos.npy", images)
    real = load_data(levels(60, 9))
    first, *others = (evaluate(thing, against=real, features=FLAT, n=20) for thing in things)
    for other in others:  # their order may differ
        assert other["kernel_distance"].value == pytest.approx(first["kernel_distance"].value, abs=1e-12)
        assert other["density"].value == first["density"].value
    assert "the generated images are all 20 of photos" in " ".join(first.notes)


def test_a_fault_is_shown_with_where_it_happened_if_that_is_asked_for(stage, monkeypatch, capsys):
    stage.broken = {"vae": RuntimeError("out of memory")}
    for debug in ("0", "1"):
        monkeypatch.setenv("TRILEMMA_DEBUG", debug)
        with pytest.raises(UserError, match="no model could be compared"):
            compare(models="vae")
        text = capsys.readouterr().err
        assert ("Traceback" in text and "conftest.py" in text) is (debug == "1")
        assert "vae failed: RuntimeError: out of memory" in text
