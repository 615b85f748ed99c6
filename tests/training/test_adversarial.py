"""What goes wrong between a generator and a critic is said in words, and a healthy training is left in peace."""

from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import trilemma
from trilemma import rng
from trilemma.config import make
from trilemma.data import Data, load_data
from trilemma.files import json_text, parse_json
from trilemma.gans.config import GANConfig
from trilemma.gans.gan import GAN
from trilemma.gans.losses import LOSSES
from trilemma.gans.style import StyleGAN
from trilemma.healthy import EXPLODED, KEPT, LEAST_ROWS, OVERFIT, SURE, VANISHED, usual
from trilemma.run.config import TrainConfig
from trilemma.run.state import Checkpoint
from trilemma.training.adversarial import (
    EARLIER,
    FEW,
    LONG,
    SEPARATED,
    critic_overfit,
    critic_too_strong,
    exploding_gradient,
    exploding_penalty,
    few_images,
    overfit_ratio,
    vanishing_gradient,
)
from trilemma.training.diagnosis import CRITIC_OVERFIT, Diagnosis
from trilemma.training.in_use import ModelInUse
from trilemma.training.order import order_of
from trilemma.training.prepare import plan_of
from trilemma.training.request import request_of
from trilemma.training.validation import Validation
from trilemma.types import Batch, HasCritic

HEALTHY = {"critic/auroc": 0.8, "critic/gradient_norm": 2.0, "generator/gradient_norm": 0.5, "critic/penalty": 0.1}


@pytest.fixture(scope="module")
def digits() -> Data:
    return load_data("digits")


def tiny(**settings: Any) -> GAN:
    with rng.isolated(0):
        return GAN(make(GANConfig, {"shape": (1, 8, 8), "latent": 6, "width": 4, "network": "mlp", **settings}))


class Checks:
    """A diagnosis of a small GAN, and its warnings."""

    def __init__(self, data: Data) -> None:
        self.texts: list[str] = []
        self.at = 0
        validation = Validation(ModelInUse(tiny(), data, TrainConfig(steps=1)), self.texts.append)
        self.diagnosis = Diagnosis(validation, self.texts.append, lambda: self.at)

    def rows(self, rows: Iterable[dict[str, Any]], *, settled: bool = True) -> list[str]:
        """The warnings after some rows of a log, ten steps apart."""
        for row in rows:
            self.at += 10
            self.diagnosis.check_row(row, settled=settled)
        said, self.texts[:] = list(self.texts), []
        return said


@pytest.mark.parametrize(("real", "fake"), [(SURE, 1 - SURE), (SURE - 1e-3, 0.0), (1.0, 1.001 - SURE)])
def test_a_critic_that_is_sure_is_named_where_logits_are_probabilities(real: float, fake: float) -> None:
    text = critic_too_strong({"critic/d_real": real, "critic/d_fake": fake})
    assert bool(text) == (real >= SURE and fake <= 1 - SURE)
    assert critic_too_strong({"critic/logit_real": 99.0, "critic/logit_fake": -99.0, "critic/auroc": 1.0}) is None


@pytest.mark.parametrize(
    ("norm", "auroc", "gone"),
    [
        (0.99 * VANISHED, SEPARATED, True),
        (0.0, 1.0, True),
        (VANISHED, 1.0, False),  # small, but there
        (0.0, SEPARATED - 0.01, False),  # the critic knows as little
        (1.0, 1.0, False),  # a critic may be right, as long as the generator can learn from it
    ],
)
def test_a_vanishing_gradient_is_small_beside_itself_while_the_critic_separates(
    norm: float, auroc: float, gone: bool
) -> None:
    for before in (1e-4, 1.0, 1e5):
        assert bool(vanishing_gradient(norm * before, before, {"critic/auroc": auroc})) == gone
    assert vanishing_gradient(0.0, 1.0, {}) is None
    assert bool(vanishing_gradient(0.0, 0.0, {"critic/auroc": auroc})) == (auroc >= SEPARATED)  # gone from the start


