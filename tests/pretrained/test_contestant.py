"""A pipeline as a contestant: its prompts, its images, its cost, and a comparison with images."""

import json
from importlib import import_module
from types import SimpleNamespace

import pytest
import torch
from comparison.stand_ins import finished, make
from PIL import Image
from threads import SELF, in_threads
from torch import nn

import trilemma
from trilemma.cli.main import main
from trilemma.cli.results import PRINT
from trilemma.data import Data, Split
from trilemma.data.decoding.size import fit
from trilemma.errors import UserError
from trilemma.metrics import evaluate
from trilemma.metrics.catalogue import COST, QUALITY, names_that_need
from trilemma.metrics.reals import choice
from trilemma.pictures.levels import to_uint8
from trilemma.run.contestant import contestant_of
from trilemma.run.text_to_image import Session, TextToImage, prompts_of

N = 12  # the fewest images that have precision and recall


def data_of(n=20, classes=(), captions=False, shape=(1, 8, 8)):
    """Images of noise in a test split, every third of class 0."""
    images = torch.randint(0, 256, (n, *shape), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    labels = (torch.arange(n) % 3).clamp_max(1) if classes else None
    split = Split(images, labels, tuple(f"caption {k}" for k in range(n)) if captions else None)
    return Data("made-up", "made-up", shape, tuple(classes), {"train": split, "test": split}, (), (), "0" * 64)


def test_prompts_are_the_captions_of_the_real_images_that_are_taken():
    prompts, seed, n = prompts_of(data_of(captions=True, classes=("cat", "dog")), "test"), 3, 7
    taken = {f"caption {k}" for k in choice(20, n, seed).tolist()}
    assert {prompts.text(k, seed) for k in range(n)} == taken
    assert prompts.text(20, seed) == prompts.text(0, seed)
    assert prompts.text(1, seed) != prompts.text(1, seed + 1)


def test_prompts_name_the_classes_as_often_as_the_real_images_have_them():
    prompts = prompts_of(data_of(n=21, classes=("cat", "dog")), "test")
    texts = [prompts.text(k, 0) for k in range(21)]
    assert sorted(texts) == ["a photo of cat"] * 7 + ["a photo of dog"] * 14
    own = prompts_of(data_of(n=21, classes=("cat", "dog")), "test", "one {}, drawn")
    assert [own.text(k, 0) for k in range(21)] == [t.replace("a photo of", "one") + ", drawn" for t in texts]


def test_what_to_draw_is_asked_for_where_the_data_do_not_say_it(tiny):
    with pytest.raises(UserError, match="made-up has neither captions nor classes to draw by"):
        evaluate(f"pipeline:{tiny}", against=data_of(), n=N)
    with pytest.raises(UserError, match="neither captions nor classes"):
        prompts_of(data_of(), "test", "a {}")
    assert prompts_of(data_of(), "test", "a tree").text(5, 0) == "a tree"


@pytest.fixture(scope="module")
def evaluation(tiny):
    data = data_of(classes=("cat", "dog"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("trilemma.metrics.cost.BUDGET_S", 0.1)  # few repeats
        keys = {"n": N, "features": "digits-cnn", "seed": 2, "steps": 2, "guidance": 3}
        return evaluate(f"pipeline:{tiny}", against=data, **keys), data


@pytest.mark.slow
def test_image_k_is_that_of_its_prompt_brought_to_the_real_size(evaluation, tiny):
    result, data = evaluation
    assert result.fakes.shape == (N, 1, 8, 8) and result.fakes.dtype == torch.uint8
    text = prompts_of(data, "test").text(5, 2)
    alone = trilemma.imagine(text, model=tiny, seed=2, first=5, steps=2, guidance=3).images
    assert torch.equal(fit(to_uint8(alone), (8, 8), 1)[0], result.fakes[5])


def test_its_cost_is_measured_and_its_scores_say_which_pipeline_it_was(evaluation, tiny):
    result, _ = evaluation
    assert result["calls_per_image"].value == 4  # two steps, each guided: two rows of one call
    assert result["ms_per_image"].value > 0
    denoiser, networks = contestant_of(f"pipeline:{tiny}").prepared(data_of(), "test", "a cat").open().networks
    assert result["parameters"].value == sum(p.numel() for network in networks for p in network.parameters())
    details = names_that_need("sampler", detail=True)
    assert set(details) - {"training_seconds"} <= {score.name for score in result.scores}
    layers = [layer for layer in denoiser.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
    once = 2 * sum(layer.weight.numel() for layer in layers)  # each weight multiplies and adds at least once for a row
    assert result["flops_per_image"].value > 4 * once  # two steps of two rows
    assert result["ms_one_image"].value >= result["ms_best_batch"].value > 0
    assert result["peak_memory_mb"].value * 1e6 > 3 * 64 * 64 * 4  # the image as it is drawn, in float32
    score = result["density"]
    assert score.settings["steps"] == 2 and score.settings["guidance"] == 3
    assert score.settings["prompt"] == '"a photo of {}", {} for the name of the class of each real image'
    assert len(score.weights) == 16
    assert any("drawn at 64x64, scaled to cover 8x8" in note for note in result.notes)
    assert any("StableDiffusionPipeline (folder" in note and score.weights in note for note in result.notes)


@pytest.mark.slow
def test_several_processes_divide_the_drawing(evaluation, tiny, monkeypatch):
    """The images of one process; each draws its own, and process 0 some again for their time."""
    result, data = evaluation
    monkeypatch.setattr(import_module("trilemma.metrics.evaluate"), "current_team", lambda: SELF.team)
    monkeypatch.setattr("trilemma.metrics.cost.BUDGET_S", 0.1)
    drawn, images = {0: set(), 1: set()}, Session.images

    def noted(session, first, count, seed):
        drawn[SELF.rank] |= set(range(first, first + count))
        return images(session, first, count, seed)

    monkeypatch.setattr(Session, "images", noted)
    keys = {"n": N, "features": "digits-cnn", "seed": 2, "steps": 2, "guidance": 3, "batch": 3}
    for other in in_threads(2, lambda team: evaluate(f"pipeline:{tiny}", against=data, **keys)):
        assert torch.equal(other.fakes, result.fakes)
    assert set(range(6)) <= drawn[0] and drawn[1] == set(range(6, 12))


def test_a_batch_changes_no_image(evaluation, tiny):
    result, data = evaluation
    contestant = contestant_of(f"pipeline:{tiny}").prepared(data, "test", settings={"steps": 2, "guidance": 3.0})
    parts = list(contestant.draw(3, seed=2, first=4, batch=2))
    assert [(part.first, len(part.images)) for part in parts] == [(4, 2), (6, 1)]
    assert torch.equal(torch.cat([part.images for part in parts]), result.fakes[4:7])


def test_a_pipeline_whose_calls_cannot_be_counted_is_refused():
    base = SimpleNamespace(components={"decoder": nn.Linear(1, 1), "scheduler": "unet"})
    session = Session(object.__new__(TextToImage), SimpleNamespace(place=SimpleNamespace(name="odd"), base=base))
    with pytest.raises(UserError, match=r"odd \(SimpleNamespace\) has none of the parts unet, transformer, prior"):
        _ = session.networks


def test_what_does_not_fit_is_refused_before_the_pipeline_is_loaded(tiny, monkeypatch):
    monkeypatch.setattr("trilemma.run.text_to_image.load_pipeline", None)
    data = data_of(classes=("cat", "dog"))
    with pytest.raises(UserError, match="add what to measure them against"):
        evaluate(f"pipeline:{tiny}")
    with pytest.raises(UserError, match=r'unknown model "sd-trubo".*did you mean "sd-turbo"'):
        evaluate("pipeline:sd-trubo", against=data)
    with pytest.raises(UserError, match="stpes"):
        evaluate(f"pipeline:{tiny}", against=data, n=N, stpes=3)
    with pytest.raises(UserError, match=r"prompt=.* is what a pipeline draws"):
        evaluate(data.train.images, against=data, n=N, prompt="a cat")
    with pytest.raises(UserError, match="given twice"):
        trilemma.compare(f"pipeline:{tiny}", f"pipeline:{tiny}", against=data, quiet=True)


@pytest.fixture
def quick(tiny, monkeypatch):
    """Its pipelines draw in one step, as a checkpoint of the table may."""
    monkeypatch.setattr("trilemma.run.text_to_image.defaults_of", lambda name: {"steps": 1})
    return f"pipeline:{tiny}"


@pytest.mark.slow
def test_a_pipeline_stands_beside_images_in_a_comparison(quick, tmp_path, capsys):
    for k, image in enumerate(data_of().train.images):
        (tmp_path / "photos").mkdir(exist_ok=True)
        Image.fromarray(image[0].numpy()).save(tmp_path / "photos" / f"{k}.png")
    words = ["compare", quick, "photos", "against=digits", f"n={N}", "prompt=the digit {}", "out=out"]
    assert main(words) == 0
    values = json.loads((tmp_path / "out" / "report.json").read_text("utf-8"))
    tiny, photos = values["models"]
    assert (tiny["name"], tiny["kind"], photos["kind"]) == ("tiny", "pipeline", "images")
    assert tiny["scores"]["calls_per_image"]["value"] == 2 and tiny["place"]["speed"]
    assert "ms_per_image" not in photos["scores"]
    assert [c["name"] for c in values["columns"] if c["shared"]][-2:] == ["ms_per_image", "calls_per_image"]
    assert quick in values["again"]["all"]
    assert "prompt=the digit {}" in values["again"]["all"]
    assert f"evaluate {quick} against=digits" in tiny["commands"]["evaluate"]
    assert "1 pipeline and 1 set of images to measure" in capsys.readouterr().err


class Noise(nn.Module):
    """A model that draws static, one pass of its network each."""

    def __init__(self):
        super().__init__()
        self.sampling_network = nn.Linear(1, 1)

    def sample(self, n, *, seed, first=0, condition=None):
        self.sampling_network(torch.zeros(n, 1))
        return torch.rand(first + n, 1, 8, 8, generator=torch.Generator().manual_seed(seed))[first:]


@pytest.mark.slow
def test_a_pipeline_shares_all_axes_with_a_run(quick, tmp_path, monkeypatch):
    monkeypatch.setattr("trilemma.comparison.progress.seconds_per_image", lambda model, shape: 0.001)
    monkeypatch.setattr("trilemma.metrics.cost.REPEATS", 3)
    (tmp_path / "run").mkdir()
    run = finished("vae", tmp_path / "run", make())
    run.model = Noise().eval()
    keys = {"features": "digits-cnn", "quiet": True, "n": N, "prompt": "a digit", "out": tmp_path / "out"}
    report = trilemma.compare(run, quick, **keys).report
    assert [(m.kind, m.error) for m in report.models] == [("model", None), ("pipeline", None)]
    assert [c.name for c in report.columns if c.shared] == [*QUALITY, *COST]
    own, pipeline = (m.scores["calls_per_image"].value for m in report.models)
    assert (own, pipeline) == (1, 2)  # a pass, and a step that is guided
    assert report.models[1].scores["ms_per_image"].value > report.models[0].scores["ms_per_image"].value


@pytest.mark.slow
def test_an_interrupted_comparison_does_not_draw_again(quick, tmp_path, monkeypatch):
    drawn, data, photos = [], data_of(classes=("cat", "dog")), data_of(n=30).train.images

    def stopped_at_the_second(what, **settings):
        drawn.append(what.name)
        if what.name != quick and drawn.count(what.name) == 1:
            raise KeyboardInterrupt
        return evaluate(what, **settings)

    monkeypatch.setattr("trilemma.metrics.evaluate", stopped_at_the_second)
    keys = {"against": data, "features": "digits-cnn", "quiet": True, "n": N, "out": tmp_path / "out"}
    with pytest.raises(KeyboardInterrupt):
        trilemma.compare(quick, photos, **keys)
    trilemma.compare(quick, photos, **keys)
    assert drawn.count(quick) == 1 and len(drawn) == 3


@pytest.mark.slow
def test_evaluate_takes_texts_as_they_are_typed(tiny, monkeypatch):
    results = []
    monkeypatch.setattr("trilemma.metrics.cost.BUDGET_S", 0.1)  # few repeats
    monkeypatch.setitem(PRINT, "evaluate", lambda result, given: results.append(result))
    texts = ["negative=blurred, dark", "scheduler=EulerDiscreteScheduler"]
    assert main(["evaluate", f"pipeline:{tiny}", "against=digits", f"n={N}", "steps=1", *texts]) == 0
    settings = results[0]["density"].settings
    assert [f"{key}={settings[key]}" for key in ("negative", "scheduler")] == texts


@pytest.mark.slow
def test_evaluate_prints_its_scores_and_how_it_drew(tiny, capsys):
    assert main(["evaluate", f"pipeline:{tiny}", "against=digits", f"n={N}", "steps=1", "size=32"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "ms_per_image" in text and "parameters" in text
    assert "drawn at 32x32, scaled to cover 8x8" in text
