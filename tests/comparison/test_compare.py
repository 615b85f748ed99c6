import io
import json
import math
import os
import re
import shlex
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from comparison.stand_ins import FAMILIES, StandIn, evaluation, finished, make, score
from matplotlib.colors import to_rgb
from PIL import Image
from rich.console import Console

from trilemma.comparison import compare
from trilemma.comparison.folder import claim_folder
from trilemma.comparison.learning import KEPT
from trilemma.comparison.rows import OVER_TRAININGS, REALS_HELD_FIXED, model_row
from trilemma.comparison.trained import curves
from trilemma.errors import UserError
from trilemma.metrics.cost import time_in_turns
from trilemma.metrics.intervals import Spread, wilson
from trilemma.pictures.plots import LIGHT, SOFT
from trilemma.pictures.png import read_metadata
from trilemma.training.signals import Stopped


def refuse(constant):
    raise AssertionError(f"{constant} is no JSON")


def test_one_model_of_each_family_by_default(stage, tmp_path):
    report = compare(quiet=True)
    assert [row["name"] for row in report.rows] == list(FAMILIES)
    assert [t[:3] for t in stage.trained] == [(name, 0.5, 0) for name in FAMILIES]
    assert report.html.resolve() == tmp_path / "runs/compare-digits/report.html"
    assert [t[3] for t in stage.trained] == [report.html.parent / "runs" / name for name in FAMILIES]
    assert stage.measured == [(name, 14, 0, 14) for name in FAMILIES]  # all 14 test images, in one batch of at most 64
    values = json.loads(report.json.read_text("utf-8"), parse_constant=refuse)
    assert values == report.document
    assert values["again"]["all"].startswith("trilemma compare data=digits models=ae-stacked,vae,")


def test_rows_and_table_show_the_figures_of_the_document(plots, stage):
    report = compare(quiet=True, models="vae,gan-dcgan", n=13, seed=3)
    row = report.rows[0]
    assert (row["density"], row["density_interval"]) == (0.7102, [0.95 * 0.7102, 1.05 * 0.7102])
    assert row["frechet_distance_refused"] == "10 images are too few"
    assert stage.measured == [("vae", 13, 3, 13), ("gan-dcgan", 13, 3, 13)]
    console = Console(file=io.StringIO(), width=140)
    console.print(report.table())
    text = console.file.getvalue()
    for part in (
        "vae",
        "gan-dcgan",
        "0.71",
        "0.67 to 0.75",
        "Frechet distance refused: 10 images are too few",
        "1,234,567",
    ):
        assert part in text
    html = report._repr_html_()
    assert "<svg" in html and "gan-dcgan" in html


def test_folders_are_numbered_and_one_may_be_named(stage):
    places = [compare(quiet=True, models=["vae"], seed=seed).html.parent.name for seed in range(3)]
    assert places == ["compare-digits", "compare-digits-2", "compare-digits-3"]
    for _ in range(2):  # naming it again continues it
        assert compare(quiet=True, models=["vae"], out="here").json.as_posix() == "here/report.json"


def test_a_failed_model_does_not_lose_the_others(stage):
    stage.broken = {"vae": UserError("the loss is nan"), "gan-dcgan": RuntimeError("out of memory")}
    report = compare(quiet=True)
    errors = {row["name"]: row["error"] for row in report.rows}
    assert errors["vae"] == "the loss is nan"
    assert errors["gan-dcgan"] == "RuntimeError: out of memory"
    assert errors["ae-stacked"] is None
    assert [name for name, *_ in stage.measured] == ["ae-stacked", "diffusion"]


def test_all_failed_is_an_error_with_every_reason(stage):
    stage.broken = {name: UserError(f"{name} broke") for name in FAMILIES}
    with pytest.raises(UserError, match=r"ae-stacked broke.*diffusion broke"):
        compare(quiet=True)


