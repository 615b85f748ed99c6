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
from sklearn.metrics import roc_auc_score
from torch import nn

import trilemma
from trilemma.data import Data, load_data
from trilemma.errors import UserError
from trilemma.explore.detect import detect, flagged, threshold_of
from trilemma.explore.detection_report import Shown, _difference, heat
from trilemma.explore.detection_scores import score_all, scores_of
from trilemma.explore.images import GAP
from trilemma.pictures import read_metadata, save_png


class Darkens(nn.Module):
    """Reconstructs black, so that the error of an image is its mean square."""

    def reconstruct(self, image, labels=None):
        return torch.zeros_like(image)


class Recalls(nn.Module):
    """Reconstructs one image, whatever it is shown."""

    def __init__(self, image):
        super().__init__()
        self.image = image

    def reconstruct(self, image, labels=None):
        return self.image.expand_as(image)


class Bounds(nn.Module):
    """The ELBO is minus the sum of an image's pixels, with noise of mean 0 where asked."""

    noise = 0.0

    def elbo(self, image, rng, labels=None):
        return -image.flatten(1).sum(1) + self.noise * torch.randn(len(image), generator=rng)

    log_weight = elbo


class Encodes2(nn.Module):
    """The code holds two pixels."""

    def encode(self, image, labels=None):
        return image.flatten(1)[:, 20:22]


class TwoClasses(nn.Module):
    """Reconstructs black images under class 0, white ones under class 1."""

    n_classes = 2

    def reconstruct(self, image, labels=None):
        return labels[:, None, None, None].float().expand_as(image)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("detect") / "run"
    return trilemma.train("ae-stacked", "digits", steps=4, batch=16, out=out, device="cpu", quiet=True).path


@pytest.fixture
def paged(folder):
    """A run of digits whose model reconstructs black."""
    run = trilemma.load(folder, device="cpu")
    run.model = Darkens()
    return run


@pytest.fixture
def run(paged, monkeypatch):
    """The same, without the page and its pictures, which take a second."""

    def no_page(run, folder, *rest):
        return folder / "histogram.png", folder / "report.html"

    monkeypatch.setattr("trilemma.explore.detection_report.write_report", no_page)
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
    cases = [torch.cat([scores[:k], scores[k + 1 :]]) for k in range(n + 1)]
    hits = sum(scores[k].item() > threshold_of(case, rate) for k, case in enumerate(cases))
    allowed = math.floor(Fraction(str(rate)) * (n + 1))
    assert hits == allowed and allowed / (n + 1) <= rate < (allowed + 1) / (n + 1)


def test_too_few_images_for_a_rate():
    assert threshold_of(torch.arange(99.0), 0.01) == 98
    with pytest.raises(UserError, match="needs at least 99 held-out normal images, and there are 98"):
        threshold_of(torch.arange(98.0), 0.01)


def test_equal_scores_are_not_flagged():
    assert threshold_of(torch.ones(40), 0.1) == 1
    assert flagged(torch.tensor([1.0, 3.0, 0.5, 2.0, 1.0]), 1.0).tolist() == [1, 3]


# whose images


def test_all_of_another_source_is_abnormal(run, classes):
    found = detect(run, against=classes, n=150, false_alarms=0.1, score="error")
    data = run.data
    assert found.counts == {"calibration": len(data.valid), "normal": 150, "abnormal": 50}
    calibration = mean_square(data.valid.images)
    cut = calibration.sort().values[-math.floor(0.1 * (len(calibration) + 1))].item()
    assert found.threshold == pytest.approx(cut)
    images = torch.cat([load_data(classes, size=(8, 8), channels=1).splits[name].images for name in ("train", "valid")])
    scores = found.scores["error"]
    torch.testing.assert_close(scores["abnormal"].sort().values, mean_square(images).sort().values)
    truth = [0] * 150 + [1] * 50
    area = roc_auc_score(truth, torch.cat([scores["normal"], scores["abnormal"]]).numpy())
    row = found.rows["error"]
    assert row["auroc"].value == pytest.approx(area)
    assert row["auroc"].interval[0] < area < row["auroc"].interval[1]
    assert row["detection_rate"].value == pytest.approx((scores["abnormal"] > cut).double().mean().item())
    assert row["false_alarm_rate"].value == pytest.approx((scores["normal"] > cut).double().mean().item())
    assert set(found.flagged) == set((scores["abnormal"] > found.threshold).nonzero()[:, 0].tolist())
    assert list(found.flagged) == sorted(found.flagged, key=lambda k: -scores["abnormal"][k])


