"""What a file is, in a few facts: read from its header alone, so it takes the same time for any size of file."""
from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from .. import blocks
from ..format import checksums, ggb
from ..format.metadata import ArrayValue
from ..format.reader import GgufFile, Tensor
from . import words
from .consistency import architecture, contradictions, integer, length

#: llama.cpp's numbers in ``general.file_type``.
FILE_TYPES = {
    0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 7: "Q8_0", 8: "Q5_0", 9: "Q5_1", 10: "Q2_K", 11: "Q3_K_S", 12: "Q3_K_M",
    13: "Q3_K_L", 14: "Q4_K_S", 15: "Q4_K_M", 16: "Q5_K_S", 17: "Q5_K_M", 18: "Q6_K", 19: "IQ2_XXS", 20: "IQ2_XS",
    21: "Q2_K_S", 22: "IQ3_XS", 23: "IQ3_XXS", 24: "IQ1_S", 25: "IQ4_NL", 26: "IQ3_S", 27: "IQ3_M", 28: "IQ2_S",
    29: "IQ2_M", 30: "IQ4_XS", 31: "IQ1_M", 32: "BF16", 36: "TQ1_0", 37: "TQ2_0", 38: "MXFP4",
}
_PLAIN = frozenset({"f32", "f16", "bf16", "f64", "i8", "i16", "i32", "i64"})
_RUN_TIME_ONLY = frozenset({"q8_1", "q8_k"})


@dataclass(frozen=True)
class TypeTotal:
    """All tensors of one block type together."""

    type: blocks.BlockType
    n_tensors: int
    n_weights: int
    n_bytes: int


@dataclass(frozen=True)
class Note:
    """Something unusual: ``code`` for programs, ``text`` for people."""

    code: str
    text: str


@dataclass(frozen=True)
class Overview:
    """The facts of a file. None or the empty text: the file does not say.

    ``n_weights``, ``tensor_bytes``: of all tensors; ``bits_per_weight`` is the one over the other. ``profile``:
    ``GGUF`` or ``GGB`` (``spec/panels.md``). ``n_panels``: tensors in panels.
    ``file_type``: llama.cpp's name for the mix. ``special``: names of special tokens to ids.
    """

    path: str
    n_parts: int
    n_bytes: int
    version: int
    byte_order: str
    alignment: int
    profile: str
    n_panels: int
    architecture: str
    name: str
    licence: str
    file_type: str
    n_keys: int
    n_tensors: int
    n_weights: int
    tensor_bytes: int
    n_layers: int | None
    n_embd: int | None
    context: int | None
    tokenizer: str
    pre_tokenizer: str
    n_tokens: int | None
    special: dict[str, int]
    template_length: int | None
    has_checksums: bool
    types: tuple[TypeTotal, ...]
    notes: tuple[Note, ...]

    @property
    def bits_per_weight(self) -> float:
        """Stored bits a weight, all tensors together; 0 for a file without tensors."""
        return 8 * self.tensor_bytes / self.n_weights if self.n_weights else 0.0


def overview(file: GgufFile) -> Overview:
    """The facts of an open file. Touches no tensor byte and no element of a long array."""
    arch = architecture(file)
    template = file.metadata.get("tokenizer.chat_template")
    number = integer(file, "general.file_type")
    special = {}
    for key in file.metadata:
        if key.startswith("tokenizer.ggml.") and key.endswith("_token_id"):
            token = integer(file, key)
            if token is not None:
                special[key.removeprefix("tokenizer.ggml.").removesuffix("_token_id")] = token
    return Overview(
        path=file.path, n_parts=len(file.paths), n_bytes=file.n_bytes, version=file.version,
        byte_order=file.byte_order, alignment=file.alignment,
        profile="GGB" if ggb.VERSION in file.metadata else "GGUF",
        n_panels=sum(t.in_panels for t in file.tensors.values()), architecture=arch,
        name=_text(file, "general.name"), licence=_text(file, "general.license"),
        file_type="" if number is None else FILE_TYPES.get(number & 1023, f"unknown ({number})"),
        n_keys=len(file.metadata), n_tensors=len(file.tensors),
        n_weights=sum(t.n_weights for t in file.tensors.values()),
        tensor_bytes=sum(t.n_bytes for t in file.tensors.values()),
        n_layers=integer(file, f"{arch}.block_count"), n_embd=integer(file, f"{arch}.embedding_length"),
        context=integer(file, f"{arch}.context_length"),
        tokenizer=_text(file, "tokenizer.ggml.model"), pre_tokenizer=_text(file, "tokenizer.ggml.pre"),
        n_tokens=length(file, "tokenizer.ggml.tokens"), special=special,
        template_length=len(template) if isinstance(template, str) else None,
        has_checksums=any(key in file.metadata for key in checksums.KEYS),
        types=type_totals(file), notes=tuple(notes(file)),
    )


