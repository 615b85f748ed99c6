"""Imports point one way, and nothing heavy is loaded before it is needed."""

import ast
import json
import os
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "trilemma"
FAMILIES = {"autoencoders", "gans", "diffusion"}
SCRIPTS = {"classifiers/make_bundled.py"}  # that are run, and imported by nothing
HEAVY = {"torch", "numpy", "sklearn", "matplotlib", "PIL", "scipy", "diffusers", "transformers", "accelerate"}

LEVELS = (  # a room imports rooms above it in this table, and none beside it
    "language text",
    "errors",
    "announce arguments extras files hardware healthy interpolation keys memory modes progress rng studio_files team "
    "titles tokeniser words",
    "vocabulary",
    "values ranks whole_batch",
    "config",
    "types pictures",
    "results",
    "data nets",
    "classifiers pretrained",
    "autoencoders gans diffusion",
    "registry",
    "own recipes",
    "run",
    "metrics",
    "training",
    "explore comparison checkup sharing",
    "lessons course",
    "verbs",
    "signatures",
    "cli studio",
    "__main__",
)
ROOMS = {room: level for level, rooms in enumerate(LEVELS) for room in rooms.split()}
BLIND = {"registry", "run", "metrics", "training", "explore", "comparison", "sharing"}  # ask what a model can do


def forbidden(room: str, other: str) -> bool:
    """Whether a room must not import another."""
    blind = room in BLIND and other in FAMILIES
    return room != other and (ROOMS[other] >= ROOMS[room] or blind)


def imported(source: str) -> set[str]:
    """The parts of the project (first name after `trilemma.`) that a source text imports, wherever in it."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are written in full"
            names |= {node.module} if node.module != "trilemma" else {f"trilemma.{alias.name}" for alias in node.names}
    return {name.split(".")[1] for name in names if name.startswith("trilemma.")}


def files():
    outside = {SOURCE / "__init__.py", *map(SOURCE.joinpath, SCRIPTS)}
    return [path for path in sorted(SOURCE.rglob("*.py")) if path not in outside]


def room_of(path: Path) -> str:
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def test_imported_sees_every_form():
    text = "import torch, trilemma.gans.losses\nfrom trilemma.nets import mlp\ndef f():\n    from trilemma import rng"
    assert imported(text) == {"gans", "nets", "rng"}


@pytest.mark.parametrize("path", files(), ids=lambda path: str(path.relative_to(SOURCE)))
def test_imports_point_one_way(path):
    room = room_of(path)
    imports = imported(path.read_text("utf-8")) - {"__version__"}
    assert not {other for other in imports if forbidden(room, other)}


def test_every_room_has_its_level():
    assert set(ROOMS) == set(map(room_of, files()))


def module_of(path):
    return ".".join(path.relative_to(SOURCE).with_suffix("").parts).removesuffix(".__init__")


def modules_imported(path, modules):
    """The modules of the project that a file imports, wherever in it."""
    nodes = [n for n in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(n, ast.ImportFrom)]
    bases = [
        (node.module.removeprefix("trilemma").lstrip("."), node) for node in nodes if node.module.startswith("trilemma")
    ]
    names = [(base, f"{base}.{alias.name}".lstrip(".")) for base, node in bases for alias in node.names]
    return {longer if longer in modules else base for base, longer in names} - {""}


def test_no_circle_of_modules():
    modules = {module_of(path) for path in files()}
    graph = {module_of(path): modules_imported(path, modules) - {module_of(path)} for path in files()}
    assert "data.split" in graph["data.loader"]
    tuple(TopologicalSorter(graph).static_order())  # raises CycleError, with the circle


def test_home_folders_are_found_in_one_way():
    """Path.expanduser raises RuntimeError where there is no such user, files.user_path does not."""
    assert not [path for path in files() if ".expanduser()" in path.read_text("utf-8")]


def python(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


def test_import_loads_nothing_heavy():
    loaded = json.loads(python("import sys, json, trilemma; print(json.dumps(list(sys.modules)))"))
    assert not HEAVY & set(loaded)


def test_help_loads_nothing_heavy():
    code = "import sys, trilemma.cli.main as c; c.main(['--help']); print(); print(sorted(sys.modules))"
    assert not HEAVY & set(ast.literal_eval(python(code).splitlines()[-1]))


WITHOUT_THE_EXTRA = """
import sys
sys.modules.update(dict.fromkeys(("diffusers", "transformers", "accelerate", "huggingface_hub", "peft")))
from trilemma.cli.main import main
assert main(["train", "ae-linear", "digits", "steps=1", "out=run", "device=cpu"]) == 0
assert main(["compare", "data=digits", "models=ae-stacked,vae", "minutes=0.002", "n=64", "out=report"]) == 0
"""


@pytest.mark.slow
def test_training_and_comparing_need_no_library_of_the_extra_pretrained(tmp_path):
    done = subprocess.run([sys.executable, "-c", WITHOUT_THE_EXTRA], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "weights.safetensors").is_file() and (tmp_path / "report" / "report.json").is_file()


@pytest.mark.parametrize(("words", "limit_s"), [(["-m", "trilemma", "--help"], 0.4), (["-c", "import trilemma"], 0.3)])
def test_starts_at_once(words, limit_s):
    """Processor seconds, the least of five: other processes may be busy."""

    def seconds():
        before = os.times()
        subprocess.run([sys.executable, *words], capture_output=True, check=True)
        after = os.times()
        spent = after.children_user - before.children_user + after.children_system - before.children_system
        assert spent > 0
        return spent

    assert min(seconds() for _ in range(5)) <= limit_s


def test_public_names_are_there():
    import trilemma

    for name in trilemma.__all__:
        assert getattr(trilemma, name) is not None
        assert name in dir(trilemma)
    for name in ("train", "compare", "doctor", "sample", "evaluate"):
        assert callable(getattr(trilemma, name))
    with pytest.raises(AttributeError, match="nothing_of_the_kind"):
        trilemma.nothing_of_the_kind  # noqa: B018
    with pytest.raises(AttributeError, match=r"did you mean trilemma\.latent_map\?"):
        trilemma.map  # noqa: B018


def test_no_module_hides_a_public_name():
    """A module of the same name would take the place of the function as soon as it is imported."""
    import trilemma

    parts = {path.stem for path in SOURCE.glob("*.py")} | {path.name for path in SOURCE.iterdir() if path.is_dir()}
    assert not parts & set(trilemma.__all__)
