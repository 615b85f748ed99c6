"""The pages over a run that was trained: what they show, what they do, and that they run nothing of what files say."""

import base64
import io
import json
import os
import re
import shutil
import time
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest
from PIL import Image

from trilemma import vocabulary
from trilemma.files import read_json
from trilemma.pictures.png import png_content
from trilemma.studio import images as images_module
from trilemma.studio import library as library_module
from trilemma.studio import logs
from trilemma.studio import marks as marks_module
from trilemma.studio.jobs import OUTPUT
from trilemma.studio.routes.runs import sort_rows
from trilemma.studio.sections import SECTIONS, TOOLS
from trilemma.verbs import VERBS, find

EVIL = "<script>alert(1)</script>"


@pytest.mark.parametrize(
    "path", [*(path for path, _ in SECTIONS), *(tool.path for tool in TOOLS), "/api", "/openapi.json"]
)
def test_every_page_answers_with_and_without_runs(browser, studio, trained, path):
    assert browser.get(path).status_code == 200
    shutil.copytree(trained, studio.folder / "runs" / "vae-digits")
    answer = browser.get(path)
    assert answer.status_code == 200
    assert "<script>" not in answer.text and " onclick" not in answer.text and ' style="' not in answer.text
    assert not re.findall(r'(?:src|href|action)="(?!/|#)[^"]*"', answer.text)


def test_each_model_has_its_form(browser):
    for model in vocabulary.models():
        answer = browser.get(f"/train?model={model}")
        assert answer.status_code == 200 and f"trilemma train {model} digits" in answer.text, model


def test_each_verb_of_a_run_has_its_form(browser, run):
    shown = {verb for tool in TOOLS for verb in tool.verbs}
    on_runs = {verb.name for verb in VERBS if verb.places[:1] in (["run"], ["what"])}
    assert on_runs - {"export", "push"} == shown  # what goes out of the folder is done in a terminal
    for tool in TOOLS:
        for verb in tool.verbs:
            answer = browser.get(f"{tool.path}?run={run.id}&verb={verb}")
            assert answer.status_code == 200 and f'name="verb" value="{verb}"' in answer.text
    assert browser.get("/sample?verb=train").status_code == 404
    assert browser.get("/sample?run=0123456789abcdef").status_code == 404


def test_a_form_becomes_the_command_line_of_a_job(browser, studio, run):
    studio.queue.pause(True)
    answer = browser.post(
        "/sample", {"run": run.id, "verb": "sample", "n": "4", "seed": "3", "temperature": "0.5", "label": ""}
    )
    assert answer.status_code == 303
    (job,) = studio.queue.jobs()
    assert job.words == ["sample", "runs/vae-digits", "n=4", "seed=3", "temperature=0.5"]
    page = browser.get(answer.headers["location"])
    assert "trilemma sample runs/vae-digits n=4 seed=3 temperature=0.5" in page.text
    assert "trilemma.sample(&#34;runs/vae-digits&#34;, n=4, seed=3, temperature=0.5)" in page.text
    own = "runs/vae-digits"
    for path, fields, line in [
        ("/train", {"model": "vae", "data": "digits", "epochs": "2", "beta": "4"}, "train vae digits epochs=2 beta=4"),
        ("/edit", {"run": run.id, "image": "3", "towards": "7"}, f"edit {own} 3 towards=7"),
        ("/explore", {"run": run.id, "verb": "interpolate", "a": "1", "b": "seed:2"}, f"interpolate {own} 1 seed:2"),
        ("/detect", {"run": run.id, "against_id": "shapes"}, f"detect {own} against=shapes"),
        ("/data/check/run", {"source": "digits"}, "data check digits"),
        ("/data/names/run", {"source": "digits"}, "data show digits names=true"),
        ("/compare/train", {"data": "digits", "minutes": "1", "lang": "vi"}, "compare data=digits minutes=1 lang=vi"),
    ]:
        assert browser.post(path, fields).status_code == 303, path
        assert studio.queue.jobs()[-1].words == line.split()


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        ("/train", {"model": "vae", "data": "digits", "epochs": "-1"}),
        ("/train", {"model": "vae", "data": "/etc"}),
        ("/train", {"model": "vae", "data": "digits", "out": "x"}),
        ("/sample", {"n": "1000000000"}),
        ("/sample", {"out": "/tmp/x"}),
        ("/edit", {"image": "photo.png"}),
        ("/edit", {"image": "0", "mask": "../mask.png"}),
        ("/edit", {"image": "0", "towards": "vector.npy"}),
        ("/explore", {"verb": "interpolate", "a": "1"}),
        ("/data/show/run", {"source": "hf:NAME"}),
        ("/compare", {"run": ["0123456789abcdef"]}),
        ("/compare", {}),
    ],
)
def test_what_does_not_fit_is_said_and_no_job_is_made(browser, studio, run, path, fields):
    own = {"run": run.id} if path in ("/sample", "/edit", "/explore") else {}
    answer = browser.post(path, {**own, **fields})
    assert answer.status_code in (400, 404) and 'role="alert"' in answer.text
    assert not studio.queue.jobs()


