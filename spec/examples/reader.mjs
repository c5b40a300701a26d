// A reader of GGUF and GGB files in JavaScript, written from the pages of spec/ (reader.md gives the numbered steps).
//
//     node reader.mjs FILE ...     prints a line of JSON a file: its tensors, or the rule that it breaks
//
// It has a handful of block types, one of each sort, and reads little-endian files only. An example, not a library:
// files are read whole. tests/spec/test_examples.py holds it against the conformance vectors.

import { createHash } from "node:crypto";
import { existsSync, readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";

export class Refused extends Error {
  constructor(error, where = null) {
    super(error);
    this.error = error;
    this.where = where;
  }
}

// ---- block types: blocks/*.md --------------------------------------------------------------------------------

const f = Math.fround; // every operation with a float is rounded to float32

export function half(bits) {
  const sign = bits & 0x8000 ? -1 : 1, exponent = (bits >> 10) & 31, mantissa = bits & 1023;
  if (exponent === 31) return mantissa ? NaN : sign * Infinity;
  return exponent ? sign * (1 + mantissa / 1024) * 2 ** (exponent - 15) : sign * mantissa * 2 ** -24;
}

// A field's accessor: (view, start of the block) => i => number i. blocks/README.md, "Fields".
export const f16 = (offset) => (v, at) => (i) => half(v.getUint16(at + offset + 2 * i, true));
export const i8 = (offset) => (v, at) => (i) => v.getInt8(at + offset + i);
export const u32 = (offset) => (v, at) => (i) => v.getUint32(at + offset + 4 * i, true);
export const bytes = (offset) => (v, at) => (i) => v.getUint8(at + offset + i);
export const uint = (offset, bits, plane) => (v, at) => (i) => {
  const p = 8 / bits, group = Math.floor(i / plane);
  const byte = v.getUint8(at + offset + Math.floor(group / p) * plane + (i % plane));
  return (byte >> ((group % p) * bits)) & ((1 << bits) - 1);
};

const POWER_OF_3 = [1, 3, 9, 27, 81];
const IQ4_LEVELS = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];

export const popcount = (x) => { let n = 0; for (; x; x &= x - 1) n++; return n; };

// blocks/codebooks.toml, as blocks/README.md, "Codebooks", explains it
export function codebook(name) {
  const text = readFileSync(new URL("../blocks/codebooks.toml", import.meta.url), "utf8");
  const section = text.split(`[codebooks.${name}]`)[1].split("[codebooks.")[0];
  const values = section.match(/values = \[([^\]]*)\]/)[1].split(",").map(Number);
  const width = Number(section.match(/width = (\d+)/)[1]), size = Number(section.match(/size = (\d+)/)[1]);
  const members = Buffer.from(section.match(/members = """([^"]*)"""/)[1], "base64"), out = [];
  for (let n = 0; n < values.length ** width; n++) {
    if (!((members[n >> 3] >> (n & 7)) & 1)) continue;
    for (let k = 0, rest = n; k < width; k++, rest = Math.floor(rest / values.length))
      out.push(values[rest % values.length]);
  }
  if (out.length !== size * width) throw new Error("the codebook has another number of patterns");
  return out;
}

let iq2xxs = null;

