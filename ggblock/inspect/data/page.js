"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const $ = (id) => document.getElementById(id);
const tip = $("tip");

// ---- small helpers ---------------------------------------------------------------------------------------------

function make(tag, text, className) {
  const node = document.createElement(tag);
  if (text !== undefined) node.textContent = text;
  if (className) node.className = className;
  return node;
}

function svg(tag, attributes, parent) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  if (parent) parent.append(node);
  return node;
}

function size(n) {
  for (const [unit, one] of [["GB", 1e9], ["MB", 1e6], ["kB", 1e3]]) if (n >= one) return `${(n / one).toPrecision(4)} ${unit}`;
  return `${n} bytes`;
}

function number(n) {
  if (typeof n === "string") return n;
  if (n === 0) return "0";
  return Math.abs(n) >= 1e-3 && Math.abs(n) < 1e5 ? String(Number(n.toPrecision(5))) : n.toExponential(3);
}

const compact = (n) => new Intl.NumberFormat("en", { notation: "compact", maximumSignificantDigits: 3 }).format(n);

function color(share) {
  const stops = data.gradient, x = Math.min(1, Math.max(0, share));
  let i = 1;
  while (i < stops.length - 1 && stops[i][0] < x) i++;
  const a = stops[i - 1], b = stops[i], t = (x - a[0]) / (b[0] - a[0]);
  return [1, 2, 3].map((c) => Math.round(a[c] + t * (b[c] - a[c])));
}

const css = (rgb) => `rgb(${rgb.join(" ")})`;
const inkOn = (rgb) => (0.3 * rgb[0] + 0.59 * rgb[1] + 0.11 * rgb[2] > 140 ? "#14121a" : "#fff");

function gradientKey(parent, low, high) {
  parent.replaceChildren(make("span", low), make("i"), make("span", high));
  const stops = data.gradient.map((s) => `${css(s.slice(1))} ${100 * s[0]}%`);
  parent.children[1].style.background = `linear-gradient(90deg, ${stops.join(", ")})`;
}

/** Show a tip near the pointer for elements that carry data-tip. */
document.addEventListener("pointermove", (event) => {
  const at = event.target instanceof Element && event.target.closest("[data-tip]");
  tip.hidden = !at;
  if (!at) return;
  tip.textContent = at.dataset.tip;
  tip.style.left = `${Math.min(event.clientX + 14, innerWidth - tip.offsetWidth - 8)}px`;
  tip.style.top = `${Math.min(event.clientY + 16, innerHeight - tip.offsetHeight - 8)}px`;
});

// ---- head ------------------------------------------------------------------------------------------------------

const file = data.file;
const bitsOf = (t) => (8 * t[3]) / t[4];
const tensorTip = (t) => `${t[0]}\n${t[1]}, ${t[2]}\n${size(t[3])}, ${bitsOf(t).toFixed(2)} bits per weight`;

function head() {
  $("title").textContent = file.path.split(/[\\/]/).pop();
  document.title = `${$("title").textContent} · ggblock`;
  const layers = file.n_layers === null ? "" : `, ${file.n_layers} layers`;
  const tokens = file.tokenizer ? `${file.tokenizer} (${file.pre_tokenizer || "default"}), ${file.n_tokens} tokens` : "none";
  const rows = [
    ["what", `${file.architecture || "no architecture"}${layers}${file.name ? ` (${file.name})` : ""}`],
    ["size", `${size(file.n_bytes)}, ${file.n_weights.toLocaleString("en")} weights in ${file.n_tensors} tensors`],
    ["weights", `${file.file_type || "mixed"}: ${file.bits_per_weight.toFixed(3)} bits per weight`],
    ["context", file.context === null ? "not stated" : `${file.context} tokens`],
    ["tokenizer", tokens],
    ["profile", `${file.profile === "GGB" ? "GGB in GGUF" : "GGUF"} version ${file.version}, alignment ${file.alignment}${file.n_panels ? `, ${file.n_panels} tensors in panels of 16 rows` : ""}`],
  ];
  for (const [name, text] of rows) $("facts").append(make("dt", name), make("dd", text));
  for (const note of file.notes) $("notes").append(make("li", note.text));
}

// ---- treemap ---------------------------------------------------------------------------------------------------

