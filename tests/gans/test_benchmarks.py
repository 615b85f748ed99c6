"""The scripts that measure GANs: what they resume, refuse and count; no training of theirs is run."""

import argparse
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch

from trilemma.data import Data, Split
from trilemma.errors import Diverged, UserError
from trilemma.pictures.levels import to_float


class Training:
    """In place of `train`: one that logs every 10 images, and is resumed by a greater length."""

    def __init__(self) -> None:
        self.images, self.calls = 0, 0

    def __call__(self, model: str, data: str, *, images: int, out: Path, **keys: Any) -> SimpleNamespace:
        self.images, self.calls = max(self.images, images), self.calls + 1
        out.mkdir(parents=True, exist_ok=True)
        log = [{"images": n, "critic/loss": -1.0, "critic/logit_real": 1000.0 - n, "critic/logit_fake": 0.0}
               for n in range(10, self.images + 1, 10)]  # fmt: skip
        return SimpleNamespace(log=log, summary={"images": self.images}, model_config={"loss": "wasserstein"})


def asked(out: Path, **changed: Any) -> argparse.Namespace:
    given = {"model": "gan-wgan-gp", "data": "digits", "images": 400, "points": 4, "n": 100, "out": out}
    return argparse.Namespace(**given | {"keys": {"betas": (0, 0.9)}} | changed)