def test_runs_are_searched_starred_renamed_and_put_into_the_bin(browser, studio, run):
    page = lambda path="/runs": browser.get(path).text  # noqa: E731
    assert "runs/vae-digits" in page("/runs?q=digits+vae") and "runs/vae-digits" not in page("/runs?q=gan")
    assert "runs/vae-digits" not in page("/runs?star=true")
    browser.post(f"/runs/{run.id}/star", {"on": "1"})
    assert "runs/vae-digits" in page("/runs?star=true")
    browser.post(f"/runs/{run.id}/rename", {"title": EVIL})
    assert "&lt;script&gt;" in page() and EVIL not in page() and run.path.is_dir()
    assert browser.post(f"/runs/{run.id}/rename", {"title": "x" * 81}).status_code == 400
    browser.post(f"/runs/{run.id}/remove")
    assert not run.path.exists() and studio.marks.in_bin() == {run.id: "runs/vae-digits"}
    assert browser.get(f"/runs/{run.id}").status_code == 404
    assert browser.post("/runs/restore/0123456789abcdef").status_code == 404
    browser.post(f"/runs/restore/{run.id}")
    assert (run.path / "config.json").is_file() and not studio.marks.in_bin()


def test_scores_of_one_kind_are_sorted_together():
    scores = [("valid_rmse", 0.1), ("valid_bce", 90.0), None, ("valid_rmse", 0.05), ("valid_bce", 80.0)]
    rows = [{"score": score, "star": k == 1} for k, score in enumerate(scores)]
    assert [row["score"] for row in sort_rows(rows, "score")] == [scores[k] for k in (1, 4, 3, 0, 2)]


def test_a_form_of_samples_has_keys_that_vary_over_the_picture(browser, studio, run):
    assert "Keys that may vary: seed, label, caption, temperature." in browser.get(f"/sample?run={run.id}").text
    assert "Các khóa có thể thay đổi" in browser.get("/sample", headers={"accept-language": "vi"}).text
    assert "may vary" not in browser.get(f"/sample?run={run.id}&verb=denoise").text
    studio.queue.pause(True)
    fields = {"run": run.id, "verb": "sample", "n": "2", "x": "temperature:0.5,1", "y": "seed:1,2"}
    page = browser.get(browser.post("/sample", fields).headers["location"]).text
    assert "trilemma sample runs/vae-digits n=2 x=temperature:0.5,1 y=seed:1,2" in page
    for text in ("../x:1", "steps:1,9e9"):
        assert browser.post("/sample", {**fields, "x": text}).status_code == 400
    assert len(studio.queue.jobs()) == 1


