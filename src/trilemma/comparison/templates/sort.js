"use strict";
// A table is sorted by a column when its head is pressed, and the other way round when it is pressed again. On a phone,
// where the rows of a table are blocks, the heads stand above them behind the words "Sort by".
const words = document.currentScript.dataset.sort;
for (const table of document.querySelectorAll("table.figures")) {
  const head = table.tHead.rows[0], body = table.tBodies[0];
  if (body.rows.length < 2) continue;
  head.dataset.sort = words;
  const value = (row, column) => {
    const cell = row.cells[column], data = cell && cell.querySelector("data");
    const text = cell ? cell.textContent.trim() : "";
    const number = parseFloat(data ? data.value : text.replaceAll(",", ""));
    return Number.isNaN(number) ? text : number;
  };
  const compare = (a, b, sign) => { // what is empty, and texts among numbers, come last
    if (a === "" || b === "") return (a === "") - (b === "");
    if (typeof a !== typeof b) return typeof a === "number" ? -1 : 1;
    return sign * (typeof a === "number" ? a - b : a.localeCompare(b));
  };
  [...head.cells].forEach((cell, column) => {
    const button = document.createElement("button");
    button.append(...cell.childNodes);
    cell.append(button);
    button.addEventListener("click", () => {
      const sign = cell.getAttribute("aria-sort") === "ascending" ? -1 : 1;
      for (const other of head.cells) other.removeAttribute("aria-sort");
      cell.setAttribute("aria-sort", sign === 1 ? "ascending" : "descending");
      const groups = []; // a row and what is said of it
      for (const row of body.rows) row.classList.contains("said") ? groups.at(-1).push(row) : groups.push([row]);
      groups.sort(([a], [b]) => compare(value(a, column), value(b, column), sign));
      body.append(...groups.flat());
    });
  });
}
