"""The locked versions against the bounds of pyproject.toml: `make lock` renews them."""

import ast
import json
import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PROJECT = Path(__file__).parents[1]
TABLE = tomllib.loads((PROJECT / "pyproject.toml").read_text("utf-8"))
RUNTIME = [*TABLE["project"]["dependencies"], *TABLE["build-system"]["requires"]]
EXTRAS = TABLE["project"]["optional-dependencies"]
PACKAGES = {"skimage": "scikit-image"}  # whose name is not that of their library
BY_HAND = {"datasets", "torch-fidelity"}  # in no lock, as the README says
WANTED = {"runtime": RUNTIME, "dev": [*RUNTIME, *EXTRAS["dev"]], "slow": [*RUNTIME, *EXTRAS["dev"], *EXTRAS["slow"]]}


def text_of(lock):
    return (PROJECT / "requirements" / f"{lock}.txt").read_text("utf-8")


def locked(lock):
    """Name -> (version, hashes) of each entry; a name may have one for each version of Python."""
    results = {}
    for name, version, rest in re.findall(r"^([\w.-]+)==([^\s;]+)((?:.*\\\n)+.*)$", text_of(lock), re.MULTILINE):
        results.setdefault(canonicalize_name(name), []).append(
            (version, re.findall(r"--hash=sha256:[0-9a-f]{64}", rest))
        )
    return results


@pytest.mark.parametrize("lock", WANTED)
def test_every_requirement_is_locked_within_its_bounds(lock):
    versions = locked(lock)
    for requirement in map(Requirement, WANTED[lock]):
        if requirement.name == "torch":  # constraints.txt has it
            continue
        assert requirement.name in versions, f"{requirement.name} is not locked: make lock"
        for version, _ in versions[requirement.name]:
            assert version in requirement.specifier, f"{requirement} is locked at {version}: make lock"


@pytest.mark.parametrize("lock", WANTED)
def test_every_entry_has_hashes_and_no_place_of_download(lock):
    text = text_of(lock)
    entries = [entry for several in locked(lock).values() for entry in several]
    assert len(entries) == len(re.findall("^[^#\\s]", text, re.MULTILINE)) > 50
    assert all(hashes for _, hashes in entries)
    assert "://" not in text and not re.search(r"^\s*--(?!hash=)", text, re.MULTILINE)
    assert not {"torch", "torchvision", "triton"} & set(locked(lock))


def test_development_runs_what_users_run():
    runtime, dev, slow = map(locked, ("runtime", "dev", "slow"))
    assert {name: dev.get(name) for name in runtime} == runtime
    assert {name: slow.get(name) for name in dev} == dev


def test_slow_tests_have_the_libraries_of_the_extras_that_they_are_of():
    wanted = {"peft>=0.17", *EXTRAS["export"], *EXTRAS["video"]}  # peft: as `lora=` asks for it
    of_tests = {"playwright", "torchmetrics", "prdc", "scipy", "scikit-image", "azula", "einops"}  # and of no extra
    assert {text for text in EXTRAS["slow"] if Requirement(text).name not in of_tests} == wanted


def is_slow(marks):
    return any("mark.slow" in ast.unparse(mark) for mark in marks)


def needed_libraries():
    """The names of the tests that are skipped without one, the package that has it, and whether they are slow."""
    for path in sorted((PROJECT / "tests").rglob("test_*.py")):
        nodes = ast.parse(path.read_text("utf-8")).body
        marks = [n.value for n in nodes if isinstance(n, ast.Assign) and ast.unparse(n.targets[0]) == "pytestmark"]
        for node in nodes:
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                slow = is_slow([*marks, *node.decorator_list])
                for library in re.findall(r"importorskip\(f?'(\w+)", ast.unparse(node)):
                    yield f"{path.name}: {node.name}", canonicalize_name(PACKAGES.get(library, library)), slow


def test_every_test_that_needs_a_library_is_run_by_a_target_that_installs_it():
    of_target = {True: locked("slow"), False: locked("dev")}
    found = list(needed_libraries())
    assert {package for _, package, _ in found} >= {"azula", "diffusers", "scikit-image", *BY_HAND}
    assert [one for one in found if one[1] not in BY_HAND and one[1] not in of_target[one[2]]] == []


def test_what_comes_from_npm_is_locked_with_a_hash_and_no_place_of_download():
    wanted = json.loads((PROJECT / "requirements" / "package.json").read_text("utf-8"))["dependencies"]
    text = (PROJECT / "requirements" / "package-lock.json").read_text("utf-8")
    packages = json.loads(text)["packages"]
    assert packages.pop("")["dependencies"] == wanted and "://" not in text
    assert {*packages} == {f"node_modules/{name}" for name in wanted}
    assert all(one["integrity"].startswith("sha512-") for one in packages.values())


def test_the_tested_torch_is_within_the_bounds():
    lines = [
        line for line in (PROJECT / "constraints.txt").read_text("utf-8").splitlines() if line[:1] not in ("", "#")
    ]
    (constraint,) = map(Requirement, lines)
    (version,) = (part.version for part in constraint.specifier)
    assert version in next(r for r in map(Requirement, RUNTIME) if r.name == "torch").specifier
