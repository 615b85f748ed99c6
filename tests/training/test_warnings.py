"""What a training ends with is judged in words, and the words stand where a person looks."""

import json
import math
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

import trilemma
from trilemma.autoencoders.autoencoder import Autoencoder
from trilemma.autoencoders.priors import GaussianMixture, distinct
from trilemma.healthy import NO_BETTER
from trilemma.run.config import TrainConfig
from trilemma.training import calendar
from trilemma.training.diagnosis import Diagnosis
from trilemma.training.in_use import ModelInUse
from trilemma.training.loop import Trainer
from trilemma.training.monitor import (
    LEVEL,
    SAME,
    Warnings,
    all_the_same,
    few_distinct_codes,
    mean_image_rmse,
    no_better_than_linear,
    no_better_than_mean,
)
from trilemma.training.validation import Validation


@pytest.fixture(autouse=True)
def in_tmp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def short(model: str = "ae-stacked", **keys: Any) -> trilemma.Run:
    return trilemma.train(model, "digits", **{"steps": 6, "batch": 16, "sample_every": 10**6, "quiet": True, **keys})


def test_the_error_of_the_mean_image_is_the_distance_of_means_and_the_spread() -> None:
    """Of pixels, E (x - m)^2 = var x + (E x - m)^2, whatever the batches are."""
    draw = torch.Generator().manual_seed(0)
    train, held_out = (torch.rand(n, 2, 3, 4, generator=draw, dtype=torch.float64) for n in (50, 31))
    expected = held_out.var(0, correction=0) + (held_out.mean(0) - train.mean(0)).square()
    rmse = mean_image_rmse(train.split(7), held_out.split(10))
    assert rmse == pytest.approx(math.sqrt(float(expected.mean())), rel=1e-12)


@pytest.mark.parametrize(("share", "said"), [(NO_BETTER + 1e-6, True), (NO_BETTER - 1e-6, False), (1.3, True)])
def test_an_error_like_that_of_the_mean_image_is_named(share: float, said: bool) -> None:
    assert bool(no_better_than_mean(share * 0.3, 0.3)) == said
    assert no_better_than_mean(share * LEVEL, LEVEL) is None  # data of one image: there is nothing more to learn


@pytest.mark.parametrize(("share", "said"), [(NO_BETTER + 1e-6, True), (NO_BETTER - 1e-6, False), (1.3, True)])
def test_a_denoiser_like_a_linear_estimate_is_named(share: float, said: bool) -> None:
    values = {"valid_denoising_rmse": share * 0.8, "valid_linear_denoising_rmse": 0.8, "valid_rmse": 9.0}
    text = no_better_than_linear(values)
    assert bool(text) == said and (text is None or f"({share * 0.8:.3f} against 0.800)" in text)
    assert no_better_than_linear({"valid_denoising_rmse": 9.0, "mean_image_rmse": 9.0}) is None


def test_the_advice_of_the_mean_image_names_a_key_that_the_model_has() -> None:
    for model, has in (("vae", True), ("ae-stacked", False)):
        text = no_better_than_mean(0.3, 0.3, trilemma.create(model, shape=(1, 8, 8)).config)
        assert ("lower beta=" in (text or "")) == has


