from dataclasses import fields, replace

import pytest
from comparison.stand_ins import score

from trilemma.comparison.answer import NO_COST, ONE_TRAINING_CAVEAT, answer
from trilemma.comparison.content import (
    IMAGES,
    Asked,
    Control,
    Difference,
    Model,
    Place,
    SamplerPoint,
    Trained,
    Training,
)
from trilemma.comparison.triangle import AXES
from trilemma.comparison.words import verdict

QUALITY, DIVERSITY, SPEED = (axis.metric for axis in AXES)
NOTHING = "learned nothing yet: its samples are no nearer the real images than the mean image"
ASKED = Asked("trilemma compare data=photos models=a,b minutes=0.5 seed=0", {"minutes": 0.5}, 360, 64, 0, "test")


@pytest.fixture(autouse=True)
def recipes(stage, monkeypatch):
    """Any name is a model, learning at 0.001."""
    from types import SimpleNamespace

    monkeypatch.setattr("trilemma.registry.get_recipe", lambda name: SimpleNamespace(training={"lr": 1e-3}))


def model(name, quality=0.5, diversity=0.5, ms=1.0, **changes):
    values = {QUALITY: quality, DIVERSITY: diversity, SPEED: ms}
    scores = {metric: score(metric, value, None, "higher") for metric, value in values.items() if value is not None}
    place = {a.name: Place(values[a.metric]) for a in AXES if values[a.metric] is not None}
    fields = {"scores": scores, "place": place, "trainings": [Training(name, scores=scores)]}
    return Model(name, **(fields | {"commands": {"sample": f"draw {name}"}} | changes))


def failed(name, error):
    return Model(name, error=error)


def trained(settings=(), training=()):
    values = {field.name: 0 for field in fields(Trained)}
    return Trained(**(values | {"settings": dict(settings), "training": dict(training)}))


def ahead(a, b, ratio=False):
    """a is better than b: lower for a time."""
    return Difference(a, b, 0.5, [0.4, 0.6], ratio)


def answered(models, asked=ASKED, **pairs):
    named = {"quality": QUALITY, "diversity": DIVERSITY, "speed": SPEED}
    by_metric = {named[key]: value for key, value in pairs.items()}
    return answer(models, verdict(models, AXES, by_metric), by_metric, asked)


def of_kind(items, kind):
    return [item for item in items if item.kind == kind]


def test_the_kinds_come_in_order():
    items = answered([model("a"), model("b")], quality=[ahead("a", "b")])
    assert [item.kind for item in items] == ["use", "quality", "diversity", "speed", "limits"]


def test_who_is_ahead_in_both_is_to_be_used():
    use, quality, *_ = answered([model("a"), model("b")], quality=[ahead("a", "b")], diversity=[ahead("a", "b")])
    assert use.text == "Use a: it is ahead in both quality and diversity."
    assert use.models == ["a"] and use.command == "draw a"
    assert quality.text.startswith("For quality: a leads (") and quality.models == ["a"]


def test_who_is_beaten_in_neither_is_to_be_used():
    """a is ahead in quality, and no difference in diversity could be shown; b may be faster."""
    (use, *_) = answered([model("a"), model("b")], quality=[ahead("a", "b")], speed=[ahead("b", "a", ratio=True)])
    assert use.text == "Use a: no other model is shown to be better in quality or diversity."


def test_of_several_unbeaten_the_fastest():
    models = [model("a", ms=1.0), model("b", ms=2.0), model("c", ms=0.1)]
    worse = [ahead("a", "c"), ahead("b", "c")]  # the fastest of all is worse, so its speed does not count
    (use, *_) = answered(models, quality=worse, speed=[ahead("a", "b", ratio=True), ahead("c", "a", ratio=True)])
    assert use.models == ["a"]
    assert "between a and b could" not in use.text and "and it is the fastest of them" in use.text
    (use, *_) = answered(models, quality=worse)
    assert use.text.startswith("Use a or b: no difference in quality and diversity could be shown between a and b")


