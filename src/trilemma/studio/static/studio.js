"use strict";
// Live parts of a page, forms that follow a choice, and places to drop a file on. Without it every page still works.

// An element with data-live is fetched anew from that address whenever the server has news.
const live = () => document.querySelectorAll("[data-live]");
let stream = null, asking = false, newer = false;

async function refresh() {
  if (asking) { newer = true; return; } // what is on its way may be older than this news
  asking = true;
  for (const element of live()) {
    if (element.contains(document.activeElement) && document.activeElement.matches("input,select,textarea")) continue;
    try {
      const answer = await fetch(element.dataset.live);
      if (!answer.ok) continue;
      const text = await answer.text();
      if (text !== element.last) replace(element, text);
      element.last = text;
    } catch { /* the server is closed: the stream says so */ }
  }
  asking = false;
  if (newer) { newer = false; refresh(); }
}

function replace(element, text) {
  const output = element.querySelector(".output"), opened = new Set();
  const end = !output || output.scrollTop + output.clientHeight >= output.scrollHeight - 8, place = output && output.scrollTop;
  element.querySelectorAll("details[open]").forEach(one => opened.add(one.id));
  element.innerHTML = text;
  element.querySelectorAll("details").forEach(one => { one.open = one.open || opened.has(one.id); });
  const now = element.querySelector(".output");
  if (now) now.scrollTop = end ? now.scrollHeight : place;
}

function listen() {
  if (stream || !live().length) return;
  stream = new EventSource("/events");
  stream.addEventListener("news", refresh);
  const closed = document.getElementById("closed");
  stream.onerror = () => { if (closed) closed.hidden = false; };
  stream.onopen = () => { if (closed) closed.hidden = true; };
}

function leave() {
  if (stream) stream.close();
  stream = null;
}

document.addEventListener("visibilitychange", () => document.hidden ? leave() : listen());
window.addEventListener("pagehide", leave);
window.addEventListener("pageshow", listen);

// A choice that decides which fields there are shows them at once.
for (const select of document.querySelectorAll("select[data-follow]")) {
  select.addEventListener("change", () => select.form.requestSubmit());
}

// A button that was pressed says so.
document.addEventListener("submit", event => {
  const button = event.submitter;
  if (button && event.target.method === "post" && !event.target.dataset.into) button.setAttribute("aria-busy", "true");
});
window.addEventListener("pageshow", () => {
  document.querySelectorAll("[aria-busy]").forEach(button => button.removeAttribute("aria-busy"));
});

// A form with data-into shows the answer there, and leaves the rest of the page as it is.
for (const form of document.querySelectorAll("form[data-into]:not([data-answer])")) {
  const show = async () => {
    const answer = await fetch(form.action, { method: "POST", body: new FormData(form) });
    document.querySelector(form.dataset.into).innerHTML = await answer.text();
  };
  form.addEventListener("submit", event => { event.preventDefault(); show(); });
  form.addEventListener("change", show);
}

// A button with data-shows asks for a page and shows a part of it, which is true until the form is changed.
for (const button of document.querySelectorAll("button[data-shows]")) {
  const place = document.querySelector(button.dataset.shows), wait = document.getElementById("measuring");
  let asked = 0;
  button.addEventListener("click", async event => {
    event.preventDefault();
    if (!button.form.reportValidity()) return;
    const own = ++asked;
    place.replaceChildren();
    wait.hidden = false;
    let text;
    try {
      const answer = await fetch(button.formAction, { method: "POST", body: new URLSearchParams(new FormData(button.form)) });
      text = await answer.text();
    } finally {
      if (own === asked) wait.hidden = true; // also where the server is closed
    }
    if (own !== asked) return;
    const page = new DOMParser().parseFromString(text, "text/html");
    place.innerHTML = (page.querySelector(button.dataset.shows) || page.body).innerHTML;
  });
  button.form.addEventListener("change", () => { asked++; wait.hidden = true; place.replaceChildren(); });
}

// A form with data-answer asks that address while a handle moves, for its latest place.
for (const form of document.querySelectorAll("form[data-answer]")) {
  let asked = false, waiting = false;
  async function ask() {
    if (asked) { waiting = true; return; }
    asked = true;
    try {
      const answer = await fetch(`${form.dataset.answer}?${new URLSearchParams(new FormData(form))}`);
      if (answer.ok) document.querySelector(form.dataset.into).innerHTML = await answer.text();
    } finally {
      asked = false; // the next move asks again, also after the server was closed
    }
    if (waiting) { waiting = false; ask(); }
  }
  form.addEventListener("input", ask);
  form.addEventListener("submit", event => { event.preventDefault(); ask(); });
}

// Files are dropped on a place with a field for files.
for (const place of document.querySelectorAll(".drop")) {
  const field = place.querySelector("input[type=file]");
  place.addEventListener("dragover", event => { event.preventDefault(); place.classList.add("over"); });
  place.addEventListener("dragleave", () => place.classList.remove("over"));
  place.addEventListener("drop", event => {
    event.preventDefault();
    place.classList.remove("over");
    field.files = event.dataTransfer.files;
    field.dispatchEvent(new Event("change", { bubbles: true }));
  });
}