@pytest.mark.parametrize(("share", "said"), [(0.99 * SAME, True), (1.01 * SAME, False), (1.0, False), (0.0, True)])
def test_samples_that_are_one_image_are_named(share: float, said: bool) -> None:
    real = torch.rand(64, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    fake = real.mean(0) + math.sqrt(share) * (real - real.mean(0))
    assert bool(all_the_same(real=real, fake=fake)) == said
    assert all_the_same(real=real * LEVEL, fake=fake * 0) is None  # so are the data


def test_a_warning_that_healed_is_no_longer_current() -> None:
    warnings = Warnings()
    for step, (rule, text) in enumerate((("a", "x"), ("b", "y"), ("a", "z"), ("b", None))):
        warnings.new(rule, text, step)
    assert warnings.current == {"a": "z (since step 0)"}


def test_a_mixture_has_no_more_components_than_there_are_codes_and_is_silent() -> None:
    codes = torch.tensor([[0.0, 1.0], [2.0, 3.0]]).repeat(50, 1)
    codes[::3] += 1e-7  # rounding
    assert distinct(codes) == 2 and distinct(codes + torch.arange(100.0)[:, None]) > 50
    mixture = GaussianMixture(2, 10)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert mixture.fit(codes, seed=0) == 2
    assert (mixture.weights > 0).sum() == 2 and sorted(mixture.means[:2, 0].tolist()) == pytest.approx([0, 2], abs=1e-3)
    assert few_distinct_codes(None) is None and "2 distinct codes" in (few_distinct_codes(2) or "")


def dead(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trainings whose moves change nothing, of an encoder that gives every image one code."""
    one_step = Trainer.take_step

    def step(trainer: Trainer) -> None:
        one_step(trainer)
        with torch.no_grad():
            for parameter in trainer.model.encoder.parameters():  # type: ignore[union-attr]
                parameter.zero_()

    monkeypatch.setattr(Trainer, "take_step", step)


def test_warnings_stand_in_the_summary_the_card_and_the_last_lines(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    dead(monkeypatch)
    run = short(quiet=False)
    expected = ["all samples are the same image", "learned nothing yet", "1 distinct code,"]
    assert all(any(part in text for text in run.warnings) for part in expected) and len(run.warnings) == 3
    assert all(text.startswith("step 6: ") for text in run.warnings)
    assert run.summary["warnings"] == list(run.warnings)
    card = (run.path / "README.md").read_text("utf-8").replace("\\", "")
    lines = capsys.readouterr().err.splitlines()
    assert all(f"- {text}" in card for text in run.warnings)
    assert lines[-3:] == [f"warning: {text}" for text in run.warnings]
    short(quiet=False)  # it is done: they are said again
    assert capsys.readouterr().err.splitlines()[-3:] == lines[-3:]
    log = (run.path / "log.jsonl").read_text()
    assert all(text.removeprefix("step 6: ") in log for text in run.warnings)


def test_a_run_of_an_earlier_version_has_no_warnings() -> None:
    run = short()
    then = {name: value for name, value in run.summary.items() if name != "warnings"}
    for odd in ({}, {"warnings": None}, {"warnings": [3]}):
        (run.path / "summary.json").write_text(json.dumps(then | odd))
        assert trilemma.load(run.path).warnings == ()


def test_reconstructions_of_a_model_that_does_not_measure_them_are_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """By its last weights, on the held-out images: here they are black, so that the error is the images' own size."""
    model = trilemma.create("ae-stacked", shape=(1, 8, 8))
    model.reconstruct = lambda image, condition=None: torch.zeros_like(image)
    data, texts = trilemma.load_data("digits"), []
    validation = Validation(ModelInUse(model, data, TrainConfig(steps=1)), texts.append)
    black = (data.valid.images.double() / 255).square().mean().sqrt()
    assert validation.reconstruction_rmse() == pytest.approx(float(black), rel=1e-6)
    Diagnosis(validation, texts.append, lambda: 0).check_final()
    assert len(texts) == 1 and f"RMSE {float(black):.3f} against {validation.baseline:.3f}" in texts[0]


def rates(monkeypatch: pytest.MonkeyPatch, monitor: str | None) -> set[float]:
    """The learning rates of a training on a plateau schedule whose figures do not get better."""
    monkeypatch.setattr(calendar, "VALIDATE_AT_LEAST", 1)
    monkeypatch.setattr(Autoencoder, "validation", lambda model, batch, rng: {"mse": torch.ones(len(batch.image))})
    one_step, seen = Trainer.take_step, set()

    def step(trainer: Trainer) -> None:
        one_step(trainer)
        seen.update(group["lr"] for group in trainer.players.optimizers["autoencoder"].param_groups)

    monkeypatch.setattr(Trainer, "take_step", step)
    keys = {"schedule": "plateau", "warmup_images": 0, "monitor": monitor, "lr": 1e-3}
    short(steps=8, batch=1293, out=f"r-{monitor}", **keys)
    return seen


@pytest.mark.parametrize(("monitor", "falls"), [(None, False), ("valid_rmse", True)])
def test_a_plateau_without_a_figure_to_follow_is_a_constant_rate(
    monitor: str | None, falls: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    lrs = rates(monkeypatch, monitor)
    assert (max(lrs), min(lrs) < max(lrs)) == (1e-3, falls)
