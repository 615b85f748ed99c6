"""Comparisons of real models, of which nothing stands in for anything, and faults in what is measured last."""

from types import SimpleNamespace

import pytest
from comparison.stand_ins import StandIn

import trilemma
from trilemma.comparison import work
from trilemma.comparison.entries import Entry


def test_curves_that_fail_cost_no_scores(monkeypatch):
    """What was measured up to a fault stays, whatever the fault is; the other models are measured."""
    said, point = [], object()

    def broken(*_):
        yield point
        raise RuntimeError("out of memory")

    monkeypatch.setattr(work, "learning_points", broken)
    monkeypatch.setattr(work, "sampler_points", lambda *_: iter([point]))
    evaluated = SimpleNamespace(learned_nothing=None, spreads={})
    entries = [Entry(name, StandIn(), evaluated) for name in ("one", "other")]
    entries[0].evaluation = None
    progress = SimpleNamespace(say=said.append, done=lambda: said.append("done"))
    work.measure_curves([*entries, Entry("two", StandIn(), evaluated)], None, 8, progress)
    assert [(e.learning, e.samplers) for e in entries] == [((), ()), ((point,), (point,))]
    assert "other, learning curve: stopped, RuntimeError" in said and said.count("done") == 3


@pytest.mark.slow
def test_two_real_models_share_every_column_that_both_have(tmp_path):
    """Nothing stands in: an encoder and a GAN, trained and measured, with their curves."""
    report = trilemma.compare(
        data="digits",
        models=["vae", "gan-dcgan", "diffusion-small"],
        images=2_000,
        n=60,
        out=tmp_path / "c",
        quiet=True,
    )
    assert not [model.error for model in report.report.models if model.error]
    both = {"path_length", "ms_best_batch", "peak_memory_mb", "parameters", "density", "class_diversity"}
    assert all(both <= model.scores.keys() for model in report.report.models[:2])
    for model in report.report.models:
        assert [p.images for p in model.learning] == sorted(p.images for p in model.learning) and len(
            model.learning
        ) == 5
        assert model.samplers[0].own and len(model.samplers) >= 3
    page = report.html.read_text("utf-8")
    assert 'id="samplers"' in page and 'id="learning"' in page
    lines = (tmp_path / "c" / "report.csv").read_text("utf-8").splitlines()
    assert len(lines) > 60 and lines[0].startswith("model,kind,metric,value,low,high")