@pytest.mark.parametrize("rule", [exploding_gradient, exploding_penalty])
def test_a_thousandfold_value_explodes(rule: Callable[[float, float, dict[str, Any]], str | None]) -> None:
    for before in (1e-4, 1.0, 1e5):
        assert rule(1.01 * EXPLODED * before, before, {}) and not rule(0.99 * EXPLODED * before, before, {})
    assert rule(1.0, 0.0, {}) is None  # a hinge whose margins are met has no gradient


def test_what_is_usual_is_a_median_of_enough_values() -> None:
    values = [1.0] * (LEAST_ROWS - 2) + [100.0]
    assert usual(values) is None and usual([*values, 1e9]) == 1.0


def test_sentences_say_what_is_seen_and_what_to_try() -> None:
    text = vanishing_gradient(0.001, 0.5, {"critic/auroc": 0.987}) or ""
    assert all(part in text for part in ("norm 0.001, usually 0.5", "98.7%", "vanishing gradients", "lr=", "penalty="))
    text = exploding_gradient(5e3, 2.0, {}) or ""
    assert all(part in text for part in ("norm of 5e+03, and usually 2", "exploding gradients", "clip=1"))
    assert "penalty_weight=" in (exploding_penalty(5e3, 2.0, {}) or "")
    text = critic_overfit(1.3, None) or ""
    assert all(part in text for part in ("100% of the way", "overfit critic", "augment=shift", "more images"))


def test_an_overfit_critic_takes_held_out_images_for_generated_ones() -> None:
    assert critic_overfit(OVERFIT, None) and critic_overfit(OVERFIT - 1e-6, None) is None


def test_a_healthy_log_is_quiet(digits: Data) -> None:
    """Values go up and down by ten times, and begin at next to nothing."""
    checks = Checks(digits)
    swing = [{**HEALTHY, "generator/gradient_norm": 0.5 * 10 ** (k % 3 - 1)} for k in range(50)]
    start = [{name: 1e-6 * value for name, value in HEALTHY.items()}] * LEAST_ROWS
    assert checks.rows([*start, *swing], settled=False) == []
    assert checks.rows([{**row, CRITIC_OVERFIT: 0.4} for row in swing]) == []


@pytest.mark.parametrize(
    ("name", "value", "part"),
    [
        ("generator/gradient_norm", 1e-4, "vanishing gradients"),
        ("critic/gradient_norm", 1e4, "the critic's gradient has a norm of 1e+04"),
        ("critic/penalty", 1e4, "the penalty on the critic's slope is 1e+04"),
    ],
)
def test_a_fault_is_said_once_with_the_step_since_when(name: str, value: float, part: str, digits: Data) -> None:
    checks = Checks(digits)
    faulty = {**HEALTHY, "critic/auroc": 1.0, name: value}
    assert checks.rows([HEALTHY] * 10) == []
    (text,) = checks.rows([faulty] * 2 * KEPT)  # it stays unusual, however long it lasts
    assert part in text and "since" not in text
    assert [f"since step {110:,}" in text for text in checks.diagnosis.warnings.current.values()] == [True]
    assert checks.rows([HEALTHY]) == [] and checks.diagnosis.warnings.current == {}
    assert checks.diagnosis.warnings.since == {}


def test_a_fault_from_before_the_training_settled_says_when_it_began(digits: Data) -> None:
    checks = Checks(digits)
    sure = {"critic/d_real": 0.999, "critic/d_fake": 0.001}
    assert checks.rows([{}, sure, sure], settled=False) == []
    (text,) = checks.rows([sure])
    assert text.endswith("(since step 20)")


def test_a_gradient_that_vanished_before_the_training_settled_is_not_usual(digits: Data) -> None:
    checks, gone = Checks(digits), {**HEALTHY, "critic/auroc": 1.0, "generator/gradient_norm": 1e-4}
    assert checks.rows([*[HEALTHY] * LEAST_ROWS, *[gone] * KEPT], settled=False) == []
    (text,) = checks.rows([gone])
    assert "usually 0.5" in text and text.endswith(f"(since step {10 * (LEAST_ROWS + 1)})")