def test_ctrl_c_ends_the_comparison_with_the_command_that_goes_on(stage, capsys):
    stopped = stage.broken["vae"] = Stopped(2, "stopped after 5 images")
    with pytest.raises(Stopped) as raised:
        compare(minutes=0.25, size="8")
    assert raised.value is stopped and raised.value.code == 130
    assert [name for name, *_ in stage.trained] == ["ae-stacked", "vae"]
    last = capsys.readouterr().err.splitlines()[-1]
    command = last.partition("Resume with: ")[2]
    models = "models=ae-stacked,vae,gan-dcgan,diffusion"
    out = Path("runs/compare-digits").absolute()
    assert command == f"trilemma compare data=digits {models} minutes=0.25 size=8x8 n=14 seed=0 out={out}"


def test_the_same_request_continues_what_was_interrupted(stage):
    stage.broken["gan-dcgan"] = KeyboardInterrupt()
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            compare(quiet=True)
    stage.broken.clear()
    assert compare(quiet=True, seed=1).html.parent.name == "compare-digits-2"  # another request: another folder
    for _ in range(2):  # when it is finished it is measured again
        assert compare(quiet=True).html.parent.name == "compare-digits"


def test_the_newest_of_several_interrupted_comparisons_is_continued(stage):
    request = {"data": "digits", "n": 4}
    for number, age in (("", 300), ("-2", 100), ("-3", 200)):
        folder = Path(f"runs/compare-digits{number}")
        folder.mkdir(parents=True)
        (folder / "request.json").write_text(json.dumps(request))
        then = time.time() - age
        os.utime(folder / "request.json", (then, then))
    with claim_folder("digits", request, None) as first, claim_folder("digits", request, None) as second:
        assert (first.name, second.name) == ("compare-digits-2", "compare-digits-3")  # the first is held
    with claim_folder("digits", request | {"n": 5}, None) as other:
        assert other.name == "compare-digits-4"
        assert json.loads((other / "request.json").read_text()) == {"data": "digits", "n": 5}
        with pytest.raises(UserError, match="another out="), claim_folder("digits", request | {"n": 5}, other):
            pass


def test_a_moved_project_continues_and_a_new_folder_has_its_reason(stage):
    request, messages = {"data": "/here/photos", "fingerprint": "a", "minutes": 0.5, "n": 4, "seeds": 1}, []
    with claim_folder("photos", request, None, messages.append):
        pass
    moved = request | {"data": "/there/photos", "seeds": 3}
    with claim_folder("photos", moved, None, messages.append) as folder:
        assert folder == Path("runs/compare-photos") and not messages
    with claim_folder("photos", moved | {"minutes": 2, "n": 5, "fingerprint": "b"}, None, messages.append) as folder:
        assert folder == Path("runs/compare-photos-2")
    with claim_folder("photos", moved | {"minutes": 2}, None, messages.append):
        pass
    assert messages == [
        "runs/compare-photos-2 is a new comparison, because runs/compare-photos holds another: its images differ; "
        "minutes 0.5 then, 2 now; n 4 then, 5 now",
        "runs/compare-photos-3 is a new comparison, because runs/compare-photos holds another: minutes 0.5 then, 2 now",
    ]
    with pytest.raises(UserError, match=r"another comparison: minutes 0\.5 then, 2 now \(see"):
        claim_folder("photos", moved | {"minutes": 2}, "runs/compare-photos").__enter__()


def test_a_folder_of_other_files_is_refused(stage):
    Path("mine").mkdir()
    Path("mine/photo.png").write_bytes(b"x")
    with pytest.raises(UserError, match=r"mine holds files that are not a comparison; choose another out="):
        compare(quiet=True, out="mine")
    assert [path.name for path in Path("mine").iterdir()] == ["photo.png"] and not stage.trained


def test_a_named_folder_with_another_comparison_is_refused(stage):
    compare(quiet=True, models="vae", out="here")
    before = Path("here/report.json").read_bytes()
    with pytest.raises(UserError, match="here holds another comparison"):
        compare(quiet=True, models="vae", n=13, out="here")
    Path("here/request.json").unlink()
    with pytest.raises(UserError, match="here holds another comparison"):
        compare(quiet=True, models="vae", out="here")
    assert Path("here/report.json").read_bytes() == before


def test_loaded_data_is_brought_to_the_size(stage):
    data = make()
    compare(data=data, size=16, models="vae", quiet=True)
    assert stage.loaded == [(data, 16)]


