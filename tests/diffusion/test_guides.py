"""Guidance from outside the model: by another run and by a bundled classifier, with its cost, receipts and refusals."""

import shutil
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor

import trilemma
from trilemma import again
from trilemma.classifiers.bundled import load_network
from trilemma.config import Config, make
from trilemma.data.sources.mnist import ARTICLES, NUMERALS
from trilemma.diffusion import optimised
from trilemma.diffusion.config import PixelDiffusionConfig
from trilemma.diffusion.denoiser import Diffusion, DiffusionConfig
from trilemma.diffusion.grids import times_of
from trilemma.diffusion.guidance import log_probability
from trilemma.diffusion.model import PixelDiffusion
from trilemma.diffusion.sampling import DiffusionSampling
from trilemma.diffusion.schedule import Schedule, get_schedule, log_snr
from trilemma.errors import UserError
from trilemma.explore import sample
from trilemma.files import read_json, write_json
from trilemma.metrics import cost
from trilemma.run.run import Run
from trilemma.types import NO_GUIDES, UNCONDITIONAL, Condition, Guides

TABLE = {"shape": (1, 8, 8), "widths": (4, 8), "T": 100}
TINY = {"width": 8, "multipliers": (1, 2), "depth": 1, "attention_px": 0, "steps": 2, "batch": 16, "quiet": True}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Runs of digits: a strong one and a weak one, one of classes, two of other sizes, one that does not denoise."""
    place = tmp_path_factory.mktemp("runs")
    kinds = {
        "strong": ("diffusion", TINY),
        "weak": ("diffusion", TINY | {"seed": 1, "width": 4}),
        "classes": ("diffusion", TINY | {"classes": True}),
        "larger": ("diffusion", TINY | {"size": 12}),
        "28px": ("diffusion", TINY | {"size": 28}),
        "vae": ("vae", {"steps": 2, "quiet": True}),
    }
    for name, (model, keys) in kinds.items():
        trilemma.train(model, "digits", out=place / name, **keys)
    return {name: place / name for name in kinds}


@pytest.fixture
def strong(runs: dict[str, Path]) -> Run:
    return trilemma.load(runs["strong"])


def small(seed: int, **settings) -> PixelDiffusion:
    torch.manual_seed(seed)
    shape = {"shape": (1, 8, 8), "width": 4, "multipliers": (1, 1), "depth": 1, "attention_px": 0}
    return PixelDiffusion(make(PixelDiffusionConfig, shape | settings))


def with_random_weights(seed: int) -> PixelDiffusion:
    model = small(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))  # outputs begin at zero
    return model


def test_at_scale_0_the_guide_draws_alone() -> None:
    strong, weak = with_random_weights(0), with_random_weights(1)
    keys = make(DiffusionSampling, {"guide": "weak", "guidance": 0.0, "steps": 4})
    images = strong.sample(3, seed=0, keys=keys, guides=Guides(weak))
    torch.testing.assert_close(images, weak.sample(3, seed=0, keys=DiffusionSampling(steps=4)), atol=1e-6, rtol=0)
    assert (images - strong.sample(3, seed=0, keys=DiffusionSampling(steps=4))).abs().max() > 1e-3


def test_a_grid_is_optimised_for_the_guided_denoiser(monkeypatch: pytest.MonkeyPatch) -> None:
    """At scale 0 that is the guide."""
    monkeypatch.setattr(optimised, "FINE", 8)
    strong, weak = with_random_weights(0), with_random_weights(1)
    image = torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    keys = make(DiffusionSampling, {"guide": "weak", "guidance": 0.0, "steps": 3})
    alone = [model.optimised_times(image, UNCONDITIONAL, DiffusionSampling(steps=3), 0) for model in (strong, weak)]
    assert strong.optimised_times(image, UNCONDITIONAL, keys, 0, Guides(weak)).equal(alone[1])
    assert not alone[0].equal(alone[1])


class Dark(torch.nn.Module):
    """A plain module with the methods that docs/own-model.md asks of a guide."""

    x_shape = (1, 8, 8)

    def denoiser(
        self, schedule: Schedule, condition: Condition, n: int, *, clips: bool = True
    ) -> Callable[[Tensor, Tensor], Tensor]:
        return lambda x_t, t: torch.full_like(x_t, -0.5)


def test_a_model_of_ones_own_guides() -> None:
    keys = make(DiffusionSampling, {"guide": "dark", "guidance": 0.0, "steps": 4})
    images = small(0).sample(3, seed=0, keys=keys, guides=Guides(Dark()))
    torch.testing.assert_close(images, torch.full_like(images, 0.25), atol=1e-4, rtol=0)  # -0.5 of [-1, 1]


def test_what_the_guide_estimates_outside_the_range_counts_in_full() -> None:
    """weak + 2 (strong - weak) of 0.9 and 1.5 is 0.3; with the weak one cut at 1 it would be 0.8."""
    strong, x_t, t = small(0, prediction="x0"), torch.zeros(1, 1, 8, 8), torch.full((1,), 0.5)
    strong.network.forward = lambda x, level, given: 0 * x + 0.9
    guides = small(1, prediction="x0"), Diffusion(make(DiffusionConfig, TABLE | {"prediction": "x0"}))
    guides[0].network.forward = lambda x, level, given: 0 * x + 1.5
    guides[1].network.forward = lambda x, t: 0 * x + 1.5
    keys = make(DiffusionSampling, {"guide": "weak", "guidance": 2.0})
    for weak in guides:
        x0_hat = strong._guided_denoiser(UNCONDITIONAL, 1, strong.schedule, keys, Guides(weak))(x_t, t)
        torch.testing.assert_close(x0_hat, torch.full_like(x_t, 0.3), atol=1e-6, rtol=0)


def test_the_table_of_steps_is_asked_over_any_schedule() -> None:
    """At a log-SNR that it has, the denoiser is that of the image brought to variance 1."""
    model = Diffusion(make(DiffusionConfig, TABLE | {"clip_x0": False}))
    x = torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    t = torch.tensor([0.3, 0.5, 0.8])
    for name in ("edm", "flow"):
        other = get_schedule(name)
        times = other.t_of(log_snr(model.schedule, t))
        unit = (other.alpha(times) ** 2 + other.sigma(times) ** 2).sqrt().float()[:, None, None, None]
        denoised = model.denoiser(other, UNCONDITIONAL, 3)(unit * x, times)
        torch.testing.assert_close(denoised, model.denoise(x, t), atol=1e-4, rtol=1e-4)


def draw_from(run: Run, keys: Config, first: int, count: int) -> Tensor:
    return run.sample(count, first=first, keys=keys)


@pytest.mark.slow
def test_a_guided_step_counts_every_network(
    strong: Run, runs: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cost, "BUDGET_S", 0.0)
    for settings, calls in (
        ({}, 4),
        ({"guide": str(runs["weak"]), "guidance": 2.0}, 8),
        ({"classifier": "auto"}, 8),
        ({"guide": str(runs["weak"]), "guidance": 2.0, "classifier": "digits-cnn"}, 12),
        ({"sampler": "heun"}, 7),
        ({"sampler": "heun", "classifier": "auto"}, 14),
    ):
        assert calls_per_image(strong, settings) == calls


@pytest.mark.slow
def test_a_model_guided_by_itself_counts_both_of_its_calls(
    runs: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Outside of the interval it is not guided: of 4 times, the last has less noise."""
    monkeypatch.setattr(cost, "BUDGET_S", 0.0)
    run = trilemma.load(runs["classes"])
    assert isinstance(run.model, PixelDiffusion)
    schedule = run.model.schedule
    levels = -log_snr(schedule, times_of("auto", schedule, 4)[:-1]) / 2
    assert (levels > 0).tolist() == [True, True, True, False] and levels.max() < 9
    for settings, calls in (
        ({}, 4),
        ({"guidance": 2.0}, 8),
        ({"guidance": 0.0}, 4),
        ({"guidance": 2.0, "guidance_interval": (0.0, 9.0)}, 7),
        ({"guidance": 2.0, "sampler": "heun"}, 14),
    ):
        assert calls_per_image(run, settings) == calls


