"""Detection with models whose scores are known: thresholds, flags, figures, baselines, files and refusals."""

import csv
import json
import math
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.special import stdtrit
from sklearn.metrics import roc_auc_score
from torch import nn

import trilemma
from trilemma.data import Data, load_data
from trilemma.errors import UserError
from trilemma.explore.detect import detect
from trilemma.explore.detection.choice import MOST, altered_aurocs, patched, quartered
from trilemma.explore.detection.report import Page, TileSet, _difference, heat
from trilemma.explore.detection.results import flagged
from trilemma.explore.detection.scores import AnomalyScore, fitted_on, score_all, scores_of, training_scores
from trilemma.explore.detection.sentences import in_short
from trilemma.explore.detection.threshold import by_rank, by_spread, check_enough
from trilemma.pictures.png import png_content, read_metadata, save_png
from trilemma.pictures.table import GAP
from trilemma.words import number


class Darkens(nn.Module):
    """Reconstructs black, so that the error of an image is its mean square."""

    def reconstruct(self, image, condition=None):
        return torch.zeros_like(image)


class Recalls(nn.Module):
    """Reconstructs one image, whatever it is shown."""

    def __init__(self, image):
        super().__init__()
        self.image = image

    def reconstruct(self, image, condition=None):
        return self.image.expand_as(image)


class Bounds(nn.Module):
    """The ELBO is minus the sum of an image's pixels, with noise of mean 0 where asked."""

    noise = 0.0

    def elbo(self, image, rng, condition=None):
        return -image.flatten(1).sum(1) + self.noise * torch.randn(len(image), generator=rng)

    log_weight = elbo


class Encodes2(nn.Module):
    """The code holds two pixels."""

    def encode(self, image, condition=None):
        return image.flatten(1)[:, 20:22]


class TwoClasses(nn.Module):
    """Reconstructs black images under class 0, white ones under class 1."""

    n_classes = 2

    def reconstruct(self, image, condition=None):
        return condition.label[:, None, None, None].float().expand_as(image)


@pytest.fixture
def paged(folder):
    """A run of digits whose model reconstructs black."""
    run = trilemma.load(folder, device="cpu")
    run.model = Darkens()
    return run


@pytest.fixture
def run(paged, monkeypatch):
    """The same, without the page and its pictures, which take a second."""

    blank = Image.new("L", (1, 1))
    page = Page("", png_content(blank), blank, None)
    monkeypatch.setattr("trilemma.explore.detection.report.draw_report", lambda *_: page)
    return paged


def pixels(n, low, high, seed=0):
    """uint8 (n, 1, 8, 8), evenly bright between the two levels."""
    drawn = torch.rand(n, 1, 1, 1, generator=torch.Generator().manual_seed(seed))
    return (low + drawn * (high - low)).round().to(torch.uint8).expand(n, 1, 8, 8)


@pytest.fixture
def classes(tmp_path):
    """A folder of 30 dark images, class "good", and 20 bright ones, class "bad"."""
    for name, images in (("good", pixels(30, 20, 90)), ("bad", pixels(20, 80, 250, seed=1))):
        for k, image in enumerate(images):
            save_png(image, tmp_path / "parts" / name / f"{k:02d}.png")
    return tmp_path / "parts"


@pytest.fixture
def flat(tmp_path):
    for k, image in enumerate(pixels(25, 0, 250, seed=2)):
        save_png(image, tmp_path / "unsorted" / f"{k:02d}.png")
    return tmp_path / "unsorted"


def mean_square(images):
    return (images.double() / 255).square().flatten(1).mean(1)


# the threshold


@pytest.mark.parametrize("n,rate", [(99, 0.05), (19, 0.05), (37, 0.1), (5, 0.5)])
def test_a_new_normal_image_is_flagged_with_the_stated_probability(n, rate):
    """Of n + 1 exchangeable scores each is as likely to be the new one: count the cases in which it is flagged."""
    scores = torch.randperm(n + 1, generator=torch.Generator().manual_seed(n)).double()
    cases = [by_rank(torch.cat([scores[:k], scores[k + 1 :]])) for k in range(n + 1)]
    hits = sum(scores[k].item() > case.threshold(rate) for k, case in enumerate(cases))
    allowed = math.floor(Fraction(str(rate)) * (n + 1))
    assert hits == allowed and allowed / (n + 1) <= rate < (allowed + 1) / (n + 1)
    assert cases[0].expected(rate).value == pytest.approx(allowed / (n + 1))
    p_values = sorted(case.p_values(scores[k : k + 1]).item() for k, case in enumerate(cases))
    assert p_values == pytest.approx([(k + 1) / (n + 1) for k in range(n + 1)])


def test_the_expected_rate_is_the_law_of_the_rank():
    """Uniform scores: the share above the threshold t is 1 - t; 19 of 20 draws lie within the interval."""
    generator = torch.Generator().manual_seed(0)
    references = [by_rank(torch.rand(30, generator=generator, dtype=torch.float64)) for _ in range(2000)]
    shares = torch.tensor([1 - reference.threshold(0.1) for reference in references])
    value, (low, high) = references[0].expected(0.1)
    assert shares.mean() == pytest.approx(value, abs=4 * shares.std().item() / math.sqrt(2000))
    held = ((shares >= low) & (shares <= high)).double().mean()
    assert held == pytest.approx(0.95, abs=4 * math.sqrt(0.95 * 0.05 / 2000))