def test_few_held_out_images_give_way_to_the_training_images(stage):
    """2 validation images and no test split: the 12 training images are measured by, and it is said."""
    stage.data = make(without=("test",))
    stage.evaluation = lambda name, n: evaluation(name, n, split="train")
    report = compare(models="vae,gan-dcgan", quiet=True)
    assert [n for _, n, *_ in stage.measured] == [12, 12]
    assert report.document["real"]["split"] == "train"
    seen, rough = report.document["caveats"]
    assert "seen in training" in seen and "with 12 real and 12 generated images precision and recall are rough" in rough
    console = Console(file=io.StringIO(), width=100)
    console.print(report.table())
    shown = " ".join(console.file.getvalue().split())
    for text in (seen, rough):
        assert text in shown and text in report.html.read_text("utf-8")


def test_another_protocol_never_joins_the_table(stage):
    stage.evaluation = lambda name, n: evaluation(name, n, **({"split": "valid"} if name == "vae" else {}))
    report = compare(quiet=True, models="gan-dcgan,vae,ae-stacked")
    errors = [row["error"] for row in report.rows]
    assert errors[0] is None and errors[2] is None
    assert "another protocol than gan-dcgan" in errors[1] and "'valid'" in errors[1]
    assert "density" not in report.rows[1]


def test_names_are_checked_before_anything_is_trained(stage):
    with pytest.raises(UserError, match="unknown model"):
        compare(quiet=True, models="vae,van")
    with pytest.raises(UserError, match="no model matches"):
        compare(quiet=True, models="zzz*")
    with pytest.raises(UserError, match="names no model"):
        compare(quiet=True, models=" , ")
    for n in (0, 11, 15):
        with pytest.raises(UserError, match=r"test split of digits has 14 images; choose n from 12 to 14"):
            compare(quiet=True, n=n)
    for minutes in (0, -1, float("nan"), float("inf")):
        with pytest.raises(UserError, match="minutes="):
            compare(quiet=True, minutes=minutes)
    assert stage.trained == []


def test_a_feature_network_is_loaded_before_anything_is_trained(stage, monkeypatch):
    """A wrong name, or one that cannot be fetched, costs neither trainings nor a folder."""
    with pytest.raises(UserError, match=r'unknown feature network "dinov3".*did you mean "dinov2"'):
        compare(models="vae", features="dinov3", quiet=True)

    def out_of_reach(**_):
        raise UserError("inception cannot be fetched")

    monkeypatch.setattr("trilemma.classifiers.inception.load_inception", out_of_reach)
    with pytest.raises(UserError, match="inception cannot be fetched"):
        compare(models="vae", features="inception", quiet=True)
    assert stage.trained == [] and not Path("runs").exists()


def test_wildcards_are_spelt_out_and_names_kept_once(stage):
    report = compare(quiet=True, models="vae, gan*,vae")
    assert [row["name"] for row in report.rows] == ["vae", "gan-dcgan"]
    assert "models=vae,gan-dcgan" in report.document["again"]["all"]


def test_the_report_is_made_again_from_another_folder(stage, tmp_path, monkeypatch):
    Path("odd 1.zip").touch()
    stage.data = make(source="odd 1.zip")
    report = compare(data="odd 1.zip", models="vae", minutes=1 / 60, out="here", quiet=True)
    words = shlex.split(report.document["again"]["all"])
    keys = dict(word.split("=", 1) for word in words[2:])
    assert words[:2] == ["trilemma", "compare"]
    assert keys["data"] == str(tmp_path / "odd 1.zip") and keys["out"] == str(tmp_path / "here")
    (model,) = report.document["models"]
    run = str(tmp_path / "here/runs/vae")
    assert model["run"] == run
    assert report.document["again"]["measure"] == f"trilemma compare {run} n=14 seed=0"
    assert all(f" {run} " in model["commands"][verb] for verb in ("sample", "evaluate"))

    before = report.json.read_bytes()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    stage.data = make(source=keys["data"])  # as it is loaded by that path; it names the same comparison, in its folder
    again = compare(data=keys["data"], models=keys["models"], minutes=float(keys["minutes"]), n=int(keys["n"]),
                    seed=int(keys["seed"]), out=keys["out"], quiet=True)  # fmt: skip
    assert again.json == tmp_path / "here/report.json" and again.document["again"] == report.document["again"]
    assert json.loads(before)["columns"] == again.document["columns"]