def test_what_differs_between_runs(browser, studio, run):
    other = studio.folder / "runs" / "other"
    shutil.copytree(run.path, other)
    config = json.loads((other / "config.json").read_text())
    config["training"]["lr"] = 0.125
    (other / "config.json").write_text(json.dumps(config))
    idents = [one.id for one in studio.library.runs()]
    text = browser.get(f"/runs/differences?run={idents[0]}&run={idents[1]}").text
    assert re.findall(r'<th scope="row">(.*?)</th>', text) == ["lr"] and "<td>0.125</td>" in text
    assert browser.get(f"/runs/differences?run={run.id}").status_code == 400


def test_pictures_are_reached_by_ids_of_plain_files_alone(browser, studio, run):
    secret = studio.folder.parent / "secret.png"
    Image.new("L", (3, 3)).save(secret)
    (run.path / "link.png").symlink_to(secret)
    (run.path / "linked").symlink_to(studio.folder.parent)
    pictures = studio.library.pictures(run)
    names = {picture.name for picture in pictures}
    assert "samples/seed-0.png" in names and not {name for name in names if "link" in name or "secret" in name}
    one = next(picture for picture in pictures if picture.name == "samples/seed-0.png")
    answer = browser.get(f"/runs/{run.id}/pictures/{one.id}")
    assert answer.content == one.path.read_bytes() and answer.headers["content-type"] == "image/png"
    about = browser.get(f"/runs/{run.id}/pictures/{one.id}/about").text
    assert re.search(r"<dt>seed</dt><dd>0</dd>", about) and 'name="n" value="4"' in about


def test_a_picture_that_is_dropped_says_how_it_was_made(browser, run):
    content = (run.path / "samples" / "seed-0.png").read_bytes()
    answer = browser.send("POST", "/sample/receipt", files={"picture": ("a.png", content)})
    assert answer.status_code == 200 and "<dt>seed</dt><dd>0</dd>" in answer.text
    assert f'name="run" value="{run.id}"' in answer.text  # known by its weights: its folder was elsewhere
    other = png_content(Image.new("L", (2, 2)), {"verb": "map", "run": run.name, "seed": 0})
    text = browser.send("POST", "/sample/receipt", files={"picture": ("a.png", other)}).text
    assert "<dt>verb</dt><dd>map</dd>" in text and "Use these settings" not in text  # they are not those of sample
    answer = browser.send("POST", "/sample/receipt", files={"picture": ("a.png", b"<svg onload=alert(1)>")})
    assert answer.status_code == 400 and "does not say how it was made" in answer.text
    assert not list((run.path.parents[1] / ".studio").glob("dropped*"))


def test_images_are_brought_in_and_offered(browser, studio, tmp_path):
    Image.new("RGB", (4, 4), "red").save(tmp_path / "a.png")
    files = [("files", ("a.png", (tmp_path / "a.png").read_bytes()))]
    answer = browser.send("POST", "/data/upload", data={"name": "mine"}, files=files)
    assert answer.status_code == 200 and "data/mine: 1 images" in answer.text
    assert browser.send("POST", "/data/upload", data={"name": "../x"}, files=files).status_code == 400
    ident = studio.library.id_of(studio.folder / "data" / "mine")
    assert f'value="{ident}"' in browser.get("/train").text
    studio.queue.pause(True)
    assert browser.post("/train", {"model": "vae", "data": ident}).status_code == 303
    assert studio.queue.jobs()[-1].words == ["train", "vae", "data/mine"]


