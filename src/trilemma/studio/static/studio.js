"use strict";
// Live parts of a page, forms that follow a choice, and places to drop a file on. Without it every page still works.

// Asks the server. Where it cannot be reached the page says so, until it answers again, and null is given.
async function askServer(address, options, read = answer => answer.text()) {
  try {
    const answer = await fetch(address, options), content = await (answer.ok ? read(answer) : answer.text());
    sayClosed(false);
    return { ok: answer.ok, content };
  } catch {
    sayClosed(true);
    return null;
  }
}

let leaving = false; // then what is on its way is broken off
window.addEventListener("pagehide", () => { leaving = true; });
window.addEventListener("pageshow", () => { leaving = false; });

function sayClosed(isClosed) {
  const place = document.getElementById("closed");
  if (place && !leaving) place.hidden = !isClosed;
}

// An element with data-live is fetched anew from that address whenever the server has news.
const live = () => document.querySelectorAll("[data-live]");
let stream = null, asking = false, newer = false;

const isInUse = element => element.querySelector(":active,input:focus,select:focus,textarea:focus");

async function refresh() {
  if (asking) { newer = true; return; } // what is on its way may be older than this news
  asking = true;
  for (const element of live()) {
    if (isInUse(element)) { setTimeout(refresh, 500); continue; }
    const answer = await askServer(element.dataset.live);
    if (!answer || !answer.ok || answer.content === element.last) continue;
    if (isInUse(element)) { setTimeout(refresh, 500); continue; } // a button may have been pressed meanwhile
    replace(element, answer.content);
    element.last = answer.content;
  }
  asking = false;
  if (newer) { newer = false; refresh(); }
}

// What has the focus is known again by its id, the address that it leads to, or that of its form.
const nameOf = one => one.id || one.getAttribute("href") || (one.form && one.form.getAttribute("action"));

function focusAgain(element, name) {
  const same = [...element.querySelectorAll("a,button,summary,[tabindex]")].find(one => nameOf(one) === name);
  const place = same || element.querySelector("[data-state]") || element;
  if (!same) place.tabIndex = -1; // it is gone, as Stop is of what has ended: the focus stays near
  place.focus({ preventScroll: true });
}

// A change of the state is read out; the times beside it, which change with all news, are not.
function announce(element) {
  const state = element.querySelector("[data-state]"), text = state ? state.textContent : "";
  if (!element.status) {
    element.status = document.createElement("p");
    element.status.className = "unseen";
    element.status.setAttribute("role", "status");
    element.after(element.status);
  } else if (text !== element.state) {
    element.status.textContent = text;
  }
  element.state = text;
}
live().forEach(announce);

function replace(element, text) {
  const output = element.querySelector(".output"), opened = new Set();
  const focused = element.contains(document.activeElement) ? nameOf(document.activeElement) || "" : null;
  const end = !output || output.scrollTop + output.clientHeight >= output.scrollHeight - 8, place = output && output.scrollTop;
  element.querySelectorAll("details[open]").forEach(one => opened.add(one.id));
  element.innerHTML = text;
  element.querySelectorAll("details").forEach(one => { one.open = one.open || opened.has(one.id); });
  const now = element.querySelector(".output");
  if (now) now.scrollTop = end ? now.scrollHeight : place;
  if (focused !== null) focusAgain(element, focused);
  announce(element);
}

function listen() {
  if (stream || !live().length) return;
  stream = new EventSource("/events");
  stream.addEventListener("news", refresh);
  stream.onerror = () => sayClosed(true);
  stream.onopen = () => sayClosed(false);
}

function leave() {
  if (stream) stream.close();
  stream = null;
}

document.addEventListener("visibilitychange", () => document.hidden ? leave() : listen());
window.addEventListener("pagehide", leave);
window.addEventListener("pageshow", listen);

// On a phone the bar of pages is wider than the window: the page that is open is brought into sight.
function showOpenPage() {
  for (const link of document.querySelectorAll(".bar [aria-current]")) link.scrollIntoView({ block: "nearest", inline: "center" });
}
showOpenPage();
window.addEventListener("resize", showOpenPage);

// A choice that decides which fields there are shows them at once.
for (const select of document.querySelectorAll("select[data-follow]")) {
  select.addEventListener("change", () => select.form.requestSubmit());
}

// What is being done is said at once, in one place of every page; with a share, a bar shows how much of it is done.
function say(text, share) {
  const place = document.getElementById("working");
  if (!place) return;
  const said = place.querySelector("[role=status]"), bar = place.querySelector("progress");
  place.classList.toggle("on", Boolean(text));
  if (said.textContent !== text) said.textContent = text;
  bar.hidden = share === undefined;
  bar.value = share || 0;
}