def test_images_in_place_of_minutes(stage):
    report = compare(models="vae,gan-dcgan", images=120_000, quiet=True)
    assert [(name, minutes) for name, minutes, *_ in stage.trained] == [("vae", None), ("gan-dcgan", None)]
    assert all(keys["images"] == 120_000 for keys in stage.keys.values())
    assert " images=120000 " in report.document["again"]["all"] and "minutes" not in report.document["again"]["all"]
    budget = report.document["budget"]
    assert budget["equal"] and budget["text"].startswith("Each model was to see 120,000 training images. Used: ")
    with pytest.raises(UserError, match="minutes= and images= both say how long"):
        compare(models="vae", images=100, minutes=1, quiet=True)


def test_a_report_in_vietnamese(stage):
    report = compare(models="vae,gan-dcgan", lang="vi", quiet=True)
    page = report.html.read_text("utf-8")
    assert '<html lang="vi">' in page and "Nên dùng mô hình nào" in page and "Which model to use" not in page
    assert (
        report.document["answer"][0]["text"].startswith("Với 12 ảnh huấn luyện 8 x 8 px")
        and report.document["language"] == "vi"
    )
    assert report.document["again"]["all"].endswith(" lang=vi")
    english = compare(models="vae,gan-dcgan", quiet=True).document["answer"][0]["text"]
    assert english.startswith("For 12 training images of 8 x 8 px and 30 seconds of training each: ")


def test_models_of_one_number_of_parameters(stage, monkeypatch):
    monkeypatch.setattr("trilemma.comparison.work.settings_for", lambda name, shape, n: {"width": (name, shape, n)})
    report = compare(models="vae", parameters=50_000, want="speed", curves=False, quiet=True)
    assert stage.keys["vae"] == {"keep_weights": KEPT, "width": ("vae", (1, 8, 8), 50_000)}
    assert " parameters=50000 " in report.document["again"]["all"]
    assert report.document["again"]["all"].endswith(" want=speed curves=false")
    compare(models="vae", quiet=True)
    assert stage.keys["vae"] == {"keep_weights": KEPT}


@pytest.mark.parametrize("minutes", [1, 0.02, 1 / 60, 0.1 + 0.2])
def test_the_command_asks_for_the_same_minutes(stage, minutes):
    command = compare(models="vae", minutes=minutes, quiet=True).document["again"]["all"]
    assert float(command.partition("minutes=")[2].split()[0]) == minutes


def test_one_second_is_no_seconds(stage):
    report = compare(models="vae", minutes=1 / 60, quiet=True)
    assert report.document["budget"]["text"].startswith("Asked for each model: 1 second of training. Used: ")
    assert "1 second each" in report.html.read_text("utf-8")


@pytest.fixture
def runs(monkeypatch):
    """Runs by path."""
    opened = {}
    monkeypatch.setattr("trilemma.comparison.entries.contestant_of", lambda what, size: opened[what])
    return opened


def test_finished_runs_are_compared_without_training(stage, runs):
    data = make()
    runs |= {"a/vae": finished("vae", "a/vae", data), "b/vae": finished("vae", "b/vae", data)}
    report = compare("a/vae", "b/vae", quiet=True)
    assert stage.trained == []
    assert [row["name"] for row in report.rows] == ["a/vae", "b/vae"]  # the folders alone would not tell them apart
    places = " ".join(str(Path(run).absolute()) for run in ("a/vae", "b/vae"))
    again = report.document["again"]
    assert again == {"all": f"trilemma compare {places} n=14 seed=0", "measure": again["all"]}
    assert report.document["budget"]["asked_seconds"] is None


def test_runs_on_different_data_are_refused(stage, runs):
    one, other = make(), make(name="photos", source="photos", seed=1)
    runs |= {"x": finished("vae", "x", one), "y": finished("gan-dcgan", "y", other)}
    with pytest.raises(UserError, match=r"x was trained on digits .*, y on photos .*same data="):
        compare("x", "y", quiet=True)
    runs["y"] = finished("gan-dcgan", "y", make(seed=1))
    with pytest.raises(UserError, match="same size= and valid="):
        compare("x", "y", quiet=True)


