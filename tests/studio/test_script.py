"""The script of the pages, in node with a page of a few objects: what happens when the server does not answer."""

import shutil
import subprocess
from pathlib import Path

import pytest

from trilemma.studio import pages

NODE = shutil.which("node")
PAGE = """
const listeners = {}, shown = { replaceChildren() { this.innerHTML = ""; }, innerHTML: "" }, wait = { hidden: true };
const hear = { addEventListener(name, action) { (listeners[name] ||= []).push(action); } };
const form = { ...hear, dataset: { answer: "/ask", into: "#shown" }, reportValidity: () => true };
const button = { ...hear, dataset: { shows: "#shown" }, formAction: "/shows", form };
const handle = { ...hear, name: "u1", value: 1 }, image = {}, said = {};
const place = { dataset: { sliders: "/picture?run=x" },
                querySelector: name => ({ img: image, output: said })[name] || null,
                querySelectorAll: name => name.startsWith("input") ? [handle] : [] };
const parts = { "form[data-answer]": [form], "button[data-shows]": [button] };
globalThis.document = { ...hear, querySelectorAll: name => parts[name] || [], querySelector: () => shown,
                        getElementById: name => name === "measuring" ? wait : null };
globalThis.window = hear;
globalThis.FormData = class {};
globalThis.URLSearchParams = class { toString() { return ""; } };
globalThis.DOMParser = class {
  parseFromString(text) { return { querySelector: () => null, body: { innerHTML: text } }; }
};
URL.createObjectURL = () => "blob:1";
process.on("unhandledRejection", () => {});
let closed = true, count = 0;
globalThis.fetch = async () => {
  count += 1;
  if (closed) throw new TypeError("Failed to fetch");
  return { ok: true, text: async () => `answer ${count}`, blob: async () => ({}) };
};
const act = async name => {
  listeners[name].forEach(one => one({ preventDefault() {} }));
  await new Promise(done => setTimeout(done, 1));
};
"""
RUN = """
(async () => {
  slide(place);
  await act("input");
  await act("click");
  const failed = [shown.innerHTML, image.src, wait.hidden];
  closed = false;
  await act("input");
  const moved = [shown.innerHTML.slice(0, 6), image.src];
  shown.innerHTML = "";
  await act("click");
  console.log(JSON.stringify([failed, moved, shown.innerHTML.slice(0, 6), wait.hidden]));
})();
"""


@pytest.mark.skipif(NODE is None, reason="needs node")
def test_a_control_works_again_after_the_server_did_not_answer():
    file: Path = pages.STATIC["studio.js"][0]
    script = PAGE + file.read_text("utf-8") + RUN
    done = subprocess.run([NODE, "-e", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == '[["",null,true],["answer","blob:1"],"answer",true]', done.stderr