def test_a_folder_is_brought_with_its_folders_as_classes(browser, studio):
    """The fields are those of a page without scripts: that for single files is sent, too, with no file in it."""
    buffer = io.BytesIO()
    Image.new("L", (4, 4)).save(buffer, "png")

    def bring(name, *files):
        part = '--x\r\nContent-Disposition: form-data; name="{}"{}\r\n\r\n'
        head = (
            part.format("name", "").encode() + name.encode() + b"\r\n" + part.format("files", '; filename=""').encode()
        )
        parts = [part.format("files", f'; filename="{file}"').encode() + buffer.getvalue() for file in files]
        body = b"\r\n".join([head, *parts, b"--x--\r\n"])
        kind = {"content-type": "multipart/form-data; boundary=x"}
        return browser.send("POST", "/data/upload", headers=kind, content=body).text

    assert "data/mine: 3 images<" in bring("mine", "holiday/cats/1.png", "holiday/cats/2.png", "holiday/dogs/1.png")
    folders = {path.name: len([*path.iterdir()]) for path in (studio.folder / "data" / "mine").iterdir()}
    assert folders == {"cats": 2, "dogs": 1}
    assert "none of the files is an image" in bring("other")


def test_english_texts_say_so_in_a_page_of_another_language(browser, run):
    ask = lambda path: browser.get(path, headers={"accept-language": "vi"}).text  # noqa: E731
    for verb in ("train", "sample"):
        text = ask(f"/{verb}")
        for key in ("n", "minutes"):
            if about := find(verb).keys.get(key, {}).get("description"):
                assert re.search(rf'<p class="hint" id="key-{key}-about" lang="en">{re.escape(about[:20])}', text)
    assert '<p class="error" role="alert" lang="en">Run not found' in ask("/runs/0123456789abcdef")
    assert '<html lang="vi">' in text and f'<p lang="en">{find("sample").about}</p>' in text


def test_a_held_out_image_is_kept_to_be_painted_over(browser, studio, run, monkeypatch):
    buffer, asked = io.BytesIO(), []
    Image.new("L", (8, 8), 7).save(buffer, "png")
    monkeypatch.setattr(studio.held_out, "png", lambda *words: asked.append(words) or buffer.getvalue())
    fields = {"run": run.id, "verb": "edit", "image": "3", "n": "2", "data_id": "shapes:9", "shift": "1", "seed": ""}
    query = parse_qs(urlsplit(browser.post("/edit/held-out", fields).headers["location"]).query)
    assert asked == [(run.name, "3", "shapes:9")]
    assert studio.images.has(query["image"][0].removeprefix("image:"))
    assert (query["n"], query["data_id"]) == (["2"], ["shapes:9"]) and not {"seed", "shift"} & {*query}
    for wrong in ({"image": "../x"}, {"image": "x.png"}, {"data_id": "/etc"}, {"run": "0123456789abcdef"}):
        assert browser.post("/edit/held-out", {**fields, **wrong}).status_code in (400, 404)
    assert len(asked) == 1


def test_the_job_of_an_edit_shows_the_image_beside_what_was_made_of_it(browser, studio, run):
    Image.new("L", (8, 8)).save(run.path / "edit-abc-mask.png")
    buffer = io.BytesIO()
    Image.new("L", (8, 8), 7).save(buffer, "png")
    image = studio.images.keep(buffer.getvalue())
    studio.queue.pause(True)
    ident = studio.queue.add(["edit", run.name, f".studio/images/{image}.png", "n=2"])
    place = studio.queue.job(ident).place
    assert "Before" not in browser.get(f"/jobs/{ident}").text
    for k in (10, 9):
        Image.new("L", (8, 8)).save(run.path / f"edit-abc-mask-{k}.png")
    (place / OUTPUT).write_text(f"picture  {run.name}/edit-abc-mask.png\n")
    text = browser.get(f"/jobs/{ident}").text
    assert f'<img src="/edit/images/{image}" alt="Before">' in text
    assert re.findall(r"<figcaption>After: (.*?)</figcaption>", text) == ["edit-abc-mask-9.png", "edit-abc-mask-10.png"]
    assert f"&amp;image=image:{image}" in text


