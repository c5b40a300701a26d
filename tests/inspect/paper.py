"""What a person with paper does: read the printed page of a block, compute its weights from the printed bytes.

Nothing here comes from the package. It reads the text (or JSON) that ``ggblock dump --block`` prints: the hex bytes,
the fields, the steps, the table entries. From these alone `recompute` gives every step of every weight, which is then
compared with what the page itself claims.
"""
from __future__ import annotations

import re
from typing import Any

import numpy as np

_READ = {"f16": "<f2", "f32": "<f4", "f64": "<f8", "bf16": "<u2", "i8": "<i1", "i16": "<i2", "i32": "<i4",
         "i64": "<i8", "u8": "<u1", "u16": "<u2", "u32": "<u4", "e8m0": "<u1", "ue4m3": "<u1", "packed": "<u1",
         "trits": "<u1"}  # fmt: skip


class Page:
    """The parts of a printed block. ``claims``: step -> its printed value for each weight."""

    def __init__(self) -> None:
        self.data = b""
        self.fields: list[dict[str, Any]] = []
        self.steps: list[tuple[str, str]] = []
        self.tables: dict[str, dict[int, int]] = {}
        self.claims: dict[str, list[str]] = {}
        #: Field -> how the page says where its number i is: expressions for byte and bit, bits, whole bytes.
        self.places: dict[str, tuple[str, str, int, int]] = {}


def read_text(text: str) -> Page:
    """Parse the printed text."""
    page, sections = Page(), re.split(r"\n\n", text.strip())
    for section in sections:
        title, *body = section.split("\n")
        if title == "bytes":
            page.data = b"".join(bytes.fromhex(line[6:].replace(" ", "")) for line in body)
        elif title == "fields":
            for line in body[1:]:
                span, name, count, bits, *rest = line.replace("log2 3", "0").split()
                first, last = map(int, span.split("-"))
                page.fields.append({
                    "name": name, "offset": first, "n_bytes": last - first + 1, "count": int(count), "bits": int(bits),
                    "kind": rest[0], "plane": 0 if rest[1] == "-" else int(rest[1]),
                })  # fmt: skip
        elif title.startswith("where number i"):
            for line in body:
                name, place = line.strip().split("[i]: byte ")
                if bits := re.fullmatch(r"(.*), from bit (.*) on, (\d+) bits?", place):
                    page.places[name] = (bits[1], bits[2], int(bits[3]), 1)
                else:
                    several = re.fullmatch(r"(.*) and (\d+) more, lowest first", place)
                    n_bytes = int(several[2]) + 1 if several else 1
                    page.places[name] = (several[1] if several else place, "0", 8 * n_bytes, n_bytes)
        elif title.startswith("decoding of weight j"):
            page.steps = [(part[0].strip(), part[1].strip()) for part in (line.split(" = ", 1) for line in body)]
        elif title == "table entries in use":
            for line in body:
                name, first, values = re.fullmatch(r"  (\w+)\[(\d+)\.\.\d+\] = (.*)", line).groups()  # type: ignore[union-attr]
                for i, value in enumerate(values.split()):
                    page.tables.setdefault(name, {})[int(first) + i] = int(value)
        elif title.startswith("shared by"):
            names = body[0].split()[1:]
            for line in body[1:]:
                span, *values = line.split()
                first, last = map(int, span.split("-"))
                for name, value in zip(names, values, strict=True):
                    page.claims.setdefault(name, []).extend([value] * (last - first + 1))
        elif re.fullmatch(r"\w+", title) and title not in ("numbers",) and body and re.match(r"  +\d+  ", body[0]):
            page.claims[title] = [cell for line in body for cell in line.split()[1:]]
    return page


