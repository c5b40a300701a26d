"""Assemble container bytes by hand, without any of ggblock's code: the language of ``spec/container.toml``."""
from __future__ import annotations

import struct
import sys
from pathlib import Path
from typing import Any

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

SPEC = Path(__file__).resolve().parents[2] / "spec" / "container.toml"
_LETTERS = {
    "u8": "B", "i8": "b", "u16": "H", "i16": "h", "u32": "I", "i32": "i", "u64": "Q", "i64": "q", "f32": "f", "f64": "d"
}


def spec() -> dict[str, Any]:
    with SPEC.open("rb") as stream:
        return tomllib.load(stream)


def assemble(parts: list[str], big: bool = False) -> bytes:
    order, out = ">" if big else "<", b""
    for part in parts:
        word, _, rest = part.partition(" ")
        if word in _LETTERS:
            out += struct.pack(order + _LETTERS[word], float(rest) if word[0] == "f" else int(rest))
        elif word == "str":
            out += struct.pack(order + "Q", len(rest.encode())) + rest.encode()
        elif word == "text":
            out += rest.encode()
        elif word == "hex":
            out += bytes.fromhex(rest)
        elif word == "zeros":
            out += bytes(int(rest))
        elif word == "digits":
            out += b"0" * int(rest)
        elif word == "pad":
            out += bytes(-len(out) % int(rest))
        else:
            raise ValueError(part)
    return out


def text(raw: bytes) -> bytes:
    return struct.pack("<Q", len(raw)) + raw


def key(name: str, kind: int, value: bytes) -> bytes:
    return text(name.encode()) + struct.pack("<I", kind) + value


def string_array(items: list[bytes]) -> bytes:
    return struct.pack("<IQ", 8, len(items)) + b"".join(map(text, items))


def container(keys: list[bytes], tensors: list[bytes] | None = None, data: bytes = b"") -> bytes:
    tensors = tensors or []
    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(keys)) + b"".join(keys) + b"".join(tensors)
    return head + (bytes(-len(head) % 32) + data if data else b"")


def tensor(name: str, ne: tuple[int, ...], type_id: int, offset: int) -> bytes:
    return text(name.encode()) + struct.pack(f"<I{len(ne)}QIQ", len(ne), *ne, type_id, offset)
