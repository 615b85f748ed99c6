"""One short training for all tests of the verbs; each module has a copy of its run, to write into."""

import shutil

import pytest
from explore.stand_ins import Pixels

import trilemma


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    out = tmp_path_factory.mktemp("explore") / "run"
    return trilemma.train("vae", "digits", steps=2, batch=16, out=out, device="cpu", quiet=True).path


@pytest.fixture(scope="module")
def folder(trained, tmp_path_factory):
    """The folder of a VAE of digits, the module's own."""
    return shutil.copytree(trained, tmp_path_factory.mktemp("module") / "run")


@pytest.fixture
def run(folder):
    """The same run with a stand-in for its model: the code is the image."""
    run = trilemma.load(folder, device="cpu")
    run.model = Pixels()
    return run