def read_json(document: dict[str, Any]) -> Page:
    """The same from the JSON document."""
    page = Page()
    page.data = bytes.fromhex(document["bytes"])
    page.fields = document["fields"]
    page.steps = [(step["name"], step["formula"]) for step in document["steps"]]
    page.tables = {name: {int(i): v for i, v in entries.items()} for name, entries in document["tables"].items()}
    for step in document["steps"]:
        page.claims[step["name"]] = [str(v) for v in step["values"] for _ in range(step["group"])]
    return page


def recompute(page: Page) -> dict[str, list[Any]]:
    """Every step of every weight, from the bytes."""
    fields = {field["name"]: _numbers(field, page.data) for field in page.fields}
    block_size = len(page.claims["weight"])
    out: dict[str, list[Any]] = {name: [] for name, _ in page.steps}
    programs = [(name, compile(text, name, "eval")) for name, text in page.steps]
    functions = {
        "f32": lambda x: np.float32(np.int64(x) if isinstance(x, int) else x),
        "pow2": lambda n: np.float32(2.0**n),
        "popcount": lambda n: bin(n).count("1"),
        "f16_bits": lambda n: np.float32(np.frombuffer(int(n).to_bytes(2, "little"), "<f2")[0]),
    }
    with np.errstate(all="ignore"):
        for j in range(block_size):
            scope: dict[str, Any] = {"__builtins__": {}, **functions, **fields, **page.tables, "j": j}
            for name, program in programs:
                scope[name] = eval(program, scope)
                out[name].append(scope[name])
    return out


def _numbers(field: dict[str, Any], data: bytes) -> list[Any]:
    raw = data[field["offset"] : field["offset"] + field["n_bytes"]]
    if field["kind"] == "uint":
        bits, plane = field["bits"], field["plane"]
        per_byte = 8 // bits
        return [
            raw[i // (plane * per_byte) * plane + i % plane] >> (i // plane % per_byte * bits) & ((1 << bits) - 1)
            for i in range(field["count"])
        ]
    numbers = np.frombuffer(raw, _READ[field["kind"]])
    if field["kind"] == "bf16":
        return list((numbers.astype(np.uint32) << 16).view(np.float32))
    if field["kind"] in ("f16", "f32"):
        return list(numbers.astype(np.float32))
    return list(numbers) if field["kind"] == "f64" else [int(n) for n in numbers]


def check_places(page: Page) -> None:
    """Read every number by the printed place alone; the fields' table must lead to the same bits."""
    for field in page.fields:
        numbers = _numbers(field, page.data)
        if len(numbers) == 1:
            continue
        byte, bit, bits, n_bytes = page.places.pop(field["name"])
        for i, number in enumerate(numbers):
            first = eval(byte, {"i": i})
            raw = page.data[first : first + n_bytes]
            value = int.from_bytes(raw, "little") >> eval(bit, {"i": i}) & ((1 << bits) - 1)
            if field["kind"] in ("f16", "f32", "f64", "bf16", "i8", "i16", "i32", "i64"):
                again = {**field, "offset": 0, "n_bytes": n_bytes, "count": 1}
                assert repr(_numbers(again, raw)) == repr([number]), f"{field['name']}[{i}]"
            else:
                assert value == number, f"{field['name']}[{i}]"
    assert not page.places, "a place of no field"


def check_claims(page: Page) -> np.ndarray:
    """Compare every printed number with the recomputed one, to the last bit; returns the weights, float32."""
    computed = recompute(page)
    assert set(page.claims) >= {name for name, _ in page.steps}, "a step's values are not on the page"
    for name, values in computed.items():
        assert len(page.claims[name]) == len(values)
        for j, (claim, value) in enumerate(zip(page.claims[name], values, strict=True)):
            if isinstance(value, (float, np.floating)):
                same = np.float32(claim).tobytes() == np.float32(value).tobytes() or (
                    np.isnan(np.float32(claim)) and np.isnan(value)
                )
            else:
                same = int(float(claim)) == int(value)
            assert same, f"{name} of weight {j}: printed {claim}, computed {value!r}"
    return np.array(computed["weight"], np.float32)
