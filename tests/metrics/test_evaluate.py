"""Evaluation from end to end on sets that are known to be good, collapsed, incomplete, copied or noise."""

import inspect
import json
from importlib import import_module
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from trilemma.classifiers.bundled import FeatureNetwork
from trilemma.cli.evaluation import warning
from trilemma.data import Data, Split, load_data
from trilemma.data.split import held_out_split
from trilemma.errors import UserError
from trilemma.metrics import Score, evaluate, neighbours
from trilemma.metrics.catalogue import COST, QUALITY, names_that_need
from trilemma.metrics.reals import caveats, choose_reals
from trilemma.pictures.grid import grid
from trilemma.pictures.png import save_png
from trilemma.run.run import Run
from trilemma.types import draw

SHAPE = (1, 6, 6)


class Pixels(nn.Module):
    """Features that need no training: the pixels."""

    def features(self, image):
        return image.flatten(1)


PIXELS = FeatureNetwork("pixels", Pixels(), SHAPE)


def images_of(classes, n, seed):
    """Images of the given classes at random: a template each, and noise; uint8 (n, 1, 6, 6)."""
    templates = torch.rand(10, *SHAPE, generator=torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(seed + 1)
    noise = 0.05 * torch.randn(n, *SHAPE, generator=generator)
    label = torch.tensor(classes)[torch.randint(len(classes), (n,), generator=generator)]
    return ((templates[label] + noise).clamp(0, 1) * 255).round().to(torch.uint8)


def data_of(n=400, shape=SHAPE):
    splits = {name: Split(images_of(range(10), n, seed)) for name, seed in (("train", 1), ("valid", 2), ("test", 3))}
    return Data("made-up", "made-up", shape, (), splits, (), (), "fingerprint")


class Gallery(nn.Module):
    """Gives out stored images in order, one pass of its network each."""

    def __init__(self, images):
        super().__init__()
        self.images = images.float() / 255
        self.sampling_network = nn.Linear(1, 1)

    def sample(self, n, *, seed, first=0, condition=None, calls=1):
        for _ in range(calls):
            self.sampling_network(torch.zeros(n, 1))
        return self.images[first : first + n]


class FakeRun(Run):
    """A run that is in no folder."""

    path = weights_id = unfinished = seconds = None  # in place of what a folder says

    def __init__(self, path, model, data):
        self.path, self.model, self.data = path, model, data
        self.model_config = SimpleNamespace(shape=SHAPE)
        self.config, self.weights_id = {"fingerprint": data and data.fingerprint}, "0123456789abcdef"

        self.recipe = SimpleNamespace(name="gallery")
        self.seconds = 12.5

    def sample(self, n, *, seed=0, first=0, batch=256, keys=None):
        return draw(self.model, n, seed=seed, first=first, keys=keys)


def run_of(tmp_path, images, data=None):
    return FakeRun(tmp_path, Gallery(images), data or data_of())


def measure(tmp_path, images):
    return evaluate(run_of(tmp_path, images), features=PIXELS, n=400)


def worse(bad, good):
    """Whether the kernel distance is larger by more than both intervals allow."""
    return bad["kernel_distance"].interval[0] > good["kernel_distance"].interval[1]


@pytest.fixture
def good(tmp_path):
    """Other images of the same distribution as the real ones."""
    return measure(tmp_path, images_of(range(10), 400, seed=9))


def test_good_images(good):
    low, high = good["kernel_distance"].interval
    assert low < 0 < high
    assert good["precision"].value > 0.7
    assert good["recall"].value > 0.7
    assert good["calls_per_image"].value == 1
    assert good["ms_per_image"].value > 0


def test_collapsed_generator(tmp_path, good):
    bad = measure(tmp_path, images_of(range(10), 1, seed=9).expand(400, *SHAPE))
    assert worse(bad, good)
    assert bad["recall"].value == 0


def test_noise(tmp_path, good):
    noise = torch.randint(0, 256, (400, *SHAPE), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
    bad = measure(tmp_path, noise)
    assert worse(bad, good)
    assert bad["precision"].value == 0


def test_dropped_classes(tmp_path, good):
    """Half the classes: what is drawn is as plausible as before, half of the real images are not covered."""
    bad = measure(tmp_path, images_of(range(5), 400, seed=9))
    assert worse(bad, good)
    assert bad["precision"].value == pytest.approx(good["precision"].value, abs=0.1)
    assert bad["recall"].value == pytest.approx(0.5 * good["recall"].value, abs=0.1)


def test_few_images_repeated(tmp_path, good):
    """Twenty good images over and over: as plausible as before, but they cover next to nothing."""
    bad = measure(tmp_path, images_of(range(10), 20, seed=9).repeat(20, 1, 1, 1))
    assert bad["precision"].value == pytest.approx(good["precision"].value, abs=0.2)
    assert bad["recall"].value < 0.05


def test_copied_training_images(tmp_path, good):
    """A copy of the training set passes for good by every figure here: that is what the nearest images are for."""
    bad = measure(tmp_path, data_of().train.images)
    assert not worse(bad, good)
    assert bad["recall"].value == pytest.approx(good["recall"].value, abs=0.1)


def test_receipts_are_written(tmp_path):
    run = run_of(tmp_path, images_of(range(10), 400, seed=9))
    evaluation = evaluate(run, features=PIXELS, n=300, calls=2)
    files = sorted(path.name for path in (tmp_path / "metrics").iterdir())
    assert "kernel_pixels_300_test_calls-2.json" in files
    assert len(files) == len(evaluation.scores)
    of_images, of_cost = (names_that_need(what, detail=True) for what in ("images", "sampler"))
    expected = {*QUALITY, *COST, *of_images, *of_cost} - {"class_diversity"}  # which is of data with classes
    assert {score.name for score in evaluation.scores} == expected
    for score in evaluation.scores:
        (file,) = [f for f in files if f.startswith(score.protocol)]
        assert Score.from_json(json.loads((tmp_path / "metrics" / file).read_text("utf-8"))) == score
        assert score.settings == {"calls": 2}
    authenticity, inception = evaluation["authenticity"], evaluation["inception_score"]
    assert (authenticity.n_real, authenticity.n_fake, authenticity.split) == (400, 300, "train")
    assert authenticity.protocol == "authenticity_pixels_300_train" and authenticity.value > 0.2
    near = evaluation["near_copies"]
    assert near.protocol == "near-copies_pixels_300_train_300_test" and near.value <= 0.05
    assert near.versions["held_out"] == "300 images of test" and "held_out" not in authenticity.versions
    assert (inception.n_real, inception.split, inception.data) == (0, "none", "")
    assert inception.protocol == "inception_pixels_300"
    kernel = evaluation["kernel_distance"]
    assert (kernel.n_real, kernel.n_fake, kernel.split, kernel.resize) == (300, 300, "test", "none")
    assert (kernel.data, kernel.data_fingerprint) == ("made-up", "fingerprint")
    of_features = {score.name for score in evaluation.scores if score.features != "none"}
    assert of_features == {score.name for score in evaluation.scores if "feature_device" in score.versions}
    assert evaluation["calls_per_image"].value == 2
    assert evaluation.fakes.shape == (300, *SHAPE)
    assert evaluation.fakes.dtype == torch.uint8
    with pytest.raises(UserError, match="unknown score"):
        evaluation["fid"]


def test_how_every_score_of_images_scatters_is_kept():
    """Of those that stand beside the columns, too; a mean over trainings has its interval from it."""
    data = load_data("digits")
    evaluation = evaluate(data.train.images[:120], against=data, n=120)
    assert {"density", "kernel_distance", "inception_score", "class_diversity"} <= evaluation.spreads.keys()
    for name, spread in evaluation.spreads.items():
        assert evaluation[name].interval == spread.estimate().interval


def test_near_copies_by_other_held_out_images_are_another_score(tmp_path):
    """Their threshold is made by the images of the split; authenticity knows the training images alone."""
    run = run_of(tmp_path, images_of(range(10), 120, seed=9))
    by_valid, by_test = (evaluate(run, features=PIXELS, n=120, split=split) for split in ("valid", "test"))
    assert by_valid["near_copies"].protocol != by_test["near_copies"].protocol
    assert len([*(tmp_path / "metrics").glob("near-copies_pixels_120_train_120_*.json")]) == 2
    assert by_valid["authenticity"] == by_test["authenticity"]


@pytest.mark.slow
def test_frechet_needs_2048_images(tmp_path):
    few = evaluate(run_of(tmp_path, images_of(range(10), 400, seed=9)), features=PIXELS)
    assert few["frechet_distance"].value is None
    assert few["frechet_distance"].interval is None
    assert "use the kernel distance" in few["frechet_distance"].refused
    assert any("refused" in note for note in few.notes)
    run = run_of(tmp_path, images_of(range(10), 2048, seed=9), data_of(2048))
    many = evaluate(run, features=PIXELS)
    assert many["frechet_distance"].refused is None
    assert many["frechet_distance"].value == pytest.approx(0, abs=0.05)
    assert many["frechet_distance"].protocol == "frechet_pixels_2048_test"
    assert {"frechet_distance", "frechet_infinity"} <= many.spreads.keys()


def test_repeats_itself(tmp_path):
    run = run_of(tmp_path, images_of(range(10), 400, seed=9))
    first, second = (evaluate(run, features=PIXELS, n=100, batch=b) for b in (64, 13))
    for name in ("kernel_distance", "precision", "recall"):
        assert first[name] == second[name]


def test_other_split_and_other_data(tmp_path):
    run = run_of(tmp_path, images_of(range(10), 400, seed=9))
    assert evaluate(run, features=PIXELS, n=50, split="train")["recall"].protocol == "recall_pixels_50_train"
    with pytest.raises(UserError, match=r'unknown split "tset".*"test"'):
        evaluate(run, features=PIXELS, split="tset")


def sized(**counts):
    splits = {name: Split(torch.zeros(count, *SHAPE, dtype=torch.uint8)) for name, count in counts.items()}
    return Data("sized", "sized", SHAPE, (), splits, (), (), "fingerprint")


@pytest.mark.parametrize(
    ("counts", "chosen"),
    [
        ({"train": 100, "valid": 50, "test": 12}, ("test", 12)),
        ({"train": 100, "valid": 50, "test": 11}, ("valid", 50)),  # halves of 12 images have a fifth neighbour
        ({"train": 100, "valid": 12}, ("valid", 12)),
        ({"train": 100, "valid": 11}, ("train", 100)),
        ({"train": 27, "valid": 3}, ("train", 27)),
        ({"train": 9000, "valid": 9000}, ("valid", 2500)),
    ],
)
def test_the_real_images_that_are_measured_against(counts, chosen):
    assert choose_reals(sized(**counts)) == chosen
    if chosen[0] != "train":  # every other verb takes the same split
        assert sized(**counts).held_out[0] == chosen[0]


def test_one_number_of_images_can_be_measured_by_everywhere():
    assert inspect.signature(held_out_split).parameters["least"].default == neighbours.LEAST


def test_too_few_images_are_refused_without_an_empty_range():
    with pytest.raises(UserError, match=r"train split of sized has 3 images; a measurement needs 12 on either side; "):
        choose_reals(sized(train=3, valid=1))
    with pytest.raises(UserError, match=r"has 27 images; choose n from 12 to 27"):
        choose_reals(sized(train=27, valid=3), 28)
    with pytest.raises(UserError, match=r"2 generated ones; a measurement needs 12 .* with `trilemma evaluate`"):
        choose_reals(sized(train=27, valid=3), n_fake=2)


@pytest.mark.parametrize("n", [2, 3, 11, 12])
def test_of_few_images_what_is_exact_is_measured_and_the_rest_refused(tmp_path, n):
    """Distances to neighbours need 12 images, the kernel distance 3; each image alone and the cost need none other."""
    evaluation = evaluate(run_of(tmp_path, images_of(range(10), n, seed=9)), features=PIXELS, n=n)
    kernel, copies = evaluation["kernel_distance"], evaluation["authenticity"]
    for name in ("density", "coverage", "precision", "recall"):
        reason = evaluation[name].refused or ""
        assert (f"need at least 12 images on either side, not {n}; give more images" in reason) == (n < 12)
    assert (kernel.refused == "a kernel distance needs at least 3 images on either side, not 2 and 2") == (n < 3)
    assert n < 3 or kernel.interval[0] < kernel.value < kernel.interval[1]
    assert copies.n_fake == n and round(n * copies.value) == pytest.approx(n * copies.value)
    assert evaluation["ms_per_image"].value > 0 and evaluation["calls_per_image"].value == 1
    assert evaluation.learned_nothing is None
    assert any("precision and recall are rough" in note for note in evaluation.notes) == (n == 12)


def test_a_copy_is_known_among_two_images_and_one_image_is_too_few(tmp_path):
    data = data_of()
    assert evaluate(run_of(tmp_path, data.train.images[:2], data), features=PIXELS, n=2)["authenticity"].value == 0
    with pytest.raises(UserError, match="there are 1 generated ones; a measurement needs 2 on either side; give more"):
        evaluate(images_of([1], 1, seed=2), against=data, features=PIXELS)


def test_caveats_of_few_images_and_of_training_images():
    assert caveats(sized(train=1000, valid=200), "valid", 200, own=True) == []
    assert "199 generated images" in str(caveats(sized(train=1000, valid=199), "valid", 199, own=True)[0])
    (seen,) = caveats(sized(train=300, valid=3), "train", 300, own=True)
    assert "seen in training (the valid split has 3)" in str(seen)
    assert caveats(sized(train=300, valid=3), "train", 300, own=False) == []
    (among,) = caveats(sized(train=300, valid=3), "all", 300, own=True)
    assert "include the training images" in str(among)
    assert caveats(sized(train=300, valid=3), "all", 300, own=False) == []


@pytest.mark.slow
def test_notes_say_what_the_real_images_were_in_training(tmp_path):
    run = run_of(tmp_path, images_of(range(10), 400, seed=9))
    splits = (*run.data.splits, "all")
    notes = {split: " ".join(evaluate(run, features=PIXELS, n=60, split=split).notes) for split in splits}
    assert "never seen in training" in notes["test"]
    assert "used to select the best checkpoint" in notes["valid"]
    assert "were seen in training" in notes["train"]
    assert "among them those trained on" in notes["all"] and "no model was trained" not in notes["all"]
    save_images(tmp_path / "reals", images_of(range(10), 60, seed=3))
    other = evaluate(run, against=str(tmp_path / "reals"), features=PIXELS)
    assert "training" not in " ".join(other.notes)
    assert other["recall"].protocol == "recall_pixels_60_reals-all"  # none is held out: no model was trained on them


def test_images_that_changed_since_the_training_are_said(tmp_path):
    class Changed(FakeRun):
        data = property(lambda self: self.refuse(), lambda self, data: None)

        def refuse(self):
            raise UserError("the images in photos have changed since x was trained")

    run = Changed(tmp_path, Gallery(images_of(range(10), 60, seed=9)), None)
    with pytest.raises(UserError, match="images in photos have changed"):
        evaluate(run, features=PIXELS)
    save_images(tmp_path / "reals", images_of(range(10), 60, seed=3))
    assert evaluate(run, against=str(tmp_path / "reals"), features=PIXELS).scores  # other images do not need them


@pytest.mark.parametrize("n", [0, 1, 401])
def test_numbers_that_do_not_fit(tmp_path, n):
    with pytest.raises(UserError, match="choose n from 2 to 400"):
        evaluate(run_of(tmp_path, images_of(range(10), 400, seed=9)), features=PIXELS, n=n)


def test_images_that_are_not_finite(tmp_path):
    run = run_of(tmp_path, images_of(range(10), 400, seed=9))
    run.model.images[7] = torch.nan
    with pytest.raises(UserError, match=r"1 of 256 images hold NaN or infinite values \(the first is number 7\)"):
        evaluate(run, features=PIXELS, n=400)
    assert not (tmp_path / "metrics").exists()


def test_model_that_cannot_sample(tmp_path):
    run = run_of(tmp_path, images_of(range(10), 400, seed=9))
    run.model = nn.Linear(1, 1)
    with pytest.raises(UserError, match=r"gallery does not draw samples; models that do: .*vae"):
        evaluate(run, features=PIXELS)


def save_images(folder, images):
    from PIL import Image

    folder.mkdir()
    for i, image in enumerate(images):
        Image.fromarray(image[0].numpy()).save(folder / f"{i:04}.png")


def test_folder_of_images(tmp_path):
    images = images_of(range(10), 60, seed=9)
    save_images(tmp_path / "fakes", images)
    save_images(tmp_path / "reals", images_of(range(10), 100, seed=3))
    evaluation = evaluate(tmp_path / "fakes", against=str(tmp_path / "reals"), features=PIXELS, split="train", n=50)
    names = {"frechet_distance", "kernel_distance", "density", "coverage", "precision", "recall"}
    assert {score.name for score in evaluation.scores} == {*names, "frechet_infinity", "inception_score"}
    assert evaluation["inception_score"].refused == "the feature network pixels is not a classifier"
    assert evaluation["frechet_infinity"].refused == evaluation["frechet_distance"].refused
    assert evaluation["precision"].value > 0.5
    assert "reals-train" in evaluation["precision"].protocol
    everything = {tuple(image.flatten().tolist()) for image in images}
    assert {tuple(image.flatten().tolist()) for image in evaluation.fakes} <= everything
    with pytest.raises(UserError, match="against="):
        evaluate(tmp_path / "fakes", features=PIXELS)
    with pytest.raises(UserError, match="steps"):
        evaluate(tmp_path / "fakes", against=str(tmp_path / "reals"), features=PIXELS, steps=3)


def enlarged(images, factor):
    return images.repeat_interleave(factor, 2).repeat_interleave(factor, 3)


@pytest.mark.slow
def test_large_images_are_measured_in_the_size_of_the_real_ones(tmp_path, monkeypatch):
    """Of 162 px, which a training would see at 64 px; or in the size asked for."""
    asked = []

    def pixels(name, shape, data_name):
        asked.append(shape)
        return FeatureNetwork("pixels", Pixels(), SHAPE)

    monkeypatch.setattr(import_module("trilemma.metrics.evaluate"), "feature_network", pixels)
    save_images(tmp_path / "fakes", enlarged(images_of(range(10), 12, seed=9), 33))
    save_images(tmp_path / "reals", enlarged(images_of(range(10), 14, seed=3), 27))
    evaluation = evaluate(tmp_path / "fakes", against=str(tmp_path / "reals"))
    assert asked == [(1, 162, 162)] and evaluation.fakes.shape == (12, 1, 162, 162)
    scaled = "all images are 198x198: each is scaled (Lanczos) to cover 162x162 and its centre is kept"
    assert f"generated images: {scaled}" in evaluation.notes
    assert evaluation["density"].reading == f"generated images: {scaled}"
    smaller = evaluate(tmp_path / "fakes", against=str(tmp_path / "reals"), size=30)
    assert asked[1:] == [(1, 30, 30)] and smaller.fakes.shape == (12, 1, 30, 30)
    assert sum("to cover 30x30" in note for note in smaller.notes) == 2  # of either side


def test_images_that_cannot_be_read_are_said_of_either_side(tmp_path):
    for name, seed in (("fakes", 9), ("reals", 3)):
        save_images(tmp_path / name, images_of(range(10), 14, seed=seed))
        whole = (tmp_path / name / "0000.png").read_bytes()
        (tmp_path / name / "0000.png").write_bytes(whole[: len(whole) // 2])
    evaluation = evaluate(tmp_path / "fakes", against=str(tmp_path / "reals"), features=PIXELS)
    for side in ("real", "generated"):
        (note,) = [x for x in evaluation.notes if x.startswith(f"{side} images: 1 unreadable and skipped: 0000.png: ")]
        assert note in evaluation["density"].reading
    assert len(evaluation.fakes) == 13


def test_a_size_of_its_own_is_refused_for_a_model(tmp_path):
    run = run_of(tmp_path, images_of(range(10), 20, seed=9))
    with pytest.raises(UserError, match="size=12: gallery is measured in the size that it draws; leave size out"):
        evaluate(run, features=PIXELS, size=12)


def test_our_grids_in_a_folder_of_images_are_refused(tmp_path):
    images = images_of(range(10), 30, seed=9)
    save_images(tmp_path / "fakes", images)
    save_images(tmp_path / "reals", images_of(range(10), 60, seed=3))
    save_png(images[0], tmp_path / "fakes" / "single.png", {"n": 1, "grid": False, "weights": [1]})
    evaluation = evaluate(tmp_path / "fakes", against=str(tmp_path / "reals"), features=PIXELS)
    assert len(evaluation.fakes) == 31
    (tmp_path / "fakes" / "more").mkdir()
    save_png(grid(images), tmp_path / "fakes" / "more" / "sheet.png", {"n": 30, "grid": True})
    save_png(grid(images), tmp_path / "fakes" / "last.png", {"n": 30})
    with pytest.raises(UserError, match=r"2 grids of several: last.png, more/sheet.png; give a folder of single"):
        evaluate(tmp_path / "fakes", against=str(tmp_path / "reals"), features=PIXELS)


def test_images_without_a_model_are_not_called_a_model():
    text = "learned nothing yet: its samples are no nearer the real images than the mean image"
    of_run, of_folder = (
        SimpleNamespace(scores=(SimpleNamespace(weights=weights),), learned_nothing=text) for weights in ("0f3a", "")
    )
    assert warning(of_run) == f"this model has {text}"
    assert warning(of_folder) == "these images are no nearer the real images than the mean image"


def test_images_in_memory_are_measured_as_those_of_loaded_data():
    result = images_of([0, 1, 2], 60, 7)
    keys = {"against": data_of(60), "features": PIXELS}
    by_tensor, by_array = evaluate(result.float() / 255, **keys), evaluate(result[:, 0].numpy(), **keys)
    assert torch.equal(by_tensor.fakes, by_array.fakes) and len(by_tensor.fakes) == 60
    assert [score.value for score in by_tensor.scores] == [score.value for score in by_array.scores]
    with pytest.raises(UserError, match=r"^array holds images; add what to measure"):
        evaluate(result)
    with pytest.raises(UserError, match=r"values from 0 to 255; scale them"):
        evaluate(result.float(), **keys)
    with pytest.raises(UserError, match=r"^what=5: give a run, a path, an array or tensor of images, or loaded data$"):
        evaluate(5, **keys)
    with pytest.raises(UserError, match=r"^n='5': give a whole number"):
        evaluate(result, **(keys | {"n": "5"}))


def test_a_likelihood_that_cannot_be_computed_is_refused_before_anything_is_drawn(tmp_path, monkeypatch):
    run = run_of(tmp_path, images_of(range(10), 60, seed=9))
    monkeypatch.setattr(run.model, "sample", lambda n, **_: pytest.fail("images were drawn"))
    with pytest.raises(UserError, match="gallery does not take likelihood=flow: it has no path from images to noise"):
        evaluate(run, features=PIXELS, n=60, likelihood="flow")
    with pytest.raises(UserError, match="likelihood=flow with bound_samples=0: a path has at least 2 points"):
        evaluate(run, features=PIXELS, n=60, likelihood="flow", bound_samples=0)
    with pytest.raises(UserError, match="images have no likelihood"):
        evaluate(images_of([1], 60, seed=1), against=data_of(), features=PIXELS, likelihood="flow")
