"""What a conversion will do, decided without reading a weight: tensors, types, metadata, and the exact size."""
from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import blocks, errors
from ..blocks import tails
from ..format import GgufFile, checksums, ggb, panels, splits
from ..format.metadata import Typed
from ..format.validate import stored_bytes
from ..format.writer import GgufWriter, TensorSpec
from .config import Config
from .general import general
from .names import IGNORED, Names, Target, architecture_of, names_of, pair_index, plain_name
from .recipes import Choice, Model, Recipe, choose, compiled, fitting, recipe
from .sources import Source, SourceTensor
from .vocabulary import convert_vocabulary

#: The name of the recipe that keeps every type.
AS_IT_IS = "as it is"


@dataclass(frozen=True)
class Options:
    """How to convert.

    ``type``: name of a recipe; ``recipe_file``: a person's own. ``overrides``: ``REGEX=TYPE``. ``pure``: one type for
    all matrices. ``only``, ``skip``: patterns of the tensors that may be quantized; the others keep the type they have.
    ``fallback``: whether a row that does not fit may take another type. ``allow_nonfinite``: go on with NaN and
    infinities. ``split_bytes``: largest size of one output file, 0: one file. ``keep_split``: as many parts as the
    source has. ``importance``: float32 (n_cols,) by tensor name. ``pre``: the pre-tokenizer's name. ``threads``.
    ``checksums``: whether a checksum a tensor is stored.
    """

    type: str | None = None
    recipe_file: str | None = None
    overrides: tuple[str, ...] = ()
    pure: bool = False
    only: tuple[str, ...] = ()
    skip: tuple[str, ...] = ()
    fallback: bool = True
    allow_nonfinite: bool = False
    split_bytes: int = 0
    keep_split: bool = False
    importance: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)
    pre: str | None = None
    threads: int | None = None
    checksums: bool = True


@dataclass(frozen=True)
class Step:
    """One tensor of the result: ``name``, ``shape`` (rows first), ``type``, and where its weights come from.

    ``wanted``: the type it would have had the row fitted. ``source``: None for a generated tensor, whose ``values``
    are float32. ``index``: for each row the row of the source (None: the same). ``add``: added to every weight.
    ``copies``: the source's bytes are taken as they are. ``part``: number of the output file. ``in_panels``: stored as
    panels of 16 rows.
    """

    name: str
    shape: tuple[int, ...]
    type: blocks.BlockType
    wanted: blocks.BlockType
    source: SourceTensor | None = None
    values: NDArray[np.float32] | None = None
    index: NDArray[np.int64] | None = None
    add: float = 0.0
    copies: bool = False
    part: int = 0
    in_panels: bool = False

    @property
    def n_rows(self) -> int:
        return math.prod(self.shape[:-1])

    @property
    def n_cols(self) -> int:
        return self.shape[-1] if self.shape else 1

    @property
    def n_weights(self) -> int:
        return self.n_rows * self.n_cols

    @property
    def row(self) -> tails.Row:
        """How a row is cut into blocks; in panels it may be ragged."""
        return tails.row(self.type, self.n_cols, self.in_panels)

    @property
    def n_bytes(self) -> int:
        return stored_bytes(self.type, self.n_rows, self.row.n_bytes, self.in_panels)

    @property
    def spec(self) -> TensorSpec:
        return TensorSpec(self.name, self.type, self.shape, self.in_panels)


@dataclass(frozen=True)
class Plan:
    """Everything that is written, in order. ``paths``: the output files. ``n_bytes``: their exact size together."""

    source: Source
    recipe: Recipe
    options: Options
    metadata: Mapping[str, Any]
    steps: tuple[Step, ...]
    paths: tuple[str, ...]
    n_bytes: int
    notes: tuple[str, ...]

    @property
    def n_weights(self) -> int:
        return sum(step.n_weights for step in self.steps)

    @property
    def tensor_bytes(self) -> int:
        return sum(step.n_bytes for step in self.steps)

    @property
    def bits_per_weight(self) -> float:
        """Bits of tensor data a weight, scales included."""
        return 8 * self.tensor_bytes / max(1, self.n_weights)

    @property
    def fallbacks(self) -> tuple[Step, ...]:
        """Tensors whose rows do not fit the type that the recipe wants."""
        return tuple(step for step in self.steps if step.type is not step.wanted)

    def part_metadata(self, part: int) -> dict[str, Any]:
        """The keys of output file ``part``, without checksums."""
        values = dict(self.metadata) if part == 0 else ggb.marked({}) if ggb.VERSION in self.metadata else {}
        if len(self.paths) > 1:
            values[splits.NUMBER] = Typed("u16", part)
            values[splits.COUNT] = Typed("u16", len(self.paths))
            values[splits.TENSORS] = Typed("i32", len(self.steps))
        return values

    def writers(self) -> list[GgufWriter]:
        """One writer an output file; nothing is created before they are entered."""
        return [
            GgufWriter(
                path, self.part_metadata(part), [step.spec for step in self.steps if step.part == part],
                inputs=self.source.paths, checksums=self.options.checksums,
            )
            for part, path in enumerate(self.paths)
        ]


