from importlib import import_module
from types import SimpleNamespace

import pytest
import torch
from comparison.stand_ins import FLAT

from trilemma.classifiers.bundled import SMALL, FeatureNetwork
from trilemma.comparison import compare, progress
from trilemma.comparison.entries import Entry, to_train
from trilemma.comparison.learning import FEW
from trilemma.comparison.progress import (
    CONTROLS,
    EXTRAS,
    MEASURED,
    PER_IMAGE,
    POINTS,
    STARTED,
    WRITTEN,
    Progress,
    Step,
    steps_of,
)
from trilemma.metrics import probe
from trilemma.metrics.cost import BATCH, LEAST_TURNS
from trilemma.run.text_to_image import TextToImage
from trilemma.types import UNCONDITIONAL


@pytest.fixture
def clock(monkeypatch):
    """The time is what the test says; steps take no time of their own."""
    now = [1000.0]
    monkeypatch.setattr(progress.time, "perf_counter", lambda: now[0])
    return now


def test_a_total_that_changes_by_a_fifth_is_said(clock):
    messages = []
    work = Progress([Step("training", 100.0)] * 3, messages.append, begin=clock[0] - 5)
    assert work.stated == 305.0
    clock[0] += 115  # 15% longer: 5 + 3 x 115 is 350, within a fifth of 305
    work.done()
    assert messages == []
    clock[0] += 185  # 150 each on average: 5 + 115 + 185 + 150 is 455
    work.done()
    assert messages == ["about 7.5 min in all (first estimate: about 5 min)"]
    clock[0] += 150
    work.done()
    work.end()
    assert messages[1:] == ["done in 7 min 35 s"]


def test_a_factor_is_of_one_kind(clock):
    work = Progress([Step("training", 10.0), Step("measuring", 10.0)], lambda text: None, begin=clock[0])
    clock[0] += 20
    work.done()
    assert work.total() == 30.0  # that trainings take twice as long says nothing of measuring


def test_a_finished_training_takes_nothing_again(clock):
    """What it took in the past is no measure: it was estimated at 0, and took 0.1."""
    work = Progress([Step("training", 0.0), Step("training", 10.0)], lambda text: None, begin=clock[0])
    clock[0] += 0.1
    work.done()
    assert work.total() == pytest.approx(10.1)


def test_the_steps_add_up_to_the_whole(stage, tmp_path):
    """Two models, two seeds, 0.001 s an image (as the stage says); one training is finished."""
    (tmp_path / "runs/vae").mkdir(parents=True)
    (tmp_path / "runs/vae/summary.json").touch()
    entries = to_train(["vae", "gan-dcgan"], 0, 2)
    steps = steps_of(entries, stage.data, tmp_path, 30.0, 100, FLAT)
    assert [step.kind for step in steps] == 4 * ["training"] + 4 * ["measuring"] + ["writing"]
    one = STARTED + 30 * (1 + EXTRAS)  # the last picture, of 0.064 s, is among the looks
    turns = 20 * 64 * 2 * 0.001
    drawn = 100 + BATCH + 1 + LEAST_TURNS  # a batch for the memory, and images alone
    measuring = (4 + CONTROLS) * (MEASURED + 100 * PER_IMAGE) + 4 * drawn * 0.001
    assert sum(step.seconds for step in steps) == pytest.approx(3 * one + measuring + WRITTEN + turns)
    short = steps_of(entries, stage.data, tmp_path, 0.5, 100, FLAT)[1]
    assert short.seconds == pytest.approx(STARTED + 0.5 + 0.064)  # but it takes what it takes
    assert steps_of(entries, stage.data, tmp_path, None, 100, FLAT)[0].kind == "measuring"


def test_a_comparison_knows_what_it_stated_and_took(stage, clock, tmp_path, monkeypatch):
    """Two trainings of 40 s, where 30 s were asked for; nothing else takes any time."""
    train = import_module("trilemma.training").train

    def trained(*args, **keys):
        clock[0] += 40
        return train(*args, **keys)

    monkeypatch.setattr("trilemma.training.train", trained)
    result = compare(models="vae,gan-dcgan", minutes=0.5, curves=False, quiet=True)
    steps = steps_of(to_train(["vae", "gan-dcgan"], 0, 1), stage.data, tmp_path / "other", 30.0, 14, FLAT)
    assert result.took_s == 80
    assert result.estimated_s == pytest.approx(sum(step.seconds for step in steps))


