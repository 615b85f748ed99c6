"""A threshold that is moved by hand: the page shows what the files of a detection say, and runs nothing."""

import json
import re

import pytest

from trilemma.studio.thresholds import FIGURES, TABLE, detections_of

HEAD = "threshold,false_alarm_rate,low,high,false_alarms,flagged_calibration,flagged_normal,flagged_abnormal\n"
ROWS = "0.1,0.5,0.4,0.6,0.5,10,20,9\n0.2,0.25,0.2,0.3,0.25,5,10,8\n0.3,0.025,0.004,0.1,0.1,1,1,7\n"
COUNTS = {"calibration": 19, "normal": 40, "abnormal": 10}


def write(run, name="detect", *, head=HEAD, rows=ROWS, **changes):
    folder = run.path / name
    folder.mkdir()
    figures = {"score": "error", "threshold": 0.2, "counted": True, "counts": COUNTS, **changes}
    (folder / FIGURES).write_text(json.dumps(figures))
    (folder / TABLE).write_text(head + rows)


@pytest.fixture
def detected(run):
    write(run)
    return run


def cells(text):
    return [int(cell) for cell in re.findall(r'<td class="number">(\d+)</td>', text)]


def test_the_page_begins_with_the_threshold_in_use(browser, detected):
    text = browser.get(f"/detect?run={detected.id}").text
    assert (
        'min="0" max="2" value="1"' in text and "Threshold 0.200<" in text and "the one that this detection set" in text
    )
    assert "False alarms: 25% of normal images, 95% interval 20% to 30%, counted: 10 of 40." in text
    assert cells(text) == [5, 19, 10, 40, 8, 10] and "false_alarms=0.25 sets this threshold" in text
    assert f"trilemma detect {detected.name} score=error false_alarms=0.25<" in text
    assert f"trilemma.detect(&#34;{detected.name}&#34;, score=&#34;error&#34;, false_alarms=0.25)" in text


def test_another_place_of_the_handle_is_another_row(browser, detected):
    text = browser.get(f"/detect/threshold?run={detected.id}&stop=2").text
    assert "<html" not in text and "Threshold 0.300<" in text and cells(text) == [1, 19, 1, 40, 7, 10]
    assert "2.5% of normal images, 95% interval 0.4% to 10%, counted: 1 of 40." in text
    assert "score=error false_alarms=0.1<" in text
    assert "Threshold 0.300<" in browser.get(f"/detect?run={detected.id}&stop=2").text  # without scripts
    for stop in ("9", "-1", "x", "1e9", "²", "9" * 500):
        assert "Threshold 0.200<" in browser.get(f"/detect/threshold?run={detected.id}&stop={stop}").text
    text = browser.get(f"/detect/threshold?run={detected.id}", headers={"accept-language": "vi"}).text
    assert "Báo động giả: 25% số ảnh bình thường" in text and "False" not in text


def test_rates_that_are_expected_or_not_known_say_so(browser, run):
    write(run, counted=False, rows="0.2,0.25,0.2,0.3,0.25,5,10,8\n0.3,,,,,1,1,7\n")
    text = browser.get(f"/detect/threshold?run={run.id}&stop=0").text
    assert "at most 25% of normal images are expected" in text and "the rank among 19 held-out images" in text
    text = browser.get(f"/detect/threshold?run={run.id}&stop=1").text
    assert "not known, as too few normal images are held out" in text and "false_alarms=" not in text


def test_only_files_of_a_detection_are_read(browser, studio, run):
    for k, rows in enumerate(
        ["", "x,0,0,0,0,0,0,0\n", "nan,0,0,0,0,0,0,0\n", "0.1,0,0,0,0,x,0,0\n", "0.1\n", "0.1,0,0,0,x,0,0,0\n"]
    ):
        write(run, f"detect-{k}", rows=rows)
    for k, rows in enumerate(["0.1,0.5,,0.6,,0,0,0\n", "0.1,,0.4,,,0,0,0\n", f"0.1,0,0,0,0,{10**400},0,0\n"]):
        write(run, f"detect-interval-{k}", rows=rows)
    for k, count in enumerate([float("inf"), float("nan"), 1e300, -1, "x"]):
        write(run, f"detect-count-{k}", counts={**COUNTS, "normal": count})
    write(run, "detect-counts", counts=[1])
    write(run, "other")
    (run.path / "detect-link").symlink_to(run.path / "other")
    assert detections_of(studio.library, run) == []
    assert 'id="threshold"' not in browser.get(f"/detect?run={run.id}").text
    assert browser.get(f"/detect/threshold?run={run.id}").status_code == 404
    write(run, "detect-good", score="<script>")
    assert [one.name for one in detections_of(studio.library, run)] == ["detect-good"]
    assert "<script>" not in browser.get(f"/detect?run={run.id}").text
    assert browser.get(f"/detect/threshold?run={run.id}&detection=../x").status_code == 404
