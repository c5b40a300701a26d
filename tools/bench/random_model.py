#!/usr/bin/env python3
"""A llama model of random weights, for speeds that do not depend on what was trained.

    python tools/bench/random_model.py --dir FOLDER --types q4_k_m q2_k q6_k

writes ``b1-f16.gguf``, 1.07 B weights in the shape of Llama-3.2-1B with SmolLM2's vocabulary, with our own writer, and
has ``ggblock convert`` make ``b1-TYPE.gguf`` of it. What is there already stays. The same seed gives the same file.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT))

CHUNK_WEIGHTS = 1 << 22  # made at a time: 16 MB as float32


@dataclass(frozen=True)
class Shape:
    """Dimensions of a llama model; the vocabulary is that of another file. ``tied``: the embedding is the output."""

    width: int = 2048
    ffn: int = 8192
    layers: int = 16
    heads: int = 32
    kv_heads: int = 8
    context: int = 8192
    tied: bool = True

    @property
    def head_width(self) -> int:
        return self.width // self.heads

    def tensors(self, n_vocab: int) -> dict[str, tuple[int, ...]]:
        """Shapes by name, rows first, in the order of the file."""
        kv = self.kv_heads * self.head_width
        found: dict[str, tuple[int, ...]] = {"token_embd.weight": (n_vocab, self.width)}
        for i in range(self.layers):
            layer = {
                "attn_norm": (self.width,),
                "attn_q": (self.width, self.width),
                "attn_k": (kv, self.width),
                "attn_v": (kv, self.width),
                "attn_output": (self.width, self.width),
                "ffn_norm": (self.width,),
                "ffn_gate": (self.ffn, self.width),
                "ffn_up": (self.ffn, self.width),
                "ffn_down": (self.width, self.ffn),
            }
            found |= {f"blk.{i}.{name}.weight": shape for name, shape in layer.items()}
        found["output_norm.weight"] = (self.width,)
        if not self.tied:
            found["output.weight"] = (n_vocab, self.width)
        return found


B1 = Shape()  # 1.07 B weights


def write(path: Path, vocabulary: Path, shape: Shape = B1, seed: int = 1) -> int:
    """Write ``path`` in float16 with the vocabulary of the GGUF file ``vocabulary``; returns the number of weights.

    Weights are normal with variance 1 / n_in, so that every product has the variance of its input; norms are 1. Each
    tensor has a random stream of its own, so its values depend on the seed and its place alone.
    """
    import ggblock
    from ggblock.format import GgufWriter, TensorSpec
    from ggblock.format.metadata import Typed

    with ggblock.open(vocabulary) as file:
        n_vocab = len(file.metadata["tokenizer.ggml.tokens"])
        keys: dict[str, object] = {
            "general.architecture": "llama",
            "general.name": f"random weights, seed {seed}",
            "general.file_type": Typed("u32", 1),
            "llama.vocab_size": Typed("u32", n_vocab),
            "llama.context_length": Typed("u32", shape.context),
            "llama.embedding_length": Typed("u32", shape.width),
            "llama.block_count": Typed("u32", shape.layers),
            "llama.feed_forward_length": Typed("u32", shape.ffn),
            "llama.attention.head_count": Typed("u32", shape.heads),
            "llama.attention.head_count_kv": Typed("u32", shape.kv_heads),
            "llama.attention.layer_norm_rms_epsilon": Typed("f32", 1e-5),
            "llama.rope.freq_base": Typed("f32", 500000.0),
            "llama.rope.dimension_count": Typed("u32", shape.head_width),
        }
        keys |= {k: v for k, v in file.metadata.typed_items().items() if k.startswith("tokenizer.")}
        shapes = shape.tensors(n_vocab)
        specs = [TensorSpec(name, "f32" if len(s) == 1 else "f16", s) for name, s in shapes.items()]
        with GgufWriter(path, keys, specs, inputs=[vocabulary]) as writer:
            for place, (name, size) in enumerate(shapes.items()):
                if len(size) == 1:
                    writer.write(name, np.ones(size, np.float32))
                    continue
                random = np.random.Generator(np.random.PCG64([seed, place]))
                n_rows, n_cols = size
                scale = np.float32(n_cols**-0.5)
                step = max(1, CHUNK_WEIGHTS // n_cols)
                for start in range(0, n_rows, step):
                    rows = random.standard_normal((min(step, n_rows - start), n_cols), np.float32) * scale
                    writer.write_rows(name, rows.astype("<f2").view(np.uint8))
    return sum(int(np.prod(s)) for s in shapes.values())


def make(
    folder: Path,
    types: Sequence[str],
    vocabulary: Path | None = None,
    *,
    python: str = sys.executable,
    name: str = "b1",
    shape: Shape = B1,
    seed: int = 1,
) -> dict[str, Path]:
    """Paths by type (``f16`` or a recipe of ``ggblock convert``); what is missing in ``folder`` is made.

    ``vocabulary``: a GGUF file; None takes the catalog's SmolLM2, which is fetched if need be.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = {type_name: folder / f"{name}-{type_name}.gguf" for type_name in types}
    source = folder / f"{name}-f16.gguf"
    if not source.exists() and not all(path.exists() for path in paths.values()):
        if vocabulary is None:
            from ggblock import catalog

            vocabulary = catalog.resolve("smollm2-135m-instruct")
        print(f"writing {source}", file=sys.stderr, flush=True)
        write(source, vocabulary, shape, seed)
    for type_name, path in paths.items():
        if not path.exists():
            print(f"converting to {path}", file=sys.stderr, flush=True)
            command = [python, "-m", "ggblock", "convert", str(source), str(path), "--type", type_name]
            subprocess.run(command, check=True, stdout=sys.stderr, env=os.environ | {"PYTHONPATH": str(ROOT)})
    return paths


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dir", type=Path, required=True, help="where the files are kept")
    parser.add_argument("--types", nargs="*", default=["q4_k_m", "q2_k", "q6_k"], help="recipes of ggblock convert")
    parser.add_argument("--vocabulary", type=Path, help="a GGUF file [default: SmolLM2 of the catalog]")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    for path in make(args.dir, ["f16", *args.types], args.vocabulary, seed=args.seed).values():
        print(path)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