def calls_per_image(run: Run, settings: dict[str, object]) -> float:
    """In 4 steps."""
    keys = run.sampling({"steps": 4, **settings}, sample)
    _, spent = cost.draw_with_cost(partial(draw_from, run, keys), run.model, 2, batch=2, guides=run.guides(keys))
    return spent.calls_per_image


def log_p(images: Tensor, label: int) -> float:
    classifier = load_network("digits-cnn").network
    return float(classifier.logits(images).log_softmax(1)[:, label].mean())


@pytest.mark.slow
def test_a_classifier_leads_to_the_class_asked_for(strong: Run) -> None:
    keys = {"classifier": "auto", "steps": 20}
    plain = strong.sample(8, steps=20)
    torch.testing.assert_close(strong.sample(8, label=3, classifier_scale=0.0, **keys), plain, atol=1e-6, rtol=0)
    led = strong.sample(8, label=3, classifier_scale=2.0, **keys)
    assert log_p(led, 3) > log_p(plain, 3) + 0.5
    whole = strong.sample(8, classifier_scale=2.0, **keys)  # image k has class k % 10
    torch.testing.assert_close(whole[3:4], led[3:4], atol=1 / 255, rtol=0)


def test_the_probability_is_of_images_from_0_to_1() -> None:
    def classifier(image: Tensor) -> Tensor:
        return torch.stack([image.flatten(1).sum(1), torch.zeros(len(image))], 1)

    x0 = torch.full((2, 1, 2, 2), 0.5)  # 0.75 in [0, 1], so that the logits are 3 and 0
    values = log_probability(classifier, torch.tensor([0, 1]))(x0)
    expected = torch.tensor([3.0, 0.0]) - torch.tensor(3.0).exp().add(1).log()
    torch.testing.assert_close(values, expected, atol=1e-6, rtol=0)


