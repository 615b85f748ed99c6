"""The libraries of the extra: absent, they are named with the line that installs them; present, they are silent."""

import logging
import sys
import warnings

import pytest

from trilemma.errors import UserError
from trilemma.pretrained.libraries import check_installed, load_diffusers, silence


@pytest.mark.parametrize("absent", ["diffusers", "transformers", "accelerate"])
def test_an_absent_library_is_named_with_the_line_that_installs_it(absent, monkeypatch):
    load_diffusers()  # whole, for the tests after this one
    monkeypatch.setitem(sys.modules, absent, None)
    with pytest.raises(UserError, match=rf"need the library {absent}: .*pip install -e .*\[pretrained\]"):
        load_diffusers()
    with pytest.raises(UserError, match=f"need the library {absent}: "):
        check_installed()


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
