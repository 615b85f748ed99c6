"""The libraries of the extra: absent, they are named with the line that installs them; present, they are silent."""

import logging
import sys
import warnings

import pytest

from trilemma.errors import UserError
from trilemma.pretrained.libraries import load_diffusers, silence


@pytest.mark.parametrize("absent", ["diffusers", "transformers", "accelerate"])
def test_an_absent_library_is_named_with_the_line_that_installs_it(absent, monkeypatch):
    load_diffusers()  # whole, for the tests after this one
    monkeypatch.setitem(sys.modules, absent, None)
    with pytest.raises(UserError, match=rf"need the library {absent}: .*pip install -e .*\[pretrained\]"):
        load_diffusers()


def test_inside_silence_only_errors_are_heard(capfd, caplog):
    logs = load_diffusers().utils.logging
    logger = logging.getLogger("diffusers.pipelines")
    with silence(), warnings.catch_warnings(record=True) as heard:
        logger.warning("for programmers")
        logger.error("it failed")
        list(logs.tqdm(range(3)))
    assert not heard and [record.message for record in caplog.records] == ["it failed"]
    assert capfd.readouterr().err.count("%") == 0
    assert logs.is_progress_bar_enabled()
    with pytest.raises(ZeroDivisionError), silence():
        raise ZeroDivisionError
    assert logging.root.manager.disable == 0 and logs.is_progress_bar_enabled()
    logger.warning("outside")
    assert caplog.records[-1].message == "outside"