@pytest.fixture
def gans(script: Callable[[str], ModuleType], monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """`gans.py` with trainings and distances that fall together."""
    module = script("gans")
    monkeypatch.setattr(module.trilemma, "train", Training())
    monkeypatch.setattr(module, "distance", lambda run, n: 5000.0 - run.summary["images"])
    return module


ROWS = [(100, 945.0, 4900.0), (200, 845.0, 4800.0), (300, 745.0, 4700.0), (400, 645.0, 4600.0)]
PRINTED = "".join(f"{images:9,} images: {loss:9.4f} {distance:9.2f}\n" for images, loss, distance in ROWS)


def test_an_estimate_that_is_finished_is_printed_again_without_training(
    gans: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Losses are means over the rows of each length alone: (n - 90, ..., n), here 1000 - n + 45."""
    for _ in range(2):
        assert "rank correlation 1.00 over 4 lengths" in gans.estimate(asked(tmp_path))
        assert capsys.readouterr().out == PRINTED
    assert gans.trilemma.train.calls == 4


@pytest.mark.parametrize("measured", [0, 2])
def test_an_estimate_resumes_where_it_was_stopped(
    measured: int, gans: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here after the training to a length and before its distance."""
    original = gans.distance

    def stopping(run: SimpleNamespace, n: int) -> float:
        if run.summary["images"] > 100 * measured:
            raise KeyboardInterrupt
        return original(run, n)

    with monkeypatch.context() as stopped:
        stopped.setattr(gans, "distance", stopping)
        with pytest.raises(KeyboardInterrupt):
            gans.estimate(asked(tmp_path))
    capsys.readouterr()
    gans.estimate(asked(tmp_path))
    assert capsys.readouterr().out == PRINTED


@pytest.mark.parametrize("changed", [{"points": 2}, {"n": 50}, {"images": 800}, {"keys": {}}], ids=str)
def test_an_estimate_of_other_settings_is_refused(changed: dict[str, Any], gans: ModuleType, tmp_path: Path) -> None:
    gans.estimate(asked(tmp_path))
    with pytest.raises(SystemExit, match=r"estimate-gan-wgan-gp-digits\.json was measured with .*another --out"):
        gans.estimate(asked(tmp_path, **changed))
    assert gans.trilemma.train.calls == 4


def test_a_training_whose_measurements_are_lost_is_refused(gans: ModuleType, tmp_path: Path) -> None:
    gans.estimate(asked(tmp_path))
    (tmp_path / "estimate-gan-wgan-gp-digits.json").unlink()
    with pytest.raises(SystemExit, match=r"is there without estimate-gan-wgan-gp-digits\.json; delete it, or give"):
        gans.estimate(asked(tmp_path))


def test_a_rate_that_falls_to_the_end_of_each_length_is_refused(gans: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"vae has schedule=linear, .*add schedule=constant"):
        gans.estimate(asked(tmp_path, model="vae", keys={}))
    with pytest.raises(SystemExit, match="gan-wgan-gp has schedule=cosine"):
        gans.estimate(asked(tmp_path, keys={"schedule": "cosine"}))
    assert gans.estimate(asked(tmp_path, model="vae", keys={"schedule": "constant"}))


@pytest.mark.parametrize(("kinds", "share", "code"), [(64, "1", 0), (10, "0.1562", 1), (1, "0.01562", 1)])
def test_a_preset_that_draws_few_kinds_of_images_has_collapsed(
    kinds: int,
    share: str,
    code: int,
    script: Callable[[str], ModuleType],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Samples are so many of the 64 training images. Ten are there six times each, so that their balls have no radius
    and hold ten of the 64."""
    travel = script("travel")
    images = (255 * torch.rand(64, 1, 8, 8, generator=torch.Generator().manual_seed(0))).to(torch.uint8)
    splits = {"train": Split(images), "valid": Split(images)}
    data = Data("noise", "noise", (1, 8, 8), (), splits, (), (), "")
    samples = to_float(images[torch.arange(64) % kinds])
    run = SimpleNamespace(sample=lambda n, seed: samples[:n], summary={"steps": 1, "images": 64}, log=[])
    monkeypatch.setattr(travel.trilemma, "load_data", lambda source, size: data)
    monkeypatch.setattr(travel.trilemma, "train", lambda *words, **keys: run)
    assert travel.main(["models=gan-style", "data=noise", f"out={tmp_path}"]) == code
    row = capsys.readouterr().out.splitlines()[-1].split()
    assert row[travel.HEAD.index("recall")] == share


@pytest.mark.parametrize(("error", "code"), [(Diverged("not finite"), 1), (UserError("no classes"), 0)])
def test_a_training_that_diverged_has_failed_and_one_that_is_refused_has_not(
    error: UserError, code: int, script: Callable[[str], ModuleType], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    travel = script("travel")

    def refuse(*words: str, **keys: Any) -> None:
        raise error

    monkeypatch.setattr(travel.trilemma, "train", refuse)
    assert travel.main(["models=gan-style", "data=digits", f"out={tmp_path}"]) == code


VANISHING, DIVERGED = "step 9: ... (vanishing gradients). Lower", "step 9: ... (divergence)"


@pytest.mark.parametrize(
    ("kind", "said", "last"),
    [
        ("divergence", [VANISHING], "divergence: right about 10 of 10; 10 by vanishing gradients alone"),
        ("divergence", [VANISHING, DIVERGED], "divergence: right about 10 of 10; 0 by vanishing gradients alone"),
        ("divergence", [], "divergence: right about 0 of 10; 0 by vanishing gradients alone"),
        ("collapse", [VANISHING], "collapse: right about 0 of 10"),
        ("collapse", ["mode collapse"], "collapse: right about 10 of 10"),
        ("healthy", [VANISHING], "healthy: right about 0 of 10"),
        ("healthy", [], "healthy: right about 10 of 10"),
    ],
)
def test_divergences_named_by_vanishing_gradients_alone_are_counted_by_themselves(
    kind: str,
    said: list[str],
    last: str,
    script: Callable[[str], ModuleType],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    planted = script("planted")
    monkeypatch.setattr(planted, "warnings_of", lambda kind, number, folder: ("gan", said, "no samples"))
    assert planted.check(kind, tmp_path) == ("10 of 10" in last)
    assert capsys.readouterr().out.splitlines()[-1] == last


def test_the_shuffled_form_of_a_transposed_convolution_is_equal(script: Callable[[str], ModuleType]) -> None:
    layout = script("layout")
    for c_in, c_out, side in ((5, 3, 4), (6, 1, 7)):
        layer = layout.transposed(c_in, c_out)
        x = torch.randn(2, c_in, side, side + 1)
        torch.testing.assert_close(layout.Shuffled(layer)(x), layer(x))
    shapes = {title: shape for title, (_, shape, _) in layout.blocks().items() if " to " in title}
    assert shapes["transposed, 128 to 64"] == shapes["shuffled, 128 to 64"] == (128, 7, 7)
