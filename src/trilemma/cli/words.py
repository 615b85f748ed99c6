"""The words of every verb: checked before torch is loaded, so that a mistake is answered at once, and completed.

What a word stands for follows from the name of the verb's parameter: `model`, `data`, `run`, `setting`, ...
"""

import fnmatch
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from glob import escape, glob
from pathlib import Path
from typing import Any

from trilemma import vocabulary
from trilemma.errors import UserError, unknown
from trilemma.files import read_json, user_path
from trilemma.hardware import is_one_of_several
from trilemma.pretrained.table import CHECKPOINTS, check_verb, pipeline_name
from trilemma.run.locate import CONFIG, is_of_hub, known_runs, no_run, run_folder
from trilemma.verbs import GROUPS, VERBS, Verb
from trilemma.words import listed


def check_processes(verb: Verb) -> None:
    """Refuse a verb that each of the processes that torchrun has started would do, with the same files."""
    if not verb.divided and is_one_of_several():
        names = listed([own.name for own in VERBS if own.divided])
        raise UserError(
            f"{verb.name} runs in one process, and {os.environ['WORLD_SIZE']} were started; start it without torchrun, "
            f"which is for {names}"
        )


def check_count(verb: Verb, what: Sequence[str], keys: set[str]) -> None:
    """Refuse words that are missing, or too many, as the shell makes of `runs/*`."""
    names = " ".join(name.upper() for name in verb.places)
    for name in verb.required:
        about = f"is missing: {verb.keys[name].get('description', 'required')}. Type: {verb.usage}"
        if name in verb.places and verb.places.index(name) >= len(what):
            raise UserError(f"{name.upper()} {about}")
        if name not in verb.places and name not in keys:
            raise UserError(f"{name}= {about}")
    if verb.gathers or len(what) <= len(verb.places):
        return
    more = what[len(verb.places) :]
    if names.startswith("RUN") and all(Path(word).exists() for word in what):
        raise UserError(
            f"{verb.name} takes one run, and {len(what)} were given ({', '.join(what[:3])} ...); give one run at a "
            "time. To compare them: trilemma compare RUN RUN ..."
        )
    raise UserError(f"{verb.name} takes {names or 'no words'}; {', '.join(more)} is more than that")


def check_words(verb: str, words: Mapping[str, Any], options: Sequence[str]) -> None:
    """Raises UserError for an unknown model, data set, run, figure or key.

    With torch loaded, the verb does it, and so it does in several processes, where what one machine lacks is then an
    error of all.
    """
    if "torch" in sys.modules or is_one_of_several():
        return
    given = {name: value for name, value in words.items() if value not in (None, (), [])}
    if verb == "imagine":
        check_verb(given.get("model", ""), verb)
        return
    model = given.get("model", "")
    if model and model not in vocabulary.models() and user_path(model).exists():
        return  # the settings of a run, or a mistake that needs a look at the file
    if model and model not in vocabulary.models():
        raise unknown("model", model, vocabulary.models())
    pattern = given.get("pattern", "")
    names = [] if not pattern or fnmatch.filter(CHECKPOINTS, pattern) else [pattern]
    for name in [*names, *filter(None, map(str.strip, given.get("models", "").split(",")))]:
        vocabulary.check_model(name)
    for name in ("data", "source", "against"):
        if name in given:
            vocabulary.check_data(given[name])
    pipelines = [pipeline_name(thing) for thing in (given.get("run"), given.get("what"), *given.get("runs", ()))]
    for name in filter(None, pipelines):
        check_verb(name, verb)
    if pipelines[0] is not None:
        return  # what it takes, the verb looks at
    runs = [_run_of(given["run"])] if "run" in given else []
    for thing in [*given.get("runs", ()), *([given["what"]] if "what" in given else [])]:  # runs or images
        if pipeline_name(thing) is None and not (place := _place_of(thing)).exists():
            raise no_run(place)
    keys = [setting.partition("=")[0] for setting in given.get("setting", ())]
    if verb == "figure" and "name" in given:
        vocabulary.check_figure(given["name"])
        vocabulary.check_figure_keys(given["name"], keys)
    elif verb == "train":
        vocabulary.check_training_keys(model, keys)
    elif keys and verb == "figure":
        raise UserError(f"{keys[0]}= is a key of one figure; name it first: trilemma figure NAME {keys[0]}=...")
    elif keys and (model := _model_of(runs[0] if runs else _place_of(given["what"]))):
        vocabulary.check_sampling_keys(model, verb, options, keys)


