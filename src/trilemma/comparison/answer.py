"""The answer to "which model should I use?", as plain sentences, each with a command to type where there is one.

A model is to be used that no other one is shown to beat in what the user wants: in fidelity and in diversity, or in one
of them, or in speed. Of several, one that is also unbeaten in the rest, or unbeaten there by the others of them, and of
these the fastest. Where both are wanted and no model is unbeaten in both, there is a trade-off, and it is named. A
model that learned nothing yet is never recommended.
"""

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from trilemma.comparison.content import (
    DIVERSITY,
    FIDELITY,
    IMAGES,
    WANTS,
    Asked,
    Control,
    Differences,
    Item,
    Leaders,
    Model,
    Verdict,
    scores_of_real,
    value_of,
)
from trilemma.comparison.differences import unbeaten
from trilemma.comparison.learning import FACTOR
from trilemma.comparison.sampler_answer import better_settings, quicker_settings
from trilemma.comparison.sampler_settings import most_density
from trilemma.comparison.seeds import rankings
from trilemma.comparison.words import WORDS, counts, metric_of
from trilemma.language import translated
from trilemma.text import quoted
from trilemma.words import listed, number, span

FAR = 0.5  # of the coverage of real images, below which a recommendation says so
LONGER = 4  # times the minutes, where a model needs more training
LOWER = 0.3  # of a key that is to be lowered
TIME = "ms_per_image"
NO_COST = (
    "what it costs to train and to draw them is not known without their model, so they are compared in fidelity and "
    "diversity only."
)
NONE_YET = (
    "No model can be recommended yet: none has learned to draw these images. Train longer, or try other models "
    "(trilemma list shows which suit few images)."
)
ONE_TRAINING_CAVEAT = (
    "Each model was trained once: the intervals do not cover the luck of one training, and another seed may change the "
    "order. seeds=3 covers it."
)


def answer(
    models: Sequence[Model],
    verdict: Verdict,
    differences: Differences,
    asked: Asked,
    controls: Sequence[Control] = (),
) -> list[Item]:
    """What a person wants to know first, in the order of a report; every argument but `asked` is the document's."""
    use = _use(models, verdict.axes, differences, asked)
    items = [replace(use, text=" ".join([use.text, *_so_far(use.models, models, controls)]))]
    for axis, kind in WORDS.items():
        leaders = verdict.axes[axis]
        items.append(Item(kind, translated(f"For {kind}: {{text}}", text=leaders.text), leaders.first))
    used = [m for m in models if m.name in use.models]
    items += quicker_settings(used)
    items += better_settings(used, asked.want, most_density(controls))
    items += longer_trainings(models, asked)
    items += rankings(models, asked.want, most_density(controls))
    items += [_failed(model, asked) for model in models if model.error]
    items += [_learned_nothing(model, asked) for model in models if model.learned_nothing]
    items += [_warned(model, asked) for model in models if model.warnings and not model.learned_nothing]
    return [*items, *_limits(models, verdict.axes, asked)]


def _use(models: Sequence[Model], axes: Mapping[str, Leaders], differences: Differences, asked: Asked) -> Item:
    wanted = WANTS[asked.want]
    able = [m.name for m in models if all(counts(m, axis) for axis in wanted)]
    if not able:
        return _none_yet(asked)
    if len(able) == 1:
        alone = "Use {name}: it is the only one that can be recommended."
        among = "Use {name}: it is the only one of those compared that can be recommended."
        text = translated(among if len(models) > 1 else alone, name=able[0])
        return Item("use", text, able, _draw(models, able[0]))
    best = [name for name in able if all(name in axes[axis].first for axis in wanted)]
    if not best:
        return _trade_off(axes[FIDELITY].first, axes[DIVERSITY].first)
    if len(best) > 1:
        return _of_equals(best, models, axes, differences, wanted)
    words = [translated(WORDS[axis]) for axis in wanted]
    if not all(axes[axis].clear for axis in wanted):
        text = translated(
            "Use {name}: no other model is shown to be better in {what}.", name=best[0], what=_either(words)
        )
    elif len(words) > 1:
        text = translated("Use {name}: it is ahead in both {what}.", name=best[0], what=listed(words))
    else:
        text = translated("Use {name}: it is ahead in {what}.", name=best[0], what=words[0])
    return Item("use", text, best, _draw(models, best[0]))


