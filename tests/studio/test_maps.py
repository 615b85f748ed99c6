"""The map of codes: what its page shows, that its files are checked, and what is chosen on it."""

import csv
import io
import json

import pytest
from PIL import Image

from trilemma.studio.maps import LONGEST_NAME, map_of, ways_of
from trilemma.studio.place import Missing

EVIL = "<script>alert(1)</script>"
N = 6


def content(**other):
    """A map of N images on a line, whose neighbours are those beside them."""
    near = [sorted((j for j in range(N) if j != k), key=lambda j: abs(j - k))[:2] for k in range(N)]
    return {
        "format": 1, "how": "pca", "weights": None, "split": "test", "own": True, "side_px": 4, "columns": 3,
        "classes": [{"name": "cat", "colour": "#112233"}, {"name": EVIL, "colour": "#445566"}],
        "x": [float(k) for k in range(N)], "y": [0.0] * N, "index": [10 * k for k in range(N)],
        "class": [k % 2 for k in range(N)], "file": None, "nearest": near,
        "distance": [[float(abs(j - k)) for j in row] for k, row in enumerate(near)], **other,
    }  # fmt: skip


@pytest.fixture
def place(studio):
    """A run without a model, and its map."""
    folder = studio.folder / "runs" / "vae"
    (folder / "map-pca-interactive").mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"model": "vae", "data": "digits"}))
    write(folder)
    Image.new("L", (12, 8)).save(folder / "map-pca-interactive" / "thumbnails.png")
    return folder


def write(folder, **other):
    (folder / "map-pca-interactive" / "points.json").write_text(json.dumps(content(**other)))


@pytest.fixture
def one(studio, place):
    (run,) = studio.library.runs()
    return run


def test_the_page_offers_to_make_a_map_and_then_shows_it(browser, studio, one):
    page = browser.get(f"/explore/map?run={one.id}&how=tsne").text
    assert "There is no map by this method yet" in page and "data-map" not in page
    page = browser.get(f"/explore/map?run={one.id}").text
    assert 'data-chosen="Images selected: %"' in page
    assert 'data-map="/explore/map/points?run=' in page and 'src="/static/map.js"' in page and EVIL not in page
    studio.queue.pause(True)
    fields = {"run": one.id, "verb": "map", "how": "pca", "interactive": "true", "n": "500"}
    job = browser.post("/explore", fields).headers["location"]
    (queued,) = studio.queue.jobs()
    assert queued.words[:2] == ["map", "runs/vae"]
    assert sorted(queued.words[2:]) == ["how=pca", "interactive=true", "n=500"]
    link = f'href="/explore/map?run={one.id}&amp;how=pca"'
    assert link not in browser.get(job).text
    (queued.place / "start.json").write_text('{"time": 1.0, "process": 1}')
    (queued.place / "end.json").write_text('{"time": 2.0, "code": 0}')
    assert link in browser.get(job).text


def test_points_and_thumbnails_are_the_files(browser, one, place):
    query = f"run={one.id}&how=pca"
    answer = browser.get(f"/explore/map/points?{query}")
    assert answer.json() == content() and answer.headers["content-type"] == "application/json"
    answer = browser.get(f"/explore/map/thumbnails?{query}")
    assert answer.content == (place / "map-pca-interactive" / "thumbnails.png").read_bytes()
    assert answer.headers["content-type"] == "image/png"
    for path in (f"points?run={one.id}&how=tsne", f"points?run={one.id}&how=..", "points?run=x&how=pca"):
        assert browser.get(f"/explore/map/{path}").status_code == 404


def test_neighbours_are_listed_for_a_reader_without_the_canvas(browser, one):
    text = browser.get(f"/explore/map/nearest?run={one.id}&how=pca&row=2").text
    assert "<html" not in text and EVIL not in text and "&lt;script&gt;" in text
    rows = [part.split('"')[0] for part in text.split("<a href=")[1:] for part in [part.split('data-row="')[1]]]
    assert rows == ["1", "3"] and "distance 1" in text and f"/edit?run={one.id}&amp;image=20" in text
    page = browser.get(f"/explore/map?run={one.id}&image=20").text
    assert "<strong>image 20, class cat</strong>" in page
    vi = browser.get(f"/explore/map?run={one.id}&image=20", headers={"accept-language": "vi"}).text
    assert "<strong>ảnh 20, lớp cat</strong>" in vi
    for wrong in ("map/nearest?run={}&how=pca&row=6", "map/nearest?run={}&how=pca&row=-1", "map?run={}&image=11"):
        assert browser.get(f"/explore/{wrong.format(one.id)}").status_code == 404


def test_what_is_chosen_is_a_table(browser, one):
    answer = browser.post("/explore/map/chosen", {"run": one.id, "how": "pca", "rows": "3,1,3"})
    assert answer.headers["content-disposition"] == 'attachment; filename="chosen-pca.csv"'
    assert list(csv.reader(io.StringIO(answer.text))) == [["index", "class"], ["30", EVIL], ["10", EVIL]]
    for rows in ("", "6", "-1", "1,x", "1;2", "1" * 9):
        assert browser.post("/explore/map/chosen", {"run": one.id, "how": "pca", "rows": rows}).status_code == 400


@pytest.mark.parametrize(
    "other",
    [
        {"format": 2}, {"x": [0.0]}, {"x": [float("nan")] * N}, {"x": ["0"] * N}, {"index": [-1] * N},
        {"nearest": [[N]] * N}, {"nearest": [[0]] * N, "distance": [[]] * N}, {"class": [2] * N}, {"file": [1] * N},
        {"side_px": 0}, {"columns": True}, {"classes": [{"name": "a", "colour": "url(x)"}, {}]}, {"classes": None},
        {"distance": [[None, None]] * N}, {"file": ["x" * (LONGEST_NAME + 1)] * N},
    ],
)  # fmt: skip
def test_a_file_that_is_no_map_is_refused(browser, one, place, other):
    write(place, **other)
    for path in ("map?", "map/points?how=pca&", "map/nearest?how=pca&row=0&"):
        answer = browser.get(f"/explore/{path}run={one.id}")
        assert answer.status_code == 400 and "make the map again" in answer.text


@pytest.mark.parametrize("name", ["class", "file"])
def test_a_map_without_a_column_is_refused(browser, one, place, name):
    left = {key: value for key, value in content().items() if key != name}
    (place / "map-pca-interactive" / "points.json").write_text(json.dumps(left))
    for answer in (
        browser.get(f"/explore/map/nearest?run={one.id}&how=pca&row=0"),
        browser.post("/explore/map/chosen", {"run": one.id, "how": "pca", "rows": "1"}),
    ):
        assert answer.status_code == 400 and "make the map again" in answer.text


def test_links_are_no_maps(one, place, tmp_path):
    file = place / "map-pca-interactive" / "points.json"
    file.rename(tmp_path / "points.json")
    file.symlink_to(tmp_path / "points.json")
    assert ways_of(one) == []
    with pytest.raises(Missing):
        map_of(one, "pca")


def test_other_weights_are_said(browser, studio, place):
    (place / "summary.json").write_text(json.dumps({"weights_sha256": "abcdef0123"}))
    (run,) = studio.library.runs()
    for weights, said in (("abcdef", False), ("012345", True), (None, False)):
        write(place, weights=weights)
        assert ("other weights" in browser.get(f"/explore/map?run={run.id}").text) is said
