"""The libraries of the extra: absent, they are named with the line that installs them; present, they are silent."""

import logging
import sys
import warnings

import pytest

from trilemma.errors import UserError
from trilemma.extras import EXTRAS
from trilemma.pretrained import libraries
from trilemma.pretrained.libraries import check_installed, load_diffusers, silence


@pytest.mark.parametrize("absent", ["diffusers", "transformers", "accelerate"])
def test_an_absent_library_is_named_with_the_line_that_installs_it(absent, monkeypatch):
    load_diffusers()  # whole, for the tests after this one
    monkeypatch.setitem(sys.modules, absent, None)
    with pytest.raises(UserError, match=rf"need the library {absent}: .*pip install -e .*\[pretrained\]"):
        load_diffusers()
    with pytest.raises(UserError, match=f"need the library {absent}: "):
        check_installed()


@pytest.mark.parametrize("need", EXTRAS["pretrained"])
def test_an_old_library_is_refused_with_the_line_that_installs_a_newer_one(need, monkeypatch):
    load_diffusers()  # whole, for the tests after this one
    name, _, least = need.partition(">=")
    major, minor = map(int, least.split("."))
    versions = dict.fromkeys(libraries.LIBRARIES, "100.0")
    monkeypatch.setattr(libraries, "version", versions.get)
    for new in (least, f"{least}.1", f"{major}.{minor + 1}.0.dev0", f"{major + 1}.0"):
        versions[name] = new
        monkeypatch.setattr(sys.modules[name], "__version__", new)
        load_diffusers()
        check_installed()
    versions[name] = old = f"{major}.{minor - 1}.9"
    monkeypatch.setattr(sys.modules[name], "__version__", old)
    for check in (load_diffusers, check_installed):
        with pytest.raises(UserError, match=rf"need {need}, and {old} is installed: .*pip install -e .*\[pretrained\]"):
            check()


def test_inside_silence_nothing_is_shown_and_warnings_are_kept(capfd, caplog):
    logs = load_diffusers().utils.logging
    logger = logging.getLogger("diffusers.pipelines")
    with silence() as warned:
        logger.warning("for programmers")
        logger.info("less")
        warnings.warn("of the language", stacklevel=1)
        list(logs.tqdm(range(3)))
    assert warned == ["for programmers"] and not caplog.records
    assert capfd.readouterr().err == ""
    assert logs.is_progress_bar_enabled()


def test_afterwards_all_is_as_before(caplog):
    logs = load_diffusers().utils.logging
    logger = logging.getLogger("diffusers.pipelines")
    with pytest.raises(ZeroDivisionError), silence():
        raise ZeroDivisionError
    assert logs.is_progress_bar_enabled()
    logger.warning("outside")
    assert [record.message for record in caplog.records] == ["outside"]
