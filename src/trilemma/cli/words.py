"""The words of every verb: checked before torch is loaded, so that a mistake is answered at once, and completed.

What a word stands for follows from the name of the verb's parameter: `model`, `data`, `run`, `setting`, ...
"""

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from glob import escape, glob
from pathlib import Path
from typing import Any

import typer
from typer.core import TyperCommand

from trilemma import vocabulary
from trilemma.announce import announced
from trilemma.errors import UserError, unknown
from trilemma.files import read_json
from trilemma.run.locate import CONFIG, known_runs, no_run, run_folder

DOING = {  # verbs without a progress display of their own
    "sample": "drawing images",
    "again": "drawing the image",
    "reconstruct": "reconstructing images",
    "interpolate": "decoding images",
    "traverse": "decoding images",
    "map": "placing the codes of images",
    "edit": "encoding images",
    "compress": "compressing images",
    "detect": "scoring images",
    "evaluate": "drawing and measuring images",
    "figure": "drawing the figure",
    "show": "reading the images",
    "check": "reading the images",
}


class Verb(TyperCommand):
    """A verb whose words are checked before it runs."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """The words as `normalise` leaves them: options as --key=value, then "--" and the rest."""
        cut = args.index("--") if "--" in args else len(args)
        options, what = args[:cut], args[cut + 1 :]
        if "--help" not in options and not ctx.resilient_parsing:  # which is how the shell asks
            self._check_count(what, {option.removeprefix("--").partition("=")[0] for option in options})
        return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        check_words(str(self.name), ctx.params, [p.name for p in self.params if p.opts[0].startswith("-")])
        with announced("loading PyTorch"), suppress(ImportError):  # doctor says what is wrong with it
            import torch  # noqa: F401
        with announced(DOING.get(str(self.name))):
            return super().invoke(ctx)

    def _check_count(self, what: Sequence[str], given: set[str]) -> None:
        """Refuses words that are missing, or too many, as the shell makes of `runs/*`."""
        places = [p for p in self.params if not p.opts[0].startswith("-")]
        names = " ".join(_metavar(p) for p in places)
        for p in self.params:
            if p in places and p.required and places.index(p) >= len(what):
                raise UserError(f"{_metavar(p)} is missing: {_help(p)}. Type: trilemma {_path(self)} {names}")
            if p not in places and p.required and p.name not in given:
                raise UserError(f"{p.name}= is missing: {_help(p)}. Type: trilemma {_path(self)} {names} {p.name}=...")
        if any(p.nargs == -1 for p in places) or len(what) <= len(places):
            return
        more = what[len(places) :]
        if names.startswith("RUN") and all(Path(word).exists() for word in what):
            raise UserError(
                f"{self.name} takes one run, and {len(what)} were given ({', '.join(what[:3])} ...); give one run at a "
                "time. To compare them: trilemma compare RUN RUN ..."
            )
        raise UserError(f"{self.name} takes {names or 'no words'}; {', '.join(more)} is more than that")


class Verbs(typer.Typer):
    """An app whose commands are verbs."""

    def command(self, name: str | None = None, *, cls: Any = Verb, **settings: Any) -> Callable[..., Any]:
        return super().command(name, cls=cls, **settings)


def check_words(verb: str, words: Mapping[str, Any], options: Sequence[str]) -> None:
    """Raises UserError for a model, data, run, figure or key that there is not; with torch loaded, the verb does it."""
    if "torch" in sys.modules:
        return
    given = {name: value for name, value in words.items() if value not in (None, ())}
    model = given.get("model", "")
    if model and model not in vocabulary.models() and Path(model).expanduser().exists():
        return  # the settings of a run, or a mistake that needs a look at the file
    if model and model not in vocabulary.models():
        raise unknown("model", model, vocabulary.models())
    names = [given["pattern"]] if "pattern" in given else []
    for name in [*names, *filter(None, map(str.strip, given.get("models", "").split(",")))]:
        vocabulary.check_model(name)
    for name in ("data", "source", "against"):
        if name in given:
            vocabulary.check_data(given[name])
    runs = [run_folder(run) for run in [*given.get("runs", ()), *filter(None, [given.get("run")])]]
    if "what" in given and not (what := Path(given["what"]).expanduser()).exists():
        raise no_run(what)
    keys = [setting.partition("=")[0] for setting in given.get("setting", ())]
    if verb == "figure" and "name" in given:
        vocabulary.check_figure(given["name"])
        vocabulary.check_figure_keys(given["name"], keys)
    elif verb == "train":
        vocabulary.check_training_keys(model, keys)
    elif keys and (model := _model_of(runs[0] if runs else Path(given["what"]).expanduser())):
        vocabulary.check_sampling_keys(model, verb, [name for name in options if name != "setting"], keys)


def refuse_verb(word: str, verbs: Sequence[str]) -> UserError:
    """The error for a first word that is no verb: what it is instead, or the nearest verb."""
    if word in vocabulary.models():
        return UserError(f"{word} is a model; train it: trilemma train {word} DATA, or see it: trilemma list {word}")
    if word in vocabulary.data_words():
        compare = f"compare models on it: trilemma compare data={word}"
        return UserError(f"{word} is a data set; see it: trilemma data show {word}, or {compare}")
    if (Path(word).expanduser() / CONFIG).is_file():
        return UserError(f"{word} is a run; draw from it: trilemma sample {word}, or give another verb: trilemma help")
    if word.lower() in ("version", "-v"):
        return UserError("for the version: trilemma --version")
    return unknown("verb", word, verbs)


def complete_model(incomplete: str) -> list[str]:
    """Names of models."""
    return [name for name in vocabulary.models() if name.startswith(incomplete)]


def complete_data(incomplete: str) -> list[str]:
    """Words of data sets, and files."""
    return [word for word in vocabulary.data_words() if word.startswith(incomplete)] + _files(incomplete)


def complete_run(incomplete: str) -> list[str]:
    """The runs nearby, and files and folders, which may lead to others."""
    runs = [run for run in map(str, known_runs()) if run.startswith(incomplete)]
    return runs + [file for file in _files(incomplete) if file.rstrip(os.sep) not in runs]


def complete_figure(incomplete: str) -> list[str]:
    """Names of figures."""
    return [name for name in vocabulary.figures() if name.startswith(incomplete)]


def _files(incomplete: str) -> list[str]:
    """Files and folders that begin so, as they are typed."""
    if not incomplete:
        return []
    paths = sorted(glob(f"{escape(incomplete)}*"))
    return [f"{path}{os.sep}" if os.path.isdir(path) else path for path in paths]


def _model_of(run: Path) -> str | None:
    """The model of a run, if it is one that is known."""
    try:
        model = read_json(run / CONFIG)["model"]
    except (OSError, ValueError, LookupError, TypeError):
        return None
    return model if model in vocabulary.models() else None


def _path(verb: TyperCommand) -> str:
    """A verb as it is typed."""
    return f"data {verb.name}" if verb.name in ("show", "check") else str(verb.name)


def _help(parameter: Any) -> str:
    return parameter.help or "required"


def _metavar(parameter: Any) -> str:
    return parameter.metavar or str(parameter.name).upper()