// id: [name, weights, bytes, fields, decode(fields, j)]
export const TYPES = new Map([
  [0, ["f32", 1, 4, { x: (v, at) => () => v.getFloat32(at, true) }, ({ x }) => x()]],
  [1, ["f16", 1, 2, { x: f16(0) }, ({ x }) => x(0)]],
  [2, ["q4_0", 32, 18, { d: f16(0), qs: uint(2, 4, 16) }, ({ d, qs }, j) => d(0) * (qs(j) - 8)]],
  [8, ["q8_0", 32, 34, { d: f16(0), qs: i8(2) }, ({ d, qs }, j) => d(0) * qs(j)]],
  [10, ["q2_k", 256, 84, { scales: uint(0, 4, 16), qs: uint(16, 2, 32), d: f16(80), dmin: f16(82) },
    ({ scales, qs, d, dmin }, j) => {
      const s = j >> 4;
      return f(f(d(0) * scales(s)) * qs(j)) - f(dmin(0) * scales(16 + s));
    }]],
  [12, ["q4_k", 256, 144, { d: f16(0), dmin: f16(2), scales: bytes(4), qs: uint(16, 4, 32) },
    ({ d, dmin, scales, qs }, j) => {
      const s = j >> 5;
      const multiple = s < 4 ? scales(s) & 63 : (scales(s + 4) & 15) | ((scales(s - 4) >> 6) << 4);
      const minMultiple = s < 4 ? scales(s + 4) & 63 : (scales(s + 4) >> 4) | ((scales(s) >> 6) << 4);
      return f(f(d(0) * multiple) * qs(j)) - f(dmin(0) * minMultiple);
    }]],
  [14, ["q6_k", 256, 210, { ql: uint(0, 4, 64), qh: uint(128, 2, 32), scales: i8(192), d: f16(208) },
    ({ ql, qh, scales, d }, j) => f(d(0) * scales(j >> 4)) * ((ql(j) | (qh(j) << 4)) - 32)]],
  [16, ["iq2_xxs", 256, 66, { d: f16(0), qs: u32(2) }, ({ d, qs }, j) => {
    iq2xxs ??= codebook("iq2_xxs");
    const g = j >> 5, part = (j >> 3) & 3, k = j & 7;
    const pattern = (qs(2 * g) >>> (8 * part)) & 255, high = qs(2 * g + 1), sign7 = (high >>> (7 * part)) & 127;
    const negative = k < 7 ? (sign7 >> k) & 1 : popcount(sign7) & 1;
    const scale = f(f(d(0) * f(0.5 + (high >>> 28))) * 0.25), level = iq2xxs[8 * pattern + k];
    return scale * (negative ? -level : level);
  }]],
  [23, ["iq4_xs", 256, 136, { d: f16(0), high: uint(2, 2, 1), low: uint(4, 4, 1), qs: uint(8, 4, 16) },
    ({ d, high, low, qs }, j) => f(d(0) * ((low(j >> 5) | (high(j >> 5) << 4)) - 32)) * IQ4_LEVELS[qs(j)]]],
  [34, ["tq1_0", 256, 54, { qs: bytes(0), qh: bytes(48), d: f16(52) }, ({ qs, qh, d }, j) => {
    const byte = j < 160 ? qs(j % 32) : j < 240 ? qs(32 + (j % 16)) : qh(j % 4);
    const digit = j < 160 ? j >> 5 : j < 240 ? (j - 160) >> 4 : (j - 240) >> 2;
    return d(0) * (((((byte * POWER_OF_3[digit]) & 255) * 3) >> 8) - 1);
  }]],
]);

// Tails of m weights, panels.md, "Ragged rows": [step, m => [bytes, width of the units] a field, m => fields, decode if
// it differs]. The fields, and their units in a panel, lie one after another; a shorter uint field is one plane.
export const TAILS = {
  q2_k: [16, (m) => [[m / 16, 1], [m / 4, 4], [2, 2], [2, 2]],
    (m) => ({
      scales: uint(0, 4, m / 16), qs: uint(m / 16, 2, m / 4), d: f16(m / 16 + m / 4), dmin: f16(m / 16 + m / 4 + 2),
    }),
    ({ scales, qs, d, dmin }, j, m) => {
      const s = j >> 4;
      return f(f(d(0) * scales(s)) * qs(j)) - f(dmin(0) * scales(m / 16 + s));
    }],
  q4_k: [32, (m) => [[2, 2], [2, 2], [12, 1], [m / 2, 4]],
    (m) => ({ d: f16(0), dmin: f16(2), scales: bytes(4), qs: uint(16, 4, m / 2) })],
  q6_k: [16, (m) => [[m / 2, 4], [m / 4, 4], [m / 16, 1], [2, 2]],
    (m) => ({
      ql: uint(0, 4, m / 2), qh: uint(m / 2, 2, m / 4), scales: i8(m / 2 + m / 4), d: f16(m / 2 + m / 4 + m / 16),
    })],
  iq4_xs: [32, (m) => [[2, 2], [2, 2], [4, 1], [m / 2, 4]],
    (m) => ({ d: f16(0), high: uint(2, 2, 1), low: uint(4, 4, 1), qs: uint(8, 4, m / 2) })],
  tq1_0: [32, (m) => [[4 * Math.ceil(m / 20), 4], [2, 2]],
    (m) => ({ qs: bytes(0), d: f16(4 * Math.ceil(m / 20)) }),
    ({ qs, d }, j, m) => {
      const n = 4 * Math.ceil(m / 20), digit = Math.floor(j / n);
      return d(0) * (((((qs(j % n) * POWER_OF_3[digit]) & 255) * 3) >> 8) - 1);
    }],
};