/** Squarified rectangles (Bruls, Huizing, van Wijk): items with .value into x, y, w, h; calls place(item, x, y, w, h). */
function squarify(items, x, y, w, h, place) {
  let rest = items.filter((i) => i.value > 0).sort((a, b) => b.value - a.value);
  let total = rest.reduce((sum, i) => sum + i.value, 0);
  while (rest.length) {
    const side = Math.min(w, h), scale = (w * h) / total;
    const worst = (row, sum) => {
      const s = sum * scale;
      return Math.max((side * side * row[0].value * scale) / (s * s), (s * s) / (side * side * row[row.length - 1].value * scale));
    };
    let row = [rest[0]], sum = rest[0].value;
    while (row.length < rest.length) {
      const next = rest[row.length];
      if (worst([...row, next], sum + next.value) > worst(row, sum)) break;
      row.push(next);
      sum += next.value;
    }
    const thick = (sum * scale) / side;
    let at = 0;
    for (const item of row) {
      const long = (item.value / sum) * side;
      if (w >= h) place(item, x, y + at, thick, long);
      else place(item, x + at, y, long, thick);
      at += long;
    }
    if (w >= h) { x += thick; w -= thick; } else { y += thick; h -= thick; }
    rest = rest.slice(row.length);
    total -= sum;
  }
}

const layerOf = (name) => (/^blk\.(\d+)\./.exec(name) || [])[1];
const bitColor = (bits) => color(Math.log2(Math.max(1, bits)) / 5);

function treemap() {
  const box = $("treemap"), by = Number($("area").value);
  box.replaceChildren();
  const groups = new Map();
  for (const t of data.tensors) {
    const key = layerOf(t[0]) === undefined ? t[0] : `blk.${layerOf(t[0])}`;
    if (!groups.has(key)) groups.set(key, { value: 0, items: [] });
    groups.get(key).items.push({ value: t[by], tensor: t });
    groups.get(key).value += t[by];
  }
  squarify([...groups.values()], 0, 0, box.clientWidth, box.clientHeight, (group, x, y, w, h) =>
    squarify(group.items, x, y, w, h, (item, ix, iy, iw, ih) => {
      const t = item.tensor, rgb = bitColor(bitsOf(t)), node = make("div", iw > 46 && ih > 14 ? t[0].replace(/^blk\.|\.weight$/g, "") : undefined);
      Object.assign(node.style, { left: `${ix}px`, top: `${iy}px`, width: `${iw}px`, height: `${ih}px`, background: css(rgb), color: inkOn(rgb) });
      node.dataset.tip = tensorTip(t);
      node.dataset.name = t[0];
      node.addEventListener("click", () => pick(t[0]));
      box.append(node);
    }));
  gradientKey($("bits-key"), "1 bit", "32 bits");
}

function pick(name) {
  $("filter").value = name;
  table();
  for (const node of document.querySelectorAll("#treemap .picked")) node.classList.remove("picked");
  for (const node of $("treemap").children) node.classList.toggle("picked", node.dataset.name === name);
  $("table").scrollIntoView();
}

/** What is drawn as wide as the window allows, and again when that changes. */
const redraws = [];

// ---- charts ----------------------------------------------------------------------------------------------------

/** Bars: each {label, parts: [{value, color, tip}]}. */
function bars(parent, items, format) {
  const width = Math.max(240, Math.min(560, parent.clientWidth || 560)), height = 190, left = 56, bottom = 18, top = 8;
  const most = Math.max(...items.map((i) => i.parts.reduce((s, p) => s + p.value, 0))) || 1;
  const image = svg("svg", { viewBox: `0 0 ${width} ${height}` });
  const each = (width - left - 6) / items.length, y = (v) => top + (height - bottom - top) * (1 - v / most);
  for (const share of [0, 0.5, 1]) {
    svg("line", { x1: left, x2: width, y1: y(share * most), y2: y(share * most), class: "axis" }, image);
    svg("text", { x: left - 5, y: y(share * most) + 4, "text-anchor": "end" }, image).textContent = format(share * most);
  }
  const longest = Math.max(...items.map((i) => i.label.length));
  const every = Math.ceil((items.length * (longest * 7 + 8)) / (width - left));
  items.forEach((item, i) => {
    let base = 0;
    for (const part of item.parts) {
      const x = left + i * each + each * 0.08;
      const rect = svg("rect", { x, y: y(base + part.value), width: Math.max(0.5, each * 0.84), height: Math.max(0, y(base) - y(base + part.value)), fill: part.color }, image);
      rect.dataset.tip = part.tip;
      base += part.value;
    }
    if (i % every === 0) svg("text", { x: left + (i + 0.5) * each, y: height - 4, "text-anchor": "middle" }, image).textContent = item.label;
  });
  parent.replaceChildren(image);
}

