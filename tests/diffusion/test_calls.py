"""benchmarks/calls.py: which of its rows are measured again, and what it says of its bars."""

from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

import trilemma
from trilemma.config import make
from trilemma.diffusion.samplers import options_of
from trilemma.diffusion.sampling import DiffusionSampling
from trilemma.diffusion.solvers import unipc

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


def test_what_auto_stands_for_is_what_it_takes(script: Callable[[str], ModuleType]) -> None:
    auto, default = make(DiffusionSampling, script("calls").AUTO), DiffusionSampling()
    assert auto.sampler_name == default.sampler_name == "unipc" and auto.grid == default.grid == "auto"
    assert options_of("unipc") == ["order"] and unipc.__kwdefaults__["order"] == auto.order


def row_of(distance: float, **settings: Any) -> dict[str, Any]:
    return {"frechet_distance": [distance, 0.9 * distance, 1.1 * distance], "settings": settings}


def test_the_best_is_beside_auto_and_auto_beside_its_bar(script: Callable[[str], ModuleType]) -> None:
    """Over the least of all, 2: the best of five calls is at 1.25 and within 1.3, what auto takes is at 1.35."""
    calls = script("calls")
    rows = {
        5: [row_of(2.7, **calls.AUTO, steps=5), row_of(2.5, sampler="heun", grid="karras", steps=3)],
        10: [row_of(2.4, sampler="unipc", order=3, grid="auto", steps=10), row_of(2.1, **calls.AUTO, steps=10)],
        100: [row_of(2.0, sampler="ddim", grid="karras", steps=100)],
    }
    lines = [line.partition("  (best: ")[0] for line in calls.beside_bars(rows)]
    assert lines == [
        "     5  best 1.250 x  sampler=auto 1.350 x, above the bar of 1.3",
        "    10  best 1.050 x  sampler=auto 1.050 x, within the bar of 1.05",
        "   100  best 1.000 x",
    ]
    assert next(calls.beside_bars(rows)).endswith("(best: {'sampler': 'heun', 'grid': 'karras', 'steps': 3})")


def test_without_auto_the_best_is_beside_the_bar_and_without_more_calls_nothing_is(
    script: Callable[[str], ModuleType],
) -> None:
    beside_bars = script("calls").beside_bars
    five, ten = beside_bars({5: [row_of(1.4, sampler="ddim")], 10: [row_of(1.0, sampler="ddim")]})
    assert five.startswith("     5  best 1.400 x, above the bar of 1.3  (best")
    assert ten.startswith("    10  best 1.000 x  (best")


@pytest.mark.parametrize(
    ("scale", "share", "text"),
    [
        (0.0, 0.1, "guidance 0: 10.0% as asked"),
        (1.0, 0.945, "guidance 1: 94.5% as asked, below the bar of 98%"),
        (4.0, 0.98, "guidance 4: 98.0% as asked, within the bar of 98%"),
        (5.0, 0.9, "guidance 5: 90.0% as asked"),
    ],
)
def test_the_share_as_asked_beside_its_bar(
    script: Callable[[str], ModuleType], scale: float, share: float, text: str
) -> None:
    assert script("calls").obeyed_in_words(scale, share) == text


def test_both_tables_end_with_the_bars(
    script: Callable[[str], ModuleType], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Distances of 2 in five calls and 1 in ten: 2 x, above 1.3; 97% as asked, below 98%."""
    calls = script("calls")

    def row(n: int, settings: dict[str, Any], classes: bool = False) -> dict[str, Any]:
        scores = {"precision": [0.5], "recall": [0.5], "class_obeyed": [0.97], "seconds": 1.0, "calls": n}
        return {**row_of(10 / n), **scores, "settings": settings}

    monkeypatch.setattr(calls, "ways", lambda *given: [calls.AUTO])
    table = SimpleNamespace(run=SimpleNamespace(model=SimpleNamespace(n_classes=10)), row=row, n=2048)
    calls.by_calls(table, SimpleNamespace(calls="5,10", samplers="unipc", grids="auto"))
    assert "\n     5  best 2.000 x  sampler=auto 2.000 x, above the bar of 1.3  (best" in capsys.readouterr().out
    calls.by_guidance(table, SimpleNamespace(guidance="1,5", steps=10))
    assert capsys.readouterr().out.endswith(
        "\nguidance 1: 97.0% as asked, below the bar of 98%\nguidance 5: 97.0% as asked\n"
    )