def test_a_trade_off_is_named():
    (use, *_) = answered([model("a"), model("b")], quality=[ahead("a", "b")], diversity=[ahead("b", "a")])
    assert use.text == "No model is best in both: use a for quality, b for diversity."
    assert use.models == ["a", "b"]


def test_a_model_that_learned_nothing_is_never_to_be_used_and_is_told_what_to_do():
    grey = model("grey", 1.0, 0.9, 0.1, learned_nothing=NOTHING, warnings=["the codes collapsed"])
    items = answered([grey, model("b")], quality=[ahead("grey", "b")], diversity=[ahead("grey", "b")])
    assert items[0].text == "Use b: it is the only one of those compared that can be recommended."
    (item,) = of_kind(items, "failed")
    assert item.text == f"grey {NOTHING}. The codes collapsed."
    assert item.command == "trilemma compare data=photos models=a,b seed=0 minutes=2"


def test_where_nothing_was_learned_no_model_is_recommended():
    grey = model("grey", learned_nothing=NOTHING)
    (use, *_) = answered([grey])
    assert use.text.startswith("No model can be recommended yet: none has learned to draw these images.")
    assert not use.models and use.command == "trilemma compare data=photos models=a,b seed=0 minutes=5"
    (use, *_) = answered([grey], asked=replace(ASKED, length={}))
    assert use.command is None  # finished runs were trained elsewhere


@pytest.mark.parametrize(
    ("error", "command"),
    [
        ("the loss is nan; lower lr=", "trilemma train b photos minutes=0.5 seed=0 lr=0.0003"),
        ("photos has no classes", "trilemma train b photos minutes=0.5 seed=0"),
        ("too short; raise minutes=", "trilemma compare data=photos models=a,b seed=0 minutes=2"),
    ],
)
def test_a_failure_is_named_with_the_line_to_type_next(error, command):
    (item,) = of_kind(answered([model("a"), failed("b", error)]), "failed")
    assert item.text == f"b failed. {error[0].upper()}{error[1:]}." and item.models == ["b"]
    assert item.command == command


def test_a_collapse_is_answered_with_a_lower_beta():
    one = model("b", warnings=["2 of 32 units are active. Lower beta="], trained=trained(settings={"beta": 0.5}))
    (item, *_) = of_kind(answered([model("a"), one]), "limits")
    assert item.command == "trilemma train b photos minutes=0.5 seed=0 beta=0.15"


def test_a_rate_for_each_phase_is_lowered_for_each():
    one = model("b", warnings=["lower lr="], trained=trained(training={"lr": {"critic": 1e-3, "generator": 2e-4}}))
    (item, *_) = of_kind(answered([model("a"), one]), "limits")
    assert item.command.endswith("lr=critic:0.0003,generator:6e-05")


def test_warnings_of_a_training_are_repeated():
    items = answered([model("a"), model("b", warnings=["32 units are idle", "the critic wins"])])
    texts = [item.text for item in of_kind(items, "limits")]
    assert texts == ["b was trained with warnings. 32 units are idle. The critic wins."]


@pytest.mark.parametrize("axis", ["quality", "diversity", "speed"])
def test_the_luck_of_training_is_said_wherever_a_model_is_beaten_and_was_trained_once(axis):
    models = [model(name) for name in "abc"]
    (item,) = of_kind(answered(models, **{axis: [ahead("a", "c"), ahead("b", "c")]}), "limits")  # a and b lead together
    assert item.text == ONE_TRAINING_CAVEAT and item.command == f"{ASKED.command} seeds=3"


def test_the_luck_of_training_is_not_said_where_no_model_is_beaten_or_each_was_trained_often():
    lead = {"quality": [ahead("a", "b")]}
    (item,) = of_kind(answered([model("a"), model("b")], **lead), "limits")
    assert item.text == ONE_TRAINING_CAVEAT
    assert of_kind(answered([model("a"), model("b")]), "limits") == []
    grey = model("b", learned_nothing=NOTHING)
    assert of_kind(answered([model("a"), grey], **lead), "limits") == []  # it does not count, so it is not beaten
    three = [replace(model(name), trainings=3 * model(name).trainings) for name in "ab"]
    assert of_kind(answered(three, **lead), "limits") == []


