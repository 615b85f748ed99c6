"""Widths that bring a model to a number of parameters."""

import pytest
from presets import ALIKE

from trilemma.comparison.sizes import NEAR, settings_for
from trilemma.errors import UserError
from trilemma.registry import count_parameters, create, list_models

SHAPE = (1, 28, 28)
LARGE = {"diffusion-cifar"}  # the same network as another preset
# no layer whose width is a setting
FIXED = {"ae-linear", "ae-conv", "ae-recurrent", "vae-conv", "vae-beta", "diffusion-few"}


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow if name in ALIKE else ())
        for name in list_models()
        if name not in LARGE | FIXED
    ],
)
def test_every_model_comes_near(name: str) -> None:
    wanted = 1_000_000
    model = create(name, shape=SHAPE, **settings_for(name, SHAPE, wanted))
    assert wanted / NEAR <= count_parameters(model) <= wanted * NEAR


def test_a_model_that_cannot_says_what_it_can() -> None:
    with pytest.raises(UserError, match="parameters=400,000: ae-linear can have 3,922, whatever its width; leave it"):
        settings_for("ae-linear", SHAPE, 400_000)
    with pytest.raises(UserError, match=r"parameters=10: vae can have .* to .*, and none near"):
        settings_for("vae", SHAPE, 10)
