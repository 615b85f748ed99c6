"""report.csv holds every value of report.json, and nothing that a spreadsheet computes."""

import csv
import io
from dataclasses import replace

import pytest
from comparison.stand_ins import evaluation, finished, make

from trilemma.comparison.content import Asked, Control
from trilemma.comparison.csv_file import HEAD, csv_text
from trilemma.comparison.document import document
from trilemma.comparison.entries import Entry


@pytest.fixture
def content(stage):
    data = make()
    entries = [Entry(n, finished(n, f"runs/{n}", data), evaluation(n)) for n in ("vae", "gan-dcgan")]
    return document(entries, data, Asked("trilemma compare data=digits", {"minutes": 0.5}, 10, 1, 0, "test"), {})


def lines(text):
    return list(csv.DictReader(io.StringIO(text)))


def test_every_value_has_a_line(content):
    controls = [Control("mean", "Mean image", "", content.models[0].scores)]
    rows = lines(csv_text(replace(content, controls=controls)))
    assert tuple(rows[0]) == HEAD
    for name, scores in [(m.name, m.scores) for m in content.models] + [("Mean image", content.models[0].scores)]:
        own = {row["metric"]: row for row in rows if row["model"] == name}
        assert len(own) == len({score.name for score in scores.values()})
        for score in scores.values():
            row = own[score.name]
            assert row["value"] == ("" if score.value is None else str(score.value))
            assert (row["low"], row["high"]) == (tuple(map(str, score.interval)) if score.interval else ("", ""))
            assert row["protocol"] == score.protocol and row["refused"] == (score.refused or "")
    assert {row["kind"] for row in rows} == {"model", "control"}


def test_a_name_is_no_formula(content):
    model = replace(content.models[0], name='=HYPERLINK("x")', error="+1 failed, with a comma", scores={})
    (row,) = [row for row in lines(csv_text(replace(content, models=[model]))) if row["model"]]
    assert row["model"] == '\'=HYPERLINK("x")' and row["refused"] == "'+1 failed, with a comma"