def _of_equals(
    best: Sequence[str],
    models: Sequence[Model],
    axes: Mapping[str, Leaders],
    differences: Differences,
    wanted: Sequence[str],
) -> Item:
    """Of several that are unbeaten in what is wanted: one that is unbeaten in the rest of fidelity and diversity, too,
    or where there is none, one that none of the others beats there; of several of these the fastest."""
    rest = [axis for axis in WANTS["balance"] if axis not in wanted]
    also = [name for name in best if all(name in axes[axis].first for axis in rest)]
    unbeaten_there = [_unbeaten_among(best, models, differences, axis) for axis in rest]
    among = also or [name for name in best if all(name in names for names in unbeaten_there)]
    if not rest or len(among) != 1:
        return _fastest(among or best, models, differences, [*wanted, *rest] if among else wanted)
    of_all = (
        "Use {name}: no difference in {what} could be shown between {names}, and no other model is shown to be better "
        "in {rest}."
    )
    of_these = (
        "Use {name}: no difference in {what} could be shown between {names}, and none of these is shown to be better "
        "in {rest}."
    )
    text = translated(
        of_all if also else of_these,
        name=among[0],
        what=listed([translated(WORDS[axis]) for axis in wanted]),
        names=listed(best),
        rest=_either([translated(WORDS[axis]) for axis in rest]),
    )
    return Item("use", text, among, _draw(models, among[0]))


def _unbeaten_among(names: Sequence[str], models: Sequence[Model], differences: Differences, axis: str) -> list[str]:
    """Those of some models that none of the others is shown to beat on an axis; one without a value is not among
    them."""
    metric = metric_of(axis)
    values = {
        m.name: value for m in models if m.name in names and (value := value_of(m.scores, metric.name)) is not None
    }
    return unbeaten(values, differences.get(metric.name, ()), metric.better)


def _so_far(names: Sequence[str], models: Sequence[Model], controls: Sequence[Control]) -> Iterator[str]:
    """That the recommended models are far from real images, where the best of them covers less than FAR of what other
    real images do."""
    shares = [value for m in models if m.name in names and (value := value_of(m.scores, "coverage")) is not None]
    real = value_of(scores_of_real(controls), "coverage")
    if shares and real and max(shares) < FAR * real:
        one = "But it covers {share} of the real images, and other real images cover {real}: {advice}"
        some = "But the best covers {share} of the real images, and other real images cover {real}: {advice}"
        advice = translated("train longer, or take a model that suits these images (see trilemma list).")
        yield translated(
            one if len(names) == 1 else some, share=f"{max(shares):.0%}", real=f"{real:.0%}", advice=advice
        )


def _trade_off(quality: Sequence[str], diversity: Sequence[str]) -> Item:
    text = translated(
        "No model is best in both: use {quality} for quality, {diversity} for diversity.",
        quality=_either(quality),
        diversity=_either(diversity),
    )
    return Item("use", text, [*quality, *diversity])


def _fastest(best: Sequence[str], models: Sequence[Model], differences: Differences, equal: Sequence[str]) -> Item:
    """Of several between which no difference is shown on the axes `equal` the fastest; more than one where their times
    do not tell them apart, or are not known of all."""
    times = {m.name: value for m in models if m.name in best and (value := value_of(m.scores, TIME)) is not None}
    fast = unbeaten(times, differences.get(TIME, ()), "lower") if len(times) == len(best) else list(best)
    what = listed([translated(word) for axis, word in WORDS.items() if axis in equal])
    same = "Use {name}: no difference in {what} could be shown between {names}."
    faster = "Use {name}: no difference in {what} could be shown between {names}, and it is the fastest of them."
    text = translated(same if len(fast) > 1 else faster, name=_either(fast), what=what, names=listed(best))
    return Item("use", text, fast, _draw(models, fast[0]))


def _none_yet(asked: Asked) -> Item:
    """What to do where nothing can be recommended."""
    return Item("use", translated(NONE_YET), (), _longer(asked))


def longer_trainings(models: Sequence[Model], asked: Asked) -> Iterator[Item]:
    """What a longer training would change, by the learning curves; nothing where none could be fitted."""
    fitted = [(m, m.forecast) for m in models if m.forecast and m.learning and not m.error]
    others = [m for m in models if m.scores and not m.forecast]
    if not fitted:
        return
    parts, ahead = [], {}
    for model, longer in fitted:
        last, (_, high) = model.learning[-1], longer.interval
        within = f"{number(longer.value, longer.interval)} ({span(longer.value, longer.interval)})"
        falls = "{name} {value}, now {now}"
        stays = "{name} {value}, now {now} (no change shown)"
        parts.append(
            translated(
                falls if high < last.interval[0] else stays, value=within, name=model.name, now=number(last.value)
            )
        )
        ahead[model.name] = longer.interval
    best = min(ahead, key=lambda name: ahead[name][1])
    clear = all(ahead[best][1] < low for name, (low, _) in ahead.items() if name != best)
    text = [
        translated(
            "With {factor} times the training, these kernel distances are expected: {values}.",
            factor=FACTOR,
            values="; ".join(parts),
        )
    ]
    if clear and len(ahead) > 1 and not others:
        text.append(translated("{name} would be nearest to real images.", name=best))
    text.append(translated("It is read from the learning curves, as a power law of the time."))
    yield Item("longer", " ".join(text), [m.name for m, _ in fitted], _again(asked, **_times(asked, FACTOR)))