@pytest.mark.parametrize(("covered", "said"), [(0.47, True), (0.49, False)])
def test_a_recommendation_far_from_real_images_says_so(covered, said):
    """Other real images cover 96% of those that are measured by, half of which is 48%."""
    control = Control("training", "", "", {"coverage": score("coverage", 0.96, None, "higher")})
    models = [model("a", diversity=covered), model("b", diversity=0.1)]
    items = answer(models, verdict(models, AXES, {}), {}, ASKED, [control])
    assert ("the best covers 47% of the real images, and other real images cover 96%" in items[0].text) is said


def test_why_a_set_of_images_has_no_cost_is_said_and_its_luck_of_training_is_not():
    """Of images and a model that cannot be told apart nobody is the fastest: the time of one is not known."""
    photos = model("photos", ms=None, kind=IMAGES)
    (use, *items) = answered([photos, model("b")])
    assert use.text.startswith("Use photos or b: no difference") and "fastest" not in use.text
    assert [item.text for item in of_kind(items, "limits")] == [f"Of photos only the images are known: {NO_COST}"]
    (use, *items) = answered([photos, model("grey", learned_nothing=NOTHING)], quality=[ahead("photos", "grey")])
    assert use.models == ["photos"] and ONE_TRAINING_CAVEAT not in [item.text for item in items]


def wanting(want):
    return replace(ASKED, want=want)


@pytest.mark.parametrize(
    ("want", "use", "why"),
    [
        ("balance", ["a", "b"], "No model is best in both: use a for quality, b for diversity."),
        ("quality", ["a"], "Use a: it is ahead in quality."),
        ("diversity", ["b"], "Use b: it is ahead in diversity."),
        ("speed", ["c"], "Use c: it is ahead in speed."),
    ],
)
def test_what_is_wanted_decides(want, use, why):
    pairs = {
        "quality": [ahead("a", "b"), ahead("a", "c")],
        "diversity": [ahead("b", "a"), ahead("b", "c")],
        "speed": [ahead("a", "c", ratio=True), ahead("b", "c", ratio=True)],
    }
    pairs["speed"] = [
        replace(pair, value=2.0, interval=[1.5, 2.5]) for pair in pairs["speed"]
    ]  # they take twice as long
    (item, *_) = answered([model("a"), model("b"), model("c", ms=0.5)], wanting(want), **pairs)
    assert item.models == use and item.text == why


def test_of_equals_in_what_is_wanted_the_one_that_is_not_beaten_in_the_rest():
    pairs = {"quality": [ahead("a", "c"), ahead("b", "c")], "diversity": [ahead("b", "a"), ahead("b", "c")]}
    (item, *_) = answered([model("a", ms=0.1), model("b"), model("c")], wanting("quality"), **pairs)
    assert item.models == ["b"]
    assert item.text == (
        "Use b: no difference in quality could be shown between a and b, and no other model is shown to be better in "
        "diversity."
    )


def test_of_equals_that_others_beat_in_the_rest_the_one_that_none_of_them_beats_there():
    """c, which is worse in quality, is ahead of both in diversity, and a is ahead of b."""
    diversity = [ahead("c", "a"), ahead("c", "b")]
    quality = [ahead("a", "c"), ahead("b", "c")]
    models = [model("a", ms=2.0), model("b"), model("c")]
    pairs = {"quality": quality, "speed": [replace(ahead("a", "b", ratio=True), value=2.0, interval=[1.5, 2.5])]}
    (item, *_) = answered(models, wanting("quality"), diversity=[*diversity, ahead("a", "b")], **pairs)
    assert item.models == ["a"] and item.text == (
        "Use a: no difference in quality could be shown between a and b, and none of these is shown to be better in "
        "diversity."
    )
    (item, *_) = answered(models, wanting("quality"), diversity=diversity, **pairs)  # nor does one beat the other there
    assert item.models == ["b"] and item.text == (
        "Use b: no difference in quality and diversity could be shown between a and b, and it is the fastest of them."
    )