def test_named_classes_are_the_normal_images(run, classes):
    found = detect(run, against=classes, normal="good", score="error")
    assert found.counts == {"calibration": len(run.data.valid), "normal": 30, "abnormal": 20}
    assert found.scores["error"]["normal"].max() <= (90 / 255) ** 2
    number = str(load_data(classes).classes.index("good"))
    assert detect(run, against=classes, normal=number).counts == found.counts
    assert detect(run, against=classes, normal=["good"]).counts == found.counts


def test_without_classes_nothing_is_known(run, flat):
    found = detect(run, against=flat)
    assert found.counts["unknown"] == 25 and found.score == "error"
    row = found.rows["error"]
    assert row["auroc"] is row["average_precision"] is row["detection_rate"] is None
    assert row["flagged_share"].value == len(found.flagged) / 25
    assert detect(run, against=flat, normal="none").counts["abnormal"] == 25


def test_files_are_numbered_in_the_order_of_their_names(run, flat):
    found = detect(run, against=flat)
    images = torch.stack([torch.as_tensor(np.array(Image.open(path))) for path in sorted(flat.iterdir())])
    torch.testing.assert_close(found.scores["error"]["unknown"], mean_square(images), rtol=1e-5, atol=0)


def test_one_image_file(run, flat):
    found = detect(run, against=flat / "03.png")
    assert found.counts["unknown"] == 1 and found.report.parent == run.path / "detect-03"


def test_the_odd_ones_among_the_held_out_images(run):
    found = detect(run, n=100, false_alarms=0.1)
    assert found.counts == {"calibration": 100, "normal": 100}
    assert len(found.flagged) == (found.scores["error"]["normal"] > found.threshold).sum()


def errors_of(found, *kinds):
    return torch.cat([found.scores["error"][kind] for kind in kinds]).sort().values


def test_all_normal_images_of_another_source_are_used(run, flat, tmp_path):
    """None was trained on: half of them set the threshold and half are counted on; all set it where others count."""
    images = torch.rand(41, 1, 8, 8, generator=torch.Generator().manual_seed(3)).mul(255).to(torch.uint8)
    np.save(tmp_path / "normals.npy", images[:, 0].numpy())
    found = detect(run, data=tmp_path / "normals.npy", false_alarms=0.2)
    assert found.counts == {"calibration": 21, "normal": 20}
    torch.testing.assert_close(errors_of(found, "calibration", "normal"), mean_square(images).sort().values)
    np.savez(tmp_path / "set.npz", images=images[:20, 0].numpy(), labels=[0, 1] * 10, classes=["good", "bad"])
    found = detect(run, data=tmp_path / "normals.npy", against=tmp_path / "set.npz", normal="good")
    assert found.counts == {"calibration": 41, "normal": 10, "abnormal": 10}


def test_test_images_of_another_source_are_not_kept_apart(run, tmp_path):
    """They are as new to the model as those that their source calls training images."""
    parts = {"train": pixels(20, 20, 60), "test": pixels(10, 80, 120, seed=1)}
    for name, images in parts.items():
        for k, image in enumerate(images):
            save_png(image, tmp_path / "photos" / name / f"{k:02d}.png")
    assert set(load_data(tmp_path / "photos").splits) == {"train", "valid", "test"}
    found = detect(run, data=tmp_path / "photos", false_alarms=0.2)
    assert found.counts == {"calibration": 15, "normal": 15}
    everything = mean_square(torch.cat(list(parts.values())))
    torch.testing.assert_close(errors_of(found, "calibration", "normal"), everything.sort().values)


