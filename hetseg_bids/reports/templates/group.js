// The cohort's list and plots. Text from files only ever becomes text nodes and attributes.
{
  const data = JSON.parse(document.getElementById("data").textContent);
  const PAGE = 100;
  const byId = (id) => document.getElementById(id);
  const make = (tag, text, attributes = {}) => {
    const element = document.createElement(tag);
    if (text !== undefined) element.textContent = text;
    Object.entries(attributes).forEach(([key, value]) => element.setAttribute(key, value));
    return element;
  };
  const address = (i) => "./" + data.page[i].split("/").map(encodeURIComponent).join("/");
  let shown = [];
  let rows = PAGE;

  // filters
  for (const [name, values] of Object.entries(data.columns)) {
    const select = make("select", undefined, { "data-column": name });
    select.append(make("option", "all", { value: "" }));
    [...new Set(values)].sort().forEach((v) => select.append(make("option", v, { value: "=" + v })));
    const label = make("label", name + " ");
    label.append(select);
    byId("column-filters").append(label);
  }
  for (const name of Object.keys(data.ranges)) {
    const label = make("label", name + " ");
    for (const end of ["from", "to"]) {
      label.append(make("input", undefined, { type: "number", step: "any", placeholder: end, "aria-label": `${name} ${end}`, "data-range": name, "data-end": end }));
    }
    byId("column-filters").append(label);
  }
  const limits = [...document.querySelectorAll("#column-filters input")];
  const within = (input, i) => {
    if (input.value === "") return true;
    const value = data.ranges[input.dataset.range][i];
    if (value === null) return false;
    return input.dataset.end === "from" ? value >= Number(input.value) : value <= Number(input.value);
  };
  const selects = [...document.querySelectorAll("#column-filters select")];
  const passes = (i) => {
    const text = byId("search").value.trim().toLowerCase();
    const verdict = byId("verdict-filter").value;
    if (text && !data.scan[i].toLowerCase().includes(text)) return false;
    if (verdict && data.verdict[i] !== verdict) return false;
    return selects.every((s) => !s.value || data.columns[s.dataset.column][i] === s.value.slice(1)) && limits.every((l) => within(l, i));
  };

  // list
  const number = (value, digits) => (value === null ? "n/a" : value.toFixed(digits));
  const drawList = () => {
    const body = document.createDocumentFragment();
    for (const i of shown.slice(0, rows)) {
      const row = make("tr");
      const cell = make("td");
      cell.append(make("a", data.scan[i], { href: address(i) }));
      row.append(cell, make("td", data.verdict[i], { class: "level " + data.verdict[i] }));
      row.append(make("td", number(data.score[i], 2)), make("td", number(data.dice[i], 2)));
      if (byId("intracranial")) row.append(make("td", data.intracranial[i]));
      row.append(make("td", data.why[i], { class: "text" }));
      body.append(row);
    }
    document.querySelector("#ranking tbody").replaceChildren(body);
    byId("more").hidden = shown.length <= rows;
    byId("shown").textContent = `${shown.length} of ${data.scan.length} scans`;
  };
  byId("more").addEventListener("click", () => { rows += PAGE; drawList(); });

  // plots: drawn when they come into view, or all before printing
  const jitter = (i) => ((i * 2654435761) % 4294967296) / 4294967296; // Knuth's hash: the same at every draw
  const style = getComputedStyle(document.body);
  const sorted = new Map();
  const ascending = (measure, structure) => {
    const key = `${measure} ${structure}`;
    if (!sorted.has(key)) {
      const known = data.measures[measure][structure].filter((v) => v !== null);
      sorted.set(key, Float64Array.from(known).sort());
    }
    return sorted.get(key);
  };
  const valuesOf = (canvas) => data.measures[byId("measure").value][Number(canvas.dataset.structure)];
  const layout = (canvas) => {
    const values = valuesOf(canvas);
    const all = ascending(byId("measure").value, Number(canvas.dataset.structure));
    const [low, high] = [all[0] ?? 0, all.at(-1) ?? 1];
    const pad = (high - low || 1) * 0.03;
    const scale = (v) => ((v - low + pad) / (high - low + 2 * pad)) * canvas.width;
    const points = shown.filter((i) => values[i] !== null).map((i) => [i, scale(values[i]), (0.15 + 0.7 * jitter(i)) * canvas.height]);
    return { all, scale, points };
  };
  // points go straight into the pixels: ten thousand drawing calls a plot would not scroll smoothly
  const dots = (pen, points, size) => {
    const picture = pen.getImageData(0, 0, pen.canvas.width, pen.canvas.height);
    const pixels = new Uint32Array(picture.data.buffer);
    for (const [level, color, grown] of [["pass", 0xffd9904a, size], ["look", 0xff0677d9, 1.8 * size], ["fail", 0xff2828c6, 1.8 * size]]) { // larger, too: not by colour alone
      for (const [i, x, y] of points) {
        if (data.verdict[i] !== level) continue;
        const [left, top, wide] = [Math.round(x - grown / 2), Math.round(y - grown / 2), Math.max(1, Math.round(grown))];
        for (let row = Math.max(0, top); row < Math.min(picture.height, top + wide); row++) {
          pixels.fill(color, row * picture.width + Math.max(0, left), row * picture.width + Math.min(picture.width, left + wide));
        }
      }
    }
    pen.putImageData(picture, 0, 0);
  };
  const draw = (canvas) => {
    const ratio = window.devicePixelRatio || 1;
    canvas.width = canvas.clientWidth * ratio;
    canvas.height = canvas.clientHeight * ratio;
    const { all, scale, points } = layout(canvas);
    const pen = canvas.getContext("2d", { willReadFrequently: true });
    if (all.length) {
      const [q1, middle, q3] = data.quartiles[byId("measure").value][Number(canvas.dataset.structure)]; // over people
      pen.fillStyle = "#8884";
      pen.fillRect(scale(q1), 0, Math.max(1, scale(q3) - scale(q1)), canvas.height);
      dots(pen, points, (shown.length > 2000 ? 1 : 4) * ratio);
      pen.fillStyle = style.color;
      pen.fillRect(scale(middle) - ratio / 2, 0, ratio, canvas.height);
      canvas.nextElementSibling.textContent = `${all[0]} to ${all.at(-1)}, median ${middle}`;
    } else canvas.nextElementSibling.textContent = "n/a";
    canvas.dataset.drawn = "yes";
  };
  const waiting = new Set();
  const drawOne = () => {
    const [canvas] = waiting;
    if (!canvas) return;
    waiting.delete(canvas);
    draw(canvas);
    if (waiting.size) requestAnimationFrame(drawOne);
  };
  const drawSoon = (canvas) => {
    if (!waiting.size) requestAnimationFrame(drawOne);
    waiting.add(canvas);
  };
  const nearest = (canvas, event) => {
    const box = canvas.getBoundingClientRect();
    const ratio = canvas.width / box.width;
    const [x, y] = [(event.clientX - box.left) * ratio, (event.clientY - box.top) * ratio];
    let [best, least] = [null, (12 * ratio) ** 2];
    for (const [i, px, py] of layout(canvas).points) {
      const far = (px - x) ** 2 + (py - y) ** 2;
      if (far < least) [best, least] = [i, far];
    }
    return best;
  };
  const watcher = new IntersectionObserver((entries) => {
    entries.filter((e) => e.isIntersecting).forEach((e) => { watcher.unobserve(e.target); drawSoon(e.target); });
  }, { rootMargin: "200px" });
  const canvases = data.structures.map((title, structure) => {
    const figure = make("figure", undefined, { class: "plot" });
    const canvas = make("canvas", undefined, { "data-structure": structure, role: "img", "aria-label": `${title}: one point a scan` });
    figure.append(make("figcaption", title), canvas, make("small"));
    canvas.addEventListener("click", (event) => {
      const i = nearest(canvas, event);
      if (i !== null) window.open(address(i), "_blank", "noopener");
    });
    canvas.addEventListener("mousemove", (event) => {
      const i = nearest(canvas, event);
      canvas.style.cursor = i === null ? "default" : "pointer";
      byId("point").textContent = i === null ? "" : `${title}: ${data.scan[i]}, ${valuesOf(canvas)[i]}`;
    });
    byId("plots").append(figure);
    return canvas;
  });
  Object.keys(data.measures).forEach((name) => byId("measure").append(make("option", name)));
  const redraw = () => canvases.forEach((c) => { delete c.dataset.drawn; watcher.unobserve(c); watcher.observe(c); });
  const update = () => {
    shown = data.scan.map((_, i) => i).filter(passes);
    rows = PAGE;
    drawList();
    redraw();
  };
  [byId("search"), byId("verdict-filter"), ...selects, ...limits].forEach((e) => e.addEventListener("input", update));
  byId("measure").addEventListener("input", redraw);
  window.addEventListener("resize", redraw);
  const drawAll = () => canvases.forEach((c) => { if (!c.dataset.drawn) { watcher.unobserve(c); waiting.delete(c); draw(c); } });
  window.addEventListener("beforeprint", drawAll);
  window.matchMedia("print").addEventListener("change", (event) => { if (event.matches) drawAll(); });
  update();
  document.body.dataset.ready = "yes";
}
