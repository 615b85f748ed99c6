"""The commands as typer has them, made from the verbs: their help, their completion, and the call behind each."""

import inspect
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Annotated, Any, ClassVar

import typer
from typer.core import TyperCommand

import trilemma
from trilemma.announce import announced
from trilemma.cli.arguments import SETTING
from trilemma.cli.results import carry_out
from trilemma.cli.words import COMPLETE, check_count, check_processes, check_words
from trilemma.verbs import GROUPS, VERBS, Verb, default_of, kind_of


class Command(TyperCommand):
    """A verb whose words are checked before it runs."""

    verb: ClassVar[Verb]

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """The words as `normalise` leaves them: options as --key=value, then "--" and the rest."""
        cut = args.index("--") if "--" in args else len(args)
        options, what = args[:cut], args[cut + 1 :]
        if "--help" not in options and not ctx.resilient_parsing:  # which is how the shell asks
            check_processes(self.verb)
            check_count(self.verb, what, {option.removeprefix("--").partition("=")[0] for option in options})
        return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        verb = self.verb
        check_words(verb.name, ctx.params, [name for name in verb.keys if name not in verb.places])
        if not verb.light:
            with announced("loading PyTorch"), suppress(ImportError):  # doctor says what is wrong with it
                import torch  # noqa: F401
        defaults = {parameter.name: parameter.default for parameter in self.params}
        with announced(verb.doing):
            carry_out(verb, {name: value for name, value in ctx.params.items() if value not in (defaults[name], ())})


def build() -> typer.Typer:
    """All commands."""
    app = typer.Typer(
        name="trilemma",
        help="Train, sample, measure and compare generative image models.\n\n"
        "Options are written key=value, --key=value or --key value. Start with: trilemma compare data=digits",
        epilog="trilemma help VERB explains a verb, trilemma list MODEL shows a model's own keys; "
        "--debug on any line shows the traceback of an error, --import FILE.py makes your own models known.",
        rich_markup_mode="rich" if sys.stdout.isatty() else None,
        context_settings={"help_option_names": ["-h", "--help"]},
        pretty_exceptions_enable=False,
    )
    app.callback(invoke_without_command=True)(_about)
    groups = {name: typer.Typer(name=name, help=text) for name, text in GROUPS.items()}
    for verb in VERBS:
        *group, name = verb.name.split()
        cls = type("Command", (Command,), {"verb": verb})
        about = f"{verb.about}\n\n{verb.more}"
        place = groups[group[0]] if group else app
        place.command(name, cls=cls, help=about, epilog=verb.see or None)(_callback(verb))
    for group in groups.values():
        app.add_typer(group)
    return app


def _about(version: Annotated[bool, typer.Option("--version", "-V", help="show the version and exit")] = False) -> None:
    if version:
        print(f"trilemma {trilemma.__version__}")
        raise typer.Exit


def _callback(verb: Verb) -> Callable[..., None]:
    """A function whose signature shows typer the keys of a verb."""

    def function(**_: Any) -> None: ...

    parameters = [_parameter(verb, name) for name in verb.keys]
    if verb.open:
        option = Annotated[list[str] | None, typer.Option(SETTING, hidden=True)]
        parameters.append(inspect.Parameter("setting", inspect.Parameter.KEYWORD_ONLY, default=None, annotation=option))
    function.__dict__["__signature__"] = inspect.Signature(parameters)
    return function


def _parameter(verb: Verb, name: str) -> inspect.Parameter:
    """A key of a verb; all values are texts, to which `parse` gives types, but for flags."""
    schema, required = verb.keys[name], name in verb.required
    flag = schema.get("type") == "boolean"
    default = schema["default"] if flag else default_of(verb, name) or None
    about: dict[str, Any] = {"help": schema.get("description", ""), "autocompletion": COMPLETE.get(name)}
    kind: Any = bool if flag else str
    if name not in verb.places:
        words = f"--{name}/--no-{name}" if flag else f"--{name}"
        display: dict[str, Any] = {"show_default": bool(default)} if flag else {"metavar": f"<{kind_of(schema)}>"}
        info: Any = typer.Option(words, **about, **display)
    elif verb.gathers and name == verb.places[-1]:
        kind, info = list[str], typer.Argument(metavar=name.upper().removesuffix("S"), **about)
    else:
        info = typer.Argument(metavar=name.upper(), **about)
    return inspect.Parameter(
        name,
        inspect.Parameter.KEYWORD_ONLY,
        default=inspect.Parameter.empty if required else default,
        annotation=Annotated[kind if required or flag else kind | None, info],
    )
