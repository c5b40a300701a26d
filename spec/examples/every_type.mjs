// The reader of reader.mjs with every block type, taken from blocks/*.toml and panels.toml instead of being written by
// hand: fields become accessors, and the decoding steps, in the notation of blocks/README.md, become functions.
//
//     node every_type.mjs FILE ...
//
// What a whole number is and what a float is follows from the kinds of the fields, so it is known before anything is
// decoded; numbers beyond 2^53 occur in I64 alone.

import { readdirSync, readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { TAILS, TYPES, UNITS, bytes, codebook, f16, half, i8, popcount, report, u32, uint } from "./reader.mjs";

const SPEC = new URL("../", import.meta.url);

// ---- as much TOML as these files use ---------------------------------------------------------------------------

function parseToml(text) {
  let at = 0;
  const root = {};
  const skip = () => { at += text.slice(at).match(/^(\s|#[^\n]*)*/)[0].length; };
  const take = (token) => (text.startsWith(token, at) ? ((at += token.length), true) : false);

  function value() {
    skip();
    if (take('"""')) {
      const start = take("\n") ? at : at, end = text.indexOf('"""', at);
      at = end + 3;
      return text.slice(start, end);
    }
    if (text[at] === '"') {
      const raw = text.slice(at).match(/^"(?:[^"\\]|\\.)*"/)[0];
      at += raw.length;
      return JSON.parse(raw);
    }
    if (take("[")) {
      const out = [];
      for (skip(); !take("]"); skip()) {
        out.push(value());
        skip();
        take(",");
      }
      return out;
    }
    if (take("{")) {
      const out = {};
      for (skip(); !take("}"); skip()) {
        pair(out);
        skip();
        take(",");
      }
      return out;
    }
    const word = text.slice(at).match(/^[\w.+-]+/)[0];
    at += word.length;
    return word === "true" ? true : word === "false" ? false : Number(word.replaceAll("_", ""));
  }

  function bare() {
    const word = text.slice(at).match(/^[\w-]+/)[0];
    at += word.length;
    return word;
  }

  function pair(table) {
    const key = text[at] === '"' ? value() : bare();
    skip();
    take("=");
    table[key] = value();
  }

  let table = root;
  for (skip(); at < text.length; skip()) {
    const header = text.slice(at).match(/^(\[\[?)([\w.]+)\]\]?/);
    if (!header) {
      pair(table);
      continue;
    }
    at += header[0].length;
    const names = header[2].split("."), last = names.pop();
    let parent = root;
    for (const name of names) parent = Array.isArray(parent[name]) ? parent[name].at(-1) : (parent[name] ??= {});
    if (header[1] === "[[") (parent[last] ??= []).push((table = {}));
    else table = parent[last] ??= {};
  }
  return root;
}

const toml = (name) => parseToml(readFileSync(new URL(name, SPEC), "utf8"));

// ---- decoding steps --------------------------------------------------------------------------------------------

const FLOATS = new Set(["f16", "f32", "f64", "bf16"]);

// To the nearest float32. Of a 64-bit integer not by way of a float64, which would round twice: what does not fit into
// 53 bits is first cut to bits that do, with a 1 at the end for what was cut off.
function f32(x) {
  if (typeof x !== "bigint") return Math.fround(x);
  if (x >= -(2n ** 53n) && x <= 2n ** 53n) return Math.fround(Number(x));
  const size = x < 0n ? -x : x, cut = (size >> 11n) << 11n;
  return Math.fround(Number(x < 0n ? -1n : 1n) * Number(size === cut ? cut : cut | (1n << 11n)));
}

const FUNCTIONS = {
  f32: { float: true, call: f32 },
  pow2: { float: true, call: (n) => Math.fround(2 ** n) },
  popcount: { float: false, call: popcount },
  f16_bits: { float: true, call: half },
};

// Operators of Python's precedence; of whole numbers, and of floats (each result rounded).
const LEVELS = [["<", "=="], ["|"], ["&"], ["<<", ">>"], ["+", "-"], ["*", "//", "%"]];
const WHOLE = {
  "<": (a, b) => `(${a} < ${b} ? 1 : 0)`, "==": (a, b) => `(${a} === ${b} ? 1 : 0)`,
  "|": (a, b) => `((${a} | ${b}) >>> 0)`, "&": (a, b) => `((${a} & ${b}) >>> 0)`,
  "<<": (a, b) => `(${a} * 2 ** ${b})`, ">>": (a, b) => `Math.floor(${a} / 2 ** ${b})`,
  "+": (a, b) => `(${a} + ${b})`, "-": (a, b) => `(${a} - ${b})`, "*": (a, b) => `(${a} * ${b} + 0)`, // no -0
  "//": (a, b) => `Math.floor(${a} / ${b})`, "%": (a, b) => `(${a} % ${b})`,
};

// An expression as JavaScript: {code, float}. kinds: whether a name is a float, for fields, tables and earlier steps.
function compile(text, kinds) {
  const tokens = text.match(/\d+\.\d+|\d+|\w+|\/\/|<<|>>|==|[-+*%&|<()[\]]/g);
  let at = 0;
  const take = (token) => tokens[at] === token && ++at;

  function condition() {
    const yes = binary(0);
    if (!take("if")) return yes;
    const test = binary(0);
    take("else");
    const no = condition();
    return { code: `(${test.code} ? ${yes.code} : ${no.code})`, float: yes.float || no.float };
  }

  function binary(level) {
    if (level === LEVELS.length) return unary();
    let left = binary(level + 1);
    while (LEVELS[level].includes(tokens[at])) {
      const sign = tokens[at++], right = binary(level + 1), float = left.float || right.float;
      const code = float && "+-*".includes(sign)
        ? `Math.fround(${left.code} ${sign} ${right.code})`
        : WHOLE[sign](left.code, right.code);
      left = { code, float: float && "+-*".includes(sign) };
    }
    return left;
  }

  function unary() {
    if (!take("-")) return atom();
    const of = unary();
    return { code: of.float ? `(-${of.code})` : `(0 - ${of.code})`, float: of.float };
  }

  function atom() {
    if (take("(")) {
      const inner = condition();
      take(")");
      return inner;
    }
    const word = tokens[at++];
    if (/^\d/.test(word)) {
      const float = word.includes(".");
      return { code: float ? `Math.fround(${word})` : word, float };
    }
    if (take("(")) {
      const inner = condition();
      take(")");
      return { code: `FUNCTIONS.${word}.call(${inner.code})`, float: FUNCTIONS[word].float };
    }
    if (!take("[")) return { code: `$${word}`, float: kinds[word] };
    const index = condition();
    take("]");
    const { table, float } = kinds[word];
    return { code: table ? `tables.${word}[${index.code}]` : `fields.${word}(${index.code})`, float };
  }

  return condition();
}

// (fields, j, m) => weight
function decoder(steps, fields, tables) {
  const kinds = { j: false, m: false };
  for (const field of fields) kinds[field.name] = { float: FLOATS.has(field.kind) };
  for (const name of Object.keys(tables)) kinds[name] = { float: false, table: true };
  const lines = steps.map((step) => {
    const [, name, text] = step.match(/^(\w+) = (.*)$/), { code, float } = compile(text, kinds);
    kinds[name] = float;
    return `const $${name} = ${code};`;
  });
  const body = `return (fields, $j, $m) => { ${lines.join(" ")} return $weight; }`;
  return new Function("FUNCTIONS", "tables", body)(FUNCTIONS, tables);
}

// ---- fields ----------------------------------------------------------------------------------------------------

function accessor({ kind, offset, bits, plane }) {
  const read = (name, size) => (v, at) => (i) => v[`get${name}`](at + offset + size * i, true);
  const simple = {
    f16: f16(offset), i8: i8(offset), u32: u32(offset), f32: read("Float32", 4), f64: read("Float64", 8),
    i16: read("Int16", 2), i32: read("Int32", 4), i64: read("BigInt64", 8), u16: read("Uint16", 2),
  };
  if (kind === "uint") return uint(offset, bits, plane);
  if (kind !== "bf16") return simple[kind] ?? bytes(offset);
  return (v, at) => (i) => {
    const four = new DataView(new ArrayBuffer(4)); // the upper half of a float32
    four.setUint16(2, v.getUint16(at + offset + 2 * i, true), true);
    return four.getFloat32(0, true);
  };
}

const accessors = (fields) => Object.fromEntries(fields.map((field) => [field.name, accessor(field)]));

// ---- the types -------------------------------------------------------------------------------------------------

const codebooks = Object.fromEntries(Object.keys(toml("blocks/codebooks.toml").codebooks).map((n) => [n, codebook(n)]));
const specs = {};
for (const file of readdirSync(new URL("blocks/", SPEC)).filter((name) => name.endsWith(".toml"))) {
  const page = toml(`blocks/${file}`), tables = { ...codebooks, ...page.tables };
  for (const type of page.types ?? []) {
    specs[type.name] = { ...type, tables };
    const decode = decoder(type.decode, type.fields, tables);
    TYPES.set(type.id, [type.name, type.block_size, type.block_bytes, accessors(type.fields), decode]);
  }
}

function tailFields(table, spec, m) {
  let offset = 0;
  return table.fields.map((row) => {
    const whole = spec.fields.find(({ name }) => name === row.name);
    const n = new Function("$m", `return ${compile(row.bytes, { m: false }).code};`)(m);
    const field = { ...whole, offset, bytes: n, width: row.width, plane: n < whole.bytes ? n : whole.plane };
    offset += n;
    return field;
  });
}

for (const { name, units, tail } of toml("panels.toml").types) {
  UNITS[name] = units;
  if (!tail) continue;
  const spec = specs[name], fields = (m) => tailFields(tail, spec, m);
  TAILS[name] = [
    tail.step, (m) => fields(m).map((field) => [field.bytes, field.width]), (m) => accessors(fields(m)),
    decoder(tail.decode ?? spec.decode, spec.fields, spec.tables),
  ];
}

if (process.argv[1] === fileURLToPath(import.meta.url))
  for (const path of process.argv.slice(2)) console.log(JSON.stringify(report(path)));
