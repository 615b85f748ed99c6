import itertools
import math
import re

import numpy as np
import pytest
from comparison.stand_ins import score
from matplotlib.backends.backend_agg import FigureCanvasAgg

from trilemma.comparison import figures, triangle
from trilemma.comparison.content import Model, Place
from trilemma.comparison.triangle import AXES, FASTEST, SLOWEST, places_of, point, speed, speed_place
from trilemma.pictures import plots


def scores(**values):
    refused = {name: None if v is not None else "too few" for name, (v, _) in values.items()}
    return {name: score(name, v, i, "higher", refused[name]) for name, (v, i) in values.items()}


@pytest.mark.parametrize("decade", range(7))
def test_each_factor_of_ten_is_the_same_step_of_speed(decade):
    assert speed_place(10.0**decade) == pytest.approx(decade / 6, abs=1e-12)


def test_speed_is_held_between_its_anchors():
    assert [speed_place(s) for s in (0.0, 1e-3, SLOWEST, FASTEST, 1e9, math.inf)] == [0, 0, 0, 1, 1, 1]


def test_milliseconds_become_images_per_second_with_the_ends_in_order():
    result = places_of(scores(ms_per_image=(4.0, (2.0, 8.0))))["speed"]
    assert result.value == 250.0
    assert result.interval == [125.0, 500.0]
    steps = [math.log10(s) / 6 for s in (125, 500)]
    assert result.reach == pytest.approx(steps, abs=1e-12)
    assert result.place == pytest.approx(math.log10(250) / 6, abs=1e-12)
    assert speed(0.0) == math.inf


def test_density_is_fidelity_and_coverage_is_diversity():
    result = places_of(scores(density=(0.9, (0.8, 0.95)), coverage=(0.2, (0.1, 0.3))))
    assert result["fidelity"].place == 0.9
    assert result["diversity"].place == 0.2
    assert result["fidelity"].reach == [0.8, 0.95]
    assert result["speed"] is None


def test_a_refused_figure_and_a_time_of_zero_have_no_place():
    assert places_of(scores(density=(None, None)))["fidelity"] is None
    assert places_of(scores(ms_per_image=(0.0, (0.0, 0.0))))["speed"] is None
    assert places_of(scores(ms_per_image=(1.0, (0.0, 2.0))))["speed"].interval is None


def test_the_spokes_are_120_degrees_apart_and_of_equal_length():
    corners = [point(axis.angle, 1.0) for axis in AXES]
    assert corners[0] == pytest.approx((0, 1), abs=1e-12)
    for i in range(3):
        assert math.dist(corners[i], corners[i - 1]) == pytest.approx(math.sqrt(3), abs=1e-12)
        assert point(AXES[i].angle, 0.5) == pytest.approx([c / 2 for c in corners[i]], abs=1e-12)


def test_standing_aside_does_not_move_along_the_spoke():
    for axis in AXES:
        x, y = point(axis.angle, 0.3, 0.05)
        along = x * math.cos(math.radians(axis.angle)) + y * math.sin(math.radians(axis.angle))
        assert along == pytest.approx(0.3, abs=1e-12)


def model(name, p=0.8, **more):
    place = places_of(
        scores(density=(p, (p - 0.05, p + 0.05)), coverage=(0.5, (0.4, 0.6)), ms_per_image=(1.0, (0.9, 1.1)))
    )
    return Model(name, place=place | more)


def test_the_plot_names_every_model_once_and_escapes_it():
    text = plots.svg(triangle.draw([model("<b>&$x$", 0.2), model("vae", 0.4), model("vae-2", 0.6)]), 'a "label"')
    assert text.count(">vae<") == 1
    assert text.count(">vae-2<") == 1
    assert "&lt;b&gt;&amp;$x$" in text
    assert "<b>" not in text
    assert 'aria-label="a &quot;label&quot;"' in text


def test_markers_stand_where_the_figures_say():
    figure = triangle.draw([model("a", 0.8)])
    dots = figure.axes[0].collections[0].get_offsets()
    expected = [point(90, 0.8), point(210, 0.5), point(330, 0.5)]  # 1000 images/s is half of six decades
    assert [tuple(d) for d in dots] == [pytest.approx(e, abs=1e-12) for e in expected]


def test_missing_figures_and_many_models_are_drawn():
    nothing = dict.fromkeys(("fidelity", "diversity", "speed"))
    models = [model("a", speed=None), model("b", **nothing), *[model(f"other-{i}") for i in range(8)]]
    assert "other-7" in plots.svg(triangle.draw(models), "many")
    assert "other-7" not in plots.svg(triangle.draw(models, only="a"), "one")
    assert len({str(plots.style(k)) for k in range(35)}) == 35


def test_the_page_and_not_the_plot_decides_on_ink_and_paper():
    text = plots.svg(triangle.draw([model("a")]), "x")
    assert "var(--ink)" in text and "var(--paper)" in text and "var(--sans)" in text
    assert "#12340" not in text
    assert not re.search(r"<g id=|<style|<metadata|<\?xml|http-equiv", text)


def test_the_same_plot_is_drawn_twice_alike():
    assert plots.svg(triangle.draw([model("a")]), "x") == plots.svg(triangle.draw([model("a")]), "x")


def texts_and_marks(models):
    """Boxes of all texts of the plot, and centres of all marks, px."""
    figure = triangle.draw(models)
    FigureCanvasAgg(figure).draw()
    (ax,) = figure.axes
    boxes = [(text.get_text(), text.get_window_extent()) for text in ax.texts]
    marks = [ax.transData.transform(dot) for dots in ax.collections for dot in dots.get_offsets()]
    return boxes, marks


def at_the_centre(n):
    nowhere = Place(0.0, [0.0, 0.01], 0.0, [0.0, 0.01])
    return [model(f"model-{k}", fidelity=nowhere, diversity=nowhere) for k in range(n)]


@pytest.mark.parametrize("models", [at_the_centre(6), [model("a", 1.0), model("b", 0.5), model("c", 0.5)]])
def test_no_text_covers_a_text_or_a_mark(models):
    boxes, marks = texts_and_marks(models)
    assert {m.name for m in models} <= {text for text, _ in boxes}
    for k, (_, box) in enumerate(boxes):
        assert not [text for text, other in boxes[:k] if box.overlaps(other)]
        assert not [mark for mark in marks if box.contains(*mark)]
        assert box.x0 >= 0 and box.y0 >= 0


def test_an_interval_narrower_than_its_mark_has_ends_that_are_wider():
    narrow = Place(0.5, [0.499, 0.501], 0.5, [0.499, 0.501])
    (ax,) = triangle.draw([model("a", fidelity=narrow)]).axes
    ends = [np.asarray(line.get_xydata()) for line in ax.lines if line.get_linewidth() == 1.1]  # (2, 2) each
    assert [math.dist(*end) for end in ends] == pytest.approx([2 * triangle.CAP] * 6)
    assert [end[:, 1].mean() for end in ends[:2]] == pytest.approx([0.499, 0.501])
    assert 2 * triangle.CAP > triangle.MARK


@pytest.mark.parametrize("axis", AXES, ids=lambda axis: axis.name)
def test_the_ticks_of_one_axis_do_not_touch(axis):
    figure = figures.dots([model("a"), model("b")], axis)
    FigureCanvasAgg(figure).draw()
    boxes = [text.get_window_extent() for text in figure.axes[0].get_xticklabels() if text.get_text()]
    assert len(boxes) >= 3
    assert all(left.x1 + 3 < right.x0 for left, right in itertools.pairwise(boxes))
