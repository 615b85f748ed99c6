"""benchmarks/studio.py: what it reads from a page, and that it refuses a measurement of the wrong thing."""

import importlib.util
import io
import json
import sys
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import parse_qs, urlsplit

import pytest
from PIL import Image

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "studio.py"
pytestmark = pytest.mark.skipif(not SCRIPT.exists(), reason="needs benchmarks/")
AXIS = {"low": -2.5, "mean": 0.0, "high": 1e-05, "std": 1.0, "start": 0.25}


@pytest.fixture(scope="module")
def script():
    sys.path.insert(0, str(SCRIPT.parent))  # for what it imports
    spec = importlib.util.spec_from_file_location("script_studio", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    sys.path.remove(str(SCRIPT.parent))
    return module


def test_the_sliders_of_a_page_are_sent_as_its_script_sends_them(script, studio, browser, monkeypatch):
    place = studio.folder / "runs" / "styles"
    place.mkdir(parents=True)
    (place / "config.json").write_text('{"model": "gan-style"}')
    facts = {"kind": "directions", "kinds": ["directions", "units"], "classes": [], "reads_captions": False}
    axes, more = [{"unit": unit, **AXIS} for unit in (7, 3)], {"by_effect": False}
    monkeypatch.setattr(studio.painter, "axes", lambda *_: {**facts, "axes": axes, "calls": None, "layers": 8, **more})
    (run,) = studio.library.runs()
    address, values, ends = script.handles_of(SimpleNamespace(client=browser), run.id)
    assert address == f"/explore/sliders/picture?run={run.id}" and ends == (-2.5, 1e-05)
    assert values == {"u7": "0.25", "u3": "0.25", "truncation": "1", "mix_from": "4"}
    assert next(iter(values)) == "u7"  # the handle that is dragged


class Painted:
    """In place of a browser: a picture of one grey, by the value of u0."""

    def __init__(self, side, grey):
        self.side, self.grey, self.values = side, grey, []

    def get(self, address):
        query = parse_qs(urlsplit(address).query)
        self.values.append(float(query["u0"][0]))
        assert query["u1"] == ["0.5"]
        file = io.BytesIO()
        Image.new("L", (self.side, self.side), self.grey(self.values[-1])).save(file, "png")
        answer = SimpleNamespace(content=file.getvalue())
        answer.raise_for_status = lambda: answer
        return answer


def drag(script, client):
    return script.drag(SimpleNamespace(client=client), "/picture?run=x", {"u0": "0", "u1": "0.5"}, (-1.0, 1.0))


def test_a_handle_is_moved_from_end_to_end_and_each_picture_timed(script):
    client = Painted(64, lambda value: round(100 + 50 * value))
    seconds, rate = drag(script, client)
    assert client.values[: script.WARM_UP] == [-1.0] * script.WARM_UP
    moves = client.values[script.WARM_UP :]
    assert len(moves) == len(seconds) == script.MOVES and (moves[0], moves[-1]) == (-1.0, 1.0)
    assert moves[1] - moves[0] == pytest.approx(2 / (script.MOVES - 1))
    assert 0 < rate <= script.MOVES / sum(seconds)


@pytest.mark.parametrize(("side", "grey", "text"), [(32, round, "32, 32"), (64, lambda _: 9, "moves nothing")])
def test_pictures_of_another_size_or_that_do_not_follow_the_handle_are_refused(script, side, grey, text):
    with pytest.raises(RuntimeError, match=text):
        drag(script, Painted(side, lambda value: abs(grey(10 * value))))


def test_slow_pages_are_not_hidden_by_many_quick_live_parts(script, capsys):
    spent = [(0.01, "/jobs/ID/live")] * 900 + [(0.3, "/runs"), (0.1, "/")] * 20
    assert script.p95(range(100)) == 95 and script.page_p95_ms(spent) == pytest.approx(300)
    said = capsys.readouterr().out
    assert "live parts: 900, p95 10 ms" in said and "pages: 40, p95 300 ms" in said
    assert script.page_p95_ms([(0.5, "/jobs/ID/live"), (0.1, "/")]) == pytest.approx(500)


def test_images_are_counted_by_the_last_whole_row_of_a_log(script, tmp_path, monkeypatch):
    log, rows = tmp_path / "log.jsonl", [json.dumps({"images": 10 * k, "loss": 0.5}) + "\n" for k in range(1, 9)]
    log.write_text("".join(rows) + rows[0][:-1])
    for tail in (script.TAIL, 90):  # all of it, and from within a row on
        monkeypatch.setattr(script, "TAIL", tail)
        assert script.images_in(log) == 80
    clock = iter([100.0, 104.0])
    training = SimpleNamespace(sleep=lambda _: log.write_text('{"images": 200}\n'), perf_counter=lambda: next(clock))
    monkeypatch.setattr(script, "time", training)
    assert script.speed(log, 4.0) == (200 - 80) / 4


def test_all_pages_are_for_pictures(script, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["studio.py", "--all", "somewhere"])
    with pytest.raises(SystemExit):
        script.main()
    assert "give --pictures" in capsys.readouterr().err