def test_of_its_own_data_the_held_out_images_are_used(run):
    """Also where they are named, and by another Data of the same source."""
    for data in ("digits", run.data, load_data("digits", size=8, channels=1, valid=0.3)):
        found = detect(run, data=data)
        source = data if isinstance(data, Data) else run.data
        for kind, split in (("calibration", "valid"), ("normal", "test")):
            expected = mean_square(source.splits[split].images).sort().values
            torch.testing.assert_close(errors_of(found, kind), expected)


def test_without_a_test_split_the_runs_own_validation_images_are_halved(run):
    splits = {name: run.data.splits[name] for name in ("train", "valid")}
    run.__dict__["data"] = replace(run.data, splits=splits)
    count = len(run.data.valid)
    found = detect(run)
    assert found.counts == {"calibration": -(-count // 2), "normal": count // 2}
    expected = mean_square(run.data.valid.images).sort().values
    torch.testing.assert_close(errors_of(found, "calibration", "normal"), expected)


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
    found = score(run, images)
    assert "error" not in found
    torch.testing.assert_close(found["elbo"], (images.double() / 255).flatten(1).sum(1), rtol=1e-5, atol=0)


def test_the_noise_of_the_elbo_is_averaged_and_depends_on_the_seed(run):
    run.model = Bounds()
    run.model.noise = 1.0
    images = torch.zeros(200, 1, 8, 8, dtype=torch.uint8)
    found = score(run, images)["elbo"]
    assert found.std() == pytest.approx(0.5, abs=4 * 0.5 / math.sqrt(2 * 200))  # of the mean of 4 draws
    assert torch.equal(found, score(run, images)["elbo"])
    assert not torch.equal(found, score(run, images, seed=1)["elbo"])


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


def test_auto_takes_the_best_of_the_models_own_scores(run, classes):
    found = detect(run, against=classes)
    own = {name: row["auroc"].value for name, row in found.rows.items() if not row["baseline"]}
    assert set(own) == {"error", "relative"} and own[found.score] == max(own.values())
    assert [name for name, row in found.rows.items() if row["chosen"]] == [found.score]


# files


def test_the_files_hold_what_was_found(paged, classes, tmp_path):
    found = detect(paged, against=classes, score="error", out=tmp_path / "out")
    rows = list(csv.DictReader((tmp_path / "out" / "scores.csv").open()))
    assert len(rows) == sum(found.counts.values())
    bad = [row for row in rows if row["kind"] == "abnormal"]
    assert {row["class"] for row in bad} == {"good", "bad"} and bad[0]["file"].endswith(".png")
    assert [float(row["error"]) for row in bad] == pytest.approx(found.scores["error"]["abnormal"].tolist())
    assert [int(row["number"]) for row in bad if row["flagged"] == "1"] == sorted(found.flagged)
    figures = json.loads((tmp_path / "out" / "figures.json").read_text())
    row, written = found.rows["error"], figures["rows"]["error"]
    assert written["auroc"] == {"value": row["auroc"].value, "interval": list(row["auroc"].interval)}
    assert written["threshold"] == row["threshold"] and written["chosen"] is True and written["flagged_share"] is None
    assert figures["flagged"] == len(found.flagged)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "scores.csv", "figures.json", "report.html", "histogram.png", "flagged.png", "heatmaps.png"
    }  # fmt: skip
    for name in ("histogram.png", "flagged.png", "heatmaps.png"):
        assert read_metadata(tmp_path / "out" / name)["verb"] == "detect"


def test_the_page_needs_nothing_else(paged, classes):
    text = detect(paged, against=classes, score="error").report.read_text()
    assert "<script" not in text and 'src="data:image/png' in text
    assert not [part for part in text.split('"') if part.startswith("http") and "w3.org" not in part]


def test_names_are_escaped(paged, tmp_path):
    for k, image in enumerate(pixels(12, 100, 250)):
        save_png(image, tmp_path / "set" / "<b>bad</b>".replace("/", "_") / f"{k}.png")
        save_png(image, tmp_path / "set" / "good" / f"{k}.png")
    text = detect(paged, against=tmp_path / "set", normal="<b>bad<_b>").report.read_text()
    assert "<b>bad" not in text and "&lt;b&gt;bad" in text


def test_pictures_of_an_earlier_call_do_not_stay(paged, classes, flat, tmp_path):
    detect(paged, against=classes, score="error", out=tmp_path / "out")
    np.save(tmp_path / "white.npy", np.full((400, 8, 8), 255, np.uint8))
    found = detect(paged, against=flat, score="error", out=tmp_path / "out", data=tmp_path / "white.npy")
    assert found.flagged == () and not (tmp_path / "out" / "flagged.png").exists()
    assert "No image has a score above the threshold" in found.report.read_text()


def tiles_of(page, counts):
    """The tiles of blocks that stand below each other, each of three rows of `counts` images of 64 x 64 px with a line
    of 1 px around them, at the lower right of its block but for a margin: (sum of counts, 3, 8, 8, 3), a pixel of each
    square of 8 x 8."""
    pixels, found = np.asarray(page), []
    left, height = pixels.shape[1] - GAP - max(counts) * 65, len(pixels) // len(counts)
    for k, count in enumerate(counts):
        top = (k + 1) * height - GAP - 3 * 65
        body = pixels[top:, left:][: 3 * 65, : count * 65].reshape(3, 65, count, 65, 3)
        found.append(body.transpose(2, 0, 1, 3, 4)[:, :, 4:64:8, 4:64:8])
    return np.concatenate(found)


def test_a_heat_map_is_hot_where_its_image_is_abnormal(paged, tmp_path):
    """17 images, which take two blocks; each has one pixel that the model does not know, none on the diagonal or at
    the mirror image of another's, and brighter by a step of its own, in another order than that of the files."""
    known = torch.arange(64, dtype=torch.uint8).view(1, 8, 8)
    places = [(row, column) for row in range(8) for column in range(row)][:17]
    brighter = [100 + 5 * (7 * k % 17) for k in range(17)]
    images = known.repeat(17, 1, 1, 1)
    for k, (row, column) in enumerate(places):
        images[k, 0, row, column] += brighter[k]
        save_png(images[k], tmp_path / "spots" / f"{k:02d}.png")
    np.save(tmp_path / "known.npy", known.repeat(40, 1, 1).numpy())
    paged.model = Recalls(known.float() / 255)
    found = detect(paged, data=tmp_path / "known.npy", against=tmp_path / "spots", score="error", out=tmp_path / "out")
    order = sorted(range(17), key=lambda k: -brighter[k])
    assert list(found.flagged) == order
    tiles = tiles_of(Image.open(tmp_path / "out" / "heatmaps.png"), (14, 3))
    for k, (image, result, heat_map) in zip(order, tiles, strict=True):
        assert np.array_equal(image, images[k, 0, :, :, None].expand(8, 8, 3).numpy())
        assert np.array_equal(result, known[0, :, :, None].expand(8, 8, 3).numpy())
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
    torch.testing.assert_close(_difference(Shown(images, results, [""])), expected)


def test_heat_runs_from_black_to_yellow():
    colours = heat(torch.tensor([[[0.0, 0.5, 9.0]]]), 0.5)
    assert colours.shape == (1, 3, 1, 3)
    assert colours[0, :, 0, 0].max() < 0.02
    red, green, blue = colours[0, :, 0, 1].tolist()
    assert red > 0.95 and green > 0.95 and blue < 0.7
    assert torch.equal(colours[0, :, 0, 1], colours[0, :, 0, 2])


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
        with pytest.raises(UserError, match="a share of the normal images"):
            detect(run, against=flat, false_alarms=rate)
    with pytest.raises(UserError, match="at least 1 image"):
        detect(run, against=flat, n=0)
    with pytest.raises(UserError, match=r"needs at least 9,999 held-out normal images"):
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
        def reconstruct(self, image, labels=None):
            return image * math.nan

    run.model = Broken()
    with pytest.raises(UserError, match=r"\(error\) that is NaN or infinite"):
        detect(run, against=flat)
