"""Energy from counters that a test writes, and memory of tensors of known size."""

from pathlib import Path

import pytest
import torch

from trilemma.metrics.resources import EnergyMeter, peak_bytes


def package(folder: Path, name: str, energy: int) -> None:
    path = folder / name
    path.mkdir(exist_ok=True)
    (path / "energy_uj").write_text(f"{energy}\n")
    (path / "max_energy_range_uj").write_text("1000000000\n")


def test_energy_is_the_sum_over_the_processors(tmp_path: Path) -> None:
    for name in ("intel-rapl:0", "intel-rapl:1", "intel-rapl:0:0"):
        package(tmp_path, name, 100)
    meter = EnergyMeter(tmp_path)
    package(tmp_path, "intel-rapl:0", 2_000_100)
    package(tmp_path, "intel-rapl:1", 500_100)
    package(tmp_path, "intel-rapl:0:0", 1_000_100)  # a part of processor 0
    assert meter.joules() == pytest.approx(2.5)
    package(tmp_path, "intel-rapl:1", 50)  # the counter began anew
    assert meter.joules() == pytest.approx(2 + 999.99995)


def test_without_counters_nothing_is_said(tmp_path: Path) -> None:
    assert EnergyMeter(tmp_path).joules() is None
    assert EnergyMeter(tmp_path / "missing").joules() is None
    package(tmp_path, "intel-rapl:0", 100)
    meter = EnergyMeter(tmp_path)
    (tmp_path / "intel-rapl:0" / "energy_uj").write_text("unreadable")
    assert meter.joules() is None


def test_memory_is_the_most_at_a_time(device: torch.device) -> None:
    """Two tensors of 4 MB at a time, one after the other freed: 8 MB, whatever was there before."""
    before = torch.zeros(1_000_000, device=device)

    def work() -> None:
        for _ in range(3):
            one = torch.zeros(1_000_000, device=device)
            other = one + 1
            del one, other

    peak = peak_bytes(work, device)
    assert 8_000_000 <= peak < 8_100_000 and len(before) == 1_000_000