def test_of_equals_that_beat_each_other_in_the_rest_nothing_is_said_of_it():
    """Both are as fast as can be told; a is ahead in quality, b in diversity, and c, which is slow, in both."""
    quality, diversity = ([ahead("c", "a"), ahead("c", "b"), pair] for pair in (ahead("a", "b"), ahead("b", "a")))
    slow = [replace(ahead("c", name, ratio=True), value=2.0, interval=[1.5, 2.5]) for name in "ab"]
    models = [model("a"), model("b"), model("c", ms=2.0)]
    (item, *_) = answered(models, wanting("speed"), quality=quality, diversity=diversity, speed=slow)
    assert item.models == ["a", "b"]
    assert item.text == "Use a or b: no difference in speed could be shown between a and b."


def test_a_model_that_learned_nothing_is_not_fast():
    grey = model("grey", 1.0, 0.9, 0.1, learned_nothing=NOTHING)
    (item, *_) = answered([grey, model("a"), model("b")], wanting("speed"), speed=[])
    assert "grey" not in item.models


def setting(text, ms, density, coverage, own=False, losses=()):
    """A setting, with the scores in which it is shown to be worse than the own one."""
    changes = {name: [-0.2, -0.01 if name in losses else 0.01] for name in ("density", "coverage")}
    within = [density - 0.1, density + 0.1], [coverage - 0.05, coverage + 0.05]
    return SamplerPoint(text, own, ms, density, within[0], coverage, within[1], 500, {}, changes)


def test_the_quickest_setting_without_a_loss_is_named() -> None:
    """Whether something is lost, the interval of the difference says, and not those of the values, which overlap."""
    points = [
        setting("steps=20", 20.0, 0.9, 0.8, own=True),
        setting("steps=5", 5.0, 0.9, 0.76, losses=["coverage"]),
        setting("steps=6", 6.0, 0.85, 0.8, losses=["density"]),
        setting("steps=10", 10.0, 0.75, 0.7),
        setting("steps=15", 15.0, 0.9, 0.8),
        setting("steps=50", 50.0, 1.0, 0.9),
    ]
    items = answered(
        [model("a", samplers=points), model("b", 0.1, 0.1, samplers=points)],
        quality=[ahead("a", "b")],
        diversity=[ahead("a", "b")],
    )
    (quicker,) = [item for item in items if item.kind == "quicker"]
    assert quicker.text == (
        "a with steps=10 draws 2.0 times as fast as with steps=20, and no loss is shown (of 500 images each)."
    )
    assert quicker.models == ["a"] and quicker.command == "draw a steps=10"
    assert not [item for item in answered([model("a", samplers=points[:2])]) if item.kind == "quicker"]


OWN = setting("temperature=1", 1.0, 0.6, 0.7, own=True)
# the density of the own setting ends at 0.7, its at 0.8 to 1
SHARPER = setting("temperature=0.5", 1.25, 0.9, 0.4, losses=["coverage"])
WIDER = setting("steps=50", 2.0, 0.65, 0.85)  # the coverage of the own setting ends at 0.75, its at 0.8 to 0.9
BOTH = setting("steps=100", 4.0, 0.85, 0.82)
CLOSE = setting("steps=20", 0.5, 0.7, 0.75)  # no interval lies above another


@pytest.mark.parametrize(
    ("want", "points", "said"),
    [
        ("quality", [OWN, SHARPER, WIDER, CLOSE], [("quality", SHARPER)]),
        ("diversity", [OWN, SHARPER, WIDER, CLOSE], [("diversity", WIDER)]),
        ("balance", [OWN, SHARPER, WIDER, CLOSE], [("diversity", WIDER)]),  # what loses coverage is no gain in both
        ("balance", [OWN, WIDER, BOTH], [("quality", BOTH), ("diversity", WIDER)]),
        ("balance", [OWN, SHARPER, BOTH], [("quality and diversity", BOTH)]),
        ("speed", [OWN, SHARPER, WIDER, BOTH], []),
        ("balance", [OWN, CLOSE], []),
    ],
)
def test_a_setting_with_more_of_what_is_wanted_is_named_with_its_cost(want, points, said):
    items = [item for item in answered([model("a", samplers=points)], wanting(want)) if item.kind == "better"]
    texts = [
        f"a with {p.setting} has higher {what} than with temperature=1: density {p.density:.2f}, not 0.60; coverage "
        f"{p.coverage:.2f}, not 0.70; an image takes {p.ms_per_image:.1f} times as long (of 500 images each)."
        for what, p in said
    ]
    assert [item.text for item in items] == texts
    assert [item.command for item in items] == [f"draw a {p.setting}" for _, p in said]


