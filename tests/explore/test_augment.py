"""Synthetic images: what lies in the folder, and a verdict that says so of images known to be good or mislabelled."""

import json
import math
from types import SimpleNamespace
from zipfile import ZipFile

import pytest
import torch
from torch import nn

import trilemma
from trilemma import rng
from trilemma.data import load_data
from trilemma.errors import UserError
from trilemma.explore import again
from trilemma.explore.augment import augment
from trilemma.explore.usefulness import BOTH, CLASSICAL, REAL, SYNTHETIC, decide, plan_verdict
from trilemma.pictures.levels import to_uint8
from trilemma.pictures.png import read_metadata
from trilemma.training.loop import Trainer
from trilemma.types import UNCONDITIONAL, Condition

T_2 = 0.95 * math.sqrt(2 / (4 * 0.975 * 0.025))  # 97.5% point of Student's t with 2 degrees of freedom


class Copies(nn.Module):
    """Draws training images of the class asked for, or of the class `off` beside it, with a little noise."""

    n_classes = 10

    def __init__(self, split, off=0):
        super().__init__()
        self.sampling_network = nn.Linear(1, 1)
        self.images, self.off = [split.images[split.labels == c].float() / 255 for c in range(10)], off

    def sample(self, n, *, seed, first=0, condition=UNCONDITIONAL, noise: float = 0.02):
        ids = torch.arange(first, first + n)
        labels = (ids % 10 if condition.label is None else condition.label) + self.off
        images = torch.stack([self.images[int(c) % 10][int(k) % 100] for c, k in zip(labels, ids, strict=True)])
        return (images + noise * rng.normal(ids, (1, 8, 8), seed, "copies")).clamp(0, 1)


def run_of(folder, off=0):
    run = trilemma.load(folder, device="cpu")
    run.model = Copies(run.data.train, off)
    return run


def test_the_folder_holds_the_classes_and_loads_again(folder, tmp_path):
    run = run_of(folder)
    augmentation = augment(run, n=43, seed=5, batch=4, out=tmp_path / "made", verdict=False, quiet=True)
    assert augmentation.counts == {str(c): 5 if c < 3 else 4 for c in range(10)} and augmentation.verdict is None
    assert {f.name: len(list(f.glob("*.png"))) for f in augmentation.folder.iterdir()} == augmentation.counts
    data = load_data(augmentation.folder)
    assert data.classes == run.data.classes and sum(map(len, data.splits.values())) == 43
    for split in data.splits.values():
        for image, label, name in zip(split.images, split.labels, split.names, strict=True):
            k = int(name.split("/")[-1].removesuffix(".png"))
            expected = run.model.sample(1, seed=5, first=k, condition=Condition(torch.tensor([label])))
            assert torch.equal(image, to_uint8(expected)[0])
    assert augmentation.grid == tmp_path / "made.png" and read_metadata(augmentation.grid)["grid"]


def test_every_image_says_how_it_was_made(folder, tmp_path):
    run = run_of(folder)
    augmentation = augment(run, n=20, out=tmp_path / "made", verdict=False, quiet=True, noise=0.1)
    image = augmentation.folder / "7" / "00015.png"
    receipt = read_metadata(image)
    assert (receipt["label"], receipt["first"], receipt["n"], receipt["settings"]) == ("7", 15, 1, {"noise": 0.1})
    assert again(image, run=run, out=tmp_path / "again.png").equal


def test_names_that_no_folder_can_have(folder, tmp_path):
    run = run_of(folder)
    names = ["T-shirt/top", "a:b", "a?b", *map(str, range(7))]
    run.config = {**run.config, "classes": names}
    augmentation = augment(run, n=30, out=tmp_path / "made", archive=True, verdict=False, quiet=True)
    folders = {path.name for path in augmentation.folder.iterdir() if path.is_dir()}
    assert folders == {"T-shirt-top", "a-b-1", "a-b-2", *map(str, range(7))}
    for source in (augmentation.folder, augmentation.archive):
        data = load_data(source)
        assert sorted(data.classes) == sorted(names)
        counts = sum(torch.bincount(split.labels, minlength=10) for split in data.splits.values())
        assert counts.tolist() == [3] * 10
    with ZipFile(augmentation.archive) as archive:
        assert sum(name.endswith(".png") for name in archive.namelist()) == 30
    assert sorted(p.name for p in tmp_path.iterdir()) == ["made", "made.png", "made.zip"]


