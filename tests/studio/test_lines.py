"""The command line and the line of Python that do what a form does, as it is filled in; nothing is run for them."""

import html
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from trilemma.explore.imagine_again import VERBS
from trilemma.studio import pages
from trilemma.studio.routes.runs import OF_PIPELINES, can_be_made_again
from trilemma.studio.sections import TOOLS

NODE = shutil.which("node")
LACKING = "The form is not complete yet: "


def lines(text):
    """What stands in the boxes to copy, and why there is nothing to copy."""
    copied = [html.unescape(line) for line in re.findall(r'<pre class="copy">(.*?)</pre>', text, re.S)]
    return copied, [html.unescape(reason) for reason in re.findall(f"{LACKING}(.*?)</p>", text)]


@pytest.mark.parametrize(
    ("path", "query", "fields", "command", "python"),
    [
        ("/train", "", {}, "train vae digits", 'train("vae", "digits")'),
        ("/train", "model=gan&epochs=2", {"model": "gan", "data": "digits", "epochs": "2"},
         "train gan digits epochs=2", 'train("gan", "digits", epochs=2.0)'),
        ("/sample", "run=RUN&seed=3", {"run": "RUN", "seed": "3", "n": "64"},
         "sample runs/vae-digits seed=3", 'sample("runs/vae-digits", seed=3)'),
        ("/edit", "towards=7", {"run": "RUN", "image": "0", "towards": "7"},
         "edit runs/vae-digits 0 towards=7", 'edit("runs/vae-digits", "0", towards="7")'),
        ("/detect", "detection=x&stop=1", {"run": "RUN"}, "detect runs/vae-digits", 'detect("runs/vae-digits")'),
    ],
)  # fmt: skip
def test_a_form_has_the_lines_of_what_is_filled_in(browser, studio, run, path, query, fields, command, python):
    """The page has those of its query, which a form without scripts sends, too; a script asks for those of the form."""
    wanted = [f"trilemma {command}", f"trilemma.{python}"]
    assert lines(browser.get(f"{path}?{query.replace('RUN', run.id)}").text) == (wanted, [])
    if fields:
        filled = {key: run.id if text == "RUN" else text for key, text in fields.items()}
        answer = browser.post(f"{path}/lines", filled)
        assert answer.status_code == 200 and "<html" not in answer.text and lines(answer.text) == (wanted, [])
    assert not studio.queue.jobs()


def test_a_form_that_lacks_something_says_what(browser, studio, run):
    page = browser.get(f"/explore?run={run.id}&verb=interpolate&a=1").text
    assert lines(page) == (
        [],
        ["b is missing: give the number of a held-out image, a seed as seed:3, a code as 0.5,-1, or bring an image"],
    )
    for fields, said in [
        ({"run": run.id, "n": "-1"}, "n=-1: give a whole number of at least 1"),
        ({"run": run.id, "out": "x"}, "out= is not a field here"),
        ({"run": "0123456789abcdef"}, "Run not found."),
    ]:
        copied, (reason,) = lines(browser.post("/sample/lines", fields).text)
        assert not copied and reason.startswith(said)
    assert browser.post("/sample/lines", {"run": run.id, "verb": "train"}).status_code == 200
    text = browser.post("/sample/lines", {"run": run.id, "n": "0"}, headers={"accept-language": "vi"}).text
    assert "Biểu mẫu chưa hoàn chỉnh: n=0" in text


def test_both_forms_of_a_comparison_have_their_lines(browser, studio, run):
    shutil.copytree(run.path, studio.folder / "runs" / "other")
    other = studio.library.run_at("runs/other")
    families = ["trilemma compare data=digits", 'trilemma.compare(data="digits")']
    lacking = ["choose two runs or sets of images or more to compare them"]
    assert lines(browser.get("/compare").text) == (families, lacking)
    both = ["trilemma compare runs/vae-digits runs/other", 'trilemma.compare("runs/vae-digits", "runs/other")']
    assert lines(browser.get(f"/compare?run={run.id}&run={other.id}").text) == (both + families, [])
    assert lines(browser.post("/compare/lines", {"run": [run.id, other.id]}).text) == (both, [])
    copied, _ = lines(browser.post("/compare/train/lines", {"data": "shapes", "minutes": "2"}).text)
    assert copied == ["trilemma compare data=shapes minutes=2", 'trilemma.compare(data="shapes", minutes=2.0)']
    copied, _ = lines(browser.get("/compare?data=shapes&minutes=2&lang=en").text)
    assert copied[:1] == ["trilemma compare data=shapes minutes=2"]


