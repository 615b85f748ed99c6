// The map of codes: points on a canvas, their thumbnails from one sheet, and what is under the pointer or has the focus.

const DOT = 3, SPACE = 6, NEAR = 14, CLICK = 5; // px: radius of a point, space between thumbnails, reach of the pointer, of a click
const LARGEST_TILE = 48, TIP = 96; // px: sides of a thumbnail on the map, and of the one beside the pointer
const ONE_COLOUR = "#3b7dc0"; // of images without classes
const LISTED = 60; // selected images that are listed
const STEPS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

const mixed = k => Math.imul(k + 1, 2654435761) >>> 0; // the same order each time
for (const place of document.querySelectorAll("[data-map]")) load(place);

async function load(place) {
  const answer = await askServer(place.dataset.map, {}, answer => answer.json());
  if (answer && answer.ok) start(place, answer.content);
  else place.querySelector(".map-said").textContent = place.dataset.failed;
}

function start(place, data) {
  const find = selector => place.querySelector(selector);
  const canvas = find(".map-points"), marks = find(".map-marks"), tip = find(".map-tip"), said = find(".map-said");
  const pen = canvas.getContext("2d"), overlay = marks.getContext("2d"), sheet = new Image();
  const count = data.x.length, x = new Float32Array(count), y = new Float32Array(count); // places in px, as now shown
  const chosen = new Set(), view = { scale: 1, left: 0, top: 0 };
  const order = [...data.x.keys()].sort((a, b) => mixed(a) - mixed(b)); // of thumbnails: no class before the others
  const tiles = new Map(); // the thumbnails that are drawn: row by cell of a grid
  let width = 0, height = 0, hovered = -1, current = -1, path = [], from = null;

  // --- places: the data fill the window at scale 1, and as much is shown of both axes
  const low = values => values.reduce((a, b) => Math.min(a, b)), high = values => values.reduce((a, b) => Math.max(a, b));
  const [left, right, bottom, top] = [low(data.x), high(data.x), low(data.y), high(data.y)];

  function fit() {
    width = canvas.clientWidth;
    height = canvas.clientHeight;
    for (const one of [canvas, marks]) {
      one.width = width * devicePixelRatio;
      one.height = height * devicePixelRatio;
      one.getContext("2d").setTransform(devicePixelRatio, 0, 0, devicePixelRatio, 0, 0);
    }
    draw();
  }

  function settle() {
    const unit = view.scale * Math.min((width - 40) / (right - left || 1), (height - 40) / (top - bottom || 1));
    const [middleX, middleY] = [(left + right) / 2, (bottom + top) / 2];
    for (let k = 0; k < count; k++) {
      x[k] = width / 2 + view.left + (data.x[k] - middleX) * unit;
      y[k] = height / 2 + view.top - (data.y[k] - middleY) * unit;
    }
  }

  const colour = k => data.class ? data.classes[data.class[k]].colour : ONE_COLOUR;
  const inside = k => x[k] > -DOT && x[k] < width + DOT && y[k] > -DOT && y[k] < height + DOT;

  function draw() {
    settle();
    pen.clearRect(0, 0, width, height);
    for (let k = 0; k < count; k++) {
      if (!inside(k)) continue;
      pen.globalAlpha = chosen.size && !chosen.has(k) ? 0.25 : 0.9;
      pen.fillStyle = colour(k);
      pen.fillRect(x[k] - DOT, y[k] - DOT, 2 * DOT, 2 * DOT);
    }
    pen.globalAlpha = 1;
    tiles.clear();
    if (find("[data-do=thumbnails]").checked && sheet.naturalWidth) drawThumbnails();
    drawMarks();
  }

  function drawThumbnails() { // each on its point where it stays clear of those before
    const side = Math.min(LARGEST_TILE, Math.max(24, data.side_px)), cell = side + SPACE;
    pen.imageSmoothingEnabled = side < data.side_px;
    const clear = k => {
      const [column, row] = [Math.floor(x[k] / cell), Math.floor(y[k] / cell)];
      for (let i = column - 1; i <= column + 1; i++) {
        for (let j = row - 1; j <= row + 1; j++) {
          const other = tiles.get(`${i},${j}`);
          if (other !== undefined && Math.abs(x[other] - x[k]) < cell && Math.abs(y[other] - y[k]) < cell) return false;
        }
      }
      return tiles.set(`${column},${row}`, k);
    };
    for (const k of order) {
      if (!inside(k) || (chosen.size && !chosen.has(k)) || !clear(k)) continue;
      pen.fillStyle = colour(k);
      pen.fillRect(x[k] - side / 2 - 2, y[k] - side / 2 - 2, side + 4, side + 4);
      thumbnail(pen, k, x[k] - side / 2, y[k] - side / 2, side);
    }
    tiles.side = side;
  }

  function thumbnail(to, k, cornerX, cornerY, side) {
    const own = data.side_px, column = k % data.columns, row = Math.floor(k / data.columns);
    to.drawImage(sheet, column * own, row * own, own, own, cornerX, cornerY, side, side);
  }

  function ring(k, radius) {
    overlay.beginPath();
    overlay.arc(x[k], y[k], radius, 0, 2 * Math.PI);
    overlay.stroke();
  }

  function drawMarks() {
    overlay.clearRect(0, 0, width, height);
    overlay.strokeStyle = getComputedStyle(marks).color;
    overlay.lineWidth = 2;
    if (hovered >= 0) ring(hovered, 7);
    if (current >= 0) { ring(current, 7); ring(current, 11); }
    if (path.length > 1) {
      overlay.setLineDash([4, 4]);
      overlay.beginPath();
      path.forEach(([a, b]) => overlay.lineTo(a, b));
      overlay.closePath();
      overlay.stroke();
      overlay.setLineDash([]);
    }
  }

  // --- what an image is called, and its thumbnail on a canvas of its own
  function words(k) {
    const parts = [place.dataset.image.replace("%", data.index[k])];
    if (data.class) parts.push(data.classes[data.class[k]].name);
    if (data.file) parts.push(data.file[k]);
    return parts.join(", ");
  }

  function paint(one, k, side) {
    one.width = one.height = side;
    const ink = one.getContext("2d");
    ink.imageSmoothingEnabled = false;
    if (sheet.naturalWidth) thumbnail(ink, k, 0, 0, side);
  }

  const paintAll = () => place.querySelectorAll("canvas[data-row]").forEach(one => paint(one, +one.dataset.row, LARGEST_TILE));

  // --- the pointer
  function nearest(atX, atY, reach) {
    let best = -1, least = reach * reach;
    for (let k = 0; k < count; k++) {
      const apart = (x[k] - atX) ** 2 + (y[k] - atY) ** 2;
      if (apart < least) { least = apart; best = k; }
    }
    return best;
  }

  function under(at) { // the thumbnail there, else the nearest point
    for (const k of tiles.values()) {
      if (Math.max(Math.abs(x[k] - at[0]), Math.abs(y[k] - at[1])) <= tiles.side / 2) return k;
    }
    return nearest(...at, NEAR);
  }

  function hover(k) {
    if (k === hovered) return;
    hovered = k;
    tip.hidden = k < 0;
    if (k >= 0) {
      paint(tip.querySelector("canvas"), k, TIP);
      tip.querySelector("span").textContent = words(k);
      tip.style.left = `${Math.min(x[k] + 14, Math.max(0, width - TIP - 60))}px`;
      tip.style.top = `${y[k] + 14 + TIP + 40 > height ? Math.max(0, y[k] - TIP - 54) : y[k] + 14}px`;
    }
    drawMarks();
  }

  const spot = event => {
    const box = marks.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  };
  const moves = () => find("input[name=tool]:checked").value === "move";

  marks.addEventListener("pointerdown", event => {
    if (event.button) return;
    marks.setPointerCapture(event.pointerId);
    from = { at: spot(event), left: view.left, top: view.top };
    path = [from.at];
  });
  marks.addEventListener("pointermove", event => {
    const at = spot(event);
    if (!from) return hover(under(at));
    hover(-1);
    if (moves()) {
      view.left = from.left + at[0] - from.at[0];
      view.top = from.top + at[1] - from.at[1];
      return later(draw);
    }
    path.push(at);
    drawMarks();
  });
  marks.addEventListener("pointerup", event => {
    if (!from) return;
    const at = spot(event), far = path.some(([a, b]) => Math.hypot(a - from.at[0], b - from.at[1]) > CLICK);
    const moved = Math.hypot(at[0] - from.at[0], at[1] - from.at[1]) > CLICK, lasso = !moves() && far, line = path;
    from = null;
    path = [];
    if (lasso) select(within(line), event.shiftKey);
    else if (!moved && under(at) >= 0) show(under(at));
    drawMarks();
  });
  marks.addEventListener("pointercancel", () => { from = null; path = []; drawMarks(); });
  marks.addEventListener("pointerleave", () => hover(-1));
  marks.addEventListener("wheel", event => {
    if (document.activeElement !== marks && !event.ctrlKey) return; // the page scrolls
    event.preventDefault();
    zoom(event.deltaY < 0 ? 1.25 : 0.8, ...spot(event));
  }, { passive: false });

  function within(line) { // the even-odd rule
    const rows = [];
    for (let k = 0; k < count; k++) {
      let odd = false;
      for (let i = 0, j = line.length - 1; i < line.length; j = i++) {
        const [ax, ay] = line[i], [bx, by] = line[j];
        if ((ay > y[k]) !== (by > y[k]) && x[k] < (bx - ax) * (y[k] - ay) / (by - ay) + ax) odd = !odd;
      }
      if (odd) rows.push(k);
    }
    return rows;
  }

  let asked = 0;
  function later(work) {
    cancelAnimationFrame(asked);
    asked = requestAnimationFrame(work);
  }

  function zoom(factor, atX = width / 2, atY = height / 2) {
    const scale = Math.min(200, Math.max(1, view.scale * factor)), by = scale / view.scale;
    view.left = (view.left + width / 2 - atX) * by + atX - width / 2;
    view.top = (view.top + height / 2 - atY) * by + atY - height / 2;
    view.scale = scale;
    if (scale === 1) view.left = view.top = 0;
    hover(-1);
    later(draw);
  }

  function whole() {
    Object.assign(view, { scale: 1, left: 0, top: 0 });
    draw();
  }

  // --- the keys
  function step([dx, dy]) {
    if (current < 0) return go(nearest(width / 2, height / 2, Infinity));
    let best = -1, least = Infinity;
    for (let k = 0; k < count; k++) {
      const along = (x[k] - x[current]) * dx + (y[k] - y[current]) * dy;
      const across = Math.abs((x[k] - x[current]) * dy) + Math.abs((y[k] - y[current]) * dx);
      if (k !== current && along > 0 && across <= along && along + across < least) { least = along + across; best = k; }
    }
    if (best >= 0) go(best);
  }

  function go(k) {
    current = k;
    if (!inside(k)) {
      view.left += width / 2 - x[k];
      view.top += height / 2 - y[k];
      draw();
    }
    hover(k);
    drawMarks();
    said.textContent = words(k);
  }

  marks.addEventListener("keydown", event => {
    const around = current >= 0 ? [x[current], y[current]] : [];
    const actions = {
      Enter: () => current >= 0 && show(current), " ": () => current >= 0 && toggle(current),
      "+": () => zoom(1.25, ...around), "=": () => zoom(1.25, ...around), "-": () => zoom(0.8, ...around),
      Home: whole, Escape: () => select([], false),
    };
    const action = STEPS[event.key] ? () => step(STEPS[event.key]) : actions[event.key];
    if (!action || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    action();
  });
  marks.addEventListener("blur", () => hover(-1));

  // --- the selection
  function toggle(k) {
    chosen.has(k) ? chosen.delete(k) : chosen.add(k);
    listChosen();
  }

  function select(rows, adds) {
    if (!adds) chosen.clear();
    rows.forEach(k => chosen.add(k));
    listChosen();
  }

  function listChosen() {
    const rows = [...chosen], section = find(".map-chosen"), between = find("[data-between]");
    const text = place.dataset.chosen.replace("%", rows.length);
    section.hidden = !rows.length;
    find("[data-count]").textContent = rows.length > LISTED ? `${text}; ${place.dataset.shown.replace("%", LISTED)}` : text;
    said.textContent = text;
    section.querySelector("[name=rows]").value = rows.join(",");
    section.querySelector("ul").replaceChildren(...rows.slice(0, LISTED).map(k => {
      const item = document.createElement("li"), button = document.createElement("button"), small = document.createElement("canvas");
      button.type = "button";
      button.className = "plain";
      button.dataset.row = k;
      paint(small, k, LARGEST_TILE);
      button.append(small, words(k));
      item.append(button);
      return item;
    }));
    between.hidden = rows.length !== 2 || "never" in between.dataset;
    if (!between.hidden) between.href = `${between.dataset.between}&a=${data.index[rows[0]]}&b=${data.index[rows[1]]}`;
    draw();
  }

  async function show(k) {
    go(k);
    const answer = await askServer(`${place.dataset.nearest}&row=${k}`);
    if (!answer || current !== k) return;
    showPart(find(".map-nearest"), answer); // of our own template, in which all texts are escaped
    if (!answer.ok) return;
    find("#map-image").value = data.index[k];
    paintAll();
  }

  place.addEventListener("click", event => {
    const link = event.target.closest("a[data-row],button[data-row]");
    if (!link) return;
    event.preventDefault();
    show(+link.dataset.row);
  });
  find("form[action$=chosen]").addEventListener("submit", event => { // the answer is a file, and the page stays
    setTimeout(() => { event.submitter.removeAttribute("aria-busy"); say(""); }, 500);
  });
  const actions = { in: () => zoom(1.5), out: () => zoom(1 / 1.5), all: whole, clear: () => select([], false) };
  for (const [name, action] of Object.entries(actions)) find(`button[data-do=${name}]`).addEventListener("click", action);
  find("[data-do=thumbnails]").addEventListener("change", draw);
  for (const [kind, one] of data.classes.entries()) {
    const button = document.createElement("button"), swatch = document.createElement("span");
    button.type = "button";
    swatch.className = "swatch";
    swatch.style.background = one.colour;
    button.append(swatch, one.name);
    button.addEventListener("click", event => select([...data.class.keys()].filter(k => data.class[k] === kind), event.shiftKey));
    find(".map-classes").append(button);
  }
  new ResizeObserver(fit).observe(canvas);
  sheet.addEventListener("load", () => { draw(); paintAll(); place.dataset.ready = "true"; });
  sheet.src = place.dataset.sheet;
  fit();
}
