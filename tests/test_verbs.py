"""The verbs: the functions of the package, the command line, the page of commands and the JSON schemas agree."""

import inspect
import json
import subprocess
import sys

import pytest
import typer

import trilemma
from trilemma import vocabulary
from trilemma.cli import main as cli
from trilemma.cli.app import build
from trilemma.cli.collect import PAGE, page
from trilemma.cli.results import OWN, PRINT
from trilemma.signatures import arguments_of, schema_of
from trilemma.verbs import DIALECT, VERBS, default_of, find, function_of, parse

NOT_VERBS = {"Recipe", "Run", "UserError", "__version__", "create", "load", "load_data", "register"}
COMMAND = typer.main.get_command(build())


def command(verb):
    place = COMMAND
    for word in verb.name.split():
        place = place.commands[word]
    return place


def leaves(place):
    return sum(map(leaves, place.commands.values())) if hasattr(place, "commands") else 1


def test_the_package_and_the_command_line_have_the_same_verbs():
    functions = {name for verb in VERBS for name in (verb.function, verb.lists) if name}
    assert functions == set(trilemma.__all__) - NOT_VERBS
    assert leaves(COMMAND) == len(VERBS)
    assert all(verb.name in {**OWN, **PRINT} for verb in VERBS)


@pytest.mark.parametrize("verb", VERBS, ids=lambda verb: verb.name)
def test_options_are_the_keywords_of_the_function(verb):
    """Same words, same defaults: a line can be moved to Python as it stands, and the other way round."""
    parameters = inspect.signature(function_of(verb.function)).parameters
    plain = {name: p for name, p in parameters.items() if p.kind is not p.VAR_KEYWORD and name != "reference"}
    options = {option.name: option for option in command(verb).params}
    assert set(options) - {"setting"} == set(plain)
    assert ("setting" in options) == any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    for name, parameter in plain.items():
        assert options[name].help, f"{verb.name}: {name} has no description"
        assert options[name].required == (name in verb.required)
        named = parameter.kind is parameter.KEYWORD_ONLY
        assert options[name].opts[0] == (f"--{name}" if named else name)
        text = default_of(verb, name)
        if text and text != "required":
            assert text == str(parameter.default).lower() or parse(text, verb.keys[name]) == parameter.default


def test_the_verbs_that_processes_divide_connect_them():
    sources = {verb.name: inspect.getsource(inspect.unwrap(function_of(verb.function))) for verb in VERBS}
    connecting = {name for name, source in sources.items() if "@connected_ranks(" in source}
    assert connecting == {verb.name for verb in VERBS if verb.divided}


def test_the_page_of_commands_is_written_from_the_verbs():
    assert PAGE.read_text("utf-8") == page() + "\n", "make words"


def test_a_schema_has_types_defaults_bounds_and_descriptions(capsys):
    assert cli.main(["help", "edit", "--json"]) == 0
    schema = json.loads(capsys.readouterr().out)
    assert schema["$schema"] == DIALECT
    assert schema["required"] == ["run", "image"] and schema["additionalProperties"] is True
    steps = schema["properties"]["steps"]
    assert steps["default"] is None and steps["description"]
    shift = schema["properties"]["shift"]
    assert (shift["type"], shift["default"]) == ("number", 1.0)
    keys = inspect.signature(trilemma.edit).parameters
    assert [*schema["properties"], "settings"] == list(keys)
    assert cli.main(["help", "--json"]) == 0
    every = json.loads(capsys.readouterr().out)
    assert list(every) == [verb.name for verb in VERBS] and every["edit"] == schema
    assert cli.main(["help", "data", "--json"]) == 0
    assert list(json.loads(capsys.readouterr().out)) == ["data list", "data show", "data check"]
    assert cli.main(["help", "editt", "--json"]) == 2


def test_the_keys_of_a_training_are_described_by_its_config():
    steps = schema_of(find("train"))["properties"]["steps"]
    assert steps["type"] == ["integer", "null"] and steps["exclusiveMinimum"] == 0 and steps["default"] is None
    assert steps["description"] == "length in optimiser steps"


def test_keys_are_checked_as_the_function_checks_them():
    keys = arguments_of(trilemma.reconstruct)
    assert keys.model_validate({"run": "runs/a"}).model_dump()["n"] == 16
    for wrong in ({"run": "runs/a", "n": 0}, {"run": "runs/a", "m": 1}, {}):
        with pytest.raises(ValueError):
            keys.model_validate(wrong)


def test_help_and_lists_answer_without_torch():
    """In one new process: help of a verb, schemas, all models, one model; in a share of a second each."""
    code = (
        "import sys, time; from trilemma.cli import main as cli\n"
        "for words in (['help', 'train'], ['help', '--json'], ['list'], ['list', 'vae']):\n"
        "    begin = time.process_time(); assert cli.main(words) == 0\n"
        "    print('>>', time.process_time() - begin)\n"
        "assert not {'torch', 'numpy'} & {*sys.modules}"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    spent = [float(line.removeprefix(">> ")) for line in done.stdout.splitlines() if line.startswith(">> ")]
    assert len(spent) == 4 and max(spent) < 0.5


def test_the_list_of_models_is_the_registrys():
    assert vocabulary.models() == trilemma.list_models()