def test_every_page_of_a_verb_has_a_line(browser, run):
    for tool in TOOLS:
        for verb in tool.verbs:
            copied, lacking = lines(browser.get(f"{tool.path}?run={run.id}&verb={verb}").text)
            assert lacking or copied[0].startswith(f"trilemma {verb} runs/vae-digits")


def test_data_a_run_and_a_picture_have_their_lines(browser, studio, run):
    assert lines(browser.get("/data").text)[0] == [
        "trilemma data show digits\ntrilemma data show digits names=true\ntrilemma data check digits",
        'trilemma.show("digits")\ntrilemma.show("digits", names=True)\ntrilemma.check("digits")',
    ]
    assert lines(browser.get(f"/runs/{run.id}").text)[0] == [
        "trilemma sample runs/vae-digits\ntrilemma evaluate runs/vae-digits",
        'trilemma.sample("runs/vae-digits")\ntrilemma.evaluate("runs/vae-digits")',
    ]
    for picture in studio.library.pictures(run):
        file = f"runs/vae-digits/{picture.name}"
        again = [f"trilemma again {file}", f'trilemma.again("{file}")'] if "seed-0" in picture.name else []
        assert lines(browser.get(f"/runs/{run.id}/pictures/{picture.id}/about").text)[0] == again, picture.name


def test_only_what_is_drawn_again_has_the_line_that_does_so():
    for receipt, can in [
        ({"seed": 0}, True),
        ({"seed": 0, "verb": "imagine"}, True),
        ({"seed": 0, "verb": "edit", "pipeline": "owner/name"}, True),
        ({"seed": 0, "verb": "edit"}, False),
        ({"seed": 0, "verb": "traverse", "pipeline": "owner/name"}, False),
        ({"seed": 0, "verb": "traverse"}, False),
        ({"verb": "map"}, False),
        ({}, False),
    ]:
        assert can_be_made_again(receipt) is can
    assert {*OF_PIPELINES} == {*VERBS}


PAGE = """
const listeners = [], shown = { innerHTML: "" }, asked = [];
const form = { dataset: { lines: "#lines" }, addEventListener: (_, action) => listeners.push(action),
               getAttribute: () => "/train" };
const hear = { addEventListener() {} };
globalThis.document = { ...hear, getElementById: () => null, querySelector: () => shown,
                        querySelectorAll: name => name === "form[data-lines]" ? [form] : [] };
globalThis.window = hear;
globalThis.FormData = class {};
globalThis.URLSearchParams = class { toString() { return ""; } };
let closed = false;
globalThis.fetch = async (address, { method }) => {
  asked.push([method, address]);
  if (closed) throw new TypeError("Failed to fetch");
  return { ok: true, text: async () => `answer ${asked.length}` };
};
const act = () => listeners.forEach(one => one());
const rest = () => new Promise(done => setTimeout(done, 300));
"""
RUN = """
(async () => {
  act(); act(); act();
  await rest();
  const typed = [asked.length, shown.innerHTML];
  closed = true;
  act();
  await rest();
  console.log(JSON.stringify([...typed, asked, shown.innerHTML]));
})();
"""


@pytest.mark.skipif(NODE is None, reason="needs node")
def test_the_lines_follow_the_form_when_the_typing_rests():
    file: Path = pages.STATIC["studio.js"][0]
    script = PAGE + file.read_text("utf-8") + RUN
    done = subprocess.run([NODE, "-e", script], capture_output=True, text=True, check=True)
    count, first, asked, last = json.loads(done.stdout)
    assert (count, first, last) == (1, "answer 1", "answer 1") and asked == [["POST", "/train/lines"]] * 2