def refuse_other_verbs(words: Sequence[str]) -> None:
    """Raises UserError for a first word that is not a verb, or a second word that is not one of its group."""
    if not words or words[0].startswith("-"):
        return
    if words[0] not in GROUPS:
        names = list(dict.fromkeys(verb.name.split()[0] for verb in VERBS))
        if words[0] not in names:
            raise _no_verb(words[0], names)
    elif len(words) > 1 and not words[1].startswith("-"):
        names = [verb.name.split()[1] for verb in VERBS if verb.name.split()[0] == words[0] and " " in verb.name]
        if words[1] not in names:
            raise _no_verb(words[1], names)


def _no_verb(word: str, verbs: Sequence[str]) -> UserError:
    """The error for a word that is not a verb: what it is instead, or the nearest verb."""
    if word in vocabulary.models():
        return UserError(f"{word} is a model; train it: trilemma train {word} DATA, or see it: trilemma list {word}")
    if word in vocabulary.data_words():
        compare = f"compare models on it: trilemma compare data={word}"
        return UserError(f"{word} is a data set; see it: trilemma data show {word}, or {compare}")
    if (user_path(word) / CONFIG).is_file():
        return UserError(f"{word} is a run; draw from it: trilemma sample {word}, or give another verb: trilemma help")
    if word.lower() in ("version", "-v"):
        return UserError("for the version: trilemma --version")
    return unknown("verb", word, verbs)


def complete_run(incomplete: str) -> list[str]:
    """The runs nearby, and files and folders, which may lead to others."""
    runs = [run for run in map(str, known_runs()) if run.startswith(incomplete)]
    return runs + [file for file in _files(incomplete) if file.rstrip(os.sep) not in runs]


def complete(words: Callable[[], Iterable[str]], *, files: bool = False) -> Callable[[str], list[str]]:
    """What completes a word: one of these, or a file."""
    return lambda incomplete: [
        *(word for word in words() if word.startswith(incomplete)),
        *(_files(incomplete) if files else ()),
    ]


COMPLETE: Mapping[str, Callable[[str], list[str]]] = {  # by the name of a parameter
    **dict.fromkeys(("model", "models", "pattern"), complete(vocabulary.models)),
    **dict.fromkeys(("data", "source", "against"), complete(vocabulary.data_words, files=True)),
    **dict.fromkeys(("run", "runs", "what"), complete_run),
    "name": complete(vocabulary.figures),
}


def _files(incomplete: str) -> list[str]:
    """Files and folders that begin so, as they are typed."""
    if not incomplete:
        return []
    paths = sorted(glob(f"{escape(incomplete)}*"))
    return [f"{path}{os.sep}" if os.path.isdir(path) else path for path in paths]


def _run_of(run: str) -> Path:
    """The folder of a run."""
    return _place_of(run) if is_of_hub(run) else run_folder(run)


def _place_of(thing: str) -> Path:
    """Where a run or images are."""
    if is_of_hub(thing):
        from trilemma.run.hub import hub_run

        return hub_run(thing)
    return user_path(thing)


def _model_of(run: Path) -> str | None:
    """The model of a run, if it is one that is known."""
    try:
        model = read_json(run / CONFIG)["model"]
    except (OSError, ValueError, LookupError, TypeError):
        return None
    return model if model in vocabulary.models() else None
