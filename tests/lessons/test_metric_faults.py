"""Each fault, from none to all of it, moves the metrics that the page says it does."""

import pytest
import torch

from trilemma.lessons.metric_faults import FAULTS, faulty, measure
from trilemma.metrics.self_test import N, digits


@pytest.mark.parametrize("fault", FAULTS)
def test_without_strength_there_is_no_fault(fault: str) -> None:
    sets = digits(0)
    assert torch.equal(faulty(fault, 0.0, sets, 0), sets.good)


def test_faults_are_as_strong_as_asked() -> None:
    sets = digits(0)
    half = faulty("one image", 0.5, sets, 0)
    assert torch.equal(half[: N // 2], sets.good[:1].expand(N // 2, -1, -1, -1))
    assert torch.equal(half[N // 2 :], sets.good[N // 2 :])
    assert torch.equal(faulty("copies", 1.0, sets, 0), sets.training[:N])
    kept = sets.good[sets.labels >= 9]
    assert torch.equal(faulty("missing digits", 1.0, sets, 0)[: len(kept)], kept)


@pytest.mark.slow
def test_what_moves_each_metric() -> None:
    values = {fault: measure(fault, (0.0, 1.0), 0).values for fault in FAULTS}
    for fault, moved in {
        "blur": ("density", "precision"),
        "noise": ("density", "precision", "coverage", "recall"),
        "missing digits": ("coverage", "recall", "inception_score", "class_diversity"),
        "one image": ("coverage", "recall", "inception_score", "class_diversity"),
        "copies": ("authenticity",),
    }.items():
        for name in moved:
            good, bad = values[fault][name]
            assert bad < 0.6 * good, (fault, name)
    for name in ("kernel_distance", "frechet_distance"):
        for fault in ("blur", "noise", "missing digits", "one image"):
            good, bad = values[fault][name]
            assert bad > good + 1e-3
    for name in ("density", "coverage", "precision", "recall", "inception_score"):
        good, bad = values["copies"][name]
        assert bad == pytest.approx(good, rel=0.15)