def test_images_of_another_call_are_not_mixed_in(folder, tmp_path):
    run = run_of(folder)
    keys = {"out": tmp_path / "made", "verdict": False, "quiet": True}
    augment(run, n=30, **keys)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.png")}
    augment(run, n=30, **keys)  # the same images again
    assert before == {path: path.read_bytes() for path in tmp_path.rglob("*.png")}
    with pytest.raises(UserError, match=r"holds other images.*choose another out="):
        augment(run, n=20, **keys)


def accuracies(both, real=(0.80, 0.90, 0.85), classical=(0.80, 0.90, 0.85)):
    return {REAL: real, CLASSICAL: classical, BOTH: both, SYNTHETIC: (0.5, 0.5, 0.5)}


def test_the_difference_is_paired():
    """d = 0.02, 0.03, 0.04 while the accuracies are 0.05 apart: the common part drops out."""
    word, accuracy, difference, gain = decide(accuracies((0.82, 0.93, 0.89)), 10_000)
    half = T_2 * 0.01 / math.sqrt(3)
    assert word == "help" and difference[BOTH].value == pytest.approx(0.03)
    assert difference[BOTH].interval == pytest.approx((0.03 - half, 0.03 + half)) and gain == difference[BOTH]
    assert accuracy[BOTH].interval[0] < accuracy[REAL].value
    assert accuracy[REAL].value == pytest.approx(0.85) and difference[SYNTHETIC].value == pytest.approx(-0.35)
    assert all(0 <= low <= high <= 1 for _, (low, high) in accuracy.values())


@pytest.mark.parametrize(
    ("both", "word"),
    [
        ((0.82, 0.92, 0.87), "help"),
        ((0.78, 0.88, 0.83), "hurt"),
        ((0.82, 0.88, 0.85), "no effect shown"),
        ((0.80, 0.90, 0.85), "no effect shown"),
        ((0.81, 0.92, 0.88), "no effect shown"),  # 0.02 +- 0.0248
    ],
)
def test_the_word_follows_the_interval(both, word):
    assert decide(accuracies(both), 10_000)[0] == word


def test_one_test_image_more_in_each_training_is_no_evidence():
    """s is at least 1 / n: with 3 trainings the half width is 2.48 / n."""
    one_more = tuple(a + 1 / 100 for a in (0.80, 0.90, 0.85))
    word, _, difference, _ = decide(accuracies(one_more), 100)
    assert word == "no effect shown"
    assert difference[BOTH].interval[1] == pytest.approx(0.01 + T_2 * 0.01 / math.sqrt(3))
    assert decide(accuracies(one_more), 1_000)[0] == "help"


def test_an_interval_stays_within_what_a_difference_of_shares_can_be():
    """Two trainings that differ much: Student's t with one degree of freedom is 12.7."""
    decision = decide({REAL: (1.0, 0.2), CLASSICAL: (1.0, 0.2), BOTH: (0.2, 0.9), SYNTHETIC: (0.1, 0.1)}, 100)
    assert decision[0] == "no effect shown" and decision[2][BOTH].interval == (-1.0, 1.0)
    assert decision[1][BOTH].interval == (0.0, 1.0)