def test_runs_that_cannot_be_measured_or_shown_are_refused_first(stage, runs):
    class Unfinished(StandIn):
        @property
        def summary(self):
            raise UserError(f"{self.path} is not a (finished) run: it has no summary.json")

    whole = finished("gan-dcgan", "y", make())
    cut = {key: value for key, value in vars(finished("vae", "x", make())).items() if key != "summary"}
    runs |= {"y": whole, "x": Unfinished(**cut)}
    with pytest.raises(UserError, match=r"x is not a .*finished.* run: it has no summary.json"):
        compare("y", "x", quiet=True)
    assert stage.measured == [] and not Path("runs").exists()


def test_images_that_changed_since_the_training_are_said(stage, runs):
    class Changed(StandIn):
        @property
        def data(self):
            raise UserError("the images in photos have changed since x was trained")

    runs["x"] = Changed(**{key: value for key, value in vars(finished("vae", "x", make())).items() if key != "data"})
    with pytest.raises(UserError, match="images in photos have changed"):
        compare("x", quiet=True)
    assert stage.measured == []


def test_runs_exclude_training_keys_and_repetition(stage, runs):
    runs |= {"x": finished("vae", "x", make())}
    with pytest.raises(UserError, match="data=digits: finished runs"):
        compare("x", data="digits", quiet=True)
    with pytest.raises(UserError, match="given twice"):
        compare("x", "x", quiet=True)


@pytest.mark.slow
def test_the_same_comparison_gives_the_same_files(plots, stage):
    first, second = (compare(quiet=True, models="vae", out="same") for _ in range(2))
    assert first.document == second.document
    text = first.html.read_bytes()
    compare(quiet=True, models="vae", out="same")
    assert first.html.read_bytes() == text


def test_the_triangle_is_a_picture_of_its_own_without_stand_in_colours(plots, stage):
    path = compare(quiet=True).html.with_name("triangle.png")
    assert read_metadata(path)["command"].startswith("trilemma compare data=")
    picture = Image.open(path).convert("RGB")
    result = {colour for _, colour in picture.getcolors(picture.width * picture.height)}
    levels = {name: tuple(round(255 * part) for part in to_rgb(name)) for name in (*LIGHT, *LIGHT.values())}
    assert not any(levels[name] in result for name in LIGHT)
    assert (255, 255, 255) in result and levels[LIGHT[SOFT]] in result


def test_several_seeds_are_one_row_with_the_mean_and_an_interval_over_trainings(stage):
    """Recalls of 0.5, 0.6 and 0.7: mean 0.6, and t = 4.303 with 2 degrees of freedom times sqrt(0.01 / 3); joined with
    the mean of three intervals of 0.03 to either side, which has 0.03 / sqrt(3)."""
    recalls = {"vae": iter([0.5, 0.6, 0.7]), "gan-dcgan": iter([0.1, 0.1, 0.1])}

    def measured(name, n):
        result = evaluation(name, n)
        result.scores = tuple(
            replace(s, value=(v := next(recalls[name])), interval=(v - 0.03, v + 0.03), unit="fraction of images")
            if s.name == "coverage"
            else s
            for s in result.scores
        )
        return result

    stage.evaluation = measured
    report = compare(models="vae,gan-dcgan", seed=5, seeds=3, quiet=True)
    folder = report.html.parent / "runs"
    labels = [
        ("vae", 5),
        ("gan-dcgan", 5),
        ("vae-seed-6", 6),
        ("gan-dcgan-seed-6", 6),
        ("vae-seed-7", 7),
        ("gan-dcgan-seed-7", 7),
    ]
    assert [(t[3], t[2]) for t in stage.trained] == [(folder / name, seed) for name, seed in labels]
    assert [row["name"] for row in report.rows] == ["vae", "gan-dcgan"]
    row, (vae, _) = report.rows[0], report.document["models"]
    of_values, own = 4.30265 * math.sqrt(0.01 / 3), 0.03 / math.sqrt(3)
    half, half_of_pair = math.hypot(of_values, own), math.hypot(of_values, own, own)
    assert row["coverage"] == pytest.approx(0.6) and row["coverage_interval"] == pytest.approx(
        [0.6 - half, 0.6 + half], abs=1e-4
    )
    assert [(t["name"], t["seed"], t["scores"]["coverage"]["value"]) for t in vae["trainings"]] == [
        ("vae", 5, 0.5), ("vae-seed-6", 6, 0.6), ("vae-seed-7", 7, 0.7),
    ]  # fmt: skip
    (pair,) = report.document["differences"]["coverage"]
    assert pair["value"] == pytest.approx(0.5)
    assert pair["interval"] == pytest.approx([0.5 - half_of_pair, 0.5 + half_of_pair], abs=1e-4)
    assert "seeds=3" in report.document["again"]["all"]
    assert not any("seeds=3 covers" in item["text"] for item in report.document["answer"])