// A part of a page that takes a while is fetched once, after the page is there.
for (const element of document.querySelectorAll("[data-once]")) {
  fetch(element.dataset.once).then(async answer => {
    const text = await answer.text();
    const whole = new DOMParser().parseFromString(text, "text/html").querySelector("main");
    element.innerHTML = whole ? whole.innerHTML : text;
    element.querySelectorAll("[data-sliders]").forEach(slide);
  });
}

// A form with data-lines shows there the command line and the line of Python of what is filled in.
for (const form of document.querySelectorAll("form[data-lines]")) {
  const place = document.querySelector(form.dataset.lines);
  let last = 0;
  form.addEventListener("input", async () => {
    const own = ++last;
    await new Promise(done => setTimeout(done, 200)); // until the typing rests
    if (own !== last) return;
    try {
      const body = new URLSearchParams(new FormData(form));
      const answer = await fetch(`${form.getAttribute("action")}/lines`, { method: "POST", body });
      const text = await answer.text();
      if (own === last && answer.ok) place.innerHTML = text;
    } catch { /* the server is closed: the next change asks again */ }
  });
}

// Sliders ask for one picture at a time, always for the latest place of the handles.
function slide(place) {
  const image = place.querySelector("img"), said = place.querySelector("output");
  const handles = [...place.querySelectorAll("input[type=range]")];
  let asked = false, waiting = false, url = null;
  async function draw() {
    if (asked) { waiting = true; return; }
    asked = true;
    const begin = performance.now();
    const values = handles.map(handle => `&${handle.name}=${handle.value}`).join("");
    try {
      const answer = await fetch(place.dataset.sliders + values);
      if (answer.ok) {
        const content = await answer.blob();
        if (url) URL.revokeObjectURL(url);
        url = URL.createObjectURL(content);
        image.src = url;
        said.textContent = `${Math.round(performance.now() - begin)} ms`;
      }
    } finally {
      asked = false;
    }
    if (waiting) { waiting = false; draw(); }
  }
  const normal = () => Math.sqrt(-2 * Math.log(1 - Math.random())) * Math.cos(2 * Math.PI * Math.random());
  handles.forEach(handle => handle.addEventListener("input", draw));
  place.querySelectorAll("[data-set]").forEach(button => button.addEventListener("click", () => {
    const spread = button.dataset.set === "random" ? 1 : 0;
    handles.forEach(handle => { handle.value = +handle.dataset.mean + spread * normal() * handle.dataset.std; });
    draw();
  }));
}

// A file that was chosen, or dropped, is sent at once.
for (const field of document.querySelectorAll("input[data-send]")) {
  field.addEventListener("change", () => field.form.requestSubmit());
}

// A mask is painted over an image in its own pixels; the field named by data-paint holds it as a PNG, white on black.
for (const place of document.querySelectorAll("[data-paint]")) {
  const image = place.querySelector("img"), canvas = place.querySelector("canvas");
  const brush = place.querySelector("input"), field = document.querySelector(place.dataset.paint);
  const pen = canvas.getContext("2d"), strokes = [];
  let painting = false;
  const fit = () => { canvas.width = image.naturalWidth; canvas.height = image.naturalHeight; draw(); };

  function draw() {
    pen.clearRect(0, 0, canvas.width, canvas.height);
    pen.fillStyle = "white";
    for (const [x, y, size] of strokes.flat()) pen.fillRect(x, y, size, size);
  }

  function point(event) {
    const box = canvas.getBoundingClientRect(), size = Math.round(brush.value * canvas.width / 64) || 1;
    const x = (event.clientX - box.left) / box.width * canvas.width, y = (event.clientY - box.top) / box.height * canvas.height;
    return [Math.floor(x - (size - 1) / 2), Math.floor(y - (size - 1) / 2), size];
  }

  function keep() {
    draw();
    const whole = document.createElement("canvas");
    whole.width = canvas.width;
    whole.height = canvas.height;
    const ink = whole.getContext("2d");
    ink.fillStyle = "black";
    ink.fillRect(0, 0, whole.width, whole.height);
    ink.drawImage(canvas, 0, 0);
    field.value = strokes.length ? whole.toDataURL("image/png") : "";
  }

  canvas.addEventListener("pointerdown", event => {
    painting = true;
    canvas.setPointerCapture(event.pointerId);
    strokes.push([point(event)]);
    draw();
  });
  canvas.addEventListener("pointermove", event => {
    if (!painting) return;
    event.getCoalescedEvents().forEach(one => strokes.at(-1).push(point(one)));
    draw();
  });
  canvas.addEventListener("pointerup", () => { painting = false; keep(); });
  place.querySelector("[data-do=undo]").addEventListener("click", () => { strokes.pop(); keep(); });
  place.querySelector("[data-do=clear]").addEventListener("click", () => { strokes.length = 0; keep(); });
  image.complete ? fit() : image.addEventListener("load", fit);
}
