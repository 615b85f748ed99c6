"""benchmarks/calls.py: which of its rows are measured again."""

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import trilemma

TINY: dict[str, Any] = {"width": 8, "multipliers": (1,), "depth": 1, "attention_px": 0, "steps": 1, "batch": 8}


def test_a_row_is_of_the_settings_as_they_were_and_of_the_method(
    script: Callable[[str], ModuleType], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls, measured, path = script("calls"), [], tmp_path / "rows.jsonl"
    run = trilemma.train("diffusion", "digits", out=tmp_path / "run", device="cpu", quiet=True, **TINY)

    def measure(table: Any, settings: dict[str, Any], classes: bool) -> dict[str, Any]:
        measured.append(settings)
        return {"seconds": 0.0}

    def is_measured(**settings: Any) -> bool:
        before = len(measured)
        row = calls.Table(run, 20, 0, path).row(10, settings)
        assert row["settings"] == settings and row["keys"]["steps"] == settings.get("steps", 10)
        return len(measured) > before

    monkeypatch.setattr(calls.Table, "_measured", measure)
    assert is_measured(sampler="unipc") and not is_measured(sampler="unipc")
    assert not is_measured(sampler="unipc", steps=10)  # the default
    assert is_measured(sampler="unipc", steps=9)
    path.write_text(path.read_text().replace('"steps": 10', '"steps": 20'))  # as if that had been the default
    assert is_measured(sampler="unipc")
    monkeypatch.setattr(calls, "METHOD", calls.METHOD + 1)
    assert is_measured(sampler="unipc")
    path.write_text(f'{{"weights": "{run.weights_id}", "settings": {{"sampler": "unipc"}}, "images": 20, "seed": 0}}\n')
    assert is_measured(sampler="unipc")  # a row of before rows had a method