def test_a_score_that_is_alike_in_each_training_is_not_exact(stage):
    """No copy among 10 images of each of 3 trainings: the mean of three such intervals reaches as far as one over
    sqrt(3). What each training counts exactly is exact. The intervals say whether real images are held fixed."""
    none, deviations = wilson(0, 10), torch.tensor([0.0, 0.1, -0.1], dtype=torch.float64)

    def measured(name, n):
        result = evaluation(name, n)
        copies = score("near_copies", none.value, none.interval, "lower", n=n, unit="fraction of images")
        result.scores = (*result.scores, copies, score("inception_score", 2.0, (1.9, 2.1), "higher", n=n))
        of_images = Spread(2.0, deviations[:0], deviations, least=1.0)
        result.spreads = {"kernel_distance": Spread(0.006, deviations), "inception_score": of_images}
        return result

    stage.evaluation = measured
    (vae,) = compare(models="vae", seeds=3, quiet=True).report.models
    assert vae.scores["near_copies"].interval == pytest.approx((0.0, none.interval[1] / math.sqrt(3)))
    assert vae.scores["calls_per_image"].interval == (1.0, 1.0)
    kinds = {name: vae.scores[name].interval_is for name in ("kernel_distance", "near_copies", "inception_score")}
    over, fixed = (text.format(n=3) for text in (OVER_TRAININGS, REALS_HELD_FIXED))
    assert kinds == {"kernel_distance": over, "near_copies": fixed, "inception_score": fixed}


def test_more_seeds_add_to_what_is_trained(stage):
    assert compare(models="vae", quiet=True).html.parent.name == "compare-digits"
    assert compare(models="vae", seeds=2, quiet=True).html.parent.name == "compare-digits"
    assert [t[3].name for t in stage.trained] == ["vae", "vae", "vae-seed-1"]
    for seeds in (0, -1):
        with pytest.raises(UserError, match="give a whole number of at least 1"):
            compare(models="vae", seeds=seeds, quiet=True)
    with pytest.raises(UserError, match=r"^seeds=1\.5: give a whole number of at least 1$"):
        compare(models="vae", seeds=1.5, quiet=True)


def test_a_training_that_fails_leaves_its_row_the_others(stage):
    stage.broken_seeds = {("vae", 1): UserError("the loss is nan")}
    report = compare(models="vae,gan-dcgan", seeds=3, quiet=True)
    vae, gan = report.document["models"]
    assert vae["error"] is None and vae["warnings"] == ["seed 1: failed: the loss is nan"]
    assert [bool(t["scores"]) for t in vae["trainings"]] == [True, False, True] and gan["warnings"] == []


def test_one_training_says_that_its_luck_is_not_covered(stage):
    report = compare(models="vae,gan-dcgan", quiet=True)
    console = Console(file=io.StringIO(), width=60)
    console.print(report.table())
    assert "do not cover the luck of one training" in " ".join(console.file.getvalue().split())
    assert report.document["answer"][-1]["command"].endswith("seeds=3")