// A button that was pressed is marked, until its answer is there or the page is left.
document.addEventListener("submit", event => {
  if (event.defaultPrevented) return; // the form has an answer of its own
  say(document.body.dataset.working);
  if (event.submitter) event.submitter.setAttribute("aria-busy", "true");
});
window.addEventListener("pageshow", () => {
  say("");
  document.querySelectorAll("[aria-busy]").forEach(button => button.removeAttribute("aria-busy"));
});

// The fields of a form. A file of a folder is named with its path in it, whose last folder is its class.
const filesOf = form => [...form.querySelectorAll("input[type=file]")].flatMap(field =>
  [...field.files].map((file, k) => [field.name, file, (field.paths && field.paths[k]) || file.webkitRelativePath || file.name])
).filter(([, file]) => !file.name.startsWith("."));

function contentOf(form) {
  const content = new FormData(form);
  for (const field of form.querySelectorAll("input[type=file]")) content.delete(field.name); // an empty one sends a file, too
  for (const [name, file, path] of filesOf(form)) content.append(name, file, path);
  return content;
}

// A form with files is sent with a bar of how much of it has arrived.
function send(form) {
  const { sending, reading } = document.body.dataset, request = new XMLHttpRequest();
  request.upload.onprogress = event => {
    if (event.loaded < event.total) say(sending, event.loaded / event.total);
    else say(reading);
  };
  return new Promise(done => {
    request.onload = () => { say(""); done(request); };
    request.onerror = () => { say(""); sayClosed(true); };
    request.open("POST", form.action);
    say(sending, 0);
    request.send(contentOf(form));
  });
}

// The answer is shown in the place that data-into names; without one, the page that it leads to is opened.
for (const form of document.querySelectorAll("form[enctype='multipart/form-data']")) {
  const place = form.dataset.into && document.querySelector(form.dataset.into);
  form.addEventListener("submit", async event => {
    event.preventDefault();
    const files = filesOf(form), bytes = files.reduce((sum, [, file]) => sum + file.size, 0);
    if (files.length > form.dataset.files || bytes > form.dataset.bytes) return complain(place, form.dataset.most);
    const answer = await send(form), page = parsed(answer.responseText);
    const part = place && page.getElementById(place.id), fault = faultIn(page);
    if (!place && answer.status < 400) {
      say(document.body.dataset.working);
      return location.assign(answer.responseURL);
    }
    if (part) place.innerHTML = part.innerHTML;
    else if (fault) complain(place || form, ...fault);
    else place.innerHTML = page.body.innerHTML; // a part of a page alone
    if (part && answer.status < 400) form.reset();
  });
  if (place && !form.querySelector("button.first")) form.addEventListener("change", () => form.requestSubmit());
}

const parsed = text => new DOMParser().parseFromString(text, "text/html");

// What the page of an error says, and in which language.
function faultIn(page) {
  const fault = page.querySelector("h1 ~ p");
  return fault && [fault.textContent, fault.lang || page.documentElement.lang];
}

// A part of a page is shown in its place; of a request that was refused, why it was.
function showPart(place, answer) {
  if (answer.ok) place.innerHTML = answer.content;
  else complainOf(place, parsed(answer.content));
}

function complainOf(place, page) {
  complain(place, ...(faultIn(page) || [page.body.textContent]));
}

function complain(place, text, language = document.documentElement.lang) {
  const error = place.querySelector(":scope > .error") || document.createElement("p");
  error.className = "error";
  error.lang = language;
  error.setAttribute("role", "alert");
  error.textContent = text;
  place.prepend(error);
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
    const answer = await askServer(button.formAction, { method: "POST", body: new URLSearchParams(new FormData(button.form)) });
    if (own !== asked) return;
    wait.hidden = true;
    if (!answer) return;
    const page = parsed(answer.content), part = page.querySelector(button.dataset.shows);
    if (part) place.innerHTML = part.innerHTML;
    else complainOf(place, page);
  });
  button.form.addEventListener("change", () => { asked++; wait.hidden = true; place.replaceChildren(); });
}

// A form with data-answer asks that address while a handle moves, for its latest place.
for (const form of document.querySelectorAll("form[data-answer]")) {
  const place = document.querySelector(form.dataset.into);
  let asked = false, waiting = false;
  async function ask() {
    if (asked) { waiting = true; return; }
    asked = true;
    const answer = await askServer(`${form.dataset.answer}?${new URLSearchParams(new FormData(form))}`);
    asked = false; // the next move asks again, also after the server was closed
    if (answer) showPart(place, answer);
    if (waiting) { waiting = false; ask(); }
  }
  form.addEventListener("input", ask);
  form.addEventListener("submit", event => { event.preventDefault(); ask(); });
}