@pytest.mark.slow
def test_a_guided_picture_is_made_again(runs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "home"
    for name in ("strong", "weak", "classes"):
        shutil.copytree(runs[name], home / "runs" / name)
    monkeypatch.chdir(home)
    pictures = [
        sample("runs/strong", n=3, steps=3, guide="runs/weak", guidance=2.0, out="one"),
        sample("runs/strong", n=3, steps=3, classifier="auto", label=2, out="two"),
    ]
    (tmp_path / "moved").mkdir()
    (home / "runs").rename(tmp_path / "moved" / "runs")
    monkeypatch.chdir(tmp_path / "moved")
    for made in pictures:
        for picture in (made.grid, made.images[1]):
            result = again(home / picture)
            assert result.equal and result.changed == ()
    run = trilemma.load("runs/strong", device="cpu")
    assert again(home / pictures[0].grid, run=run).equal and run.guide_runs == {}  # the caller's own run stays as it is
    shutil.rmtree("runs/weak")
    shutil.copytree(runs["classes"], "runs/weak")
    with pytest.raises(UserError, match=r"guide=runs/weak: the run that made .* was not found"):
        again(home / pictures[0].grid)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"guide": "weak"}, "guide=.*weak has no effect with guidance=1; add guidance=2"),
        ({"guide": "nowhere", "guidance": 2.0}, "guide=.*nowhere: .*"),
        ({"guide": "larger", "guidance": 2.0}, "its images are 1x12x12, those of .* 1x8x8"),
        ({"guide": "vae", "guidance": 2.0}, "guide=.*vae: vae does not guide another run; models that do: diffusion"),
        ({"guidance": 2.0}, "needs a model trained with classes=true or captions=true, or guide=RUN"),
        ({"classifier": "mnist-cnn"}, "takes images of 1x28x28, and those of .* are 1x8x8"),
        ({"classifier": "resnet"}, 'unknown classifier "resnet"'),
        ({"classifier_scale": 2.0}, "classifier_scale=2.* is for classifier=auto"),
    ],
)
def test_what_does_not_fit_is_refused(
    runs: dict[str, Path], strong: Run, settings: dict[str, object], message: str
) -> None:
    if "guide" in settings:
        settings = settings | {"guide": str(runs["strong"].parent / str(settings["guide"]))}
    with pytest.raises(UserError, match=message):
        strong.sample(1, **settings)


def as_if_on(data: str, classes: Sequence[str], run: Path, folder: Path) -> Run:
    """A copy of a run that says it was trained on other data."""
    shutil.copytree(run, folder)
    write_json(folder / "config.json", {**read_json(folder / "config.json"), "data": data, "classes": list(classes)})
    return trilemma.load(folder)