def test_runs_that_differ_in_their_seed_alone_are_one_row(stage, runs):
    data = make()
    runs |= {f"v{k}": finished("vae", f"v{k}", data, seed=k) for k in range(3)}
    runs |= {"wide": finished("vae", "wide", data, seed=7), "again": finished("vae", "again", data, seed=0)}
    runs["wide"].config["model_config"]["width"] = runs["wide"].model_config.width = 64
    report = compare("v0", "wide", "v1", "again", "v2", quiet=True)
    trainings = {m["name"]: [t["name"] for t in m["trainings"]] for m in report.document["models"]}
    assert trainings == {
        "vae": ["v0", "v1", "v2"],
        "wide": ["wide"],
        "again": ["again"],
    }  # the same seed is no new luck
    with pytest.raises(UserError, match="seeds=2: finished runs"):
        compare("v0", seeds=2, quiet=True)


def test_a_list_of_runs_is_taken_like_the_runs_themselves(stage, runs):
    runs |= {name: finished("vae", name, make()) for name in ("x", "y", "z")}
    runs["y"].config["model_config"]["width"] = 64
    runs["z"].config["model_config"]["width"] = 16
    names = ["x", "y", "z"]
    assert [row["name"] for row in compare(names, quiet=True).rows] == names
    assert [row["name"] for row in compare(["x", "y"], "z", quiet=True).rows] == names


def test_notes_of_the_data_and_the_whole_time_are_said_once(stage, capsys):
    compare(models="vae,gan-dcgan", minutes=0.5, seeds=2)
    message = capsys.readouterr().err
    assert message.count("seen as grey") == 1
    assert "2 models x 2 seeds x 30 s of training, about 2.5 min in all" in message
    assert len(re.findall(r"^done in \d", message, re.MULTILINE)) == 1


def test_models_are_timed_in_turns_and_the_median_stands_in_the_table(stage, monkeypatch):
    """Six turns: the interval is their range. A ratio of 2 in each turn is a lead, though the times overlap."""
    turns = {"vae": (1.0, 3.0, 1.0, 3.0, 1.2, 1.0), "gan-dcgan": (2.0, 6.0, 2.0, 6.0, 2.4, 2.0)}
    monkeypatch.setattr("trilemma.metrics.cost.time_in_turns", lambda draws, batch: list(turns.values()))
    report = compare(models=list(turns), quiet=True)
    assert (report.rows[0]["ms_per_image"], report.rows[0]["ms_per_image_interval"]) == (1.1, [1.0, 3.0])
    assert report.document["verdict"]["axes"]["speed"]["first"] == ["vae"]


def test_a_sampler_that_fails_while_it_is_timed_costs_its_model_alone(stage, runs, monkeypatch, capsys):
    """x fails at its first image; of y, 1 and 14 images are drawn in each of two turns."""
    runs |= {name: finished(model, name, make()) for name, model in (("x", "vae"), ("y", "gan-dcgan"))}
    drawn = []

    def failing(n, **_):
        drawn.append("x")
        raise RuntimeError("out of memory")

    runs["x"].sample, runs["y"].sample = failing, lambda n, **_: drawn.append(n)
    monkeypatch.setattr("trilemma.metrics.cost.time_in_turns", partial(time_in_turns, turns=2))
    report = compare("x", "y")
    rows = {row["name"]: row for row in report.rows}
    assert drawn.count("x") == 1 and [n for n in drawn if n != "x"] == [1, 14] * 2
    assert rows["x"]["error"] == "RuntimeError: out of memory" and rows["y"]["error"] is None
    assert "density" not in rows["x"] and rows["y"]["density"] and rows["y"]["ms_per_image"] < 1000
    assert capsys.readouterr().err.count("x failed: RuntimeError: out of memory") == 1
    runs["y"].sample = failing
    with pytest.raises(UserError, match=r"no model could be compared.*x: RuntimeError.*y: RuntimeError"):
        compare("x", "y", quiet=True)


def test_no_memory_for_the_nearest_training_images_leaves_the_report(stage, monkeypatch):
    def scarce(*_):
        raise RuntimeError("out of memory")

    monkeypatch.setattr("trilemma.metrics.nearest.nearest_training_images", scarce)
    report = compare(models="vae", quiet=True)
    assert report.html.exists() and report.document["models"][0]["nearest"] == {"refused": "out of memory"}