def make_plan(source: Source, target: str, options: Options) -> Plan:
    """Decide everything about converting ``source`` into the file ``target``.

    Raises the faults of a checkpoint (`errors.CheckpointError`, `errors.MissingTensor`, `errors.ShapeMismatch`,
    `errors.TokenizerError`), `errors.SettingError`, `errors.RowDoesNotFit` where a fallback is forbidden, and
    `errors.WouldOverwriteInput`.
    """
    to_ggb = target.endswith(".ggb")
    if to_ggb and not options.checksums:
        raise errors.SettingError("the GGB profile requires checksums", where="checksums")
    keep = source.gguf is not None and options.type is None and options.recipe_file is None and not options.overrides
    if keep:
        chosen = Recipe(AS_IT_IS, "f32", 0)
    else:
        chosen = recipe(options.type, file=options.recipe_file, overrides=options.overrides, pure=options.pure)
    if source.gguf is not None:
        metadata, steps, model, notes = _from_gguf(source.gguf, source)
    else:
        metadata, steps, model, notes = _from_checkpoint(source, options)
    if not keep:
        steps = _typed(source, steps, chosen, model, options, to_ggb)
        metadata["general.file_type"] = Typed("u32", chosen.file_type)
        metadata["general.quantization_version"] = Typed("u32", 2)
        metadata["ggblock.recipe"] = chosen.name
    if to_ggb:
        steps = [replace(s, in_panels=len(s.shape) > 1 and s.type.name in panels.UNITS) for s in steps]
        metadata = ggb.marked(metadata)
    else:
        steps = [_unragged(step) for step in steps]
    steps, paths = _split(source, steps, target, options)
    plan = Plan(source, chosen, options, metadata, tuple(steps), tuple(paths), 0, tuple(notes))
    if plan.fallbacks and not options.fallback:
        first = plan.fallbacks[0]
        what = "ragged rows, which only a GGB file holds" if keep else "rows that do not fit the type the recipe wants"
        raise errors.RowDoesNotFit(
            f"{len(plan.fallbacks)} tensors have {what}", file=source.path,
            where=first.name, expected=f"a multiple of {first.wanted.block_size} for {first.wanted.label}",
            actual=f"{first.n_cols} columns",
        )
    size = sum(writer.n_bytes for writer in plan.writers())
    return replace(plan, n_bytes=size)


def _unragged(step: Step) -> Step:
    """A step of a GGUF file, whose rows are whole blocks: ragged rows of the source are encoded as another type."""
    if step.n_cols % step.type.block_size == 0:
        return step
    return replace(step, type=fitting(step.type, step.n_cols), copies=False)


def _from_gguf(file: GgufFile, source: Source) -> tuple[dict[str, Any], list[Step], Model, list[str]]:
    metadata: dict[str, Any] = {
        key: value for key, value in file.metadata.typed_items().items()
        if key not in splits.KEYS and key not in checksums.KEYS
    }  # fmt: skip
    metadata = ggb.unmarked(metadata)
    architecture = file.metadata.get("general.architecture")

    def count(key: str, default: int) -> int:
        value = file.metadata.get(f"{architecture}.{key}", default)
        if not isinstance(value, int) and hasattr(value, "numpy"):
            value = int(value.numpy().max())  # a number a layer
        return value if isinstance(value, int) else default

    heads = count("attention.head_count", 1)
    model = Model(count("block_count", 0), heads, count("attention.head_count_kv", heads), count("expert_count", 0))
    steps = []
    for name, tensor in source.tensors.items():
        steps.append(Step(name, tensor.shape, tensor.type, tensor.type, source=tensor, copies=True))
    return metadata, steps, model, []


def _from_checkpoint(source: Source, options: Options) -> tuple[dict[str, Any], list[Step], Model, list[str]]:
    config = Config(source.config or {}, f"{source.folder}/config.json")
    architecture = architecture_of(config)
    names = names_of(architecture)
    keys = names.metadata(config)
    vocabulary = convert_vocabulary(source, config, architecture, options.pre)
    steps = _map(source, config, names, vocabulary.n_tokens)
    n_weights = sum(step.n_weights for step in steps)
    metadata: dict[str, Any] = {"general.architecture": architecture, **general(source, n_weights)}
    before = "attention.value_length" if "attention.value_length" in keys else "attention.layer_norm_rms_epsilon"
    for key, value in keys.items():
        metadata[f"{architecture}.{key}"] = value
        if key == before:
            metadata["general.file_type"] = Typed("u32", 0)  # where other converters have it; set below
    metadata["general.quantization_version"] = Typed("u32", 2)
    metadata.update(vocabulary.keys)
    heads, kv_heads = (metadata[f"{architecture}.attention.{key}"].value for key in ("head_count", "head_count_kv"))
    model = Model(metadata[f"{architecture}.block_count"].value, heads, kv_heads)
    return metadata, steps, model, list(vocabulary.notes)