def test_an_overfit_critic_is_said_after_some_validations_in_a_row(digits: Data) -> None:
    checks, high, low = Checks(digits), {CRITIC_OVERFIT: 0.9}, {CRITIC_OVERFIT: 0.1}
    chances = [*[high] * (LONG - 1), low]
    assert checks.rows(chances * 3) == []
    assert Checks(digits).rows([high] * (LONG + 1), settled=False) == []
    assert checks.rows([{}, *[high, {}] * (LONG - 1)]) == []  # rows between validations say nothing of it
    (text,) = checks.rows([high])
    first = 10 * (3 * LONG + 2)
    assert "overfit critic" in text and text.endswith(f"(since step {first})")


def test_a_resumed_diagnosis_says_the_same(digits: Data) -> None:
    """Wherever it is cut, and through the text of a checkpoint's values."""
    faulty = {**HEALTHY, "critic/auroc": 1.0, "generator/gradient_norm": 1e-5, CRITIC_OVERFIT: 0.9}
    log = [*[HEALTHY] * 6, *[faulty] * 3, HEALTHY, *[faulty] * 4]
    whole = Checks(digits)
    expected = [whole.rows([row]) for row in log]
    assert sum(map(len, expected)) == 2
    for cut in range(len(log)):
        one, other = Checks(digits), Checks(digits)
        said = [one.rows([row]) for row in log[:cut]]
        other.diagnosis.load(Checkpoint(parse_json(json_text(one.diagnosis.state().values))))
        other.at = one.at
        assert said + [other.rows([row]) for row in log[cut:]] == expected
        assert other.diagnosis.state() == whole.diagnosis.state()


class Memory(GAN):
    """A GAN whose critic knows white images by heart."""

    share = 0.0

    def critic_logits(self, batch: Batch, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """1 for a white image, 1 - `share` for any other one, 0 for a generated one."""
        is_white = batch.image.flatten(1).amin(1)  # 0 for a digit
        return 1 - self.share * (1 - is_white), torch.zeros(len(batch.image))


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0, -0.5])
def test_the_ratio_is_that_of_the_means(share: float, digits: Data) -> None:
    """Karras et al. (2020), eq. 1: (1 - (1 - share)) / (1 - 0)."""
    model = Memory(tiny().config)
    model.share = share
    white = replace(digits.train, images=torch.full_like(digits.train.images, 255))
    data = replace(digits, splits={**digits.splits, "train": white})
    for batch in (32, 1000):  # the held-out images are fewer than that
        in_use = ModelInUse(model, data, TrainConfig(steps=1, batch=batch))
        assert overfit_ratio(in_use) == pytest.approx(share, abs=1e-6)


