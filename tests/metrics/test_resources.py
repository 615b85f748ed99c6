"""Energy from counters that a test writes, or of a GPU that stands in, and memory of tensors of known size."""

import itertools
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from trilemma.metrics import resources
from trilemma.metrics.resources import LEAST_S, NO_PACKAGE, UNREADABLE, EnergyMeter, peak_bytes

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)


def package(folder: Path, name: str, energy: int, kind: str = "package-0") -> None:
    path = folder / name
    path.mkdir(exist_ok=True)
    (path / "name").write_text(f"{kind}\n")
    (path / "energy_uj").write_text(f"{energy}\n")
    (path / "max_energy_range_uj").write_text("1000000000\n")


def test_energy_is_the_sum_over_the_processors(tmp_path: Path) -> None:
    for name in ("intel-rapl:0", "intel-rapl:1", "intel-rapl:0:0"):
        package(tmp_path, name, 100)
    meter = EnergyMeter(CPU, tmp_path)
    package(tmp_path, "intel-rapl:0", 2_000_100)
    package(tmp_path, "intel-rapl:1", 500_100, "package-1")
    package(tmp_path, "intel-rapl:0:0", 1_000_100)  # a part of processor 0
    assert meter.joules() == pytest.approx(2.5)
    package(tmp_path, "intel-rapl:1", 50)  # the counter began anew
    assert meter.joules() == pytest.approx(2 + 999.99995)


def test_the_whole_platform_is_not_another_processor(tmp_path: Path) -> None:
    """Of a laptop, whose platform counts the processor (2 J) and all else (3 J more)."""
    package(tmp_path, "intel-rapl:0", 100)
    package(tmp_path, "intel-rapl:1", 100, "psys")
    meter = EnergyMeter(CPU, tmp_path)
    package(tmp_path, "intel-rapl:0", 2_000_100)
    package(tmp_path, "intel-rapl:1", 5_000_100, "psys")
    assert meter.joules() == pytest.approx(2)


def test_without_counters_the_reason_is_said(tmp_path: Path) -> None:
    assert EnergyMeter(CPU, tmp_path).joules() == UNREADABLE
    assert EnergyMeter(CPU, tmp_path / "missing").joules() == UNREADABLE
    package(tmp_path, "intel-rapl:0", 100)
    meter = EnergyMeter(CPU, tmp_path)
    (tmp_path / "intel-rapl:0" / "energy_uj").write_text("unreadable")
    assert meter.joules() == UNREADABLE
    assert EnergyMeter(torch.device("meta")).joules() == "the energy of meta is not measured"


class Nvml:
    """In place of the package pynvml and of torch.cuda: one GPU, whose counter starts at 7 mJ."""

    NVMLError = type("NVMLError", (Exception,), {})

    def __init__(self) -> None:
        self.millijoules, self.refusal = 7, ""

    def nvmlInit(self) -> None:
        if self.refusal:
            raise self.NVMLError(self.refusal)

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> str:
        return {"GPU-1234-ab": "the handle"}[uuid]

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: str) -> int:
        assert handle == "the handle"
        return self.millijoules


def clock(step: float) -> SimpleNamespace:
    """A clock that goes on by a step, s, whenever it is read."""
    return SimpleNamespace(perf_counter=itertools.count(0.0, step).__next__)


@pytest.fixture
def nvml(monkeypatch: pytest.MonkeyPatch) -> Nvml:
    stand_in = Nvml()
    monkeypatch.setitem(sys.modules, "pynvml", stand_in)  # type: ignore[arg-type]
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: SimpleNamespace(uuid="1234-ab"))
    monkeypatch.setattr(resources, "time", clock(LEAST_S))
    return stand_in


def test_energy_of_a_gpu_is_what_its_counter_moved(nvml: Nvml) -> None:
    meter = EnergyMeter(GPU)
    nvml.millijoules += 2500
    assert meter.joules() == pytest.approx(2.5)


def test_a_gpu_whose_counter_is_not_read_says_why(nvml: Nvml, monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing that was too short, a driver that refuses, a torch that does not know the GPU, no package."""
    monkeypatch.setattr(resources, "time", clock(LEAST_S / 2))
    assert EnergyMeter(GPU).joules() == (
        "0.5 s of drawing are too short for the counter of the GPU; draw more images (n=)"
    )
    nvml.refusal = "Not Supported"
    assert EnergyMeter(GPU).joules() == "the counter of the GPU cannot be read: Not Supported"
    nvml.refusal = ""
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: SimpleNamespace())
    assert str(EnergyMeter(GPU).joules()).startswith("the counter of the GPU cannot be read: ")
    monkeypatch.setitem(sys.modules, "pynvml", None)  # type: ignore[arg-type]
    assert EnergyMeter(GPU).joules() == NO_PACKAGE


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
