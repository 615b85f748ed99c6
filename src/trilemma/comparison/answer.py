"""The answer to "which model should I use?", as plain sentences, each with a command to type where there is one.

All told, a model is to be used that no other one is shown to beat in fidelity or in diversity; of several, the fastest.
Where no model is unbeaten in both, there is a trade-off, and it is named. A model that learned nothing yet is never
recommended.
"""

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from trilemma.comparison.differences import unbeaten
from trilemma.comparison.words import counts
from trilemma.text import quoted
from trilemma.words import listed

QUALITY, DIVERSITY, SPEED = "fidelity", "diversity", "speed"  # axes
FAR = 0.5  # of the coverage of real images, below which a recommendation says so
LONGER = 4  # times the minutes, where a model needs more training
LOWER = 0.3  # of a key that is to be lowered
ONE_TRAINING_CAVEAT = (
    "Each model was trained once: the intervals do not cover the luck of one training, and another seed may change the "
    "order. seeds=3 covers it."
)


def answer(
    models: Sequence[Mapping[str, Any]],
    verdict: Mapping[str, Any],
    differences: Mapping[str, Sequence[Mapping[str, Any]]],
    request: Mapping[str, Any],
    controls: Sequence[Mapping[str, Any]] = (),
) -> list[dict[str, Any]]:
    """What a person wants to know first: {"kind", "text", "models", "command"} in the order of a report.

    Args:
        models: the document's models.
        verdict: the document's verdict.
        differences: the document's, by metric.
        request: as `document` takes it.
        controls: the document's.
    """
    use = _use(models, verdict["axes"], differences, request)
    items = [{**use, "text": " ".join([use["text"], *_so_far(use["models"], models, controls)])}]
    for kind, axis in (("quality", QUALITY), ("diversity", DIVERSITY), ("speed", SPEED)):
        judged = verdict["axes"][axis]
        items.append(_item(kind, f"For {kind}: {judged['text']}", judged["first"]))
    items += [_failed(model, request) for model in models if model["error"]]
    items += [_learned_nothing(model, request) for model in models if model["learned_nothing"]]
    items += [_warned(model, request) for model in models if model["warnings"] and not model["learned_nothing"]]
    return [*items, *_limits(models, verdict["axes"], request)]


def _item(kind: str, text: str, names: Sequence[str] = (), command: str | None = None) -> dict[str, Any]:
    return {"kind": kind, "text": text, "models": list(names), "command": command}


def _use(
    models: Sequence[Mapping[str, Any]],
    axes: Mapping[str, Any],
    differences: Mapping[str, Sequence[Mapping[str, Any]]],
    request: Mapping[str, Any],
) -> dict[str, Any]:
    able = [m["name"] for m in models if counts(m, QUALITY) and counts(m, DIVERSITY)]
    if not able:
        return _none_yet(request)
    if len(able) == 1:
        others = " of those compared" if len(models) > 1 else ""
        return _item(
            "use", f"Use {able[0]}: it is the only one{others} that can be recommended.", able, _draw(models, able[0])
        )
    best = [name for name in able if name in axes[QUALITY]["first"] and name in axes[DIVERSITY]["first"]]
    if not best:
        return _trade_off(axes[QUALITY]["first"], axes[DIVERSITY]["first"])
    clear = all(axes[axis]["clear"] for axis in (QUALITY, DIVERSITY))
    if len(best) == 1:
        why = (
            "it is ahead in both quality and diversity"
            if clear
            else "no other model is shown to be better in quality or diversity"
        )
        return _item("use", f"Use {best[0]}: {why}.", best, _draw(models, best[0]))
    return _fastest(best, models, differences)


def _so_far(
    names: Sequence[str], models: Sequence[Mapping[str, Any]], controls: Sequence[Mapping[str, Any]]
) -> Iterator[str]:
    """That the recommended models are far from real images, where the best of them covers less than FAR of what other
    real images do."""
    shares = [value for m in models if m["name"] in names and (value := _coverage(m["scores"])) is not None]
    known = {control["name"]: _coverage(control["scores"]) for control in controls}
    real = known.get("real") or known.get("training")
    if shares and real and max(shares) < FAR * real:
        each = "it covers" if len(names) == 1 else "the best covers"
        yield (
            f"But {each} {max(shares):.0%} of the real images, and other real images cover {real:.0%}: train longer, "
            "or take a model that suits these images (see trilemma list)."
        )


def _coverage(scores: Mapping[str, Any]) -> float | None:
    return scores["coverage"]["value"] if "coverage" in scores else None


def _trade_off(quality: Sequence[str], diversity: Sequence[str]) -> dict[str, Any]:
    text = f"No model is best in both: use {_either(quality)} for quality, {_either(diversity)} for diversity."
    return _item("use", text, [*quality, *diversity])