// Runs of units in the order of a panel block, panels.md: [first byte of the block, bytes, width]; with a fourth number
// units of two places by turns, the second of which begins there.
export const UNITS = {
  f32: [[0, 32, 4]], f16: [[0, 16, 2]], q4_0: [[0, 2, 2], [2, 16, 4]], q8_0: [[0, 2, 2], [2, 32, 4]],
  q2_k: [[80, 4, 2], [0, 16, 1], [16, 64, 4]], q4_k: [[0, 4, 2], [4, 12, 1], [16, 128, 4]],
  q6_k: [[208, 2, 2], [192, 16, 1], [0, 32, 4, 128], [32, 32, 4], [64, 32, 4, 160], [96, 32, 4]],
  iq4_xs: [[0, 4, 2], [4, 4, 1], [8, 128, 4]], tq1_0: [[52, 2, 2], [0, 52, 4]],
};
const ROWS = 16, FLOAT_COLUMNS = 8, PRIVATE = 0x47470000, VERSION = "ggblock.ggb.version", PROFILE = 2;
const SUMS = { "ggblock.tensors.sha256": "array", "ggblock.header.sha256": "str" };

// ---- steps 1 to 3: the header --------------------------------------------------------------------------------

// container.toml, [limits]
const MAX = {
  keys: 2 ** 18, tensors: 2 ** 18, key: 65535, text: 2 ** 30, strings: 2 ** 24, numbers: 2 ** 30, inner: 65536,
};
const KINDS = ["u8", "i8", "u16", "i16", "u32", "i32", "f32", "bool", "str", "array", "u64", "i64", "f64"];
const N_BYTES = { u8: 1, i8: 1, u16: 2, i16: 2, u32: 4, i32: 4, f32: 4, bool: 1, u64: 8, i64: 8, f64: 8 };

class Cursor {
  constructor(data) {
    this.data = data;
    this.view = new DataView(data.buffer, data.byteOffset, data.byteLength);
    this.at = 0;
    this.inner = 0;
  }

  number(kind, where) {
    const at = this.at, n = N_BYTES[kind];
    if (n > this.data.length - at) throw new Refused("Truncated", where);
    this.at += n;
    switch (kind) {
      case "u8": return this.view.getUint8(at);
      case "i8": return this.view.getInt8(at);
      case "u16": return this.view.getUint16(at, true);
      case "i16": return this.view.getInt16(at, true);
      case "u32": return this.view.getUint32(at, true);
      case "i32": return this.view.getInt32(at, true);
      case "f32": return this.view.getFloat32(at, true);
      case "f64": return this.view.getFloat64(at, true);
      case "u64": return this.view.getBigUint64(at, true);
      case "i64": return this.view.getBigInt64(at, true);
      default: {
        const byte = this.view.getUint8(at);
        if (byte > 1) throw new Refused("BadBoolean", where);
        return byte === 1;
      }
    }
  }

  count(smallest, limit, where) {
    const n = this.number("u64", where);
    return this.fits(n, smallest, limit, where);
  }

  fits(n, smallest, limit, where) {
    if (n > BigInt(limit) || n > BigInt(Math.floor((this.data.length - this.at) / smallest)))
      throw new Refused("CountTooLarge", where);
    return Number(n);
  }

  text(limit, where) {
    const n = this.number("u64", where);
    if (n > BigInt(limit) || n > BigInt(this.data.length - this.at)) throw new Refused("StringTooLong", where);
    this.at += Number(n);
    return this.data.toString("utf8", this.at - Number(n), this.at);
  }

  kind(where) {
    const kind = KINDS[this.number("u32", where)];
    if (!kind) throw new Refused("UnknownValueType", where);
    return kind;
  }

