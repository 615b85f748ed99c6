"""Dead codes are said in words, and a healthy codebook is left in peace."""

from pathlib import Path

import pytest

import trilemma
from trilemma.healthy import IN_USE
from trilemma.run.run import Run
from trilemma.training.monitor import dead_codes


def said(run: Run) -> list[str]:
    return [row["warning"] for row in run.log if "dead codes" in row.get("warning", "")]


def short(out: Path, **keys: object) -> Run:
    keys |= {"steps": 60, "batch": 64, "codes": 64, "sample_every": 10**6}
    return trilemma.train("vae-vq", "digits", out=out, quiet=True, **keys)


@pytest.mark.parametrize(("used", "dead"), [(IN_USE - 0.01, True), (IN_USE, False), (1.0, False), (0.0, True)])
def test_rule(used: float, dead: bool) -> None:
    assert (dead_codes({"step": 3, "autoencoder/used_codes": used}) is not None) == dead


def test_rule_says_the_share_and_what_to_do_and_is_quiet_of_other_models() -> None:
    text = dead_codes({"autoencoder/used_codes": 0.125}) or ""
    assert "12%" in text and "restart=true" in text and "codes=" in text
    assert dead_codes({"step": 3, "vae/loss": 0.1}) is None


@pytest.mark.slow
def test_a_training_with_dead_codes_says_so_once(tmp_path: Path) -> None:
    assert len(said(short(tmp_path / "dead", restart=False))) == 1
    assert said(short(tmp_path / "healthy")) == []
