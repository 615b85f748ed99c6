"""The commands that a report gives to measure the same again."""

from types import SimpleNamespace

from trilemma.comparison.content import Asked
from trilemma.comparison.document import _again
from trilemma.comparison.trained import commands
from trilemma.registry import create

KEYS = "n=60 seed=3 features=cifar10-cnn inverted=4 want=speed lang=vi"
COMMAND = f"trilemma compare data=digits models=a,b minutes=1 {KEYS}"


def asked(command: str = COMMAND) -> Asked:
    given = ("cifar10-cnn", 4) if command == COMMAND else ("auto", 0)
    return Asked(command, {"minutes": 1}, 60, 16, 3, "test", (), "balance", *given)


def evaluated(model: str, folder, asked: Asked) -> str:
    small = {"width": 8, "multipliers": (1, 2)} if model.startswith("diffusion") else {}
    run = SimpleNamespace(model=create(model, shape=(1, 8, 8), **small), path=folder, command="")
    return commands(SimpleNamespace(run=run), None, asked)["evaluate"]


def test_a_run_is_measured_by_the_features_codes_and_bounds_of_the_comparison(tmp_path):
    for model in ("vae", "gan"):
        assert evaluated(model, tmp_path, asked()).endswith("n=60 seed=3 batch=16 features=cifar10-cnn inverted=4")
    by_path = evaluated("diffusion", tmp_path, asked())
    assert by_path.endswith("features=cifar10-cnn bound_samples=8 bound_images=64 inverted=4")
    assert "inverted" not in evaluated("diffusion-upscale", tmp_path, asked())
    assert evaluated("vae", tmp_path, asked("trilemma compare data=digits")).endswith("n=60 seed=3 batch=16")


def test_the_same_weights_are_measured_with_the_keys_of_the_comparison(tmp_path):
    model = SimpleNamespace(trainings=[SimpleNamespace(run=str(tmp_path))])
    again = _again([model], asked())
    assert again["measure"] == f"trilemma compare {tmp_path} {KEYS}"