const ROLES = [["attention", /attn|ssm|wkv/, "var(--f0)"], ["feed-forward", /ffn|exps|mlp/, "var(--f1)"], ["other", /./, "var(--f2)"]];

function layers() {
  const found = new Map();
  for (const t of data.tensors) {
    const layer = layerOf(t[0]);
    if (layer === undefined) continue;
    if (!found.has(layer)) found.set(layer, { bytes: 0, weights: 0, roles: ROLES.map(() => 0) });
    const entry = found.get(layer);
    entry.bytes += t[3];
    entry.weights += t[4];
    entry.roles[ROLES.findIndex(([, test]) => test.test(t[0]))] += t[3];
  }
  const list = [...found].sort((a, b) => a[0] - b[0]);
  if (!list.length) { $("layers").hidden = true; return; }
  ROLES.forEach(([name, , fill], i) => {
    if (!list.some(([, e]) => e.roles[i])) return;
    const swatch = make("i");
    swatch.style.background = fill;
    $("roles").append(swatch, name);
  });
  redraws.push(() => layerCharts(list));
}

function layerCharts(list) {
  bars($("layer-bytes"), list.map(([layer, e]) => ({
    label: layer,
    parts: ROLES.map(([name, , fill], i) => ({ value: e.roles[i], color: fill, tip: `layer ${layer}: ${name}, ${size(e.roles[i])} of ${size(e.bytes)}` })),
  })), size);
  bars($("layer-bits"), list.map(([layer, e]) => {
    const bits = (8 * e.bytes) / e.weights;
    return { label: layer, parts: [{ value: bits, color: "var(--f5)", tip: `layer ${layer}: ${bits.toFixed(3)} bits per weight` }] };
  }), (v) => v.toFixed(1));
}

// ---- one tensor ------------------------------------------------------------------------------------------------

function tensor() {
  const t = data.tensor;
  if (!t) { $("one").hidden = true; return; }
  const error = t.error ? `; ${number(t.error.snr_db)} dB signal over error` : "";
  $("tensor-head").textContent = `${t.name}: ${t.type.toUpperCase()}, ${t.shape.join(" x ")}, RMS ${number(t.values.rms)}, ` +
    `${number(t.values.low)} to ${number(t.values.high)}; ${t.n_zero} of ${t.n_groups} blocks all zero, ${t.n_saturated} saturated${error}`;
  redraws.push(() => tensorCharts(t));
  if (!t.codes.length) $("codes-figure").hidden = true;
  for (const name of Object.keys(data.maps)) $("map-name").append(make("option", name));
  if (data.maps.error) $("map-name").value = "error";
  $("map-name").addEventListener("change", heat);
  heat();
}

function tensorCharts(t) {
  const edges = t.values.edges;
  if (edges.length) bars($("values"), t.values.histogram.map((n, i) => ({
    label: number(Number(edges[i].toPrecision(2))),
    parts: [{ value: n, color: "var(--f2)", tip: `${number(edges[i])} to ${number(edges[i + 1])}: ${n.toLocaleString("en")} weights` }],
  })), compact);
  if (t.codes.length) bars($("codes"), t.codes.map((c) => ({
    label: String(c.code), parts: [{ value: c.count, color: "var(--f3)", tip: `code ${c.code}: ${c.count.toLocaleString("en")} times` }],
  })), compact);
}

function heat() {
  const map = data.maps[$("map-name").value], canvas = $("map");
  if (!map) { canvas.hidden = true; return; }
  const levels = Uint8Array.from(atob(map.data), (c) => c.charCodeAt(0));
  canvas.width = map.columns;
  canvas.height = map.rows;
  canvas.style.aspectRatio = `${Math.max(map.columns, map.rows / 2)} / ${map.rows}`;
  const context = canvas.getContext("2d"), image = context.createImageData(map.columns, map.rows);
  const ramp = Array.from({ length: 256 }, (_, i) => color(i / 255));
  levels.forEach((level, i) => image.data.set([...ramp[level], 255], 4 * i));
  context.putImageData(image, 0, 0);
  gradientKey($("map-key"), number(map.low), number(map.high));
  $("map-read").textContent = "Point at the map to read a block.";
  canvas.onpointermove = (event) => {
    const box = canvas.getBoundingClientRect();
    const x = Math.min(map.columns - 1, Math.floor(((event.clientX - box.left) / box.width) * map.columns));
    const y = Math.min(map.rows - 1, Math.floor(((event.clientY - box.top) / box.height) * map.rows));
    const span = (i, n, of) => { const a = Math.floor((i * of) / n), b = Math.floor(((i + 1) * of) / n) - 1; return b > a ? `${a}-${b}` : String(a); };
    const value = map.low + (levels[y * map.columns + x] / 255) * (map.high - map.low);
    $("map-read").textContent = `row ${span(y, map.rows, map.of_rows)}, ${map.of_columns === map.columns ? "block" : "blocks"} ${span(x, map.columns, map.of_columns)}: ${number(value)}`;
  };
}