def _map(source: Source, config: Config, names: Names, n_vocab: int) -> list[Step]:
    """Every tensor of the checkpoint under its new name, in the checkpoint's order; generated ones first."""
    targets = names.tensors(config, n_vocab)
    plain = blocks.by_name("f32")
    steps = [Step(name, v.shape, plain, plain, values=v) for name, v in names.generated(config).items()]
    done: dict[str, str] = {}
    for name, tensor in source.tensors.items():
        if IGNORED.search(name):
            continue
        target = targets.get(plain_name(name))
        if target is None:
            raise errors.UnmappedTensor(
                f"a {config.architecture} has no such tensor", file=tensor.path, where=name, actual=tensor.shape
            )
        if target.name in done:
            raise errors.BadCheckpoint(
                f"the tensor becomes {target.name}, and so does {done[target.name]}", file=tensor.path, where=name
            )
        done[target.name] = name
        steps.append(_mapped(tensor, target, plain))
    for name, target in targets.items():
        if target.required and target.name not in done:
            raise errors.MissingTensor(
                f"the checkpoint lacks a tensor that config.json asks for ({target.name})", file=source.path, where=name
            )
    return steps


def _mapped(tensor: SourceTensor, target: Target, plain: blocks.BlockType) -> Step:
    fits = len(tensor.shape) == len(target.shape) and all(
        want is None or want == have for want, have in zip(target.shape, tensor.shape, strict=True)
    )
    if not fits or 0 in tensor.shape:
        raise errors.ShapeMismatch(
            "the tensor's shape contradicts config.json", file=tensor.path, where=tensor.name,
            expected=" x ".join("?" if n is None else str(n) for n in target.shape),
            actual=" x ".join(map(str, tensor.shape)),
        )
    shape, index = tensor.shape, None
    if target.heads:
        index = pair_index(shape[0], target.heads)
    if target.max_rows is not None and shape[0] > target.max_rows:
        shape = (target.max_rows, *shape[1:])
    return Step(target.name, shape, plain, plain, source=tensor, index=index, add=target.add)


def _typed(
    source: Source, steps: list[Step], chosen: Recipe, model: Model, options: Options, ragged: bool
) -> list[Step]:
    """``steps`` with the types that the recipe, the overrides and ``only``/``skip`` choose."""
    shapes = {step.name: step.shape for step in steps}
    choices = choose(chosen, shapes, model, bool(options.importance), ragged)
    only = [compiled(pattern, "--only") for pattern in options.only]
    skip = [compiled(pattern, "--skip") for pattern in options.skip]
    for patterns, option in ((only, "--only"), (skip, "--skip")):
        for pattern in patterns:
            if not any(pattern.search(name) for name in choices):
                raise errors.SettingError("the pattern fits no tensor that can be quantized", where=option,
                                          actual=pattern.pattern)
    out = []
    for step in steps:
        choice = choices.get(step.name)
        if choice is not None and (
            (only and not any(p.search(step.name) for p in only)) or any(p.search(step.name) for p in skip)
        ):
            kept = step.source.type if step.source is not None else step.type
            kept = kept if kept.name in ("f32", "f16", "bf16") or source.gguf is not None else blocks.by_name("f32")
            choice = Choice(kept, kept)
        if choice is None:  # plain: as it is in a GGUF file, float32 from a checkpoint
            out.append(step)
            continue
        changed = step.index is not None or step.add
        copies = step.source is not None and step.source.type is choice.type and not changed
        out.append(replace(step, type=choice.type, wanted=choice.wanted, copies=copies))
    return out


def _split(source: Source, steps: list[Step], target: str, options: Options) -> tuple[list[Step], list[str]]:
    """Number the output files of ``steps`` and name them."""
    parts = [0] * len(steps)
    if options.keep_split:
        if source.gguf is None or len(source.gguf.paths) == 1:
            raise errors.SettingError("the source is not split", file=source.path, where="--keep-split")
        parts = [source.gguf.paths.index(step.source.path) for step in steps if step.source is not None]
    elif options.split_bytes:
        part, used = 0, 0
        for i, step in enumerate(steps):
            if used and used + step.n_bytes > options.split_bytes:
                part, used = part + 1, 0
            used += step.n_bytes
            parts[i] = part
    n = max(parts, default=0) + 1
    if n == 1:
        return steps, [target]
    stem = re.sub(r"(-\d{5}-of-\d{5})?\.(gguf|ggb)$", "", target)
    ending = target[target.rindex(".") :] if "." in target else ".gguf"
    numbered = [replace(step, part=part) for step, part in zip(steps, parts, strict=True)]
    return numbered, [f"{stem}-{i:05d}-of-{n:05d}{ending}" for i in range(1, n + 1)]