// All files of what was dropped: a file itself, or what lies in a folder, in its folders, too.
async function walk(entry, found) {
  if (entry.name.startsWith(".")) return;
  if (entry.isFile) {
    found.push([await new Promise((done, fail) => entry.file(done, fail)), entry.fullPath.slice(1)]);
    return;
  }
  const reader = entry.createReader(), some = () => new Promise((done, fail) => reader.readEntries(done, fail));
  for (let part = await some(); part.length; part = await some()) {
    for (const inner of part) await walk(inner, found);
  }
}

async function dropped(data) {
  const entries = [...data.items].map(item => item.webkitGetAsEntry()), files = [...data.files]; // before any wait
  if (!entries.some(entry => entry && entry.isDirectory)) return files.map(file => [file, file.name]);
  const found = [];
  for (const entry of entries) if (entry) await walk(entry, found);
  return found.sort(([, a], [, b]) => a < b ? -1 : 1); // the order in which a folder is read is not that of its names
}

// Files and folders are dropped on a place with a field for files.
for (const place of document.querySelectorAll(".drop")) {
  const field = place.querySelector("input[type=file]"), name = place.querySelector("input[name=name]");
  place.addEventListener("dragover", event => { event.preventDefault(); place.classList.add("over"); });
  place.addEventListener("dragleave", () => place.classList.remove("over"));
  place.addEventListener("drop", async event => {
    event.preventDefault();
    place.classList.remove("over");
    say(document.body.dataset.reading);
    const found = await dropped(event.dataTransfer).finally(() => say("")), transfer = new DataTransfer();
    const taken = field.multiple ? found : found.slice(0, 1);
    taken.forEach(([file]) => transfer.items.add(file));
    field.files = transfer.files;
    field.paths = taken.map(([, path]) => path);
    field.dispatchEvent(new Event("change", { bubbles: true }));
  });
  place.addEventListener("change", event => {
    if (event.isTrusted && event.target.type === "file") event.target.paths = null; // it was chosen, and not dropped
    if (!name || name.value || event.target.type !== "file") return;
    const [[, , path] = []] = filesOf(place), top = /^(.*?)(?:\/|\.zip$)/i.exec(path || "");
    if (top) name.value = top[1].toLowerCase().replace(/[^a-z0-9]+/g, "-").replace(/^-|-$/g, "").slice(0, 40);
  }, true); // before the form is sent
}

// A part of a page that takes a while is fetched once, after the page is there.
for (const element of document.querySelectorAll("[data-once]")) {
  askServer(element.dataset.once).then(answer => {
    element.replaceChildren(); // what says that it takes a while
    if (answer) showPart(element, answer);
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
    const body = new URLSearchParams(new FormData(form));
    const answer = await askServer(`${form.getAttribute("action")}/lines`, { method: "POST", body });
    if (own === last && answer) showPart(place, answer);
  });
}

// Sliders ask for one picture at a time, always for the latest place of the handles.
function slide(place) {
  const image = place.querySelector("img"), said = place.querySelector("output"), fault = place.querySelector("[data-fault]");
  const handles = [...place.querySelectorAll("input[data-mean]")], styles = [...place.querySelectorAll("[data-style]")];
  const show = planeOf(place, handles, () => draw());
  let asked = false, waiting = false, url = null;
  async function draw() {
    show();
    if (asked) { waiting = true; return; }
    asked = true;
    const begin = performance.now();
    const given = [...handles, ...styles.filter(one => one.value && one.checkValidity())];
    const values = given.map(one => `&${one.name}=${one.value}`).join("");
    const answer = await askServer(place.dataset.sliders + values, {}, answer => answer.blob());
    asked = false;
    if (answer && answer.ok) {
      if (url) URL.revokeObjectURL(url);
      url = URL.createObjectURL(answer.content);
      image.src = url;
      said.textContent = `${Math.round(performance.now() - begin)} ms`;
      fault.replaceChildren();
    } else if (answer) {
      showPart(fault, answer);
    }
    if (waiting) { waiting = false; draw(); }
  }
  const normal = () => Math.sqrt(-2 * Math.log(1 - Math.random())) * Math.cos(2 * Math.PI * Math.random());
  [...handles, ...styles].forEach(one => one.addEventListener("input", draw));
  place.querySelectorAll("[data-set]").forEach(button => button.addEventListener("click", () => {
    const {set} = button.dataset;
    handles.forEach(handle => {
      const {start, mean, std} = handle.dataset;
      handle.value = set === "random" ? +mean + normal() * std : start;
    });
    draw();
  }));
}