def test_another_threshold_has_the_rate_of_the_rank_below_it():
    scores = torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0])
    reference = by_rank(scores)
    for rate in (0.1, 0.2, 0.5):
        assert reference.expected_above(reference.threshold(rate)) == reference.expected(rate)
    assert reference.expected_above(7.5) == reference.expected_above(7.0) == reference.expected(0.3)
    assert reference.expected_above(99.0).value == 1 / 10  # 9 images cannot vouch for less
    assert reference.expected_above(0.5).value == 1
    assert by_spread(scores[:2], scores).expected_above(3.0) is None


LAWS = {
    "normal": lambda n, g: torch.randn(n, generator=g),
    "exponential": lambda n, g: -torch.rand(n, generator=g).log(),
    "two kinds": lambda n, g: torch.randn(n, generator=g) / 2 + 3 * (torch.rand(n, generator=g) < 0.2),
}


@pytest.mark.slow
@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("log", [False, True])
def test_false_alarms_of_a_threshold_by_spread(law, log):
    """27 training images and 3 that are held out and score higher: 0.05 to 0.12 of new normal images at a stated 0.1,
    and 0.08 where the training scores spread less by a quarter, which the threshold cannot know."""
    generator, rates = torch.Generator().manual_seed(0), []
    for spread in (1.0, 1.25):
        shares = []
        for seed in range(250):
            sides = LAWS[law](27, generator) / spread, LAWS[law](3, generator) + 2, LAWS[law](500, generator) + 2
            trained, held_out, new = (side.exp() if log else side for side in sides)
            reference = by_spread(held_out, trained, log=log, seed=seed)
            shares.append((new > reference.threshold(0.1)).double().mean().item())
        rates.append(sum(shares) / len(shares))
    assert 0.05 <= rates[0] <= 0.12 and rates[0] < rates[1] <= 0.14


def test_the_training_scores_alone_do_not_set_the_threshold():
    """Only their shape counts: shifted, or of another model, they give the same one."""
    new, old = torch.tensor([3.0, 3.5, 4.0]), torch.randn(40, generator=torch.Generator().manual_seed(1))
    one, other = by_spread(new, old), by_spread(new, old - 100)
    assert one.threshold(0.05) == pytest.approx(other.threshold(0.05), abs=1e-4)
    assert by_spread(new + 7, old).threshold(0.05) == pytest.approx(one.threshold(0.05) + 7, abs=1e-4)
    assert (one.images, one.by, one.expected(0.05)) == (43, "spread", None)
    assert one.p_values(torch.tensor([100.0, -100.0])).tolist() == pytest.approx([1 / 44, 1])
    assert math.isfinite(by_spread(new[:1], old).threshold(0.05))


def test_training_scores_that_are_all_equal_say_nothing_of_the_spread():
    """As the codes of a collapsed encoder are; or extremely small ones."""
    new = torch.tensor([1.0, 2.0, 3.0])
    for old in (torch.full((30,), 1e-9), torch.zeros(30)):
        for log in (False, True):
            result = by_spread(new.exp() if log else new, old, log=log).threshold(0.05)
            result = math.log(result) if log else result
            assert result == pytest.approx(2 + stdtrit(2, 0.95) * math.sqrt(4 / 3), rel=0.2)  # Student's t alone
    assert math.isfinite(by_spread(torch.tensor([1e-12, 1.0, 1e12]), torch.zeros(30), log=True).threshold(0.05))


def test_too_few_images_for_a_rate():
    assert by_rank(torch.arange(99.0)).threshold(0.01) == 98
    check_enough(99, 0, 0.01)
    check_enough(3, 96, 0.01)
    with pytest.raises(UserError, match="needs at least 99 normal images, and there are 3 held out and 95 to train on"):
        check_enough(3, 95, 0.01)
    with pytest.raises(UserError, match="needs at least 2 normal images, and there are 1 held out and 4"):
        check_enough(1, 4, 0.4)


def test_equal_scores_are_not_flagged():
    assert by_rank(torch.ones(40)).threshold(0.1) == 1
    assert flagged(torch.tensor([1.0, 3.0, 0.5, 2.0, 1.0]), 1.0).tolist() == [1, 3]


# whose images