@pytest.mark.parametrize(("real", "said"), [(0.6, []), (0.61, ["steps=100"])])
def test_a_density_above_that_of_real_images_is_no_gain(real, said):
    """The own setting has 0.6; from 0.61 on more density counts as 0.61, and of equals the one that covers more."""
    control = Control("real", "", "", {"density": score("density", real, None, "higher")})
    models = [model("a", samplers=[OWN, SHARPER, BOTH])]
    items = answer(models, verdict(models, AXES, {}), {}, wanting("quality"), [control])
    assert [item.command for item in of_kind(items, "better")] == [f"draw a {text}" for text in said]


def trained_with(name, densities, coverages, seeds=(0, 1, 2)):
    """A model with a training for each seed."""
    trainings = [
        Training(
            f"{name}-seed-{seed}",
            seed,
            scores={m: score(m, v, None, "higher") for m, v in ((QUALITY, density), (DIVERSITY, coverage))},
        )
        for seed, density, coverage in zip(seeds, densities, coverages, strict=True)
    ]
    return model(name, trainings=trainings)


def orders(models, want="balance", controls=()):
    items = answer(models, verdict(models, AXES, {}), {}, wanting(want), controls)
    return [(item.text, item.models) for item in of_kind(items, "seeds")]


def test_whether_each_seed_gives_the_same_order_is_said():
    """In quality a is before b with every seed, in diversity with the first alone."""
    models = [trained_with("b", (0.4, 0.5, 0.6), (0.5, 0.7, 0.7)), trained_with("a", (0.5, 0.6, 0.7), (0.6, 0.6, 0.6))]
    same = "In quality, the order of the models is the same with each of 3 seeds: a, b."
    other = "In diversity, the order of the models depends on the seed: seed 0: a, b; seed 1: b, a; seed 2: b, a."
    assert orders(models) == [(f"{same} {other}", ["b", "a"])]
    assert orders(models, "quality") == [(same, ["b", "a"])]


def test_an_order_is_that_of_seeds_that_all_models_have():
    a, b = (trained_with(name, (0.5, 0.6, 0.7), (0.5, 0.6, 0.7)) for name in "ab")
    fewer = trained_with("c", (0.9, 0.1), (0.5, 0.5), seeds=(0, 7))
    assert orders([a]) == orders([a, fewer]) == orders([a, model("b")]) == []
    (text, names) = orders([a, b, trained_with("c", (0.9, 0.1), (0.5, 0.5), seeds=(0, 2))], "quality")[0]
    assert text == "In quality, the order of the models depends on the seed: seed 0: c, a, b; seed 2: a, b, c."
    assert names == ["a", "b", "c"]
    grey = replace(fewer, learned_nothing=NOTHING)
    assert len(orders([a, b, grey])) == 1  # it has no place in an order


def test_a_density_above_that_of_real_images_changes_no_order():
    """Of real images it is 0.8, so that 0.9 and 1.2 are alike, and stand in the order of the table."""
    control = Control("real", "", "", {"density": score("density", 0.8, None, "higher")})
    models = [trained_with("a", (0.9, 1.2, 0.9), (0.5,) * 3), trained_with("b", (1.2, 0.9, 0.9), (0.4,) * 3)]
    ((text, _),) = orders(models, "quality", [control])
    assert text == "In quality, the order of the models is the same with each of 3 seeds: a, b."
    ((text, _),) = orders(models, "quality")
    assert "depends on the seed: seed 0: b, a; seed 1: a, b; seed 2: a, b." in text
