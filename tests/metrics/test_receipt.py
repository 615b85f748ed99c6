"""Scores keep everything on the way to JSON and back, and refuse what is not a score."""

import json
import math
from dataclasses import fields, replace

import PIL
import pytest

from trilemma.errors import UserError
from trilemma.metrics import Score
from trilemma.metrics.receipt import LARGEST_SCORE, protocol_name, versions, write_score

SCORE = Score(
    name="kernel_distance",
    protocol="kernel_mnist-cnn_2048_test",
    value=0.1 + 0.2,
    interval=(0.1, 1 / 3),
    unit="squared kernel units",
    better="lower",
    n_real=2048,
    n_fake=2048,
    features="mnist-cnn",
    split="test",
    seed=0,
    resize="bilinear-antialias to 28x28, grey",
    versions={"torch": "2"},
    interval_is="jackknife",
    data="mnist",
    data_fingerprint="abc",
    settings={"steps": 50},
)
REFUSED = replace(SCORE, name="frechet_distance", value=None, interval=None, refused="too few images")


@pytest.mark.parametrize("score", [SCORE, REFUSED])
def test_round_trip(score):
    back = Score.from_json(json.loads(json.dumps(score.to_json())))
    assert back == score
    for field in fields(Score):
        assert type(getattr(back, field.name)) is type(getattr(score, field.name))


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "fid"},
        {"better": "smaller"},
        {"value": None},
        {"refused": "and yet there is a value"},
        {"value": math.nan},
        {"value": math.inf},
        {"interval": (1.0, 0.0)},
        {"interval": (0.0, math.nan)},
    ],
)
def test_what_is_not_a_score(changes):
    with pytest.raises(ValueError):
        replace(SCORE, **changes)


def test_from_json_names_the_wrong_key():
    with pytest.raises(UserError, match='did you mean "protocol"'):
        Score.from_json({**SCORE.to_json(), "protocoll": "x"})
    values = SCORE.to_json()
    del values["unit"]
    with pytest.raises(UserError, match="unit"):
        Score.from_json(values)


def test_protocol_names():
    assert protocol_name("kernel", "mnist-cnn", 2048, "test") == "kernel_mnist-cnn_2048_test"
    assert protocol_name("kernel", "../my net", 5, "valid") == "kernel_..-my-net_5_valid"


def test_files(tmp_path):
    """Sampling settings and the seed are in the file's name, so no figure overwrites another's."""
    plain = write_score(tmp_path / "metrics", replace(SCORE, settings={}))
    steps = write_score(tmp_path / "metrics", SCORE)
    seed = write_score(tmp_path / "metrics", replace(SCORE, settings={}, seed=3))
    assert plain.name == "kernel_mnist-cnn_2048_test.json"
    assert steps.name == "kernel_mnist-cnn_2048_test_steps-50.json"
    assert seed.name == "kernel_mnist-cnn_2048_test_seed-3.json"
    assert Score.from_json(json.loads(steps.read_text("utf-8"))) == SCORE


def test_a_file_larger_than_any_score_is_none(tmp_path):
    path = write_score(tmp_path, SCORE)
    path.write_text(path.read_text("utf-8") + " " * LARGEST_SCORE, "utf-8")
    with pytest.raises(UserError, match="choose another out="):
        write_score(tmp_path, SCORE)


def test_versions():
    names = versions(device="cpu")
    assert {"trilemma", "python", "torch", "numpy", "pillow", "device"} == set(names)
    assert names["pillow"] == PIL.__version__  # reads and scales the images
    assert all(isinstance(value, str) and value for value in names.values())


def test_text():
    assert "0.3 [0.1, 0.3333]" in str(SCORE)
    assert "refused, too few images" in str(REFUSED)
