"""The command line: `trilemma VERB [WHAT] [key=value ...]`, the same words as keywords in Python.

Thin: the words are brought into one form, typer parses them, the public function does the work, its result is printed.
Nothing heavy is imported before a verb runs, so `--help` answers at once.
"""

import errno
import json
import os
import sys
import traceback
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from typing import NoReturn

from typer.main import get_command

from trilemma.cli.app import build
from trilemma.cli.arguments import normalise, take_imports, take_verb
from trilemma.cli.output import every_letter
from trilemma.cli.words import refuse_other_verbs
from trilemma.errors import DEBUG, Disconnected, Diverged, ReportedElsewhere, UserError, shows_tracebacks
from trilemma.hardware import is_first_process, tune_allocator
from trilemma.text import paragraph, printable
from trilemma.verbs import VERBS, document


@every_letter()
def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line.

    Returns:
        Its exit code: 0, 1 for a defect or a training that diverged, 2 for a mistake in the request, 130 for Ctrl-C.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    DEBUG.set("--debug" in words)
    debug = shows_tracebacks()
    tune_allocator()
    try:
        _run([word for word in words if word != "--debug"])
        sys.stdout.flush()
        return 0
    except SystemExit as leave:
        return _exit_code(leave)
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        if isinstance(error, OSError) and error.errno == errno.EPIPE:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the reader left: nothing more to say
            return 1
        code, text = _explain(error)
        where = "".join(f"{note}: " for note in getattr(error, "__notes__", []))
        if isinstance(error, ReportedElsewhere) or not (where or is_first_process()):
            return code  # another process has the same error, and reports it
        if debug:
            print(printable(traceback.format_exc(), lines=True), end="", file=sys.stderr)
        else:
            print(f"error: {where}{paragraph(text)}", file=sys.stderr)
        if isinstance(error, Disconnected):
            _leave(code)
        return code


def _leave(code: int) -> NoReturn:
    """End this process without the end of Python: a thread of the lost connection may still hold a tensor of ours, and
    to give it back needs the interpreter, without which the thread aborts the process."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):  # closed, or its reader left
            stream.flush()
    os._exit(code)


def _run(words: list[str]) -> None:
    if words[:1] == ["help"]:
        if "--json" in words:
            return _print_schema([word for word in words[1:] if word != "--json"])
        words = [*words[1:], "--help"]
    imports, words = take_imports(words)
    if imports:
        _import(imports)
    refuse_other_verbs(words)
    get_command(build()).main(normalise(words or ["--help"]), prog_name="trilemma")


def _import(names: Sequence[str]) -> None:
    """Import modules of the user's; what one of several processes lacks is an error of all."""
    from trilemma.own import import_own
    from trilemma.ranks import connected_ranks, current_team
    from trilemma.team import together

    with connected_ranks():
        for name in names:
            together(current_team(), partial(import_own, name))


def _print_schema(words: list[str]) -> None:
    """The keys of a verb as a JSON schema; of all verbs by name by default."""
    refuse_other_verbs(words)
    verb, _ = take_verb(words)
    chosen = [own for own in VERBS if verb is None and own.name.split()[: len(words)] == words]
    print(json.dumps(document(verb) if verb else {own.name: document(own) for own in chosen}, indent=1))


def _exit_code(leave: SystemExit) -> int:
    """What the process ends with. typer makes 130 of every interrupt; one that was a signal knows its own code."""
    interrupt = leave.__context__.__cause__ if leave.__context__ else None
    code = getattr(interrupt, "code", leave.code)
    return code if isinstance(code, int) else int(code is not None)


def _explain(error: Exception) -> tuple[int, str]:
    """Exit code and text for an error."""
    if isinstance(error, UserError):
        return 1 if isinstance(error, Diverged | Disconnected) else 2, str(error)
    if isinstance(error, OSError) and error.filename:
        return 2, f"{error.filename}: {error.strerror}"
    from trilemma.memory import is_out_of_memory

    if is_out_of_memory(error):
        return 1, f"out of memory ({str(error) or type(error).__name__}); try a smaller batch= or size="
    what = f"{type(error).__name__}: {error}"
    return (
        1,
        f"{what}\nThis looks like a defect in trilemma; run the same command with --debug to see where it happened.",
    )