@pytest.mark.parametrize(
    ("data", "classes", "classifier", "message"),
    [
        (
            "fashion-mnist",
            ARTICLES,
            "mnist-cnn",
            r"trained on mnist, whose class 0 is 0, and that of .* is T-shirt/top; give classifier=fashion-mnist-cnn$",
        ),
        ("mnist", NUMERALS, "fashion-mnist-cnn", "class 0 is T-shirt/top, and that of .* is 0; give .*=mnist-cnn$"),
        ("photos", sorted(ARTICLES), "fashion-mnist-cnn", "and that of .* is Ankle boot; leave classifier out$"),
        ("photos", ["0", *ARTICLES[1:]], "fashion-mnist-cnn", "whose class 0 is T-shirt/top"),
    ],
)
def test_a_classifier_of_other_classes_is_refused(
    runs: dict[str, Path], tmp_path: Path, data: str, classes: Sequence[str], classifier: str, message: str
) -> None:
    run = as_if_on(data, classes, runs["28px"], tmp_path / "run")
    with pytest.raises(UserError, match=message):
        run.sample(1, steps=1, label=8, classifier=classifier)


@pytest.mark.parametrize(
    ("data", "classes", "classifier", "noted"),
    [
        ("mnist", NUMERALS, "mnist-cnn", ""),
        ("mnist-binary", NUMERALS, "mnist-cnn", ""),
        ("photos", ARTICLES, "fashion-mnist-cnn", "the classes are those of fashion-mnist: T-shirt/top, Trouser, "),
        ("photos", NUMERALS, "fashion-mnist-cnn", "the classes are those of fashion-mnist: T-shirt/top, Trouser, "),
    ],
)
def test_whose_classes_are_meant_is_said_of_images_of_ones_own(
    runs: dict[str, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    data: str,
    classes: Sequence[str],
    classifier: str,
    noted: str,
) -> None:
    run = as_if_on(data, classes, runs["28px"], tmp_path / "run")
    run.guides(run.sampling({"classifier": classifier}, sample))
    said = capsys.readouterr().err
    assert noted in said if noted else not said


def test_a_bundled_classifier_is_read_once(strong: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    strong.sample(1, steps=1, classifier="digits-cnn")
    monkeypatch.setattr("trilemma.run.guides.load_network", None)
    assert strong.sample(1, steps=1, classifier="digits-cnn").isfinite().all()


class Levels(Config):
    levels: list[int] = [1]  # noqa: RUF012 (a field of pydantic)


def test_settings_that_cannot_be_a_key_need_none(runs: dict[str, Path]) -> None:
    assert trilemma.load(runs["vae"]).guides(Levels()) is NO_GUIDES


def test_guides_are_worked_out_once_for_all_batches(
    strong: Run, runs: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = strong.sampling({"steps": 1, "guide": str(runs["weak"]), "guidance": 2.0}, sample)
    images = strong.sample(2, keys=keys)
    monkeypatch.setattr("trilemma.run.run.guides_of", None)
    assert strong.sample(2, keys=keys).equal(images)


def test_a_kept_grid_is_of_its_guidance(runs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And of the weights of the guide, whatever its path."""
    measured = []

    def measure(model: PixelDiffusion, image: Tensor, condition: Condition, *_: object) -> Tensor:
        assert condition.label is not None and len(condition.label) == len(image)
        measured.append(image)
        return times_of("karras", model.schedule, 2)

    def is_measured(**settings: object) -> bool:
        before, run = len(measured), trilemma.load(tmp_path / "strong")
        run.guides(run.sampling({"steps": 2, "grid": "optimised", **settings}, sample))
        return len(measured) > before

    monkeypatch.setattr(PixelDiffusion, "optimised_times", measure)
    shutil.copytree(runs["strong"], tmp_path / "strong")
    shutil.copytree(runs["weak"], tmp_path / "weak")
    by_guide: dict[str, object] = {"guide": str(tmp_path / "weak"), "guidance": 2.0}
    for settings in ({}, by_guide, {**by_guide, "guidance": 3.0}, {"classifier": "auto"}):
        assert is_measured(**settings)
    assert not is_measured() and not is_measured(**by_guide)
    shutil.rmtree(tmp_path / "weak")
    shutil.copytree(runs["classes"], tmp_path / "weak")
    assert is_measured(**by_guide)


def test_a_label_needs_a_model_or_a_classifier_that_knows_it(strong: Run, runs: dict[str, Path]) -> None:
    with pytest.raises(UserError, match="does not take a class: it was trained without labels"):
        strong.sample(1, label=3)
    with pytest.raises(UserError, match='unknown label "cat"'):
        strong.sample(1, label="cat", classifier="auto")
    weak = trilemma.load(runs["classes"])
    assert weak.sample(2, label=3, steps=2, guide=str(runs["weak"]), guidance=2.0).isfinite().all()