def test_warnings_of_a_training_stand_in_its_row_and_at_the_end_of_the_terminal(stage, runs):
    runs |= {"x": finished("vae", "x", make()), "y": finished("gan-dcgan", "y", make())}
    runs["x"].warnings = ("30 of 32 units are idle (posterior collapse)",)
    report = compare("x", "y", quiet=True)
    assert [row["warnings"] for row in report.rows] == [["30 of 32 units are idle (posterior collapse)"], []]
    console = Console(file=io.StringIO(), width=200)
    console.print(report.table())
    last = console.file.getvalue().splitlines()[-3:]
    assert any("x was trained with warnings. 30 of 32 units are idle (posterior collapse)." in line for line in last)


def test_a_warning_of_several_trainings_is_said_once_with_their_seeds(stage, runs):
    runs |= {f"v{k}": finished("vae", f"v{k}", make(), seed=k) for k in range(3)}
    for k, warnings in enumerate([("idle units",), ("idle units", "a spike"), ()]):
        runs[f"v{k}"].warnings = warnings
    (row,) = compare("v0", "v1", "v2", quiet=True).rows
    assert row["warnings"] == ["seeds 0 and 1: idle units", "seed 1: a spike"]


def test_a_run_that_cannot_be_read_costs_only_itself(stage, runs, tmp_path):
    class Broken(StandIn):
        @property
        def summary(self):
            raise UserError("x/summary.json: images must be a number")

    (tmp_path / "x").mkdir()
    cut = {key: value for key, value in vars(finished("vae", "x", make())).items() if key != "summary"}
    runs |= {"x": Broken(**cut), "y": finished("gan-dcgan", "y", make())}
    result = compare("x", "y", quiet=True)
    rows = {row["name"]: row for row in result.rows}
    assert rows["x"]["error"] == "x/summary.json: images must be a number" and rows["y"]["error"] is None
    assert [name for name, *_ in stage.measured] == ["gan-dcgan"] and result.html.exists()
    with pytest.raises(UserError, match="images must be a number"):
        compare("x", quiet=True)


@pytest.mark.parametrize("broken", [{"log": [{"step": 1, "a/loss": 1.0}]}, {"summary": {"images": 1}}])
def test_what_cannot_be_shown_of_a_run_costs_only_that_run(stage, runs, broken):
    """A row without its place, or a summary without numbers, that came through the checks."""
    runs |= {"x": finished("vae", "x", make()), "y": finished("gan-dcgan", "y", make())}
    vars(runs["x"]).update(broken)
    rows = {row["name"]: row for row in compare("x", "y", quiet=True).rows}
    assert "KeyError" in rows["x"]["error"] and rows["y"]["error"] is None


def test_a_log_of_thousands_of_names_is_drawn_in_part():
    rows = [{"seconds": 1.0, **{f"a/{k}": 1.0 for k in range(20_000)}}]
    assert len(curves(rows)) == 40


class ByPath:
    """A model whose bound takes many calls."""

    def bound(self):
        """Is not called."""

    elbo = flow_bound = bound


def test_diffusion_models_have_few_calls_for_their_bound(stage, monkeypatch):
    asked = {}

    def train(model, data, **keys):
        run = finished(model, keys["out"], data)
        run.model = ByPath() if model == "diffusion" else None
        return run

    def evaluate(run, *, n, seed, batch, reference, **bounds):
        asked[run.recipe.name] = bounds
        return stage.evaluation(run.recipe.name, n=n)

    monkeypatch.setattr("trilemma.training.train", train)
    monkeypatch.setattr("trilemma.metrics.evaluate", evaluate)
    compare(models="vae,diffusion")
    assert asked == {"vae": {}, "diffusion": {"bound_samples": 8, "bound_images": 64}}


def test_a_row_that_cannot_be_shown_says_where_it_happened_if_that_is_asked_for(stage, monkeypatch, capsys):
    def broken(name, row, *rest):
        return 1 // 0 if name == "vae" and not row[0].error else model_row(name, row, *rest)

    monkeypatch.setattr("trilemma.comparison.document.model_row", broken)
    for debug in ("0", "1"):
        monkeypatch.setenv("TRILEMMA_DEBUG", debug)
        result = compare(models="vae,gan-dcgan", out=f"report-{debug}")
        assert "ZeroDivisionError" in str(result.document)
        assert ("Traceback" in capsys.readouterr().err) is (debug == "1")
