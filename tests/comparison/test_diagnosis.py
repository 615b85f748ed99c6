"""Each fault of a model is named where its scores show it, and nowhere else."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from comparison.stand_ins import score

from trilemma.comparison.content import Control, Forecast, LearningPoint, Model, Nearest
from trilemma.comparison.diagnosis import diagnosis
from trilemma.comparison.rows import scores_of

REAL = [
    Control("real", "Held-out images", "", {name: score(name, 1.0, None, "higher") for name in ("density", "coverage")})
]
GOOD = {"density": 0.9, "coverage": 0.9, "class_diversity": 0.9}


def model(**values: float) -> Model:
    scores = {
        name: score(name, value, (value - 0.05, value + 0.05), "higher") for name, value in {**GOOD, **values}.items()
    }
    return Model("vae", scores=scores)


def texts(one: Model) -> list[str]:
    return [item.text for item in diagnosis([one], REAL)]


def test_a_good_model_has_no_fault() -> None:
    assert texts(model()) == []


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"coverage": 0.3}, "vae draws good images of few kinds (density 0.900, coverage 0.300): it has collapsed"),
        ({"class_diversity": 0.2}, "Within a class, the images of vae differ 20% as much as real ones"),
    ],
)
def test_few_kinds_are_named(values: dict[str, float], text: str) -> None:
    (found,) = texts(model(**values))
    assert found.startswith(text)


@pytest.mark.parametrize("values", [{"coverage": 0.47}, {"coverage": 0.3, "density": 0.4}, {"class_diversity": 0.48}])
def test_what_the_interval_leaves_open_is_not_said(values: dict[str, float]) -> None:
    assert texts(model(**values)) == []


@pytest.mark.parametrize(
    ("active", "units", "said"), [(2, 32, True), (3, 32, False), (4, 1000, True), (5, 1000, False), (0, 2, True)]
)
def test_posterior_collapse_is_fewer_than_a_tenth_and_than_five(active: int, units: int, said: bool) -> None:
    count = replace(
        score("active_units", active, (active, active), "higher"), protocol=f"active-units_{units}_360_test"
    )
    expected = [
        f"{active} of the {units} units of the code of vae are active (posterior collapse): most of the code "
        "carries no information about the image."
    ]
    measured: Any = SimpleNamespace(scores=(*model().scores.values(), count))
    assert texts(replace(model(), scores=scores_of(measured))) == expected * said


def test_copies_and_a_curve_that_falls() -> None:
    near: dict[str, Any] = {"index": [], "distance": [], "n_real": 1, "shown": [], "different": 1, "closeness": ()}
    copier = replace(model(), nearest=Nearest(**near, copies=True))
    assert texts(copier) == ["vae may copy training images: look at its nearest ones in the report."]
    assert texts(replace(model(), nearest=Nearest(**near, copies=False))) == []
    points = [LearningPoint(1, 1.0, 0.5, [0.4, 0.6], 0.05, 0.05, {})]
    for high, said in ((0.39, True), (0.45, False)):
        learning = replace(model(), learning=points, forecast=Forecast(4.0, 0.3, [0.2, high], 0.5))
        assert bool(texts(learning)) == said


def test_a_model_that_learned_nothing_has_no_other_fault() -> None:
    assert texts(replace(model(coverage=0.1), learned_nothing="learned nothing yet")) == []
    assert list(diagnosis([Model("gan", error="it failed")], REAL)) == []