// A square whose sides are two handles: the pointer, and the arrows, move both. It gives what puts its mark where they are.
function planeOf(place, handles, draw) {
  const plane = place.querySelector("[data-plane]");
  if (!plane) return () => {};
  const mark = plane.firstElementChild, sides = [...place.querySelectorAll("[data-side]")];
  const along = () => sides.map(side => handles.find(handle => handle.name === side.value));
  const share = handle => (handle.value - handle.min) / (handle.max - handle.min || 1);
  const show = () => {
    const [x, y] = along().map(share);
    mark.style.left = `${100 * x}%`;
    mark.style.top = `${100 * (1 - y)}%`;
  };
  const move = shares => {
    along().forEach((handle, k) => { handle.value = +handle.min + Math.min(Math.max(shares[k], 0), 1) * (handle.max - handle.min); });
    draw();
  };
  const follow = event => {
    const box = plane.getBoundingClientRect();
    move([(event.clientX - box.left) / box.width, 1 - (event.clientY - box.top) / box.height]);
  };
  const arrows = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };
  plane.addEventListener("pointerdown", event => { plane.setPointerCapture(event.pointerId); follow(event); });
  plane.addEventListener("pointermove", event => { if (plane.hasPointerCapture(event.pointerId)) follow(event); });
  plane.addEventListener("keydown", event => {
    const way = arrows[event.key];
    if (!way) return;
    event.preventDefault();
    move(along().map((handle, k) => share(handle) + way[k] * (event.shiftKey ? 0.01 : 0.05)));
  });
  sides.forEach(side => side.addEventListener("change", show));
  show();
  return show;
}

// A file that was chosen, or dropped, is sent at once.
for (const field of document.querySelectorAll("input[data-send]")) {
  field.addEventListener("change", () => field.form.requestSubmit());
}

// A mask is painted over an image in its own pixels, or fewer of a large one, to which the server fits it; the field named
// by data-paint holds it as a PNG, white on black.
const MOST_PAINTED = 1024; // pixels of the longer side: the form holds at most 256 kB
for (const place of document.querySelectorAll("[data-paint]")) {
  const image = place.querySelector("img"), canvas = place.querySelector("canvas");
  const brush = place.querySelector("input[type=range]"), field = document.querySelector(place.dataset.paint);
  const shapes = []; // each the squares of a stroke, or the points around an area
  let shape = null; // that is being painted
  const fit = () => {
    const scale = Math.min(1, MOST_PAINTED / Math.max(image.naturalWidth, image.naturalHeight));
    canvas.width = Math.round(scale * image.naturalWidth) || 1;
    canvas.height = Math.round(scale * image.naturalHeight) || 1;
    draw();
  };

  function paint(ink, colour) {
    ink.fillStyle = colour;
    for (const { lasso, points, size } of shapes) {
      ink.beginPath();
      const corner = middle => Math.floor(middle - (size - 1) / 2);
      for (const [x, y] of points) lasso ? ink.lineTo(x, y) : ink.rect(corner(x), corner(y), size, size);
      ink.fill();
    }
  }

  function draw() {
    const pen = canvas.getContext("2d");
    pen.clearRect(0, 0, canvas.width, canvas.height);
    paint(pen, getComputedStyle(canvas).color);
  }

  function add(event) {
    const box = canvas.getBoundingClientRect();
    const x = (event.clientX - box.left) / box.width * canvas.width, y = (event.clientY - box.top) / box.height * canvas.height;
    const [fromX, fromY] = shape.points.at(-1) || [x, y];
    const steps = Math.ceil(Math.max(Math.abs(x - fromX), Math.abs(y - fromY))) || 1; // of a pixel: a stroke has no gaps
    for (let k = 1; k <= steps; k++) shape.points.push([fromX + (x - fromX) * k / steps, fromY + (y - fromY) * k / steps]);
  }

  function keep() {
    draw();
    const whole = document.createElement("canvas"), ink = whole.getContext("2d");
    whole.width = canvas.width;
    whole.height = canvas.height;
    ink.fillRect(0, 0, whole.width, whole.height); // black
    paint(ink, "white");
    field.value = shapes.length ? whole.toDataURL("image/png") : "";
  }

  canvas.addEventListener("pointerdown", event => {
    const lasso = place.querySelector("input[type=radio]:checked").value === "lasso";
    shape = { lasso, points: [], size: Math.round(brush.value * canvas.width / 64) || 1 };
    canvas.setPointerCapture(event.pointerId);
    shapes.push(shape);
    add(event);
    draw();
  });
  canvas.addEventListener("pointermove", event => {
    if (!shape) return;
    event.getCoalescedEvents().forEach(one => add(one));
    draw();
  });
  canvas.addEventListener("pointerup", () => {
    if (shape && shape.lasso && shape.points.length < 3) shapes.pop(); // no area
    shape = null;
    keep();
  });
  canvas.addEventListener("pointercancel", () => { if (shape) shapes.pop(); shape = null; keep(); });
  place.querySelector("[data-do=undo]").addEventListener("click", () => { shapes.pop(); keep(); });
  place.querySelector("[data-do=clear]").addEventListener("click", () => { shapes.length = 0; keep(); });
  image.complete ? fit() : image.addEventListener("load", fit);
}