// ---- one block -------------------------------------------------------------------------------------------------

let block = null, byteNodes = [], weightNodes = [], stepNodes = [], feeds = [];

/** "0-31, 64" as [0, ..., 31, 64]. */
function ranges(text) {
  const out = [];
  for (const part of text ? text.split(", ") : []) {
    const [a, b] = part.split("-").map(Number);
    for (let i = a; i <= (b === undefined ? a : b); i++) out.push(i);
  }
  return out;
}

const fieldAt = (i) => block.fields.findIndex((f) => i >= f.offset && i < f.offset + f.n_bytes);
const fieldColor = (i) => `var(--f${i % 7})`;

function clear() {
  for (const node of document.querySelectorAll("#block .lit, #block .part, #block .kin")) node.classList.remove("lit", "part", "kin");
}

/** Where the bytes of a block lie that is interleaved with others; empty for one that lies in one piece. */
function placeText() {
  if (block.runs.length === 1 && block.runs[0].count === 1) return "";
  const lane = block.order === "panels" ? `Panel ${Math.floor(block.row / 16)}, place ${block.row % 16} of 16 in it. ` : "";
  return `${lane}Interleaved with the blocks of other rows: ` + block.runs.map((r) => {
    const span = `bytes ${r.first} to ${r.first + r.count * r.width - 1}`;
    return r.count === 1 ? `${span} at ${r.start}` : `${span}: ${r.count} units of ${r.width} from ${r.start} on, ${r.step} apart`;
  }).join("; ") + ".";
}

/** A grid of at most 16 columns, a power of two, in which texts of so many characters fit. */
function columns(parent, longest, pixels, most, before = "") {
  let n = 16;
  while (n > 1 && (n > most || n * (longest * pixels + 3) > parent.clientWidth - (before ? 42 : 0))) n /= 2;
  parent.style.gridTemplateColumns = `${before} repeat(${n}, 1fr)`;
  return n;
}

function blocks() {
  if (!data.blocks.length) { $("block").hidden = true; return; }
  data.blocks.forEach((b, i) => {
    const option = make("option", `${b.tensor}, row ${b.row}, block ${b.block} (${b.type.toUpperCase()}; ${b.why})`);
    option.value = i;
    $("block-name").append(option);
  });
  $("block-name").addEventListener("change", () => explore(data.blocks[Number($("block-name").value)]));
  $("cells").addEventListener("change", cells);
  explore(data.blocks[0]);
}

function explore(chosen) {
  block = chosen;
  const bytes = block.bytes.match(/../g);
  $("legend").replaceChildren(...block.fields.map((f, i) => {
    const button = make("button", `${f.name}: ${f.meaning}`);
    button.style.color = fieldColor(i);
    const show = () => {
      clear();
      for (let b = f.offset; b < f.offset + f.n_bytes; b++) byteNodes[b].classList.add("lit");
      for (const [j, from] of feeds.entries()) for (const b of from.keys()) if (fieldAt(b) === i) weightNodes[j].classList.add("part");
      details(`Field ${f.name}`, [["bytes", `${f.offset} to ${f.offset + f.n_bytes - 1}`], ["holds", `${f.count} x ${f.kind}${f.bits ? `, ${f.bits} bits each` : ""}`], ["for", f.meaning]]);
    };
    for (const type of ["pointerenter", "focus", "click"]) button.addEventListener(type, show);
    return button;
  }));
  $("place").textContent = placeText();
  byteNodes = [];
  $("bytes").replaceChildren();
  const perLine = columns($("bytes"), 2, 10, 16, "2.6rem");
  bytes.forEach((hex, i) => {
    if (i % perLine === 0) $("bytes").append(make("b", String(i)));
    const node = make("span", hex);
    node.style.color = fieldColor(fieldAt(i));
    node.tabIndex = 0;
    node.dataset.byte = i;
    for (const type of ["pointerenter", "focus", "click"]) node.addEventListener(type, () => showByte(i));
    byteNodes.push(node);
    $("bytes").append(node);
  });
  feeds = Array.from({ length: block.block_size }, () => new Map());
  block.bits.forEach((list, byte) => list.forEach((range) => {
    for (const j of ranges(range.weights)) {
      if (!feeds[j].has(byte)) feeds[j].set(byte, []);
      feeds[j].get(byte).push(range);
    }
  }));
  stepNodes = block.steps.map((step) => {
    const node = make("li", `${step.name} = ${step.formula}`);
    node.append(make("em"));
    return node;
  });
  $("formula").replaceChildren(...stepNodes);
  const names = block.steps.map((s) => s.name).reverse();
  $("cells").replaceChildren(...names.map((name) => make("option", name)));
  cells();
  showWeight(0);
  clear();
}