def test_an_image_is_brought_and_a_mask_painted_over_it(browser, studio, run):
    levels = np.arange(64, dtype=np.uint8).reshape(8, 8)
    buffer = io.BytesIO()
    Image.fromarray(levels).save(buffer, "png")
    files = {"picture": ("a.png", buffer.getvalue())}
    answer = browser.send("POST", "/edit/image", data={"run": run.id, "verb": "edit"}, files=files)
    query = parse_qs(urlsplit(answer.headers["location"]).query)
    (image,) = query["image"]
    page = browser.get(answer.headers["location"]).text
    assert f'src="/edit/images/{image[6:]}"' in page and "data-paint" in page
    with Image.open(io.BytesIO(browser.get(f"/edit/images/{image[6:]}").content)) as kept:
        assert (np.asarray(kept) == levels).all()
    mask = np.zeros((8, 8), np.uint8)
    mask[2:4] = 255
    painted = io.BytesIO()
    Image.fromarray(np.dstack([np.full((8, 8, 3), 255, np.uint8), mask])).save(painted, "png")  # white on transparent
    studio.queue.pause(True)
    url = f"data:image/png;base64,{base64.b64encode(painted.getvalue()).decode()}"
    assert browser.post("/edit", {"run": run.id, "image": image, "mask_png": url, "n": "2"}).status_code == 303
    verb, where, source, key, n = studio.queue.jobs()[-1].words
    assert (verb, where, source, n) == ("edit", "runs/vae-digits", f".studio/images/{image[6:]}.png", "n=2")
    with Image.open(studio.folder / key.removeprefix("mask=")) as kept:
        assert (np.asarray(kept) == mask).all()
    unknown, path, bad_mask = {"image": "image:0123456789abcdef"}, {"image": "image:../x"}, {"mask_png": "data:x"}
    for fields in (unknown, path, {"image": image, **bad_mask}):
        assert browser.post("/edit", {"run": run.id, **fields}).status_code in (400, 404)
    assert len(studio.queue.jobs()) == 1
    hostile = {"picture": ("a.svg", b"<svg onload=alert(1)>")}
    assert browser.send("POST", "/edit/image", data={"run": run.id}, files=hostile).status_code == 400


def test_a_mask_that_was_painted_on_fewer_pixels_fits_its_image(browser, studio, run):
    """As over a large photo, whose mask in its own pixels would be more than a form holds."""
    photo, painted, small = io.BytesIO(), io.BytesIO(), np.zeros((5, 10), np.uint8)
    Image.new("RGB", (40, 20)).save(photo, "png")
    small[1:3, 4:] = 255
    Image.fromarray(small).save(painted, "png")
    image = f"image:{studio.images.keep(photo.getvalue())}"
    studio.queue.pause(True)
    url = f"data:image/png;base64,{base64.b64encode(painted.getvalue()).decode()}"
    assert browser.post("/edit", {"run": run.id, "image": image, "mask_png": url}).status_code == 303
    key = next(word for word in studio.queue.jobs()[-1].words if word.startswith("mask="))
    with Image.open(studio.folder / key.removeprefix("mask=")) as kept:
        assert (np.asarray(kept) == small.repeat(4, 0).repeat(4, 1)).all()


