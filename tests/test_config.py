"""Settings: wrong keys and values are named in one line, and JSON gives back what went in."""

import json
from typing import Literal

import numpy as np
import pytest
from pydantic import Field, PositiveFloat, model_validator

from trilemma.config import Config, make, only_for
from trilemma.errors import UserError


class Toy(Config):
    latent: int = Field(4, ge=1)
    hidden: tuple[int, ...] = (8, 8)
    code: Literal["relu", "none"] = "relu"
    tied: bool = False
    lr: PositiveFloat | dict[str, PositiveFloat] = 0.1


def test_json_round_trip() -> None:
    toy = Toy(latent=3, hidden=(5,))
    assert make(Toy, json.loads(json.dumps(toy.to_json()))) == toy


def test_an_unknown_key_is_named_with_the_nearest() -> None:
    with pytest.raises(
        UserError, match=r'unknown key "latnt"; the keys here are latent, hidden, code, tied, lr .*"latent"'
    ):
        make(Toy, {"latnt": 3})


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"latent": 0}, "^latent=0: give a whole number of at least 1$"),
        ({"latent": "5"}, "^latent='5': give a whole number of at least 1, not a text$"),
        ({"latent": True}, "^latent=true: give a whole number of at least 1$"),
        ({"latent": ""}, "^latent= has no value; give a whole number of at least 1$"),
        ({"hidden": "wide"}, "^hidden=wide: give one or more values with commas between, each a whole number$"),
        ({"hidden": (8, 2.5)}, r"^hidden=8,2\.5: give one or more values"),
        ({"code": "rely"}, r'^code=rely: give one of relu, none \(did you mean "relu"\?\)$'),
        ({"tied": "maybe"}, "^tied=maybe: give true or false$"),
        ({"lr": "fast"}, "^lr=fast: give a number above 0 or NAME:VALUE"),
        ({"lr": {"a": -1.0}}, "^lr=a:-1: give a number above 0 or NAME:VALUE"),
        ({"latent": 0, "code": "x"}, r"^latent=0: .*; code=x: "),
    ],
)
def test_a_wrong_value_is_shown(values: dict[str, object], text: str) -> None:
    with pytest.raises(UserError, match=text):
        make(Toy, values)


def test_one_number_stands_for_a_tuple_of_one() -> None:
    assert make(Toy, {"hidden": 16}).hidden == (16,)


@pytest.mark.parametrize(
    ("values", "key", "value"),
    [
        ({"latent": 16.0}, "latent", 16),
        ({"latent": np.int64(5)}, "latent", 5),
        ({"hidden": [4, 3.0]}, "hidden", (4, 3)),
        ({"hidden": ""}, "hidden", ()),
        ({"tied": "yes"}, "tied", True),
        ({"tied": 0}, "tied", False),
        ({"lr": 1}, "lr", 1.0),
        ({"lr": np.float32(0.5)}, "lr", 0.5),
    ],
)
def test_forms_that_say_the_same_are_one(values: dict[str, object], key: str, value: object) -> None:
    result = getattr(make(Toy, values), key)
    assert result == value and type(result) is type(value)


def test_changes_are_checked_and_the_old_one_stays() -> None:
    toy = Toy()
    assert toy.with_(latent=9).latent == 9 and toy.latent == 4
    with pytest.raises(UserError):
        toy.with_(latent=-1)


class Noisy(Config):
    noise: Literal["none", "gaussian"] = "none"
    level: float = 0.5

    @model_validator(mode="after")
    def _fitting(self) -> "Noisy":
        only_for(self, "level", self.noise != "none", "noise=gaussian, not none")
        return self


def test_a_key_without_effect_is_refused_unless_it_has_its_default() -> None:
    assert make(Noisy, {"noise": "gaussian", "level": 0.25}).level == 0.25
    assert make(Noisy, {"level": 0.5}) == Noisy()
    with pytest.raises(UserError, match=r"^level=0.25 is for noise=gaussian, not none$"):
        make(Noisy, {"level": 0.25})
