import pytest

from trilemma.comparison.content import Difference, Model, Place
from trilemma.comparison.triangle import AXES
from trilemma.comparison.words import verdict
from trilemma.words import listed, number, span


@pytest.mark.parametrize(
    ("value", "interval", "text"),
    [
        (0.81234, (0.78, 0.84), "0.81"),  # width 0.06 is 6 units of 0.01
        (0.81234, (0.80, 0.83), "0.812"),  # width 0.03 is 30 units of 0.001
        (81234.5, (79234.5, 83234.5), "81,000"),  # width 4000 is 4 units of 1000
        (0.0071, (0.0063, 0.0079), "0.0071"),
        (50.0, (50.0, 50.0), "50"),
        (1437, None, "1,437"),
        (0.0, None, "0"),
        (1234.56, None, "1,230"),
        (-0.00012345, None, "-0.000123"),
        (0.0011, (0.0009, 0.49), "0.0011"),  # a long arm on one side does not hide the value
        (0.00012, (-0.02, 0.02), "0.00012"),  # nor does a wide interval make it zero
        (0.0, (0.0, 0.011), "0.000"),
        (float("nan"), None, "not a number"),
        (float("inf"), None, "not a number"),
    ],
)
def test_a_number_is_no_finer_than_its_interval(value, interval, text):
    assert number(value, interval) == text


@pytest.mark.parametrize("power", range(-5, 7))
@pytest.mark.parametrize("lead", [1.0, 2.5, 3.99, 4.01, 9.9])
def test_rounding_moves_a_value_by_less_than_an_eighth_of_its_interval(power, lead):
    width, value = lead * 10.0**power, 21.9911486 * 10.0**power
    shown = float(number(value, (value - width / 2, value + width / 2)).replace(",", ""))
    assert abs(shown - value) <= width / 8 * 1.000001  # half a unit of the last digit; the width is at least 4 units


def test_an_interval_in_words():
    assert span(0.81, (0.78, 0.84)) == "0.78 to 0.84"
    assert span(9e5, (2032.0, 1.1e6)) == "2,000 to 1,100,000"
    assert span(1.0, (1.0, 1.0)) == "exact"
    assert span(1.0, None) == ""


def test_a_list_in_words():
    assert [listed([]), listed(["a"]), listed(["a", "b", "c"])] == ["", "a", "a, b and c"]


def model(name, *values, error=None, learned_nothing=None):
    place = {
        axis.name: None if v is None else Place(v, [0.9 * v, 1.1 * v]) for axis, v in zip(AXES, values, strict=True)
    }
    return Model(name, error=error, place=place, learned_nothing=learned_nothing)


def pair(a, b, low, high, ratio=False):
    return Difference(a, b, (low + high) / 2, [low, high], ratio)


QUALITY, DIVERSITY, SPEED = (axis.metric for axis in AXES)


def test_a_verdict_claims_what_the_differences_carry_and_no_more():
    """The intervals of the values themselves (10% either way) decide nothing: those of diversity do not overlap."""
    pairs = {QUALITY: [pair("a", "b", 0.01, 0.2)], DIVERSITY: [pair("a", "b", -0.3, 0.1)]}
    outcome = verdict([model("a", 0.9, 0.2, None), model("b", 0.89, 0.3, None)], AXES, pairs)
    assert outcome.axes["fidelity"].first == ["a"] and outcome.axes["fidelity"].clear
    assert outcome.axes["diversity"].first == ["b", "a"] and not outcome.axes["diversity"].clear
    assert outcome.axes["speed"].first == []
    assert f"Fidelity: a leads ({AXES[0].short} 0.90, 0.81 to 0.99)." in outcome.text
    assert "Diversity: no difference could be shown between b and a (highest value" in outcome.text
    assert "Speed: no model has a value." in outcome.text
    assert "No model leads on all three axes." in outcome.text


def test_fewer_milliseconds_are_more_images_per_second():
    """Three times as many milliseconds: the slower model is behind, whichever of the pair it is."""
    models = [model("slow", 0.5, 0.5, 100.0), model("fast", 0.5, 0.5, 300.0)]
    for p in (pair("slow", "fast", 2.8, 3.2, ratio=True), pair("fast", "slow", 0.31, 0.36, ratio=True)):
        assert verdict(models, AXES, {SPEED: [p]}).axes["speed"].first == ["fast"]
    near = verdict(models, AXES, {SPEED: [pair("slow", "fast", 0.9, 1.2, ratio=True)]})
    assert near.axes["speed"].first == ["fast", "slow"]


def test_a_model_that_leads_everywhere_and_one_alone():
    pairs = {axis.metric: [pair("a", "b", 0.1, 0.9)] for axis in AXES[:2]} | {SPEED: [pair("b", "a", 1.1, 1.9, True)]}
    text = verdict([model("a", 0.9, 0.9, 0.9), model("b", 0.1, 0.1, 0.1)], AXES, pairs).text
    assert "a leads on all three axes." in text
    alone = verdict([model("a", 0.9, 0.9, 0.9), model("b", None, None, None, error="broke")], AXES, {})
    assert not alone.axes["speed"].clear
    assert "leads" not in alone.text
    assert "Failed: b." in alone.text


def test_what_learned_nothing_never_leads():
    pairs = {QUALITY: [pair("grey", "a", 0.1, 0.3), pair("a", "b", 0.2, 0.4)]}
    grey = model("grey", 1.0, 0.0, 900.0, learned_nothing="the mean image does as well")
    outcome = verdict([grey, model("a", 0.8, 0.5, 1.0), model("b", 0.5, 0.5, 1.0)], AXES, pairs)
    assert outcome.axes["fidelity"].first == ["a"] and outcome.axes["fidelity"].clear
    assert "grey" not in outcome.axes["speed"].first
    assert "Learned nothing yet, so never ahead: grey." in outcome.text
    assert outcome.axes["fidelity"].beaten == ["b"] and outcome.axes["diversity"].beaten == []
    alone = verdict([grey, model("a", 0.8, 0.5, 1.0)], AXES, pairs)
    assert "0.88); the others have learned nothing yet." in alone.axes["fidelity"].text
    nothing = verdict([grey], AXES, {})
    assert "no model has learned anything yet" in nothing.text