def test_images_that_are_brought_are_what_a_verb_works_on(browser, studio, run):
    """The ends of an interpolation, the start of a traversal, and several images of an inversion."""
    contents = []
    for level in (30, 200):
        buffer = io.BytesIO()
        Image.new("L", (8, 8), level).save(buffer, "png")
        contents.append({"picture": ("a.png", buffer.getvalue())})

    def bring(files, verb, key, **others):
        fields = {"run": run.id, "verb": verb, "key": key, **others}
        place = browser.send("POST", "/edit/image", data=fields, files=files).headers["location"]
        assert urlsplit(place).path == "/explore"
        page = browser.get(place).text
        values = {name: text for name, (text,) in parse_qs(urlsplit(place).query).items()}
        for ident in re.findall("image:([0-9a-f]{16})", values[key]):
            assert f'src="/edit/images/{ident}"' in page
        return values

    studio.queue.pause(True)
    first = bring(contents[0], "interpolate", "a", b="7")
    assert first["b"] == "7"
    both = bring(contents[1], "interpolate", "b", **{name: first[name] for name in ("a", "b")})
    assert both["a"] == first["a"] != both["b"]
    file = lambda text: f".studio/images/{text.removeprefix('image:')}.png"  # noqa: E731
    for fields, words in [
        ({"verb": "interpolate", "a": both["a"], "b": both["b"], "frames": "3"},
         f"interpolate runs/vae-digits {file(both['a'])} {file(both['b'])} frames=3"),
        ({"verb": "interpolate", "a": both["a"], "b": "-1.5,0.2"},
         f"interpolate runs/vae-digits {file(both['a'])} -1.5,0.2"),
        ({"verb": "traverse", "image": both["a"], "axes": "directions"},
         f"traverse runs/vae-digits image={file(both['a'])} axes=directions"),
        ({"verb": "traverse", "image": ""}, "traverse runs/vae-digits"),
        ({"verb": "invert", "images": f"{both['a']}, 5,{both['b']}", "n": "4"},
         f"invert runs/vae-digits n=4 {file(both['a'])} 5 {file(both['b'])}"),
        ({"verb": "invert"}, "invert runs/vae-digits"),
    ]:  # fmt: skip
        assert browser.post("/explore", {"run": run.id, **fields}).status_code == 303, fields
        assert studio.queue.jobs()[-1].words == words.split()
    two = bring(contents[1], "invert", "images", images=both["a"])
    assert two["images"] == f"{both['a']},{both['b']}"
    job = studio.queue.jobs()[-2]
    line = f'trilemma.invert("runs/vae-digits", "{file(both["a"])}", "5", "{file(both["b"])}", n=4)'
    assert studio.lines(job.words)[1] == line
    count = len(studio.queue.jobs())
    for fields in (
        {"verb": "interpolate", "a": "photo.png", "b": "1"},
        {"verb": "interpolate", "a": "image:0123456789abcdef", "b": "1"},
        {"verb": "traverse", "image": "../x.png"},
        {"verb": "invert", "images": "seed:3"},
        {"verb": "invert", "images": ",".join(["1"] * 61)},
    ):
        answer = browser.post("/explore", {"run": run.id, **fields})
        assert answer.status_code in (400, 404) and 'role="alert"' in answer.text
    assert len(studio.queue.jobs()) == count


def test_the_language_is_that_of_the_browser_until_one_is_chosen(browser):
    assert '<html lang="en">' in browser.get("/").text
    assert '<html lang="vi">' in browser.get("/", headers={"accept-language": "vi-VN,vi;q=0.9,en;q=0.8"}).text
    assert '<html lang="en">' in browser.get("/", headers={"accept-language": "de,en;q=0.8"}).text
    cookie = browser.post("/language", {"language": "vi"}).headers["set-cookie"]
    assert cookie.startswith("trilemma-language=vi;")
    assert "set-cookie" not in browser.post("/language", {"language": "../x"}).headers


def test_pages_over_many_runs_are_quick(browser, studio, run, monkeypatch):
    for k in range(100):
        place = studio.folder / "runs" / f"run-{k}"
        place.mkdir()
        for name in ("config.json", "summary.json"):
            shutil.copy(run.path / name, place / name)
    titles = {f"runs/run-{k}": {"title": f"title {k}"} for k in range(100)}
    (studio.own / marks_module.MARKS).write_text(json.dumps(titles))
    browser.get("/runs")
    read, begin = [], time.process_time()
    monkeypatch.setattr(marks_module, "read_json", lambda path: read.append(path) or read_json(path))
    text = browser.get("/runs").text
    assert time.process_time() - begin < 0.5 and "title 99" in text
    assert len(read) == 2  # the titles, and whether they can be read