def _fastest(
    best: Sequence[str], models: Sequence[Mapping[str, Any]], differences: Mapping[str, Sequence[Mapping[str, Any]]]
) -> dict[str, Any]:
    """Of several unbeaten ones the fastest; more than one where their times do not tell them apart."""
    times = {m["name"]: s["value"] for m in models if m["name"] in best and (s := m["scores"].get("ms_per_image"))}
    times = {name: value for name, value in times.items() if value is not None}
    fast = unbeaten(times, differences.get("ms_per_image", ()), "lower") or list(best)
    same = f"no difference in quality and diversity could be shown between {listed(best)}"
    if len(fast) > 1:
        return _item("use", f"Use {_either(fast)}: {same}.", fast, _draw(models, fast[0]))
    return _item("use", f"Use {fast[0]}: {same}, and it is the fastest of them.", fast, _draw(models, fast[0]))


def _none_yet(request: Mapping[str, Any]) -> dict[str, Any]:
    """What to do where nothing can be recommended."""
    text = (
        "No model can be recommended yet: none has learned to draw these images. Train longer, or try other models "
        "(trilemma list shows which suit few images)."
    )
    return _item("use", text, (), _longer(request))


def _failed(model: Mapping[str, Any], request: Mapping[str, Any]) -> dict[str, Any]:
    text = f"{model['name']} failed. {_sentence(model['error'])}"
    return _item("failed", text, [model["name"]], _repair(model, model["error"], request))


def _learned_nothing(model: Mapping[str, Any], request: Mapping[str, Any]) -> dict[str, Any]:
    text = " ".join([f"{model['name']} {model['learned_nothing']}.", *map(_sentence, model["warnings"])])
    return _item("failed", text, [model["name"]], _repair(model, " ".join([*model["warnings"], "minutes="]), request))


def _warned(model: Mapping[str, Any], request: Mapping[str, Any]) -> dict[str, Any]:
    text = " ".join([f"{model['name']} was trained with warnings.", *map(_sentence, model["warnings"])])
    return _item("limits", text, [model["name"]], _repair(model, " ".join(model["warnings"]), request))


def _limits(
    models: Sequence[Mapping[str, Any]], axes: Mapping[str, Any], request: Mapping[str, Any]
) -> Iterator[dict[str, Any]]:
    """What the figures leave out, where a claim rests on them: on any axis some model is beaten by another."""
    if single_trainings(models) and any(axis["beaten"] for axis in axes.values()):
        yield _item("limits", ONE_TRAINING_CAVEAT, (), _again(request, seeds=3))


def single_trainings(models: Sequence[Mapping[str, Any]]) -> bool:
    """Whether any model that was measured was trained once only."""
    return any(len([t for t in m["trainings"] if t["scores"]]) == 1 for m in models if m["scores"])


def _repair(model: Mapping[str, Any], text: str, request: Mapping[str, Any]) -> str | None:
    """The next line to type: a lower key or a longer training, as the text advises, else the same training alone."""
    if request["minutes"] is None:
        return None
    beta = model.get("settings", {}).get("beta")
    if "beta=" in text and beta:
        return _train(model["name"], request, beta=f"{LOWER * beta:.2g}")
    if re.search(r"\blr=|not finite|\bnan\b|diverge", text, re.IGNORECASE) and (lr := _lower(model)):
        return _train(model["name"], request, lr=lr)
    if "minutes=" in text:
        return _again(request, minutes=LONGER * request["minutes"])
    return _train(model["name"], request)


def _longer(request: Mapping[str, Any]) -> str | None:
    return None if request["minutes"] is None else _again(request, minutes=max(5.0, LONGER * request["minutes"]))


def _lower(model: Mapping[str, Any]) -> str | None:
    """A lower learning rate than the training's, as it is typed."""
    from trilemma.registry import get_recipe

    training = model.get("training") or get_recipe(model["name"]).training
    rate = training.get("lr")
    if isinstance(rate, Mapping):
        return ",".join(f"{phase}:{LOWER * value:.2g}" for phase, value in rate.items()) or None
    return f"{LOWER * rate:.2g}" if rate else None


def _train(name: str, request: Mapping[str, Any], **keys: Any) -> str:
    """The training of one model by itself, with other keys."""
    words = dict(word.split("=", 1) for word in shlex.split(request["command"])[2:])
    kept = {key: words[key] for key in ("minutes", "size", "seed") if key in words}
    return quoted(["trilemma", "train", name, words["data"], *(f"{k}={v}" for k, v in {**kept, **keys}.items())])


def _again(request: Mapping[str, Any], **changes: float) -> str | None:
    """The command of the comparison with some keys changed; None for finished runs, which were trained elsewhere."""
    if request["minutes"] is None:
        return None
    words = [word for word in shlex.split(request["command"]) if word.partition("=")[0] not in (*changes, "out")]
    return quoted([*words, *(f"{key}={value:g}" for key, value in changes.items())])


def _draw(models: Sequence[Mapping[str, Any]], name: str) -> str | None:
    return next((m["commands"].get("sample") for m in models if m["name"] == name), None)


def _either(names: Sequence[str]) -> str:
    """
    >>> _either(["a"]), _either(["a", "b", "c"])
    ('a', 'a, b or c')
    """
    return " or ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def _sentence(text: str) -> str:
    """
    >>> _sentence("the codes collapsed"), _sentence("Stop.")
    ('The codes collapsed.', 'Stop.')
    """
    text = text[:1].upper() + text[1:]
    return text if text.endswith((".", "!", "?")) else f"{text}."