def _failed(model: Model, asked: Asked) -> Item:
    error = model.error or ""
    return Item(
        "failed",
        translated("{name} failed. {why}", name=model.name, why=_sentence(error)),
        [model.name],
        _repair(model, error, asked),
    )


def _learned_nothing(model: Model, asked: Asked) -> Item:
    text = " ".join([f"{model.name} {model.learned_nothing}.", *map(_sentence, model.warnings)])
    return Item("failed", text, [model.name], _repair(model, " ".join([*model.warnings, "minutes="]), asked))


def _warned(model: Model, asked: Asked) -> Item:
    text = " ".join([translated("{name} was trained with warnings.", name=model.name), *map(_sentence, model.warnings)])
    return Item("limits", text, [model.name], _repair(model, " ".join(model.warnings), asked))


def _limits(models: Sequence[Model], axes: Mapping[str, Leaders], asked: Asked) -> Iterator[Item]:
    """What the values leave out: the cost of images without a model; and, where a claim rests on them, since on any
    axis some model is beaten by another, the luck of training."""
    if sets := [model.name for model in models if model.kind == IMAGES]:
        text = translated("Of {names} only the images are known: {why}", names=listed(sets), why=translated(NO_COST))
        yield Item("limits", text, sets)
    if single_trainings(models) and any(axis.beaten for axis in axes.values()):
        yield Item("limits", translated(ONE_TRAINING_CAVEAT), (), _again(asked, seeds=3))


def single_trainings(models: Sequence[Model]) -> bool:
    """Whether any model that was measured was trained once only."""
    return any(len([t for t in m.trainings if t.scores]) == 1 for m in models if m.scores and m.kind == "model")


def _repair(model: Model, text: str, asked: Asked) -> str | None:
    """The next line to type: a lower key or a longer training, as the text advises, else the same training alone; of
    models whose widths the comparison chose, a longer comparison."""
    if not asked.length:
        return None
    if " parameters=" in asked.command:
        return _again(asked, **_times(asked, LONGER))
    beta = model.trained.settings.get("beta") if model.trained else None
    if "beta=" in text and beta:
        return _train(model.name, asked, beta=f"{LOWER * beta:.2g}")
    if re.search(r"\blr=|not finite|\bnan\b|diverge", text, re.IGNORECASE) and (lr := _lower(model)):
        return _train(model.name, asked, lr=lr)
    if "minutes=" in text:
        return _again(asked, **_times(asked, LONGER))
    return _train(model.name, asked)


def _longer(asked: Asked) -> str | None:
    longer = _times(asked, LONGER)
    return _again(asked, **longer | ({"minutes": max(5.0, longer["minutes"])} if "minutes" in longer else {}))


def _times(asked: Asked, factor: int) -> dict[str, float]:
    """The length of a training, so many times."""
    return {key: factor * value for key, value in asked.length.items()}


def _lower(model: Model) -> str | None:
    """A lower learning rate than the training's, as it is typed."""
    from trilemma.registry import get_recipe

    training = model.trained.training if model.trained else get_recipe(model.name).training
    rate = training.get("lr")
    if isinstance(rate, Mapping):
        return ",".join(f"{phase}:{LOWER * value:.2g}" for phase, value in rate.items()) or None
    return f"{LOWER * rate:.2g}" if rate else None


def _train(name: str, asked: Asked, **keys: str) -> str:
    """The command that trains one model alone, with other keys."""
    words = dict(word.split("=", 1) for word in shlex.split(asked.command)[2:])
    common = {key: words[key] for key in ("minutes", "images", "size", "seed") if key in words}
    return quoted(["trilemma", "train", name, words["data"], *(f"{k}={v}" for k, v in {**common, **keys}.items())])


def _again(asked: Asked, **changes: float) -> str | None:
    """The command of the comparison with some keys changed; None for finished runs, which were trained elsewhere."""
    if not asked.length:
        return None
    words = [word for word in shlex.split(asked.command) if word.partition("=")[0] not in (*changes, "out")]
    return quoted([*words, *(f"{key}={_typed(value)}" for key, value in changes.items())])


def _typed(value: float) -> str:
    """
    >>> _typed(3), _typed(2_400_000), _typed(2.0)
    ('3', '2400000', '2')
    """
    return str(value) if isinstance(value, int) else f"{value:g}"


def _draw(models: Sequence[Model], name: str) -> str | None:
    return next((m.commands.get("sample") for m in models if m.name == name), None)


def _either(names: Sequence[str]) -> str:
    """
    >>> _either(["a"]), _either(["a", "b", "c"])
    ('a', 'a, b or c')
    """
    return f" {translated('or')} ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def _sentence(text: str) -> str:
    """
    >>> _sentence("the codes collapsed"), _sentence("Stop.")
    ('The codes collapsed.', 'Stop.')
    """
    text = text[:1].upper() + text[1:]
    return text if text.endswith((".", "!", "?")) else f"{text}."