function cells() {
  const step = block.steps.find((s) => s.name === $("cells").value);
  const finite = step.values.filter((v) => typeof v === "number").map(Math.abs);
  const most = Math.max(...finite, 1e-30);
  // Numbers with a fraction are shown in a unit in which the largest has two digits before the point.
  const power = step.values.every((v) => Number.isInteger(v)) ? 0 : Math.floor(Math.log10(most)) - 1;
  const unit = 10 ** power;
  $("unit").textContent = power && most > 1e-30 ? `in units of 1e${power}` : "";
  const texts = step.values.map((v) => (typeof v === "string" ? v : power ? (v / unit).toFixed(1).replace(/^-0\.0$/, "-0").replace(/^0\.0$/, "0") : String(v)));
  columns($("weights"), Math.max(...texts.map((t) => t.length)), 6.4, block.block_size);
  weightNodes = [];
  $("weights").replaceChildren();
  for (let j = 0; j < block.block_size; j++) {
    const value = step.values[Math.floor(j / step.group)];
    const node = make("span", texts[Math.floor(j / step.group)]);
    const share = typeof value === "number" ? Math.round((45 * Math.abs(value)) / most) : 0;
    node.style.background = `color-mix(in srgb, var(${value < 0 ? "--f4" : "--f5"}) ${share}%, transparent)`;
    node.tabIndex = 0;
    node.title = `weight ${j}: ${value}`;
    node.dataset.weight = j;
    for (const type of ["pointerenter", "focus", "click"]) node.addEventListener(type, () => showWeight(j));
    weightNodes.push(node);
    $("weights").append(node);
  }
}

function details(title, rows, extra) {
  $("info-head").textContent = title;
  const tableNode = make("table");
  for (const [name, text] of rows) {
    const row = make("tr");
    row.append(make("td", name), make("td", text));
    tableNode.append(row);
  }
  $("info").replaceChildren(...(extra ? [extra] : []), tableNode);
}

function showByte(i) {
  clear();
  const value = parseInt(block.bytes.slice(2 * i, 2 * i + 2), 16), field = block.fields[fieldAt(i)];
  for (let b = field.offset; b < field.offset + field.n_bytes; b++) byteNodes[b].classList.add("kin");
  $("legend").children[fieldAt(i)].classList.add("lit");
  byteNodes[i].classList.add("lit");
  const strip = make("div", undefined, "bits"), rows = [
    ["byte", `${i}, at ${block.offsets[i]} of the file`],
    ["value", `0x${value.toString(16).padStart(2, "0")} = ${value}`],
    ["field", `${field.name}: ${field.meaning}`],
  ];
  for (let bit = 7; bit >= 0; bit--) strip.append(make("small", String(bit)));
  for (let bit = 7; bit >= 0; bit--) {
    const node = make("span", String((value >> bit) & 1));
    const at = block.bits[i].findIndex((r) => bit >= r.low && bit <= r.high);
    node.style.borderColor = at % 2 ? "var(--dim)" : fieldColor(fieldAt(i));
    strip.append(node);
  }
  const used = new Set();
  for (const range of block.bits[i]) {
    const part = (value >> range.low) & ((1 << (range.high - range.low + 1)) - 1);
    const span = range.low === range.high ? `bit ${range.low}` : `bits ${range.low}-${range.high}`;
    rows.push([span, range.step ? `${part}: ${range.step} of weight${/[,-]/.test(range.weights) ? "s" : ""} ${range.weights}` : `${part}: not used for decoding`]);
    if (range.step) used.add(range.step);
    for (const j of ranges(range.weights)) weightNodes[j].classList.add("part");
  }
  const fed = block.bits[i].flatMap((range) => ranges(range.weights));
  if (fed.length && !fed.includes(Number($("which").textContent))) arithmetic(Math.min(...fed));
  // The steps that read these bits, and those that build on them.
  block.steps.forEach((step, s) => {
    const words = step.formula.match(/[A-Za-z_]\w*/g) || [];
    if (used.has(step.name)) stepNodes[s].classList.add("lit");
    else if (words.some((word) => used.has(word))) { stepNodes[s].classList.add("part"); used.add(step.name); }
  });
  details(`Byte ${i}`, rows, strip);
}