def test_all_of_another_source_is_abnormal(run, classes):
    detection = detect(run, against=classes, n=150, false_alarms=0.1, score="error")
    data = run.data
    assert detection.counts == {"calibration": len(data.valid), "normal": 150, "abnormal": 50}
    calibration = mean_square(data.valid.images)
    cut = calibration.sort().values[-math.floor(0.1 * (len(calibration) + 1))].item()
    assert detection.threshold == pytest.approx(cut)
    images = torch.cat([load_data(classes, size=(8, 8), channels=1).splits[name].images for name in ("train", "valid")])
    scores = detection.scores["error"]
    torch.testing.assert_close(scores["abnormal"].sort().values, mean_square(images).sort().values)
    truth = [0] * 150 + [1] * 50
    area = roc_auc_score(truth, torch.cat([scores["normal"], scores["abnormal"]]).numpy())
    row = detection.rows["error"]
    assert row["auroc"].value == pytest.approx(area)
    assert row["auroc"].interval[0] < area < row["auroc"].interval[1]
    assert row["detection_rate"].value == pytest.approx((scores["abnormal"] > cut).double().mean().item())
    assert row["false_alarm_rate"].value == pytest.approx((scores["normal"] > cut).double().mean().item())
    assert set(detection.flagged) == set((scores["abnormal"] > detection.threshold).nonzero()[:, 0].tolist())
    assert list(detection.flagged) == sorted(detection.flagged, key=lambda k: -scores["abnormal"][k])


def test_named_classes_are_the_normal_images(run, classes):
    detection = detect(run, against=classes, normal="good", score="error")
    assert detection.counts == {"calibration": len(run.data.valid), "normal": 30, "abnormal": 20}
    assert detection.scores["error"]["normal"].max() <= (90 / 255) ** 2
    number = str(load_data(classes).classes.index("good"))
    assert detect(run, against=classes, normal=number).counts == detection.counts
    assert detect(run, against=classes, normal=["good"]).counts == detection.counts


@pytest.mark.slow
def test_without_classes_nothing_is_known(run, flat):
    detection = detect(run, against=flat, score="error")
    assert detection.counts["unknown"] == 25 and detection.score == "error"
    row = detection.rows["error"]
    assert row["auroc"] is row["average_precision"] is row["detection_rate"] is None
    assert row["flagged_share"].value == len(detection.flagged) / 25
    assert detect(run, against=flat, normal="none").counts["abnormal"] == 25


def test_files_are_numbered_in_the_order_of_their_names(run, flat):
    detection = detect(run, against=flat)
    images = torch.stack([torch.as_tensor(np.array(Image.open(path))) for path in sorted(flat.iterdir())])
    torch.testing.assert_close(detection.scores["error"]["unknown"], mean_square(images), rtol=1e-5, atol=0)


def test_one_image_file(run, flat):
    detection = detect(run, against=flat / "03.png")
    assert detection.counts["unknown"] == 1 and detection.report.parent == run.path / "detect-03"


def test_the_odd_ones_among_the_held_out_images(run):
    detection = detect(run, n=100, false_alarms=0.1, score="error")
    assert detection.counts == {"calibration": 100, "normal": 100}
    assert len(detection.flagged) == (detection.scores["error"]["normal"] > detection.threshold).sum()


def errors_of(detection, *kinds):
    return torch.cat([detection.scores["error"][kind] for kind in kinds]).sort().values


def test_all_normal_images_of_another_source_are_used(run, flat, tmp_path):
    """None was trained on: all of them set the threshold, and false alarms are counted where there are others."""
    images = torch.rand(41, 1, 8, 8, generator=torch.Generator().manual_seed(3)).mul(255).to(torch.uint8)
    np.save(tmp_path / "normals.npy", images[:, 0].numpy())
    detection = detect(run, data=tmp_path / "normals.npy", false_alarms=0.2)
    assert detection.counts == {"calibration": 41, "normal": 41}
    torch.testing.assert_close(errors_of(detection, "calibration"), mean_square(images).sort().values)
    assert detection.rows["error"]["false_alarm_rate"].value == pytest.approx(8 / 42)  # expected: floor(0.2 * 42) / 42
    assert "no other normal images to count" in " ".join(detection.in_short)
    np.savez(tmp_path / "set.npz", images=images[:20, 0].numpy(), labels=[0, 1] * 10, classes=["good", "bad"])
    detection = detect(run, data=tmp_path / "normals.npy", against=tmp_path / "set.npz", normal="good")
    assert detection.counts == {"calibration": 41, "normal": 10, "abnormal": 10}


def test_test_images_of_another_source_are_not_kept_apart(run, tmp_path):
    """They are as new to the model as those that their source calls training images."""
    parts = {"train": pixels(20, 20, 60), "test": pixels(10, 80, 120, seed=1)}
    for name, images in parts.items():
        for k, image in enumerate(images):
            save_png(image, tmp_path / "photos" / name / f"{k:02d}.png")
    assert set(load_data(tmp_path / "photos").splits) == {"train", "valid", "test"}
    detection = detect(run, data=tmp_path / "photos", false_alarms=0.2)
    assert detection.counts == {"calibration": 30, "normal": 30}
    everything = mean_square(torch.cat(list(parts.values())))
    torch.testing.assert_close(errors_of(detection, "calibration"), everything.sort().values)


def test_of_its_own_data_the_held_out_images_are_used(run):
    """Also where they are named, and by another Data of the same source."""
    for data in ("digits", run.data, load_data("digits", size=8, channels=1, valid=0.3)):
        detection = detect(run, data=data)
        source = data if isinstance(data, Data) else run.data
        for kind, split in (("calibration", "valid"), ("normal", "test")):
            expected = mean_square(source.splits[split].images).sort().values
            torch.testing.assert_close(errors_of(detection, kind), expected)