def test_the_beginning_of_a_log_says_that_it_is_one(browser, run, monkeypatch):
    row = {"seconds": 1, "vae/loss": 0.5}
    rows = [json.dumps({"step": k, "images": k, **row}) + "\n" for k in range(1, 10)]
    monkeypatch.setattr(logs, "LARGEST_LOG", 300)
    (run.path / "log.jsonl").write_text("".join(rows[:4]))
    said = "The log has more than 300 bytes: these curves, and the warnings, are those of its beginning."
    assert said not in browser.get(f"/runs/{run.id}").text
    (run.path / "log.jsonl").write_text("".join(rows))
    assert said in browser.get(f"/runs/{run.id}").text
    assert "Nhật ký dài hơn 300" in browser.get(f"/runs/{run.id}", headers={"accept-language": "vi"}).text


def test_a_run_that_vanishes_while_its_page_is_made_is_no_defect(browser, studio, run, monkeypatch, capfd):
    """Between the list of its files and a look at each."""
    listed, aside = library_module.plain_files, studio.folder.parent / "aside"

    def vanishing(folder):
        files = listed(folder)
        if run.path.is_dir():
            run.path.rename(aside)
        return files

    monkeypatch.setattr(library_module, "plain_files", vanishing)
    for path in ("/", "/runs", f"/runs/{run.id}", f"/runs/{run.id}/pictures/0123456789abcdef"):
        status = browser.get(path).status_code
        assert not run.path.exists() and status == (404 if "pictures" in path else 200), path
        aside.rename(run.path)
    assert "error" not in capfd.readouterr().err


def test_a_file_that_vanishes_while_it_is_sent_is_no_defect(browser, studio, run, monkeypatch, capfd):
    picture = studio.library.pictures(run)[0]
    monkeypatch.setattr(studio.library, "picture", lambda *_: picture)
    picture.path.unlink()
    answer = browser.get(f"/runs/{run.id}/pictures/{picture.id}")
    assert answer.status_code == 404 and "moved or deleted" in answer.text and picture.name not in answer.text
    assert "error" not in capfd.readouterr().err


@pytest.mark.parametrize(
    ("path", "status", "said"),
    [
        ("/runs/0123456789abcdef", 404, "Run not found. The page Runs lists all runs, and those in the bin."),
        ("/jobs/0123456789abcdef", 404, "Job not found. The page Jobs lists all jobs."),
        ("/train?model=vea", 404, "unknown model &#34;vea&#34;; choose one of ae-linear, "),
        ("/train?model=vea", 404, "(did you mean &#34;vae&#34;?)"),
        ("/nothing", 404, "The first page, /, leads to all others."),
        ("/no/../thing", 404, "The first page, /, leads to all others."),
        ("/explore/sliders", 422, "run: Field required. Go back, and follow a link of the page."),
        (f"/?{'x' * 5000}", 414, "more than 4,000 bytes after its question mark. Fill in fewer fields."),
    ],
)
def test_an_error_says_what_to_do(browser, path, status, said):
    got, text = browser.raw(path)
    assert got == status and said in text


@pytest.mark.parametrize(
    ("path", "fields", "status", "said"),
    [
        ("/train", {"model": "vae*", "data": "digits"}, 404, "unknown model &#34;vae*&#34;"),
        ("/train", {"model": "vae", "data": "digits", "epohcs": "2"}, 400, "did you mean &#34;epochs&#34;?"),
        ("/train", {"model": "vae", "data": "digits", "guidance": "2"}, 400, "unknown key &#34;guidance&#34;"),
        ("/train", {"model": "vae", "data": "digits", "beta": "x" * 300_000}, 413, "Send less at once"),
        ("/language", {"language": "vi"}, 303, ""),
    ],
)
def test_an_error_of_a_form_says_what_to_do(browser, path, fields, status, said):
    answer = browser.post(path, fields)
    assert answer.status_code == status and said in answer.text


def test_a_file_that_is_no_image_is_refused_with_what_is_one(browser):
    answer = browser.send("POST", "/edit/image", files={"picture": ("a.svg", b"<svg>")})
    assert answer.status_code == 400
    assert "give one in PNG, JPEG, WEBP, BMP, GIF or TIFF with at most 16,000,000 pixels and 64 MB" in answer.text