@pytest.mark.slow
def test_good_images_help_and_mislabelled_ones_hurt(folder, tmp_path):
    """30 real images; the synthetic ones are the other training images, then the same with the next digit's label."""
    keys = {"n": 500, "real": 30, "steps": 25, "quiet": True}
    good = augment(run_of(folder), out=tmp_path / "good", **keys).verdict
    bad = augment(run_of(folder, off=1), out=tmp_path / "bad", **keys).verdict
    assert good.word == "help" and good.text.startswith("Synthetic images help: ")
    assert bad.word == "hurt" and bad.accuracy[SYNTHETIC].value < 0.1
    assert good.accuracies[REAL] == bad.accuracies[REAL]  # nothing synthetic in them
    assert (good.n_real, good.n_synthetic, good.n_test, good.classical) == (30, 500, 360, ("shift",))
    assert [name for name, *_ in good.rows] == [REAL, CLASSICAL, BOTH, SYNTHETIC]
    assert any("30 of them" in note for note in good.notes)
    written = json.loads((tmp_path / "good" / "verdict.json").read_text("utf-8"))
    assert written["word"] == "help" and written["accuracies"]["real"] == list(good.accuracies[REAL])
    assert written["difference"][BOTH]["value"] == good.difference[BOTH].value
    scores = [json.loads(file.read_text("utf-8")) for file in (folder / "metrics").glob("*.json")]
    values = {score["name"]: (score["value"], score["n_real"], score["n_fake"], score["split"]) for score in scores}
    assert values["usefulness"] == (bad.difference[BOTH].value, 30, 500, "test")  # the last one called
    assert values["synthetic_accuracy"] == (bad.accuracy[SYNTHETIC].value, 30, 500, "test")
    assert values["usefulness_over_classical"] == (bad.gain.value, 30, 500, "test")
    (over,) = (score for score in scores if score["name"] == "usefulness_over_classical")
    assert over["protocol"].endswith("_25-steps_3-trainings_shift_30_500_test")


@pytest.mark.slow
def test_trainings_are_alike_and_repeat(folder, tmp_path, monkeypatch):
    """The same number of steps for each kind; a seed gives the same verdict again, another one another."""
    taken, run = [], Trainer.run

    def counted(trainer):
        run(trainer)
        taken.append((trainer.calendar.step, len(trainer.data.train), trainer.config.augment, trainer.config.seed))

    monkeypatch.setattr(Trainer, "run", counted)
    keys = {"n": 20, "real": 40, "steps": 3, "seeds": 2, "classical": "flip", "quiet": True}
    own = run_of(folder)
    before = torch.get_rng_state()
    one, other, third = (augment(own, out=tmp_path / f"{k}", seed=s, **keys) for k, s in enumerate((0, 0, 1)))
    assert torch.equal(before, torch.get_rng_state())
    assert one.verdict == other.verdict and one.verdict.accuracies != third.verdict.accuracies
    sizes = [(3, 40, ()), (3, 40, ("flip",)), (3, 60, ()), (3, 20, ())]
    assert [row[:3] for row in taken[:8]] == [*sizes, *sizes]
    assert [len({row[3] for row in taken[k : k + 4]}) for k in (0, 4)] == [1, 1] and taken[0][3] != taken[4][3]


def test_what_is_refused(folder, tmp_path):
    run, keys = run_of(folder), {"out": tmp_path / "made", "quiet": True}
    with pytest.raises(
        UserError, match="vae does not draw a class that is asked for: it was trained without labels; models that do: "
    ):
        augment(folder, **keys)
    for mistake, text in (
        ({"n": 9}, "at least one image for each of the 10 classes"),
        ({"seeds": 1}, "seeds=1: give a whole number of at least 2"),
        ({"real": 0}, "choose from 1 to"),
        ({"real": 10**6}, "digits has .* training images"),
        ({"steps": 0}, "steps"),
        ({"classical": "shft"}, r'unknown transform "shft".*"shift"'),
        ({"nois": 1}, 'unknown key "nois"'),
    ):
        with pytest.raises(UserError, match=text):
            augment(run, **{**keys, **mistake})
    assert not (tmp_path / "made").exists()


def test_large_photographs_are_told_apart_by_a_classifier_of_small_ones():
    """Their features are those of a network that is not trained here."""
    data = SimpleNamespace(name="photos", shape=(3, 96, 96), train=range(500), held_out=("test", range(500)))
    plan = plan_verdict(SimpleNamespace(data=data, device="cpu"), 0, 3, 10, None, None)
    assert plan.recipe.name == "features-cifar10" and plan.real == 500