def test_without_a_test_split_all_validation_images_set_the_threshold(run):
    splits = {name: run.data.splits[name] for name in ("train", "valid")}
    run.__dict__["data"] = replace(run.data, splits=splits)
    count = len(run.data.valid)
    detection = detect(run)
    assert detection.counts == {"calibration": count, "normal": count}
    torch.testing.assert_close(errors_of(detection, "calibration"), mean_square(run.data.valid.images).sort().values)


def strange(run, *splits):
    """The run's data as if its last class were not among the training images, with some of the splits."""
    data, last = run.data, len(run.data.classes) - 1
    kept = {name: data.splits[name] for name in splits}
    kept["train"] = kept["train"].take((kept["train"].labels != last).nonzero()[:, 0])
    return replace(data, splits=kept)


@pytest.mark.parametrize("words", [{}, {"against": "digits"}, {"against": "digits", "normal": "0,1,2,3,4,5,6,7,8"}])
def test_classes_that_training_never_had_are_abnormal(run, words):
    """As in MVTec's layout: train/good, test/good, test/broken."""
    run.__dict__["data"] = data = strange(run, "train", "valid", "test")
    labels, valid = data.splits["test"].labels, int((data.valid.labels != 9).sum())
    detection = detect(run, **words)
    counts = {"calibration": valid, "normal": int((labels != 9).sum()), "abnormal": int((labels == 9).sum())}
    assert detection.counts == counts and detection.rows["error"]["auroc"] is not None
    assert "classes that training never had are abnormal: 9" in detection.in_short


def test_strange_classes_without_a_test_split(run):
    run.__dict__["data"] = data = strange(run, "train", "valid")
    valid, abnormal = int((data.valid.labels != 9).sum()), int((data.valid.labels == 9).sum())
    assert detect(run).counts == {"calibration": valid, "normal": valid, "abnormal": abnormal}


def test_normal_classes_of_ones_own_data_are_those_of_training(run):
    run.__dict__["data"] = strange(run, "train", "valid", "test")
    with pytest.raises(UserError, match="was trained on 0, 1, 2, 3, 4, 5, 6, 7, 8, which is what is normal to it"):
        detect(run, against="digits", normal="3")


def test_classes_of_training_are_normal_in_other_images(run, tmp_path):
    for name, images in (("3", pixels(12, 20, 90)), ("dog", pixels(9, 80, 250, seed=1))):
        for k, image in enumerate(images):
            save_png(image, tmp_path / "set" / name / f"{k:02d}.png")
    detection = detect(run, against=tmp_path / "set")
    assert (detection.counts["normal"], detection.counts["abnormal"]) == (12, 9)
    assert any(text.startswith("classes that training had are normal: 3") for text in detection.in_short)
    assert detect(run, against=tmp_path / "set", normal="none").counts["abnormal"] == 21


def test_test_images_without_classes_are_unknown(run, tmp_path):
    for name, count in (("train/3", 12), ("train/dog", 9), ("test", 5)):
        for k, image in enumerate(pixels(count, 20, 250, seed=count)):
            save_png(image, tmp_path / "set" / name / f"{k:02d}.png")
    counts = detect(run, against=tmp_path / "set").counts
    assert counts["unknown"] == 5 and "abnormal" not in counts
    assert detect(run, against=tmp_path / "set", normal="none").counts["abnormal"] == 5
    with pytest.raises(UserError, match="test split has no classes"):
        detect(run, against=tmp_path / "set", normal="3")


def test_images_that_were_trained_on_are_not_counted(run, tmp_path):
    """Whatever source they come from."""
    for k, image in enumerate([*run.data.train.images[:7], *pixels(12, 20, 90)]):
        save_png(image, tmp_path / "mixed" / f"{k:02d}.png")
    detection = detect(run, against=tmp_path / "mixed")
    assert detection.counts["unknown"] == 12 and min(detection.flagged, default=7) >= 7
    assert "7 images of mixed were trained on and are skipped" in detection.in_short
    assert detect(run, data=tmp_path / "mixed", false_alarms=0.1).counts["calibration"] == 12
    for path in sorted((tmp_path / "mixed").iterdir())[7:]:
        path.unlink()
    with pytest.raises(UserError, match="was trained on every image of mixed"):
        detect(run, against=tmp_path / "mixed")


@pytest.mark.parametrize("count", [1, 3])
def test_training_images_help_where_few_are_held_out(run, classes, count):
    """Of 30 images 3 or 1 are held out."""
    data = run.data
    splits = {"train": data.train.take(torch.arange(30 - count)), "valid": data.valid.take(torch.arange(count))}
    run.__dict__["data"] = replace(data, splits=splits)
    detection = detect(run, against=classes)
    assert detection.counts == {"calibration": count, "normal": count, "abnormal": 50}
    trained = training_scores(run, 0, fitted_on(run, 0))
    expected = by_spread(detection.scores["error"]["calibration"], trained["error"], log=True)
    assert detection.rows["error"]["threshold"] == pytest.approx(expected.threshold(0.05), rel=1e-6)
    assert detection.rows["error"]["false_alarm_rate"] is None and "too few to set one" in " ".join(detection.in_short)


