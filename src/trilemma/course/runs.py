"""Exercises that a run answers: which values of it are compared with which bound."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from trilemma.errors import UserError
from trilemma.files import read_json

if TYPE_CHECKING:
    from trilemma.run.run import Run

DATA = "digits"
CODE = 2  # numbers of the code
LONGEST_S = 60  # of a training
COVERAGE = "coverage_digits-cnn_360_test.json"  # as `trilemma evaluate` measures a run of digits

Values = dict[str, float]


def short_code(run: "Run") -> tuple[bool, Values]:
    """Whether the held-out squared error of a short code is below half of that of the mean image.

    Raises:
        UserError: if the run is not an autoencoder of digits with such a code.
    """
    model, length = run.config["model"], run.config["model_config"].get("latent")
    value, mean_image = run.summary.get("valid_mse"), run.summary.get("mean_image_rmse")
    if run.config["data"] != DATA or length != CODE or value is None or mean_image is None:
        what = f"a run of {model} on {run.config['data']}" + (f" with latent={length}" if length else "")
        raise UserError(f"{run.path} is {what}; the exercise is about an autoencoder of {DATA} with latent={CODE}")
    bound = mean_image**2 / 2
    return value < bound, {"value": value, "bound": bound}


def wide_coverage(run: "Run", coverage: float) -> tuple[bool, Values]:
    """Whether the interval of the coverage lies above a bound.

    Raises:
        UserError: if the run is not of digits, was trained for too long, or its coverage was not measured.
    """
    if run.config["data"] != DATA:
        raise UserError(f"{run.path} is a run on {run.config['data']}; the exercise is about {DATA}")
    if run.seconds > LONGEST_S:
        raise UserError(f"{run.path} was trained for {run.seconds:.0f} s; the exercise allows {LONGEST_S}")
    low, _ = _interval(run)
    return low > coverage, {"value": low, "bound": coverage}


def _interval(run: "Run") -> tuple[float, float]:
    """The interval of the coverage of a run, from its file.

    Raises:
        UserError: if there is none.
    """
    file = run.path / "metrics" / COVERAGE
    if not file.exists():
        raise UserError(f"{run.path} has no metrics/{COVERAGE}; measure it first: trilemma evaluate {run.path}")
    score = read_json(file)
    interval = score.get("interval") if isinstance(score, dict) else None
    match interval:
        case [int() | float() as low, int() | float() as high]:
            return low, high
    raise UserError(f"{file} holds no interval; measure it again: trilemma evaluate {run.path}")


def check_run(name: str, run: "Run", values: Mapping[str, Any]) -> tuple[bool, Values]:
    """Whether a run answers the exercise of that name, and the values that decide it."""
    return {"code": short_code, "covered": wide_coverage}[name](run, **values)