/** Every step of weight j with its numbers. */
function arithmetic(j) {
  $("which").textContent = j;
  block.steps.forEach((step, s) => {
    const value = step.values[Math.floor(j / step.group)];
    const forms = block.worked[j][s].filter((form) => form !== String(value));
    stepNodes[s].querySelector("em").textContent = `= ${[...forms, value].join(" = ")}`;
  });
}

function showWeight(j) {
  clear();
  weightNodes[j].classList.add("lit");
  for (const byte of feeds[j].keys()) byteNodes[byte].classList.add("lit");
  arithmetic(j);
  const rows = [["weight", `${j}, column ${block.first_column + j} of row ${block.row}`]];
  rows.push(["is", String(block.weights[j])]);
  for (const [byte, list] of [...feeds[j]].sort((a, b) => a[0] - b[0])) {
    const text = list.map((r) => (r.low === 0 && r.high === 7 ? "all bits" : r.low === r.high ? `bit ${r.low}` : `bits ${r.low}-${r.high}`) + ` (${r.step})`);
    rows.push([`byte ${byte}`, `0x${block.bytes.slice(2 * byte, 2 * byte + 2)}: ${text.join(", ")}`]);
  }
  details(`Weight ${j}`, rows);
}

// ---- tables ----------------------------------------------------------------------------------------------------

let sorted = { column: -1, down: false };
const COLUMNS = [["name", 0], ["type", 1], ["shape (rows first)", 2], ["bytes", 3], ["bits/weight", -1], ["offset", 5]];

function table() {
  const text = $("filter").value, cellOf = (t, c) => (c === -1 ? bitsOf(t) : t[c]);
  let rows = data.tensors.filter((t) => t[0].includes(text));
  rows.sort((a, b) => data.order[a[0]] - data.order[b[0]]);
  if (sorted.column >= 0) {
    const c = COLUMNS[sorted.column][1], sign = sorted.down ? -1 : 1;
    rows.sort((a, b) => sign * (typeof cellOf(a, c) === "number" ? cellOf(a, c) - cellOf(b, c) : String(cellOf(a, c)).localeCompare(cellOf(b, c), "en", { numeric: true })));
  }
  const body = document.querySelector("#table tbody");
  body.replaceChildren(...rows.map((t) => {
    const row = make("tr", undefined, data.tensor && t[0] === data.tensor.name ? "picked" : "");
    COLUMNS.forEach(([, c]) => row.append(make("td", c === -1 ? bitsOf(t).toFixed(3) : String(t[c]), c === 3 || c === -1 || c === 5 ? "n" : "")));
    return row;
  }));
  $("shown").textContent = `${rows.length} of ${file.n_tensors}`;
}

function tables() {
  COLUMNS.forEach(([name, c], i) => {
    const cell = make("th", name, c === 3 || c === -1 || c === 5 ? "n" : "");
    cell.addEventListener("click", () => {
      sorted = { column: i, down: sorted.column === i && !sorted.down };
      table();
    });
    document.querySelector("#table thead tr").append(cell);
  });
  $("filter").addEventListener("input", table);
  table();
  for (const [key, kind, value] of data.metadata) {
    const row = make("tr");
    row.append(make("td", key), make("td", kind), make("td", value));
    document.querySelector("#keys tbody").append(row);
  }
}

head();
treemap();
$("area").addEventListener("change", treemap);
layers();
tensor();
for (const draw of redraws) draw();
let width = innerWidth;
addEventListener("resize", () => {
  treemap();
  if (innerWidth === width) return;
  width = innerWidth;
  for (const draw of redraws) draw();
  if (block) explore(block);
});
blocks();
tables();
document.documentElement.dataset.ready = "yes";