def _text(file: GgufFile, key: str) -> str:
    value = file.metadata.get(key)
    return words.readable(value) if isinstance(value, str) else ""


def type_totals(file: GgufFile) -> tuple[TypeTotal, ...]:
    """Totals of each block type in the file, most bytes first."""
    groups: dict[str, list[Tensor]] = {}
    for tensor in file.tensors.values():
        groups.setdefault(tensor.type.name, []).append(tensor)
    totals = [
        TypeTotal(g[0].type, len(g), sum(t.n_weights for t in g), sum(t.n_bytes for t in g)) for g in groups.values()
    ]
    return tuple(sorted(totals, key=lambda each: -each.n_bytes))


def gaps(file: GgufFile) -> list[tuple[str, int, int]]:
    """Bytes after a tensor that are more than padding: (tensor before, offset, bytes), also at the end of a file."""
    found = []
    by_path: dict[str, list[Tensor]] = {}
    for tensor in file.tensors.values():
        by_path.setdefault(tensor.path, []).append(tensor)
    single = len(file.paths) == 1
    for tensors in by_path.values():
        ends = [t.offset_bytes for t in tensors[1:]] + ([file.n_bytes] if single else [])
        for tensor, following in zip(tensors, ends, strict=False):
            end = tensor.offset_bytes + tensor.n_bytes
            padded = -(-end // file.alignment) * file.alignment
            if following > padded:
                found.append((tensor.name, padded, following - padded))
    return found


def notes(file: GgufFile) -> Iterator[Note]:
    """What a person should know about a file beyond its facts."""
    if not file.tensors:
        yield Note("no_tensors", "the file holds no tensors")
    yield from _container_notes(file)
    yield from _type_notes(file)
    yield from _key_notes(file)
    for each in contradictions(file):
        text = f"{each.where} is {each.actual}, but {each.message}: {each.expected}"
        yield Note("contradiction", text)


def _container_notes(file: GgufFile) -> Iterator[Note]:
    usual = ggb.ALIGNMENT if ggb.VERSION in file.metadata else 32
    if file.alignment != usual:
        yield Note("alignment", f"tensors are aligned to {file.alignment} bytes; {usual} is usual")
    filled = sum(t.n_bytes - t.n_rows * t.row_bytes for t in file.tensors.values())
    if filled:
        yield Note("panel_filling", f"{filled} zero bytes fill the last panel, or the last columns, of some tensors")
    if file.byte_order != "little":
        yield Note("byte_order", "the file is big-endian; blocks are shown converted")
    if file.version != 3:
        yield Note("version", f"GGUF version {file.version}; 3 is current")
    for name, offset, n_bytes in gaps(file):
        yield Note("gap", f"{n_bytes} unused bytes at {offset}, after {name}")
    odd = [key for key in (*file.metadata, *file.tensors) if key != words.readable(key)]
    if odd:
        shown = ", ".join(map(words.readable, odd[:5]))
        yield Note("odd_name", f"names with unprintable or broken characters: {shown}")


def _type_notes(file: GgufFile) -> Iterator[Note]:
    tensors = list(file.tensors.values())
    supers = [t for t in tensors if t.type.block_size == 256]
    wanted = (integer(file, "general.file_type") or 0) & 1023
    short = [
        t for t in tensors
        if len(t.shape) >= 2 and t.n_cols % 256 and t.type.name not in _PLAIN and t.type.block_size < 256
    ]
    if short and (supers or (wanted >= 10 and wanted not in (25, 32))):
        labels = ", ".join(sorted({t.type.label for t in short}))
        columns = ", ".join(map(str, sorted({t.n_cols for t in short})))
        n_bits = sum(8 * t.n_bytes for t in short) / sum(t.n_weights for t in short)
        yield Note(
            "fallback",
            f"{words.plural(len(short), 'tensor')} of {labels}, {n_bits:.2f} bits per weight: rows of {columns} are no "
            "multiple of 256, which the super-block types need",
        )
    ragged = [t for t in tensors if t.row.tail is not None]
    if ragged:
        columns = ", ".join(map(str, sorted({t.n_cols for t in ragged})))
        yield Note("ragged", f"{words.plural(len(ragged), 'tensor')} with ragged rows, of {columns} columns: the last "
                             "super-block of a row keeps only the sub-blocks in use")
    for t in tensors:
        if t.type.name in _RUN_TIME_ONLY:
            yield Note("run_time_type", f"{t.name} is {t.type.label}, a type for activations at run time")
    if "output.weight" not in file.tensors and "token_embd.weight" in file.tensors:
        yield Note("tied_output", "no output.weight: the token embedding is also the output matrix")


def _key_notes(file: GgufFile) -> Iterator[Note]:
    arch = architecture(file)
    if not arch:
        yield Note("missing_key", "general.architecture is missing")
    elif file.tensors and any(name.startswith("blk.") for name in file.tensors):
        names = ("block_count", "context_length", "embedding_length", "attention.head_count", "feed_forward_length")
        missing = [f"{arch}.{name}" for name in names if f"{arch}.{name}" not in file.metadata]
        if missing:
            yield Note("missing_key", f"missing: {', '.join(missing)}")
    if "tokenizer.ggml.model" not in file.metadata:
        yield Note("missing_key", "no tokenizer (tokenizer.ggml.model)")
    elif not isinstance(file.metadata.get("tokenizer.ggml.tokens"), ArrayValue):
        yield Note("missing_key", "no vocabulary (tokenizer.ggml.tokens)")
    elif "tokenizer.chat_template" not in file.metadata:
        yield Note("no_template", "no chat template")
    quantized = any(t.type.name not in _PLAIN for t in file.tensors.values())
    if quantized and "general.quantization_version" not in file.metadata:
        yield Note("missing_key", "general.quantization_version is missing")
    table, n_tokens = file.tensors.get("token_embd.weight"), length(file, "tokenizer.ggml.tokens")
    if table is not None and n_tokens is not None and table.n_rows > n_tokens:
        yield Note("padded_vocabulary", f"{table.n_rows - n_tokens} rows of token_embd.weight have no token")


def metadata_value(value: object, full: bool = False, first: int = 8) -> Any:
    """A metadata value for JSON: long arrays as their first elements unless ``full``."""
    if isinstance(value, ArrayValue):
        return [metadata_value(v, full, first) for v in (value if full else value[:first])]
    if isinstance(value, str):
        return words.json_text(value)
    if isinstance(value, (int, float)):
        return words.json_number(value)
    return words.json_text(str(value))


def overview_document(facts: Overview) -> dict[str, Any]:
    """``facts`` as JSON: the object ``file`` of ``spec/json/dump.schema.json``."""
    return {
        "path": words.json_text(facts.path), "n_parts": facts.n_parts, "n_bytes": facts.n_bytes,
        "version": facts.version, "byte_order": facts.byte_order, "alignment": facts.alignment,
        "profile": facts.profile, "n_panels": facts.n_panels,
        "architecture": facts.architecture, "name": facts.name, "licence": facts.licence,
        "file_type": facts.file_type, "n_keys": facts.n_keys, "n_tensors": facts.n_tensors,
        "n_weights": facts.n_weights, "tensor_bytes": facts.tensor_bytes, "bits_per_weight": facts.bits_per_weight,
        "n_layers": facts.n_layers, "n_embd": facts.n_embd, "context": facts.context, "tokenizer": facts.tokenizer,
        "pre_tokenizer": facts.pre_tokenizer, "n_tokens": facts.n_tokens, "special_tokens": facts.special,
        "template_length": facts.template_length, "has_checksums": facts.has_checksums,
        "types": [
            {
                "type": each.type.name, "n_tensors": each.n_tensors, "n_weights": each.n_weights,
                "n_bytes": each.n_bytes, "bits_per_weight": 8 * each.n_bytes / each.n_weights,
            }
            for each in facts.types
        ],
        "notes": [{"code": each.code, "text": each.text} for each in facts.notes],
    }


def tensor_document(tensor: Tensor) -> dict[str, Any]:
    """One line of the tensor table as JSON. ``shape``: rows first."""
    return {
        "name": words.json_text(tensor.name), "type": tensor.type.name, "shape": list(tensor.shape),
        "n_weights": tensor.n_weights, "n_bytes": tensor.n_bytes, "offset_bytes": tensor.offset_bytes,
        "bits_per_weight": 8 * tensor.n_bytes / tensor.n_weights, "path": words.json_text(tensor.path),
        "order": "panels" if tensor.in_panels else "rows",
    }
