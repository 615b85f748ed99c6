"""A model under several settings of its sampler: which settings there are, what is measured, and the frontier."""

import math

import pytest
from presets import small

import trilemma
from trilemma.comparison.content import SamplerPoint
from trilemma.comparison.sampler_settings import VALUES, sampler_points, settings_of, with_frontier
from trilemma.metrics.evaluate import reference_by


def point(density: float, coverage: float, ms: float) -> SamplerPoint:
    return SamplerPoint("", False, ms, density, [density, density], coverage, [coverage, coverage], 100, {}, {})


def test_the_frontier_holds_what_no_other_point_dominates() -> None:
    rows = {
        "one": [point(0.9, 0.5, 1.0), point(0.9, 0.5, 2.0), point(0.5, 0.9, 5.0)],
        "other": [point(0.8, 0.4, 0.5), point(0.8, 0.4, 1.0)],
    }
    marked = with_frontier(rows, math.inf)
    assert [p.frontier for p in marked["one"]] == [True, False, True]
    assert [p.frontier for p in marked["other"]] == [True, False]
    assert all(p.frontier for p in with_frontier({"two": [point(1, 1, 1)] * 2}, math.inf)["two"])


def test_times_that_differ_by_less_than_a_tenth_decide_nothing() -> None:
    rows = {"one": [point(0.9, 0.5, 1.05), point(0.9, 0.6, 1.0), point(0.8, 0.5, 0.95), point(0.8, 0.5, 0.5)]}
    assert [p.frontier for p in with_frontier(rows, math.inf)["one"]] == [False, True, False, True]


def test_a_density_above_that_of_real_images_is_no_better() -> None:
    rows = {"one": [point(2.0, 0.5, 1.0), point(1.0, 0.6, 1.0)]}
    assert [p.frontier for p in with_frontier(rows, 1.0)["one"]] == [False, True]
    assert [p.frontier for p in with_frontier(rows, math.inf)["one"]] == [True, True]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    out = tmp_path_factory.mktemp("settings") / "run"
    return trilemma.train("vae", "digits", steps=30, batch=32, out=out, quiet=True)


def test_every_setting_is_measured(run) -> None:
    points = list(sampler_points(run, reference_by(run.data, "test", 100, own=True), batch=64))
    assert [p.setting for p in points] == [
        "temperature=1",
        *(f"temperature={v:g}" for v in VALUES["temperature"]),
    ]
    for one in points:
        assert one.n == 100 and one.ms_per_image > 0
        assert one.density_interval[0] <= one.density <= one.density_interval[1]
        assert 0 <= one.coverage_interval[0] <= one.coverage <= one.coverage_interval[1] <= 1
        assert list(one.receipts) == ["density", "coverage", "ms_per_image"]
        assert [receipt["n_fake"] for receipt in one.receipts.values()] == [100, 100, 100]
    for name in ("density", "coverage"):
        own, *others = points
        low, high = own.changes[name]
        assert own.own and low == -high <= 0 and not any(one.own for one in others)
        for one in others:
            low, high = one.changes[name]
            assert (low + high) / 2 == pytest.approx(getattr(one, name) - getattr(own, name), abs=1e-9)
    density, time = points[0].receipts["density"], points[0].receipts["ms_per_image"]
    assert density["protocol"] == "density_digits-cnn_100_test" and density["n_real"] == 100
    assert time["protocol"] == f"ms_{run.device.type}_batch64" and time["features"] == "none"


def test_a_sampler_without_keys_has_its_own_setting_alone(tmp_path) -> None:
    run = trilemma.train("ae-linear", "ellipse", steps=1, batch=32, out=tmp_path / "run", quiet=True)
    assert settings_of(run) == [{}]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "settings", "keys"),
    [
        ("gan", {}, {"temperature"}),
        ("diffusion-small", {}, {"steps"}),
        ("vae", {}, {"temperature"}),
        ("diffusion", small("diffusion"), {"steps"}),
        ("diffusion", {**small("diffusion"), "classes": True}, {"steps", "guidance"}),
    ],
)
def test_settings_are_those_that_the_model_takes(tmp_path, model, settings, keys) -> None:
    run = trilemma.train(model, "digits", steps=1, batch=32, out=tmp_path / "run", quiet=True, **settings)
    asked = settings_of(run)
    assert asked[0] == {} and {key for one in asked for key in one} == keys