@pytest.mark.parametrize("loss", ["minimax", "wasserstein", "relativistic"])
def test_to_measure_the_ratio_changes_nothing(loss: str, digits: Data, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trilemma.training.adversarial.TELLS", 0.0)
    model = tiny(loss=loss, spectral_norm=True).train()
    assert isinstance(model, HasCritic)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    model.critic_logits(Batch(torch.rand(4, 1, 8, 8)), torch.Generator())
    assert any(not torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    in_use = ModelInUse(model, digits, TrainConfig(steps=1, batch=64))
    ratios = [overfit_ratio(in_use) for _ in range(2)]
    assert ratios[0] is not None and ratios[0] == ratios[1] and model.training
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_no_ratio_without_a_critic_that_tells_images_apart(digits: Data, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny()
    monkeypatch.setattr(model.critic, "forward", lambda image: torch.zeros(len(image)))
    config = TrainConfig(steps=1, batch=16)
    assert overfit_ratio(ModelInUse(model, digits, config)) is None
    vae = trilemma.create("vae", shape=(1, 8, 8))
    assert overfit_ratio(ModelInUse(vae, digits, config)) is None


def test_few_images_are_said_before_a_training_unless_they_are_augmented() -> None:
    assert few_images(FEW, (), None) is None and few_images(FEW - 1, ("shift",), None) is None
    text = few_images(FEW - 1, (), tiny().config) or ""
    assert "299" in text and "augment=shift" in text


@pytest.mark.parametrize(("model", "said"), [("gan", True), ("ae-stacked", False)])
def test_a_plan_for_few_images_says_so(model: str, said: bool, digits: Data) -> None:
    few = replace(digits, splits={**digits.splits, "train": digits.train.take(torch.arange(100))})
    notes: list[str] = []
    plan_of(order_of(request_of(model), {"steps": 1}, {}), few, notes.append)
    assert any("tends to collapse" in note for note in notes) == said


OF_LOSS = {True: {"critic/d_real", "critic/d_fake"}, False: {"critic/logit_real", "critic/logit_fake"}}


@pytest.mark.parametrize("loss", LOSSES)
def test_a_training_logs_what_the_rules_read(tmp_path: Path, loss: str) -> None:
    keys: dict[str, Any] = {"steps": 8, "batch": 1293, "quiet": True, "width": 4, "latent": 4, "penalty": "r1"}
    run = trilemma.train("gan", "digits", loss=loss, out=tmp_path / "r", **keys)
    rows = [row for row in run.log if "critic/loss" in row]
    needed = {"critic/auroc", "critic/gradient_norm", "critic/penalty", "generator/gradient_norm"}
    named = OF_LOSS[loss in ("minimax", "non-saturating")]
    assert rows and all(needed | named <= row.keys() for row in rows)
    assert not any(OF_LOSS[name] <= row.keys() for name in OF_LOSS if OF_LOSS[name] != named for row in rows)
    assert all(0 <= row["critic/auroc"] <= 1 and row["generator/gradient_norm"] > 0 for row in rows)


def test_a_lazy_penalty_is_logged_where_its_rule_reads_it(tmp_path: Path) -> None:
    keys: dict[str, Any] = {"steps": 8, "batch": 1293, "quiet": True, "width": 4, "latent": 4, "penalty": "r1"}
    run = trilemma.train("gan", "digits", penalty_every=2, out=tmp_path / "r", **keys)
    rows = [row for row in run.log if "penalty/loss" in row]
    assert rows and "penalty/loss" in EARLIER and all(row["penalty/loss"] >= 0 for row in rows)


def scale_game(monkeypatch: pytest.MonkeyPatch, factor: float, *, begin: float) -> None:
    """From a share of the training on, the critic passes the generator so many times the gradient, next to nothing."""
    game = StyleGAN.generator_loss

    def scaled(gan: StyleGAN, batch: Batch, rng: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        loss, parts = game(gan, batch, rng)
        return (factor if batch.progress >= begin else 1.0) * loss, parts

    monkeypatch.setattr(StyleGAN, "generator_loss", scaled)


STYLE = {"width": 2, "latent": 4, "styles": 4, "batch": 256, "path_every": 2, "penalty_every": 2, "quiet": True}


def test_path_lengths_are_no_part_of_the_norm_of_the_generators_gradient(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A row of the log is of two steps, one of which has path lengths and R1."""
    scale_game(monkeypatch, 0.0, begin=0.0)
    run = trilemma.train("gan-style", "digits", steps=4, out=tmp_path / "r", **STYLE)
    rows = [row for row in run.log if "path/loss" in row]
    assert len(rows) == 2 and all(row["path/loss"] > 0 and row["penalty/loss"] > 0 for row in rows)
    assert all(row["generator/gradient_norm"] == 0.0 < row["critic/gradient_norm"] for row in rows)


@pytest.mark.slow
def test_a_gradient_that_vanishes_beside_path_lengths_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trilemma.gans.gan.auroc", lambda *, real, fake: torch.ones(()))
    scale_game(monkeypatch, 1e-6, begin=0.5)
    run = trilemma.train("gan-style", "digits", steps=60, out=tmp_path / "r", **STYLE)
    first, *_ = [row for row in run.log if "vanishing gradients" in row.get("warning", "")]
    assert 30 <= first["step"] <= 34
