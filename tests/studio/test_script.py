"""The script of the pages, in node with a page of a few objects: what happens when the server does not answer, or
refuses."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from trilemma.studio import pages

NODE = shutil.which("node")
PAGE = """
const listeners = {}, later = setTimeout, rejected = [], wait = { hidden: true }, notice = { hidden: true };
const hear = { addEventListener(name, action) { (listeners[name] ||= []).push(action); } };
const place = () => ({
  html: "", error: null, querySelector() { return this.error; }, querySelectorAll: () => [],
  get innerHTML() { return this.html; }, set innerHTML(text) { this.html = text; this.error = null; },
  replaceChildren() { this.innerHTML = ""; }, prepend(error) { this.error = error; },
  get text() { return this.error ? `fault: ${this.error.textContent}` : this.innerHTML.slice(0, 6); },
});
const shown = place(), lines = place(), fault = place(), waits = Object.assign(place(), { dataset: { once: "/once" } });
waits.innerHTML = "a few seconds";
const form = { ...hear, dataset: { answer: "/ask", into: "#shown" }, reportValidity: () => true };
const filled = { ...hear, dataset: { lines: "#lines" }, getAttribute: () => "/train" };
const button = { ...hear, dataset: { shows: "#shown" }, formAction: "/shows", form };
const handle = { ...hear, name: "u1", value: 1 }, image = {}, said = {};
const sliders = { dataset: { sliders: "/picture?run=x" },
                  querySelector: name => ({ img: image, output: said, "[data-fault]": fault })[name] || null,
                  querySelectorAll: name => name.startsWith("input") ? [handle] : [] };
const parts = { "form[data-answer]": [form], "form[data-lines]": [filled], "button[data-shows]": [button],
                "[data-once]": [waits] };
globalThis.document = { ...hear, querySelectorAll: name => parts[name] || [], documentElement: { lang: "en" },
                        querySelector: name => name === "#lines" ? lines : shown,
                        getElementById: name => ({ measuring: wait, closed: notice })[name] || null,
                        createElement: () => ({ setAttribute() {} }) };
globalThis.window = hear;
globalThis.FormData = class {};
globalThis.URLSearchParams = class { toString() { return ""; } };
globalThis.DOMParser = class {
  parseFromString(text) {
    const has = text.startsWith("why") ? "h1 ~ p" : "#shown", part = { textContent: text, innerHTML: text, lang: "" };
    return { querySelector: name => name === has ? part : null, body: part, documentElement: { lang: "en" } };
  }
};
globalThis.setTimeout = work => later(work, 0);
URL.createObjectURL = () => "blob:1";
URL.revokeObjectURL = () => {};
process.on("unhandledRejection", error => rejected.push(String(error)));
let state = "closed", count = 0;
globalThis.fetch = async () => {
  count += 1;
  if (state === "closed") throw new TypeError("Failed to fetch");
  const ok = state === "open";
  return { ok, text: async () => ok ? `answer ${count}` : "why not", blob: async () => 1 };
};
const act = async name => {
  listeners[name].forEach(one => one({ preventDefault() {} }));
  await new Promise(done => later(done, 10));
};
"""
RUN = """
(async () => {
  const seen = {};
  slide(sliders);
  for (state of ["closed", "refused", "closed", "open"]) {
    await act("input");
    const moved = shown.text;
    shown.replaceChildren();
    await act("click");
    (seen[state] ||= []).push({ moved, clicked: shown.text, lines: lines.text, sliders: fault.text, image: image.src,
                                waits: waits.innerHTML, busy: !wait.hidden, closed: !notice.hidden });
  }
  console.log(JSON.stringify({ ...seen, rejected }));
})();
"""


@pytest.fixture(scope="module")
def seen():
    """What the page shows after a move, a click and a change of a form, in each state of the server."""
    if NODE is None:
        pytest.skip("needs node")
    file: Path = pages.STATIC["studio.js"][0]
    script = PAGE + file.read_text("utf-8") + RUN
    done = subprocess.run([NODE, "-e", script], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def test_a_page_says_that_the_server_does_not_answer(seen):
    first, again = seen["closed"]
    assert first["closed"] and again["closed"] and seen["rejected"] == []
    assert first["waits"] == "" and not first["busy"] and "image" not in first
    assert {first[name] for name in ("moved", "clicked", "lines", "sliders")} == {""}


def test_a_request_that_is_refused_says_why(seen):
    (refused,) = seen["refused"]
    assert {refused[name] for name in ("moved", "clicked", "lines", "sliders")} == {"fault: why not"}
    assert not refused["closed"] and not refused["busy"] and "image" not in refused


def test_a_control_works_again_after_the_server_did_not_answer(seen):
    (answered,) = seen["open"]
    assert {answered[name] for name in ("moved", "clicked", "lines")} == {"answer"} and answered["image"] == "blob:1"
    assert answered["sliders"] == "" and not answered["closed"] and not answered["busy"]
