"""For all tests: no network beyond this machine, no windows, and a data folder that survives a change of directory."""

import os
import socket
from pathlib import Path

import pytest

os.environ["MPLBACKEND"] = "Agg"
if "TRILEMMA_DATA" in os.environ:
    os.environ["TRILEMMA_DATA"] = str(Path(os.environ["TRILEMMA_DATA"]).resolve())

_connect = socket.socket.connect


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    """A test that reaches for another machine fails; a local server may stand in for one."""

    def connect(self, address):
        local = self.family == getattr(socket, "AF_UNIX", None) or address[0] in ("127.0.0.1", "::1", "localhost")
        assert local, f"a test tried to reach {address}"
        return _connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", connect)
