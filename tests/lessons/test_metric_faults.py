"""Each fault, from none to all of it, moves the metrics that the page says it does."""

import math

import pytest
import torch

from trilemma.classifiers.bundled import load_network
from trilemma.lessons.metric_faults import FAULTS, OF_MODELS, faulty, measure, values_of_model
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
    for name in ("kernel_distance", "frechet_distance", "frechet_infinity"):
        for fault in ("blur", "noise", "missing digits", "one image"):
            good, bad = values[fault][name]
            assert bad > good + 1e-3
    good, bad = values["copies"]["near_copies"]
    assert good < 0.1 and bad > 0.9  # about 0.01 of new images
    for name in ("density", "coverage", "precision", "recall", "inception_score"):
        good, bad = values["copies"][name]
        assert bad == pytest.approx(good, rel=0.15)


@pytest.mark.slow
def test_what_moves_the_metrics_of_a_model() -> None:
    sets, network = digits(0), load_network("digits-cnn")
    values = {
        fault: [values_of_model(network, fault, strength, sets, 0) for strength in (0.0, 0.5, 1.0)]
        for fault in OF_MODELS
    }
    none, half, all_others = values["other digits"]
    for name in ("class_obeyed", "class_f_score"):
        assert none[name] > 0.9 and all_others[name] < 0.1
    assert half["class_obeyed"] == pytest.approx((none["class_obeyed"] + all_others["class_obeyed"]) / 2, abs=0.05)
    for fault in ("blur", "noise"):
        error, likeness = ([one[f"reconstruction_{name}"] for one in values[fault]] for name in ("rmse", "ssim"))
        assert error[0] == values[fault][0]["reconstruction_features"] == 0
        psnr, frechet = ([one[f"reconstruction_{name}"] for one in values[fault]] for name in ("psnr", "frechet"))
        assert math.inf == psnr[0] > psnr[1] > psnr[2] and frechet[0] < 1e-6 < frechet[1] < frechet[2]
        assert error[2] == pytest.approx(2 * error[1], rel=0.02)  # but for rounding to levels
        assert likeness[0] == pytest.approx(1) and likeness[2] < likeness[1] < 1
    even, _, cliff = (one["path_length"] for one in values["a cliff"])
    assert cliff > 3 * even
