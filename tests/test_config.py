"""Settings: wrong keys and values are named in one line, and JSON gives back what went in."""

import json

import pytest
from pydantic import Field

from trilemma.config import Config, make
from trilemma.errors import UserError


class Toy(Config):
    latent: int = Field(4, ge=1)
    hidden: tuple[int, ...] = (8, 8)
    code: str = "relu"


def test_json_round_trip() -> None:
    toy = Toy(latent=3, hidden=(5,))
    assert make(Toy, json.loads(json.dumps(toy.to_json()))) == toy


def test_an_unknown_key_is_named_with_the_nearest() -> None:
    with pytest.raises(UserError, match=r'unknown key "latnt"; the keys here are latent, hidden, code .*"latent"'):
        make(Toy, {"latnt": 3})


@pytest.mark.parametrize(("values", "text"), [({"latent": 0}, "latent=0"), ({"hidden": "wide"}, "hidden.0='wide'")])
def test_a_wrong_value_is_shown(values: dict[str, object], text: str) -> None:
    with pytest.raises(UserError, match=text):
        make(Toy, values)


def test_one_number_stands_for_a_tuple_of_one() -> None:
    assert make(Toy, {"hidden": 16}).hidden == (16,)


def test_changes_are_checked_and_the_old_one_stays() -> None:
    toy = Toy()
    assert toy.with_(latent=9).latent == 9 and toy.latent == 4
    with pytest.raises(UserError):
        toy.with_(latent=-1)
