"""The log of a training is read on from where it was, and anew where it is another one."""

import json
from types import SimpleNamespace

import pytest

from trilemma.studio import logs
from trilemma.studio.logs import log_of


@pytest.fixture
def run(tmp_path):
    return SimpleNamespace(path=tmp_path)


@pytest.fixture
def parsed(monkeypatch):
    """How many rows were parsed by each look."""
    counts, rows_in = [], logs.rows_in

    def counting(content):
        rows = rows_in(content)
        counts.append(len(rows))
        return rows

    monkeypatch.setattr(logs, "rows_in", counting)
    return counts


def rows(*numbers, seconds=1.0):
    """Rows of a log as text; every tenth is a warning."""
    whole = [{"step": k, "images": 32 * k, "seconds": seconds, "vae/loss": 1 / k} for k in numbers]
    return "".join(json.dumps(row | ({} if row["step"] % 10 else {"warning": "x"})) + "\n" for row in whole)


def steps(run):
    return [images / 32 for images in log_of(run).series["vae/loss"][0]]


def test_what_was_read_is_not_read_again(run, parsed):
    file = run.path / "log.jsonl"
    file.write_text(rows(*range(1, 51)))
    first = log_of(run)
    for _ in range(3):
        log_of(run)
    with file.open("a") as log:
        log.write(rows(51, 52) + rows(60)[:-1])  # the last is not whole
    assert steps(run) == list(range(1, 53)) and parsed == [50, 2]
    with file.open("a") as log:
        log.write("\n")
    assert steps(run)[-1] == 60 and parsed == [50, 2, 1]
    assert len(first.series["vae/loss"][0]) == 50  # of its own
    assert log_of(run).warnings == [f"step {k}: x" for k in (10, 20, 30, 40, 50, 60)]


@pytest.mark.parametrize("numbers", [range(1, 31), range(1, 51), range(1, 71)])
def test_a_log_that_is_another_one_is_read_anew(run, numbers):
    """Of a training that went back to its checkpoint, for instance: shorter, as long or longer by now."""
    file = run.path / "log.jsonl"
    file.write_text(rows(*range(1, 51)))
    assert len(steps(run)) == 50
    file.write_text(rows(*range(1, 21)) + rows(*numbers[20:], seconds=2.0))
    assert steps(run) == list(numbers)
    assert log_of(run).warnings == [f"step {k}: x" for k in numbers if k % 10 == 0]


def test_a_log_that_is_none_is_empty(run, monkeypatch):
    file = run.path / "log.jsonl"
    assert log_of(run) == logs.Log({}, [])
    file.write_text("{\n" + rows(1) + '{"step": "x"}\n[]\n' + '{"step": 2, "images": 64, "seconds": 1, "a": NaN}\n')
    assert [*log_of(run).series] == ["vae/loss"] and steps(run) == [1]
    file.unlink()
    file.mkdir()
    assert log_of(run) == logs.Log({}, [])
    file.rmdir()
    monkeypatch.setattr(logs, "LARGEST_LOG", len(rows(1, 2)))
    file.write_text(rows(1, 2, 3))
    assert steps(run) == [1, 2] and steps(run) == [1, 2]
    assert log_of(run).cut_bytes == len(rows(1, 2))
    file.write_text(rows(1, 2))
    assert steps(run) == [1, 2] and log_of(run).cut_bytes is None