  value(where) {
    const kind = this.kind(where);
    return { kind, value: this.item(kind, where, 1), end: this.at };
  }

  item(kind, where, depth) {
    if (kind === "array") return this.array(where, depth);
    return kind === "str" ? this.text(MAX.text, where) : this.number(kind, where);
  }

  array(where, depth) {
    if (depth > 4) throw new Refused("NestingTooDeep", where);
    const of = this.kind(where);
    const bounds = { str: [8, MAX.strings], array: [12, MAX.inner] }[of] ?? [N_BYTES[of], MAX.numbers];
    const n = this.count(...bounds, where), items = [];
    if (of === "array" && (this.inner += n) > MAX.inner) throw new Refused("CountTooLarge", where);
    for (let i = 0; i < n; i++) items.push(this.item(of, where, depth + 1));
    return { of, items };
  }
}

function readPart(path) {
  const data = readFileSync(path), cursor = new Cursor(data);
  if (data.toString("latin1", 0, 4) !== "GGUF") throw new Refused("NotGguf");
  cursor.at = 4;
  const version = cursor.number("u32");
  if (version !== 2 && version !== 3) throw new Refused("UnsupportedVersion"); // big-endian files among them
  const counts = [cursor.number("u64"), cursor.number("u64")];
  const nKeys = cursor.fits(counts[1], 13, MAX.keys);
  cursor.fits(counts[0], 24, MAX.tensors);
  const keys = new Map();
  for (let i = 0; i < nKeys; i++) {
    const key = cursor.text(MAX.key);
    if (keys.has(key)) throw new Refused("DuplicateKey", key);
    keys.set(key, cursor.value(key));
  }
  const nTensors = cursor.fits(counts[0], 24, MAX.tensors), records = new Map();
  for (let i = 0; i < nTensors; i++) {
    const size = cursor.number("u64");
    cursor.at -= 8;
    if (size < 1n || size > 64n) throw new Refused("BadTensorName", `tensor ${i}`);
    const name = cursor.text(64, `tensor ${i}`), nDims = cursor.number("u32", name), ne = [];
    if (nDims > 4) throw new Refused("BadShape", name);
    for (let d = 0; d < nDims; d++) ne.push(cursor.number("u64", name));
    const id = cursor.number("u32", name), offset = cursor.number("u64", name);
    if (records.has(name)) throw new Refused("DuplicateTensor", name);
    records.set(name, { name, ne, id, offset });
  }
  const part = { data, keys, tensors: [], base: 0 };
  place(part, [...records.values()], cursor.at);
  return part;
}

// ---- steps 4 to 6: where the tensors are -----------------------------------------------------------------------

const isPrivate = (id) => id >= PRIVATE && id < PRIVATE + 0x10000;

function checkProfile(keys, inPanels) {
  const version = keys.get(VERSION), alignment = keys.get("general.alignment");
  if (!version) {
    if (inPanels) throw new Refused("MissingKey", VERSION);
    return;
  }
  if (version.kind !== "u32") throw new Refused("WrongKeyKind", VERSION);
  if (version.value !== PROFILE) throw new Refused("UnsupportedVersion", VERSION);
  if (alignment?.value !== 64) throw new Refused("BadAlignment", "general.alignment");
  for (const [key, kind] of Object.entries(SUMS)) {
    const found = keys.get(key);
    if (!found) throw new Refused("MissingKey", key);
    if (found.kind !== kind || (kind === "array" && found.value.of !== "str")) throw new Refused("WrongKeyKind", key);
  }
}

