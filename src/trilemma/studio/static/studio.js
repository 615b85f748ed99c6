"use strict";
// Live parts of a page, forms that follow a choice, and places to drop a file on. Without it every page still works.

// An element with data-live is fetched anew from that address whenever the server has news.
const live = () => document.querySelectorAll("[data-live]");
let stream = null, pending = false;

async function refresh() {
  if (pending) return;
  pending = true;
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
  pending = false;
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
for (const form of document.querySelectorAll("form[data-into]")) {
  const show = async () => {
    const answer = await fetch(form.action, { method: "POST", body: new FormData(form) });
    document.querySelector(form.dataset.into).innerHTML = await answer.text();
  };
  form.addEventListener("submit", event => { event.preventDefault(); show(); });
  form.addEventListener("change", show);
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