class Searched(torch.nn.Module):
    """A model without an encoder: a search for the codes of k images takes 3 + k seconds."""

    def __init__(self, clock):
        super().__init__()
        self.clock = clock

    def invert(self, image, condition=UNCONDITIONAL, *, steps=None, seed=0):
        self.clock[0] += 3 + len(image)
        return image.flatten(1)

    def generate(self, z, condition=UNCONDITIONAL):
        return z.view(-1, 1, 8, 8)


def measuring(steps):
    return [step.seconds for step in steps if step.kind == "measuring"]


def test_a_search_for_codes_is_in_the_estimate(stage, clock, tmp_path, monkeypatch):
    """100 images are searched together, or 10 at a time: each of 2 models x 2 seeds, by what one of the model takes."""
    monkeypatch.setattr("trilemma.registry.create", lambda name, shape: Searched(clock))
    entries = to_train(["vae", "gan-dcgan"], 0, 2)
    without = measuring(steps_of(entries, stage.data, tmp_path, 30.0, 50, FLAT))
    searched = measuring(steps_of(entries, stage.data, tmp_path, 30.0, 50, FLAT, inverted=100))
    assert [b - a for a, b in zip(without, searched, strict=True)] == pytest.approx(4 * [3 + 100])
    monkeypatch.setattr("trilemma.run.compute.MOST_NUMBERS", 10 * 8 * 8)
    assert progress.seconds_of_codes("gan-dcgan", stage.data, 100) == pytest.approx(10 * 3 + 100)
    monkeypatch.setattr(Searched, "reconstruct", lambda self, image, condition: image, raising=False)  # it encodes
    assert progress.seconds_of_codes("gan-dcgan", stage.data, 100) == 0.0


class Slow(torch.nn.Module):
    """Features that take 0.5 s an image."""

    def __init__(self, clock):
        super().__init__()
        self.clock = clock

    def features(self, image):
        self.clock[0] += 0.5 * len(image)
        return image.flatten(1)


def test_features_of_a_slow_network_are_in_the_estimate(stage, clock, tmp_path):
    """Whatever its name: of 200 generated images and as many of each control, the 12 training images and those that a
    classifier of their classes is tried on; and of the points of curves, of which few images are drawn then."""
    slow = FeatureNetwork("inception", Slow(clock), (1, SMALL + 1, SMALL + 1))
    entries, keys = to_train(["vae"], 0, 1), {"curves": True}
    quick, long = (steps_of(entries, stage.data, tmp_path, 30.0, 200, by, **keys) for by in (FLAT, slow))
    seconds = {a.kind: b.seconds - a.seconds for a, b in zip(quick, long, strict=True)}
    measured = (1 + CONTROLS) * 200 + 12 + probe.HELD_OUT
    curves = POINTS * (FEW * (PER_IMAGE + 0.001 + 0.5) - 200 * (PER_IMAGE + 0.001))
    expected = {"training": 0, "measuring": 0.5 * measured, "curves": curves, "writing": 0}
    assert seconds == pytest.approx(expected)


def pipeline(clock, loading, each):
    """A pipeline that takes so many seconds to load, and for an image."""
    one = object.__new__(TextToImage)

    def images(first, count, seed):
        clock[0] += count * each

    def opened():
        clock[0] += loading
        return SimpleNamespace(images=images)

    object.__setattr__(one, "open", opened)
    return one


def test_a_pipeline_is_in_the_estimate(stage, clock, tmp_path):
    """It is loaded, draws 100 images, at least 1 + LEAST_TURNS more alone, and one for its memory; it is not timed in
    turns."""
    entries = [Entry("tiny", pipeline(clock, 7.0, 2.0))]
    first, last = steps_of(entries, stage.data, tmp_path, None, 100, FLAT)
    one = MEASURED + 100 * PER_IMAGE
    assert first.seconds == pytest.approx((1 + CONTROLS) * one + 7 + (100 + 1 + LEAST_TURNS + 1) * 2)
    assert last.seconds == WRITTEN
    broken = object.__new__(TextToImage)
    object.__setattr__(broken, "open", lambda: 1 / 0)
    assert progress.seconds_of_pipeline(broken) == (0.0, 0.0)


@pytest.mark.slow
def test_a_slow_model_is_seen_before_it_is_trained():
    """50 calls of a network take longer than one; a model that cannot be built costs nothing."""
    slow, fast = (progress.seconds_per_image(name, (1, 8, 8)) for name in ("diffusion-small", "vae"))
    assert slow > 5 * fast > 0
    assert progress.seconds_per_image("van", (1, 8, 8)) == 0.0