function place(part, records, end) {
  const stated = part.keys.get("general.alignment"), align = stated ? stated.value : 32;
  if (stated && (stated.kind !== "u32" || align < 1 || align > 2 ** 30 || align & (align - 1)))
    throw new Refused("BadAlignment", "general.alignment");
  checkProfile(part.keys, records.some(({ id }) => isPrivate(id)));
  part.base = Math.ceil(end / align) * align;
  let free = 0n;
  for (const { name, ne, id, offset } of records) {
    const inPanels = isPrivate(id), type = TYPES.get(inPanels ? id - PRIVATE : id);
    if (!type || (inPanels && !UNITS[type[0]])) throw new Refused("UnknownType", name);
    const [typeName, size, n_bytes] = type, nCols = ne.length ? ne[0] : 1n;
    const nRows = ne.slice(1).reduce((a, b) => a * b, 1n), most = (1n << 63n) - 1n;
    const rest = Number(nCols % BigInt(size)), tail = rest && inPanels ? TAILS[typeName] : null;
    const fits = !rest || (tail && rest % tail[0] === 0);
    if (ne.includes(0n) || !fits || nRows * nCols > most) throw new Refused("BadShape", name);
    const tailBytes = tail ? tail[1](rest).reduce((sum, [n]) => sum + n, 0) : 0;
    const rowBytes = (nCols / BigInt(size)) * BigInt(n_bytes) + BigInt(tailBytes);
    const filled = size > 1 || !inPanels ? rowBytes : ((nCols + 7n) / 8n) * BigInt(FLOAT_COLUMNS * n_bytes);
    const stored = inPanels ? ((nRows + 15n) / 16n) * 16n * filled : nRows * rowBytes;
    if (stored > most) throw new Refused("BadShape", name);
    if (offset % BigInt(align)) throw new Refused("BadAlignment", name);
    if (offset < free) throw new Refused("TensorOverlap", name);
    free = offset + stored;
    if (BigInt(part.base) + free > BigInt(part.data.length)) throw new Refused("TensorOutOfFile", name);
    part.tensors.push({
      name, type, ne: ne.map(Number), inPanels, nRows: Number(nRows), nCols: Number(nCols), rowBytes: Number(rowBytes),
      filled: Number(filled), rest, tail,
      bytes: part.data.subarray(part.base + Number(offset), part.base + Number(free)),
    });
  }
}

// ---- steps 7 and 8: rows and weights ---------------------------------------------------------------------------

// The units of a block in the order of its panel block: [byte of the block, width].
const unitsOf = (runs) => runs.flatMap(([first, n_bytes, width, second]) => {
  const places = second === undefined ? [first] : [first, second], turns = Array.from({ length: n_bytes / width });
  return turns.flatMap((_, i) => places.map((place) => [place + i * width, width]));
});

// A tail's runs of units: its fields one after another.
function tailRuns(fields) {
  let first = 0;
  return fields.map(([n_bytes, width]) => [(first += n_bytes) - n_bytes, n_bytes, width]);
}

// The blocks of a row in panels: [start, units]; of floats FLOAT_COLUMNS weights each, the last one filled up.
function* blocksOf({ type, tail, rest, filled }) {
  const units = unitsOf(UNITS[type[0]]), size = units.reduce((sum, [, width]) => sum + width, 0);
  let start = 0;
  for (; start + size <= filled; start += size) yield [start, units];
  if (tail) yield [start, unitsOf(tailRuns(tail[1](rest)))];
}

export function rows(tensor) {
  if (!tensor.inPanels) return tensor.bytes;
  const { nRows, rowBytes, filled, bytes: panels } = tensor, out = Buffer.alloc(nRows * rowBytes);
  for (const [start, units] of blocksOf(tensor))
    for (let n = 0; n < nRows; n++) {
      let at = Math.floor(n / ROWS) * ROWS * filled + ROWS * start;
      for (const [o, u] of units) {
        const from = at + u * (n % ROWS), room = Math.min(u, rowBytes - start - o);
        if (room > 0) panels.copy(out, n * rowBytes + start + o, from, from + room);
        at += ROWS * u;
      }
    }
  return out;
}

export function weights(tensor) {
  const { nRows, nCols, rowBytes, rest, tail } = tensor, [, size, n_bytes, fields, decode] = tensor.type;
  const data = rows(tensor), view = new DataView(data.buffer, data.byteOffset, data.byteLength);
  const out = new Float32Array(nRows * nCols); // stores round to float32
  const decodeBlock = (at, to, layout, own, n) => {
    const values = {};
    for (const [name, field] of Object.entries(layout)) values[name] = field(view, at);
    for (let j = 0; j < n; j++) out[to + j] = own(values, j, n);
  };
  for (let n = 0; n < nRows; n++) {
    const whole = Math.floor(nCols / size);
    const at = n * rowBytes, to = n * nCols;
    for (let b = 0; b < whole; b++) decodeBlock(at + b * n_bytes, to + b * size, fields, decode, size);
    if (tail) decodeBlock(at + whole * n_bytes, to + whole * size, tail[2](rest), tail[3] ?? decode, rest);
  }
  return out;
}