def test_training_images_are_scored_without_themselves(run):
    """The nearest image of one is another; principal components do not hold it."""
    some = run.data.train.take(torch.arange(25))
    scores = training_scores(run, 0, some)
    assert all(len(values) == 25 for values in scores.values())
    apart = torch.cdist(some.images.double().flatten(1), some.images.double().flatten(1)) / 255 / 8
    assert scores["nearest"].min() >= apart[apart > 0].min() * (1 - 1e-4)
    assert scores["pca"].min() > 1e-3 > score_all(scores_of(run, 0, some), some.images)["pca"].max()


def test_fewer_images_are_chosen_by_the_seed(run, classes):
    one, same, other = (detect(run, against=classes, n=12, seed=seed, false_alarms=0.1) for seed in (0, 0, 1))
    assert one.counts["abnormal"] == 12
    assert torch.equal(one.scores["error"]["abnormal"], same.scores["error"]["abnormal"])
    assert not torch.equal(one.scores["error"]["abnormal"], other.scores["error"]["abnormal"])


# scores


def score(run, images, seed=0):
    return score_all(scores_of(run, seed), images)


def test_pca_is_that_of_the_training_images(folder):
    """As many components as a code has numbers, from a singular value decomposition, in float64."""
    run = trilemma.load(folder, device="cpu")
    images = run.data.splits["test"].images[:40]
    train = (run.data.train.images.double() / 255).flatten(1)
    mean = train.mean(0)
    axes = torch.linalg.svd(train - mean, full_matrices=False).Vh[:32]
    x = (images.double() / 255).flatten(1) - mean
    torch.testing.assert_close(
        score(run, images)["pca"], (x - x @ axes.T @ axes).square().mean(1), rtol=1e-3, atol=1e-7
    )


def test_the_nearest_training_image(run):
    train, images = run.data.train.images, run.data.splits["test"].images[:30]
    apart = torch.cdist(images.double().flatten(1), train.double().flatten(1)).min(1).values / 255 / 8
    torch.testing.assert_close(score(run, images)["nearest"], apart, rtol=1e-4, atol=0)
    assert score(run, train[:5])["nearest"].max() < 1e-6


def test_the_relative_error_leaves_the_line_of_the_training_images(run):
    def points(images):
        x = images.double() / 255
        detail = (x.diff(dim=2).square().sum((1, 2, 3)) + x.diff(dim=3).square().sum((1, 2, 3))) / 64
        return detail.log().numpy(), mean_square(images).log().numpy()

    images = run.data.splits["test"].images[:30]
    slope, offset = np.polyfit(*points(run.data.train.images), 1)
    x, y = points(images)
    assert score(run, images)["relative"].numpy() == pytest.approx(y - slope * x - offset, abs=1e-4)


def test_a_plain_image_has_a_relative_error(run):
    assert score(run, torch.zeros(2, 1, 8, 8, dtype=torch.uint8))["relative"].isfinite().all()


def test_the_elbo_counts_negative(run):
    run.model = Bounds()
    images = run.data.train.images[:20]
    scores = score(run, images)
    assert "error" not in scores
    torch.testing.assert_close(scores["elbo"], (images.double() / 255).flatten(1).sum(1), rtol=1e-5, atol=0)


def test_the_noise_of_the_elbo_is_averaged_and_depends_on_the_seed(run):
    run.model = Bounds()
    run.model.noise = 1.0
    images = torch.zeros(200, 1, 8, 8, dtype=torch.uint8)
    scores = score(run, images)["elbo"]
    assert scores.std() == pytest.approx(0.5, abs=4 * 0.5 / math.sqrt(2 * 200))  # of the mean of 4 draws
    assert torch.equal(scores, score(run, images)["elbo"])
    assert not torch.equal(scores, score(run, images, seed=1)["elbo"])


def test_the_distance_of_a_code(run):
    """For two-dimensional Gaussian codes the squared Mahalanobis distance, by a plain inverse."""
    run.model = Encodes2()
    train, images = run.data.train.images, run.data.splits["test"].images[:30]
    codes, x = ((part.double() / 255).flatten(1)[:, 20:22] for part in (train, images))
    x = x - codes.mean(0)
    expected = (x @ torch.linalg.inv(torch.cov(codes.T, correction=0)) * x).sum(1)
    torch.testing.assert_close(score(run, images)["code"], expected, rtol=1e-3, atol=1e-4)


def test_a_model_with_classes_is_tried_with_each(run):
    run.model = TwoClasses()
    images = torch.tensor([0, 255, 51, 204], dtype=torch.uint8)[:, None, None, None].expand(4, 1, 8, 8)
    assert score(run, images)["error"].tolist() == pytest.approx([0, 0, 0.04, 0.04])


