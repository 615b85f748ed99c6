"""A comparison that trains and measures nothing, and draws no plots unless a test asks for them."""

import io
from html import escape
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import pytest
from comparison.stand_ins import FAMILIES, evaluation, finished, make, reference
from PIL import Image

from trilemma.errors import UserError


@pytest.fixture
def plots():
    """For a test that looks at the plots of a report; drawing them takes longer than all the rest."""


def blank_plots(monkeypatch):
    """Empty pictures in place of the plots."""
    for name in ("triangle.draw", "figures.dots", "figures.curve", "figures.learning", "figures.samplers"):
        monkeypatch.setattr(f"trilemma.comparison.{name}", lambda *_, **__: None)
    monkeypatch.setattr("trilemma.pictures.plots.svg", lambda _, label: f'<svg aria-label="{escape(label)}"></svg>')
    blank = io.BytesIO()
    Image.new("L", (1, 1)).save(blank, "png")
    monkeypatch.setattr("trilemma.pictures.plots.png", lambda _: blank.getvalue())


@pytest.fixture
def stage(monkeypatch, tmp_path, request):
    """A place where compare() trains and measures nothing. `stage.broken[name]` is the error a model ends with."""
    stage = SimpleNamespace(
        keys={}, data=make(), broken={}, broken_seeds={}, trained=[], measured=[], loaded=[], evaluation=evaluation
    )

    def train(model, data, *, seed, out, quiet, minutes=None, **keys):
        stage.trained.append((model, minutes, seed, Path(out)))
        stage.keys[model] = keys
        if error := stage.broken.get(model) or stage.broken_seeds.get((model, seed)):
            raise error
        return finished(model, out, data, seed=seed)

    def evaluate(run, *, n, seed, batch, reference):
        stage.measured.append((run.recipe.name, n, seed, batch))
        return stage.evaluation(run.recipe.name, n=n)

    def load_data(source, *, size):
        stage.loaded.append((source, size))
        return stage.data

    def get_recipe(name):
        if name not in FAMILIES:
            raise UserError(f'unknown model "{name}"')
        return SimpleNamespace(name=name, training={"lr": 0.001}, parts={})

    monkeypatch.chdir(tmp_path)
    if "plots" not in request.fixturenames:
        blank_plots(monkeypatch)

    def time_in_turns(draws, *, batch):
        return [()] * len(draws)  # the times per image stay those of the evaluation

    monkeypatch.setattr("trilemma.metrics.cost.time_in_turns", time_in_turns)
    monkeypatch.setattr("trilemma.comparison.progress.seconds_per_image", lambda model, shape: 0.001)
    monkeypatch.setattr("trilemma.comparison.work.measure_curves", lambda *_: None)
    monkeypatch.setattr("trilemma.training.train", train)
    monkeypatch.setattr("trilemma.metrics.evaluate", evaluate)
    monkeypatch.setattr("trilemma.data.load_data", load_data)
    monkeypatch.setattr("trilemma.registry.get_recipe", get_recipe)
    monkeypatch.setattr(
        "trilemma.registry.list_models", lambda pattern="*": [n for n in FAMILIES if n.startswith(pattern[:-1])]
    )
    monkeypatch.setattr(import_module("trilemma.metrics.evaluate"), "reference_by", reference)
    return stage