// ---- steps 9 and 10: checksums and parts -----------------------------------------------------------------------

const sha256 = (...pieces) => pieces.reduce((hash, piece) => hash.update(piece), createHash("sha256")).digest("hex");

export function sumsFit({ data, keys, tensors, base }) {
  const { end } = keys.get("ggblock.header.sha256"), pieces = [data.subarray(0, end - 64), "0".repeat(64)];
  let at = end;
  for (const { bytes: own } of tensors) {
    pieces.push(data.subarray(at, own.byteOffset - data.byteOffset));
    at = own.byteOffset - data.byteOffset + own.length;
  }
  pieces.push(data.subarray(at));
  const stored = keys.get("ggblock.tensors.sha256").value.items;
  return sha256(...pieces) === keys.get("ggblock.header.sha256").value && base <= data.length &&
    stored.length === tensors.length && tensors.every((tensor, i) => sha256(tensor.bytes) === stored[i]);
}

export function read(path) {
  const first = readPart(path), found = first.keys.get("split.count"), count = Number(found?.value ?? 1);
  if (typeof found?.value === "string" || typeof found?.value === "boolean" || !(count >= 1 && count <= 65535))
    throw new Refused("SplitMismatch", "split.count");
  if (count === 1) return { parts: [first], tensors: first.tensors };
  const match = path.match(/^(.*)-(\d{5})-of-(\d{5})(\.[^./]+)$/s), five = (n) => String(n).padStart(5, "0");
  if (!match || Number(match[3]) !== count) throw new Refused("SplitMismatch", "split.count");
  const paths = Array.from({ length: count }, (_, i) => `${match[1]}-${five(i + 1)}-of-${five(count)}${match[4]}`);
  if (!paths.includes(path) || !paths.every(existsSync)) throw new Refused("SplitMismatch");
  const parts = paths.map(readPart), number = (part, key) => Number(part.keys.get(key)?.value ?? -1), names = new Set();
  parts.forEach((part, i) => {
    if (number(part, "split.count") !== count) throw new Refused("SplitMismatch", "split.count");
    if (number(part, "split.no") !== i) throw new Refused("SplitMismatch", "split.no");
    if (part.keys.has(VERSION) !== parts[0].keys.has(VERSION)) throw new Refused("SplitMismatch", VERSION);
  });
  const tensors = parts.flatMap((part) => part.tensors);
  if (number(parts[0], "split.tensors.count") !== tensors.length)
    throw new Refused("SplitMismatch", "split.tensors.count");
  for (const { name } of tensors) {
    if (names.has(name)) throw new Refused("DuplicateTensor", name);
    names.add(name);
  }
  return { parts, tensors };
}

function floatHash(values) { // blocks/README.md: little-endian float32, every NaN replaced by 0x7FC00000
  const out = Buffer.alloc(4 * values.length);
  values.forEach((x, i) => (Number.isNaN(x) ? out.writeUInt32LE(0x7fc00000, 4 * i) : out.writeFloatLE(x, 4 * i)));
  return sha256(out);
}

export function report(path) {
  let found;
  try {
    found = read(path);
  } catch (fault) {
    if (fault instanceof Refused) return { file: path, error: fault.error, where: fault.where };
    throw fault;
  }
  const checksums = found.parts.every(({ keys }) => keys.has("ggblock.header.sha256")) && found.parts.every(sumsFit);
  const tensors = found.tensors.map((tensor) => ({
    name: tensor.name, type: tensor.type[0], ne: tensor.ne, order: tensor.inPanels ? "panels" : "rows",
    rows_sha256: sha256(rows(tensor)), weights_sha256: floatHash(weights(tensor)),
  }));
  return { file: path, tensors, checksums };
}

if (process.argv[1] === fileURLToPath(import.meta.url))
  for (const path of process.argv.slice(2)) console.log(JSON.stringify(report(path)));