def test_a_patch_of_another_image_and_quarters_changed_over():
    images = torch.arange(1, 4, dtype=torch.uint8)[:, None, None, None].expand(3, 1, 8, 8).clone()
    for image, one, other in zip(patched(images, 0), (1, 2, 3), (2, 3, 1), strict=True):
        assert set(image.flatten().tolist()) == {one, other} and 4 <= int((image == other).sum()) <= 16
    corner = torch.zeros(1, 1, 4, 6)
    corner[0, 0, 0, 1] = 1
    assert quartered(corner)[0, 0].nonzero().tolist() == [[2, 4]]


def test_auto_takes_the_score_that_tells_altered_images(run, classes):
    """A score that rises on them is worth 1, one that does not 1/2, one that falls 0; the abnormal images have no
    say, and a baseline is not chosen."""
    images = pixels(20, 0, 250)
    plain = {image.numpy().tobytes() for image in images}

    def rises(images, known):
        return torch.tensor([float(image.numpy().tobytes() not in plain) for image in images])

    scores = {
        "rises": AnomalyScore("rises", "", False, False, rises),
        "still": AnomalyScore("still", "", False, False, lambda images, known: torch.zeros(len(images))),
        "falls": AnomalyScore("falls", "", False, False, lambda images, known: -rises(images, known)),
        "other": AnomalyScore("other", "", True, False, rises),
    }
    textured = images + torch.arange(64, dtype=torch.uint8).view(1, 1, 8, 8) % 5
    plain |= {image.numpy().tobytes() for image in textured}
    aurocs = altered_aurocs(scores, textured, score_all(scores, textured), 0)
    assert aurocs == {"rises": 1.0, "still": 0.5, "falls": 0.0}
    detection = detect(run, against=classes)
    worths = {name: row["worth"] for name, row in detection.rows.items() if not row["baseline"]}
    assert detection.score == max(worths, key=worths.get)
    assert detection.score == detect(run, against=classes, normal="good").score == detect(run).score
    assert [name for name, row in detection.rows.items() if row["chosen"]] == [detection.score]


def test_images_of_all_kinds_are_altered():
    """Also where they stand in the order of their classes, as those of a folder do."""
    images = torch.zeros(3 * MOST, 1, 4, 4, dtype=torch.uint8)
    images[MOST:] = 255
    kinds = []

    def level(images, known):
        kinds.append(images.float().mean().item() / 255)
        return images.float().mean((1, 2, 3))

    scores = {"level": AnomalyScore("level", "", False, False, level)}
    altered_aurocs(scores, images, {"level": torch.zeros(3)}, 0)
    share = torch.tensor(kinds)  # of white ones: 2/3, with a spread of sqrt(2/9 / MOST)
    assert len(share) == 2 and (share - 2 / 3).abs().max() < 5 * math.sqrt(2 / 9 / MOST)


def told(**areas):
    """The sentences of a detection of abnormal images whose scores have these AUROC."""
    rows = {
        name: {
            "name": name, "title": f"the {name}", "baseline": name == "pca", "threshold": 1.0,
            "auroc": {"value": value, "interval": (max(0.0, value - 0.05), min(1.0, value + 0.05))},
            "detection_rate": {"value": value, "interval": (value, value)},
            "false_alarm_rate": {"value": 0.05, "interval": (0.0, 0.1)},
        }
        for name, value in areas.items()
    }  # fmt: skip
    document = {"rows": rows, "score": "error", "kind": "abnormal", "counts": {"normal": 9, "abnormal": 9}, "notes": ()}
    document["counts"]["calibration"] = 30
    return " ".join(
        in_short(document | {"counted": True, "threshold": 1.0, "threshold_by": "rank", "false_alarms": 0.1})
    )


def test_the_sentences_name_the_best_score_and_what_is_upside_down():
    assert "No other score has a higher AUROC" in told(error=0.9, pca=0.8) and "upside" not in told(error=0.41)
    text = told(error=0.617, pca=0.94)
    assert "61.7% (61.7% to 61.7%) of 9 abnormal images are flagged" in text
    assert "The pca, which needs no model, ranks them better" in text and "flags 94.0%" in text and "score=pca" in text
    assert "The scores are upside down" in told(error=0.39, pca=0.8)
    assert "Every score is upside down" in told(error=0.1, pca=0.2)


# files


def test_the_files_hold_what_was_found(paged, classes, tmp_path):
    detection = detect(paged, against=classes, score="error", out=tmp_path / "out")
    rows = list(csv.DictReader((tmp_path / "out" / "scores.csv").open()))
    assert len(rows) == sum(detection.counts.values())
    bad = [row for row in rows if row["kind"] == "abnormal"]
    assert {row["class"] for row in bad} == {"good", "bad"} and bad[0]["file"].endswith(".png")
    assert [float(row["error"]) for row in bad] == pytest.approx(detection.scores["error"]["abnormal"].tolist())
    assert [int(row["number"]) for row in bad if row["flagged"] == "1"] == sorted(detection.flagged)
    figures = json.loads((tmp_path / "out" / "figures.json").read_text())
    row, written = detection.rows["error"], figures["rows"]["error"]
    assert written["auroc"] == {"value": row["auroc"].value, "interval": list(row["auroc"].interval)}
    assert written["threshold"] == row["threshold"] and written["chosen"] is True and written["flagged_share"] is None
    assert figures["flagged"] == len(detection.flagged)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "scores.csv", "thresholds.csv", "figures.json", "report.html", "histogram.png", "flagged.png", "heatmaps.png"
    }  # fmt: skip
    for name in ("histogram.png", "flagged.png", "heatmaps.png"):
        assert read_metadata(tmp_path / "out" / name)["verb"] == "detect"


