"""Disentanglement of a model: an encoder that measures where a shape is, and what is refused."""

import json

import pytest
import torch
from PIL import Image
from torch import nn

import trilemma
from trilemma.data.sources.shapes import draw_factors
from trilemma.errors import UserError
from trilemma.explore.disentangle import _own, disentangle
from trilemma.metrics import disentanglement
from trilemma.pictures.png import read_metadata


class Centre(nn.Module):
    """Codes: the centre of gravity, x and y; turned by 45 degrees if asked for."""

    def __init__(self, turned=False):
        super().__init__()
        self.turned = turned

    def encode(self, image, condition=None):
        mass = (image - image.amin((1, 2, 3), keepdim=True)).sum(1)  # (B, H, W)
        at = torch.arange(image.shape[-1], dtype=torch.float32)
        total = mass.sum((1, 2))
        x, y = (mass.sum(1) * at).sum(1) / total, (mass.sum(2) * at).sum(1) / total
        return torch.stack([x - y, x + y] if self.turned else [x, y], dim=1)


class Uncertain(nn.Module):
    """Says where the centre is to a hundredth of a pixel, and in a second unit by a thousandth of its noise."""

    def posterior(self, image, condition=None):
        x = Centre().encode(image)[:, :1]
        spread = torch.tensor([0.01, 1.0]).expand(len(x), 2)
        return torch.cat([x, 0.001 * x], dim=1), 2 * spread.log()

    def encode(self, image, condition=None):
        return self.posterior(image)[0]


class Wide(nn.Module):
    def encode(self, image, condition=None):
        return image.flatten(1).repeat(1, 3)[:, :129]


@pytest.fixture(autouse=True)
def few_trees(monkeypatch):
    """The scores themselves are checked in tests/metrics; here it is what goes into them and what comes out."""
    monkeypatch.setattr(disentanglement, "TREES", 15)


def run_of(folder, model=None):
    run = trilemma.load(folder)
    if model is not None:
        run.model = model
    return run


@pytest.mark.slow
def test_codes_that_measure_the_place(folder, tmp_path):
    result = disentangle(run_of(folder, Centre()), n=1000, out=tmp_path / "place.png")
    assert result.of_factor["informativeness"]["x"] > 0.95 and result.of_factor["informativeness"]["y"] > 0.95
    assert result.of_factor["mig"]["x"] > 0.5 and result.of_factor["mig"]["kind"] < 0.05
    figures = json.loads(result.figures.read_text("utf-8"))
    assert list(figures["of_factor"]["mig"]) == ["kind", "colour", "size", "y", "x"]
    y, x = list(zip(*figures["importance"], strict=True))[3:]
    assert x[0] > 0.95 and y[1] > 0.95
    assert figures["scores"]["mig"]["value"] == result.scores["mig"].value and figures["n"] == 1000
    assert figures["weights"] == run_of(folder).weights_id
    with Image.open(result.picture) as picture:
        assert picture.format == "PNG" and result.picture == tmp_path / "place.png"
    assert result.figures == tmp_path / "place.json"


@pytest.mark.slow
def test_turned_codes_score_lower_beyond_the_intervals(folder, tmp_path):
    straight = disentangle(run_of(folder, Centre()), n=1000, out=tmp_path / "a.png").scores
    turned = disentangle(run_of(folder, Centre(turned=True)), n=1000, out=tmp_path / "b.png").scores
    for name in ("mig", "disentanglement", "completeness", "sap"):
        assert turned[name].interval[1] < straight[name].interval[0]
    for value, (low, high) in (*straight.values(), *turned.values()):
        assert 0 <= low <= value <= high <= 1


@pytest.mark.slow
def test_a_collapsed_unit_does_not_close_the_gap(folder, tmp_path):
    """The means of both units say where the shape is; only in draws of q(z|x) the second one is noise."""
    uncertain = disentangle(run_of(folder, Uncertain()), n=1000, out=tmp_path / "a.png")
    assert uncertain.of_factor["mig"]["x"] > 0.5
    assert uncertain.of_factor["sap"]["x"] == pytest.approx(0, abs=1e-5)  # of means, as before
    assert any(note.startswith("mig: of one draw") for note in uncertain.notes)


@pytest.mark.slow
def test_a_trained_model_and_the_default_places(folder):
    one, other = (disentangle(folder, n=250) for _ in range(2))
    assert one.picture == folder / "disentanglement.png" and read_metadata(one.picture)["verb"] == "disentangle"
    assert one.scores == other.scores and one.of_factor == other.of_factor


@pytest.mark.slow
def test_codes_of_a_discrete_model_are_measured_as_they_are(tmp_path):
    """Its q(z|x) is over categories, so that there are no means and variances to draw from."""
    run = trilemma.train(
        "vae-discrete", "digits", steps=2, batch=16, variables=2, categories=3, out=tmp_path, device="cpu", quiet=True
    )
    result = disentangle(run, n=250)
    assert result.notes[-1] == "all scores: of the codes as they are, for the model gives no q(z|x) to draw from"
    figures = json.loads(result.figures.read_text("utf-8"))
    assert len(figures["mutual_information"]) == 2 * 3  # a row for each number of the code
    columns = zip(*figures["mutual_information"], strict=True)
    gaps = {
        name: sorted(column)[-1] - sorted(column)[-2]
        for name, column in zip(result.of_factor["mig"], columns, strict=True)
    }
    assert result.of_factor["mig"] == pytest.approx(gaps)


def test_factors_that_another_one_determines_are_left_out():
    factors = draw_factors(torch.arange(500), 0, "test")
    kept, notes = _own(factors)
    assert list(kept) == ["kind", "colour", "size", "y", "x"]
    assert notes == (
        'the factor "row" is left out: "y" determines it',
        'the factor "column" is left out: "x" determines it',
    )
    twice = {"kind": factors["kind"], "again": 2 - factors["kind"]}
    assert len(_own(twice)[0]) == 1  # one of the two stays


def test_what_is_refused(folder):
    with pytest.raises(UserError, match=r"digits does not say from which factors its images were drawn.*shapes"):
        disentangle(folder, data="digits", n=300)
    with pytest.raises(UserError, match="n=249: choose from 250 to 12,000"):
        disentangle(folder, n=249)
    with pytest.raises(UserError, match=r"vae does not encode images: it has no encoder; models that do: ae-.*vae"):
        disentangle(run_of(folder, nn.Linear(1, 1)))
    with pytest.raises(UserError, match="have 129 numbers, and up to 128 are held against each factor"):
        disentangle(run_of(folder, Wide()), n=250)


@pytest.mark.slow
def test_progress_goes_to_the_error_stream(folder, capsys):
    run = run_of(folder, Centre())
    disentangle(run, n=250)
    done = capsys.readouterr()
    assert done.err.startswith("disentangle ") and "250 codes of 2 numbers" in done.err and not done.out
    disentangle(run, n=250, quiet=True)
    assert capsys.readouterr() == ("", "")