def test_a_run_is_chosen_for_a_key_that_takes_one(browser, studio, run):
    studio.queue.pause(True)
    page = browser.get("/train?model=diffusion-few").text
    assert f'<option value="run:{run.id}">runs/vae-digits</option>' in page
    assert '<option value="diffusion-dit">diffusion-dit</option>' in page
    form = {"model": "diffusion-few", "data": "digits"}
    for chosen, words in [
        (f"run:{run.id}", ["init=runs/vae-digits"]),
        ("diffusion-dit", ["init=diffusion-dit"]),
        ("diffusion", []),
        ("", []),
    ]:
        assert browser.post("/train", {**form, "init": chosen}).status_code == 303
        assert sorted(studio.queue.jobs()[-1].words) == sorted(["train", "diffusion-few", "digits", *words])
    for text in ("runs", "runs/vae-digits", "../x", "vae*", "x" * 1000):
        answer = browser.post("/train", {**form, "init": text})
        assert answer.status_code == 400 and "choose from its list" in answer.text
    assert browser.post("/train", {**form, "init": "run:0123456789abcdef"}).status_code == 404
    assert len(studio.queue.jobs()) == 4


def test_a_run_that_a_receipt_names_is_chosen_in_its_list(browser, studio, run):
    (studio.folder / "runs" / "other").mkdir()
    (studio.folder / "runs" / "other" / "config.json").write_text('{"model": "diffusion", "data": "digits"}')
    ident = studio.library.id_of(studio.folder / "runs" / "other")
    page = browser.get(f"/sample?run={ident}&guide=runs/vae-digits").text
    assert f'<option value="run:{run.id}" selected>runs/vae-digits</option>' in page


def test_images_of_a_run_are_counted_in_its_pixels(browser, studio, run):
    config = json.loads((run.path / "config.json").read_text())
    for shape, status in [([1, 8, 8], 303), ([3, 512, 512], 400), ([3, 1e9, "x"], 303), ("x", 303), (None, 303)]:
        config["model_config"]["shape"] = shape
        (run.path / "config.json").write_text(json.dumps(config))
        assert browser.post("/sample", {"run": run.id, "n": "10000"}).status_code == status, shape


def images_of(studio):
    return {path.name for path in (studio.own / "images").iterdir()}


def test_the_oldest_images_that_no_job_needs_are_removed(studio, run, monkeypatch):
    monkeypatch.setattr(images_module, "MOST_KEPT", 3)
    names = []
    for level in range(5):
        buffer = io.BytesIO()
        Image.new("L", (4, 4), level).save(buffer, "png")
        ident = studio.images.keep(buffer.getvalue())
        names.append(f"{ident}.png")
        os.utime(studio.images.path(ident), (level, level))
        if level == 0:
            studio.queue.add(["upscale", run.name, studio.library.name_of(studio.images.path(ident))])
    assert images_of(studio) == {names[0], *names[2:]}
    studio.images.keep((studio.own / "images" / names[2]).read_bytes())  # it is the newest then
    os.utime(studio.own / "images" / names[2], (9, 9))
    studio.queue.stop_all()
    monkeypatch.setattr(images_module, "LARGEST_KEPT", (studio.own / "images" / names[4]).stat().st_size)
    studio.images.keep(buffer.getvalue())
    assert images_of(studio) == {names[4]}


def test_what_a_killed_studio_left_is_removed(studio):
    for name in ("dropped-0123456789abcdef.png", "marks.json"):
        (studio.own / name).write_text("{}")
    (studio.own / "pace-abc").mkdir()
    (studio.folder / "data" / ".mine.12345.tmp").mkdir(parents=True)
    studio.remove_unfinished()
    assert [path.name for path in studio.own.iterdir()] == ["marks.json"]
    assert not [*(studio.folder / "data").iterdir()]