def test_other_thresholds_are_tabulated(run, classes, tmp_path):
    """Counted on other normal images; and expected by rank, with the key that sets the threshold again."""
    one = detect(run, against=classes, n=150, false_alarms=0.1, score="error", out=tmp_path / "one")
    rows = list(csv.DictReader((tmp_path / "one" / "thresholds.csv").open()))
    assert [float(row["threshold"]) for row in rows] == sorted(float(row["threshold"]) for row in rows)
    used = next(row for row in rows if float(row["threshold"]) == one.threshold)
    assert int(used["flagged_abnormal"]) == len(one.flagged)
    value, (low, high) = one.rows["error"]["false_alarm_rate"]
    assert [float(used[key]) for key in ("false_alarm_rate", "low", "high")] == pytest.approx([value, low, high], 1e-5)
    for row in rows[::40]:
        above = (one.scores["error"]["normal"].double() > float(row["threshold"])).double().mean().item()
        assert float(row["false_alarm_rate"]) == pytest.approx(above, rel=1e-5)
    again = detect(run, against=classes, n=150, false_alarms=float(used["false_alarms"]), score="error")
    assert again.threshold == one.threshold


def test_the_page_needs_nothing_else(paged, classes):
    text = detect(paged, against=classes, score="error").report.read_text()
    assert "<script" not in text and 'src="data:image/png' in text
    assert not [part for part in text.split('"') if part.startswith("http") and "w3.org" not in part]


@pytest.mark.slow
def test_names_are_escaped(paged, tmp_path):
    for k, image in enumerate(pixels(12, 100, 250)):
        save_png(image, tmp_path / "set" / "<b>bad</b>".replace("/", "_") / f"{k}.png")
        save_png(image, tmp_path / "set" / "good" / f"{k}.png")
    text = detect(paged, against=tmp_path / "set", normal="<b>bad<_b>").report.read_text()
    assert "<b>bad" not in text and "&lt;b&gt;bad" in text


@pytest.mark.slow
def test_the_highest_scores_are_shown_though_nothing_is_flagged(paged, classes, flat, tmp_path):
    """16 of 25; pictures of an earlier call do not stay."""
    detect(paged, against=classes, score="error", out=tmp_path / "out")
    np.save(tmp_path / "white.npy", np.full((400, 8, 8), 255, np.uint8))
    detection = detect(paged, against=flat, score="error", out=tmp_path / "out", data=tmp_path / "white.npy")
    assert detection.flagged == () and not (tmp_path / "out" / "flagged.png").exists()
    page = detection.report.read_text()
    assert "No image has a score above the threshold" in page and page.count("Image that is not flagged") == 16
    assert f"score {number(detection.scores['error']['unknown'].max().item())}" in page


def tiles_of(page, counts):
    """The tiles of blocks that stand below each other, each of three rows of `counts` images of 64 x 64 px with a line
    of 1 px around them, at the lower right of its block but for a margin: (sum of counts, 3, 8, 8, 3), a pixel of each
    square of 8 x 8."""
    pixels, results = np.asarray(page), []
    left, height = pixels.shape[1] - GAP - max(counts) * 65, len(pixels) // len(counts)
    for k, count in enumerate(counts):
        top = (k + 1) * height - GAP - 3 * 65
        body = pixels[top:, left:][: 3 * 65, : count * 65].reshape(3, 65, count, 65, 3)
        results.append(body.transpose(2, 0, 1, 3, 4)[:, :, 4:64:8, 4:64:8])
    return np.concatenate(results)


def test_a_heat_map_is_hot_where_its_image_is_abnormal(paged, tmp_path):
    """17 images, which take two blocks; each has one pixel that the model does not know, none on the diagonal or at
    the mirror image of another's, and brighter by a step of its own, in another order than that of the files."""
    normal = torch.arange(64, dtype=torch.uint8).view(1, 8, 8)
    places = [(row, column) for row in range(8) for column in range(row)][:17]
    brighter = [100 + 5 * (7 * k % 17) for k in range(17)]
    images = normal.repeat(17, 1, 1, 1)
    for k, (row, column) in enumerate(places):
        images[k, 0, row, column] += brighter[k]
        save_png(images[k], tmp_path / "spots" / f"{k:02d}.png")
    np.save(tmp_path / "known.npy", normal.repeat(40, 1, 1).numpy())
    paged.model = Recalls(normal.float() / 255)
    detection = detect(
        paged, data=tmp_path / "known.npy", against=tmp_path / "spots", score="error", out=tmp_path / "out"
    )
    order = sorted(range(17), key=lambda k: -brighter[k])
    assert list(detection.flagged) == order
    tiles = tiles_of(Image.open(tmp_path / "out" / "heatmaps.png"), (14, 3))
    for k, (image, result, heat_map) in zip(order, tiles, strict=True):
        assert np.array_equal(image, images[k, 0, :, :, None].expand(8, 8, 3).numpy())
        assert np.array_equal(result, normal[0, :, :, None].expand(8, 8, 3).numpy())
        difference = torch.zeros(1, 8, 8)
        difference[0][places[k]] = brighter[k] / 255
        expected = heat(difference, max(brighter) / 255)[0].permute(1, 2, 0) * 255
        assert np.abs(heat_map - expected.numpy()).max() < 1.01
        hottest = heat_map.astype(int).sum(2)
        assert np.argwhere(hottest > hottest.min() + 100).tolist() == [list(places[k])]


