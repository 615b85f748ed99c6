"""For all tests: no network beyond this machine, no windows, a data folder that survives a change of directory, and
small trainings that are quick: they do not wait for the disk, and draw no curves, which take longer than the training,
unless a test asks for them."""

import gc
import os
import socket
import sys
from collections.abc import Callable, Iterator
from importlib import util
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from trilemma.data.sources import consent
from trilemma.training import results
from trilemma.training.pictures import draw_curves

collect_ignore_glob = ["fixtures/*"]  # scripts for the code of earlier versions
SCRIPTS = Path(__file__).parents[1] / "benchmarks"

os.environ["MPLBACKEND"] = "Agg"
if "TRILEMMA_DATA" in os.environ:
    os.environ["TRILEMMA_DATA"] = str(Path(os.environ["TRILEMMA_DATA"]).resolve())

_connect = socket.socket.connect


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--device", default="cpu", help="of the tests that run on any: cpu (default), cuda, mps")


@pytest.fixture(scope="session")
def device(request: pytest.FixtureRequest) -> torch.device:
    """Where the tests run that can run on a GPU."""
    return torch.device(request.config.getoption("--device"))


def pytest_collection_finish() -> None:
    """What was imported stays: the collections of garbage that a release of memory makes need not look at it again."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    """A test that reaches for another machine fails; a local server may stand in for one."""

    def connect(self, address):
        local = self.family == getattr(socket, "AF_UNIX", None) or address[0] in ("127.0.0.1", "::1", "localhost")
        assert local, f"a test tried to reach {address}"
        return _connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", connect)


def _no_curves(log: Any, path: Path, *_: Any) -> None:
    path.write_bytes(b"")


@pytest.fixture(autouse=True, scope="session")
def quick_trainings() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(results, "draw_curves", _no_curves)
        patch.setattr(os, "fsync", lambda descriptor: None)
        yield


@pytest.fixture(autouse=True, scope="session")
def own_consent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What the tests name is not remembered for their user."""
    place = tmp_path_factory.mktemp("consent")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(consent, "cache_dir", lambda: place)
        yield


@pytest.fixture
def curves(monkeypatch: pytest.MonkeyPatch) -> None:
    """For a test whose trainings do draw them."""
    monkeypatch.setattr(results, "draw_curves", draw_curves)


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], ModuleType]:
    """A benchmark by its name, as a module."""
    if not SCRIPTS.exists():
        pytest.skip("needs benchmarks/")

    def load(name: str) -> ModuleType:
        monkeypatch.syspath_prepend(SCRIPTS)  # for those that it imports
        spec = util.spec_from_file_location(f"script_{name}", SCRIPTS / f"{name}.py")
        assert spec is not None and spec.loader is not None
        module = util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, spec.name, module)
        spec.loader.exec_module(module)
        return module

    return load