def test_a_difference_is_the_mean_over_the_colours():
    images, results = torch.zeros(1, 3, 4, 5), torch.zeros(1, 3, 4, 5)
    images[0, :, 1, 3], results[0, 2, 3, 0] = torch.tensor([0.3, 0.0, 0.6]), 0.9
    expected = torch.zeros(1, 4, 5)
    expected[0, 1, 3] = expected[0, 3, 0] = 0.3
    torch.testing.assert_close(_difference(TileSet(images, results, [""])), expected)


def test_heat_runs_from_black_to_yellow():
    colours = heat(torch.tensor([[[0.0, 0.5, 9.0]]]), 0.5)
    assert colours.shape == (1, 3, 1, 3)
    assert colours[0, :, 0, 0].max() < 0.02
    red, green, blue = colours[0, :, 0, 1].tolist()
    assert red > 0.95 and green > 0.95 and blue < 0.7
    assert torch.equal(colours[0, :, 0, 1], colours[0, :, 0, 2])


@pytest.mark.slow
def test_random_states_are_untouched(paged, classes):
    before = torch.get_rng_state()
    detect(paged, against=classes)
    assert torch.equal(before, torch.get_rng_state())


# refusals


def test_what_is_refused(run, classes, flat):
    with pytest.raises(UserError, match=r"names classes of `against`, which is missing.*train on a folder of normal"):
        detect(run, normal="3")
    with pytest.raises(UserError, match=r"is what .* was trained on: all of it is normal"):
        detect(run, against="digits")
    with pytest.raises(UserError, match=r'unknown class of parts "god".*did you mean "good"'):
        detect(run, against=classes, normal="god")
    with pytest.raises(UserError, match="nothing there is abnormal"):
        detect(run, against=classes, normal="good,bad")
    with pytest.raises(UserError, match="has no classes"):
        detect(run, against=flat, normal="good")
    with pytest.raises(UserError, match="has no classes"):
        detect(run, against=flat / "03.png", normal="good")
    with pytest.raises(UserError, match=r'unknown score "eror".*did you mean "error"'):
        detect(run, against=flat, score="eror")
    with pytest.raises(UserError, match="unknown score"):
        detect(run, against=flat, score="elbo")
    for rate in (0, 1, -0.1):
        with pytest.raises(UserError, match="give a number above 0 and below 1"):
            detect(run, against=flat, false_alarms=rate)
    with pytest.raises(UserError, match="n=0: give a whole number of at least 1"):
        detect(run, against=flat, n=0)
    with pytest.raises(UserError, match=r"needs at least 9,999 normal images"):
        detect(run, against=flat, false_alarms=0.0001)


def test_a_normal_class_without_images(run, tmp_path):
    images = pixels(20, 0, 250)[:, 0].numpy()
    labels = np.array([0, 2] * 10)
    np.savez(tmp_path / "set.npz", images=images, labels=labels, classes=np.array(["good", "scratched", "bent"]))
    with pytest.raises(UserError, match="has no images of scratched"):
        detect(run, against=tmp_path / "set.npz", normal="scratched")


def test_a_model_without_scores(run, flat):
    run.model = nn.Linear(1, 1)
    with pytest.raises(UserError, match=r"does not score images: .*ae-stacked"):
        detect(run, against=flat)


def test_scores_that_are_not_finite(run, flat):
    class Broken(nn.Module):
        def reconstruct(self, image, condition=None):
            return image * math.nan

    run.model = Broken()
    with pytest.raises(UserError, match=r"scores \(error\) hold NaN or infinite"):
        detect(run, against=flat)


class ByPath(Bounds):
    """A bound by a path, whose calls are counted."""

    calls = 0

    def elbo(self, image, rng, condition=None):
        self.calls += len(image)
        return -image.flatten(1).sum(1)

    bound = flow_bound = elbo


def test_a_diffusion_model_scores_few_images_once_each(run):
    run.model = ByPath()
    held_out = [len(run.data.splits[name]) for name in ("valid", "test")]
    assert min(held_out) > 64
    result = detect(run)
    assert result.counts == {"calibration": 64, "normal": 64}
    assert run.model.calls == 64 + 64 + 2 * 64  # twice altered
    document = json.loads((result.picture.parent / "figures.json").read_text("utf-8"))
    assert "at most 64 images of each kind are scored" in " ".join(document["notes"])
    assert detect(run, n=70).counts["normal"] == 70
