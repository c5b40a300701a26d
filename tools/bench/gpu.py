"""What issue "Chosen layers on a GPU" promises, measured: needs an NVIDIA GPU and the extra ``cuda``.

    python tools/bench/gpu.py MODEL.gguf [...] [--torch] [--record]

For each model: the device's memory roof and its bfloat16 peak; decode and prefill with everything on the device, as
shares of them; half the layers offloaded beside the sum of the parts; logits against the CPU's reference mode, and the
same greedy text for several splits. ``--torch``: beside it transformers in bfloat16 with random weights of the same
shape, a static cache and CUDA graphs (needs torch with CUDA and transformers). ``--record`` appends to ``RESULTS.md``.
"""

from __future__ import annotations

import argparse
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import ggblock  # noqa: E402
from ggblock.runtime.bench import cases_of, context_for, measure  # noqa: E402
from tools.bench import machine  # noqa: E402

ROOF_BYTES, GEMM = 4 << 30, 8192
PREFILL, WRITTEN = 2048, 128
IDS = [1, *range(1000, 1200)]


def quiet(line: str) -> None:
    print(f"  {line}", file=sys.stderr)


def memory_roof() -> float:
    """Bytes a second that a plain kernel reads: float32 sums over 4 GiB, the best of five."""
    from numba import cuda

    from ggblock.engine.cuda import jit

    n, threads, blocks = ROOF_BYTES // 4, 256, 132 * 16

    @jit.kernel("roof", "ffi")
    def read(x, out, n):  # type: ignore[no-untyped-def]
        i = cuda.grid(1)
        step = cuda.gridsize(1)
        total = np.float32(0)
        while i + 3 * step < n:
            total += x[i] + x[i + step] + x[i + 2 * step] + x[i + 3 * step]
            i += 4 * step
        out[cuda.grid(1)] = total

    x, out = cuda.device_array(n, np.float32), cuda.device_array(threads * blocks, np.float32)
    stream, best = cuda.stream(), 1e9
    for _ in range(6):
        begin, end = cuda.event(), cuda.event()
        begin.record(stream)
        read[blocks, threads, stream](x, out, n)
        end.record(stream)
        end.synchronize()
        best = min(best, cuda.event_elapsed_time(begin, end) / 1e3)
    return ROOF_BYTES / best


def matrix_peak() -> float:
    """Operations a second of cuBLAS's bfloat16 product of 8,192 square, the best of five."""
    from numba import cuda

    from ggblock.engine.cuda.gemm import WORKSPACE, Cublas

    stream, best = cuda.stream(), 1e9
    gemm = Cublas(stream, cuda.device_array(WORKSPACE, np.uint8))
    a, b = (cuda.to_device(np.full(GEMM * GEMM, 0x3C00, np.uint16)) for _ in range(2))
    y = cuda.device_array(GEMM * GEMM, np.float32)
    for _ in range(6):
        begin, end = cuda.event(), cuda.event()
        begin.record(stream)
        gemm.product(a, b, y, 0, GEMM, GEMM, GEMM, GEMM, GEMM, GEMM, 0, stream)
        end.record(stream)
        end.synchronize()
        best = min(best, cuda.event_elapsed_time(begin, end) / 1e3)
    return 2.0 * GEMM**3 / best


def speeds(path: str, offload: object, depths: tuple[int, ...] = (0,)) -> dict[str, float]:
    """Tokens a second by the names of ``ggblock bench``."""
    tests = cases_of([PREFILL], [WRITTEN], depths)
    with ggblock.load(path, offload=offload, context=context_for(tests), notify=quiet) as model:
        return {m.test.name: m.tokens_per_s for m in measure(model, tests, 5)}


def read_bytes(path: str) -> tuple[int, int, int]:
    """(bytes of matrices that a token reads, their weights without the output, layers)."""
    with ggblock.open(path) as file:
        output = "output.weight" if "output.weight" in file.tensors else "token_embd.weight"
        layers = [t for name, t in file.tensors.items() if name.startswith("blk.") and len(t.shape) == 2]
        architecture = file.metadata["general.architecture"]
        n_layers = int(file.metadata[f"{architecture}.block_count"])
        return sum(t.n_bytes for t in [*layers, file.tensors[output]]), sum(t.n_weights for t in layers), n_layers


def agreement(path: str, n_layers: int) -> list[str]:
    """Logits beside the reference mode's, and greedy texts of several splits."""

    def logits(**options: Any) -> np.ndarray:
        with ggblock.load(path, context=512, notify=quiet, **options) as model:
            n = model.n_vocab
            found: np.ndarray = model.logits([i % n for i in IDS])
            return found

    exact, cpu, gpu = logits(reference=True), logits(), logits(offload="all")
    lines = [
        f"logits beside reference mode, rms: CPU {np.sqrt(np.mean((cpu - exact) ** 2)):.4f}, "
        f"GPU {np.sqrt(np.mean((gpu - exact) ** 2)):.4f}, of {exact.std():.2f}"
    ]
    texts = {}
    for offload in (None, 1, n_layers // 2, "all", r"blk\.\d*[02468]\.ffn"):
        with ggblock.load(path, context=512, offload=offload, notify=quiet) as model:
            ids = [i % model.n_vocab for i in IDS[:16]]
            texts[str(offload)] = model.generate(ids, 48, temperature=0.0).run().ids
    base = texts["None"]
    for name, ids in texts.items():
        same = next((i for i, (x, y) in enumerate(zip(base, ids, strict=False)) if x != y), len(base))
        lines.append(f"greedy with --offload {name}: {same} of {len(base)} tokens as on the CPU")
    return lines


def torch_speeds(path: str) -> dict[str, float]:
    """Tokens a second of transformers, bfloat16, random weights of the file's shape, static cache, CUDA graphs."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM, StaticCache

    with ggblock.open(path) as file:
        m, a = file.metadata, file.metadata["general.architecture"]
        config = LlamaConfig(
            hidden_size=m[f"{a}.embedding_length"], intermediate_size=m[f"{a}.feed_forward_length"],
            num_hidden_layers=m[f"{a}.block_count"], num_attention_heads=m[f"{a}.attention.head_count"],
            num_key_value_heads=m.get(f"{a}.attention.head_count_kv", m[f"{a}.attention.head_count"]),
            head_dim=m.get(f"{a}.attention.key_length"), vocab_size=file.tensors["token_embd.weight"].shape[0],
            max_position_embeddings=4096, tie_word_embeddings="output.weight" not in file.tensors,
        )  # fmt: skip
    with torch.device("cuda"):
        model = LlamaForCausalLM(config).to(torch.bfloat16).eval()
    cache = StaticCache(config=config, max_cache_len=PREFILL + 2 * WRITTEN)
    step = torch.compile(model, mode="reduce-overhead", fullgraph=True)
    found = {}
    with torch.inference_mode():

        def run(n: int, position: int) -> None:
            ids = torch.zeros((1, n), dtype=torch.long, device="cuda")
            at = torch.arange(position, position + n, device="cuda")
            (step if n == 1 else model)(ids, past_key_values=cache, cache_position=at, use_cache=True)

        for name, n, count in ((f"pp{PREFILL}", PREFILL, 5), (f"tg{WRITTEN}", 1, WRITTEN)):
            for _ in range(3):
                run(n, 0)
            torch.cuda.synchronize()
            start = time.perf_counter()
            for i in range(count):
                run(n, i if n == 1 else 0)
            torch.cuda.synchronize()
            found[name] = n * count / (time.perf_counter() - start)
    return found


def report(path: str, roof: float, peak: float, with_torch: bool) -> list[str]:
    n_bytes, n_weights, n_layers = read_bytes(path)
    pp, tg = f"pp{PREFILL}", f"tg{WRITTEN}"
    cpu, gpu, half = speeds(path, None), speeds(path, "all", (0, 4096)), speeds(path, n_layers // 2)
    parts = 1 / cpu[tg] * (1 - n_layers // 2 / n_layers) + 1 / gpu[tg] * (n_layers // 2 / n_layers)
    lines = [f"**{Path(path).name}**", "", "| test | CPU | GPU, all | share of the roof |", "|---|---|---|---|"]
    lines.append(f"| {tg} | {cpu[tg]:.1f} | {gpu[tg]:.1f} | {gpu[tg] * n_bytes / roof:.0%} of the memory's |")
    lines.append(f"| {tg}@d4096 | | {gpu[tg + '@d4096']:.1f} | |")
    share = gpu[pp] * 2 * n_weights / peak
    lines += [f"| {pp} | {cpu[pp]:.1f} | {gpu[pp]:.1f} | {share:.0%} of the matrix peak |", ""]
    lines.append(f"Half the layers: {1e3 / half[tg]:.3f} ms a token, the parts' sum {1e3 * parts:.3f} ms.")
    if with_torch:
        other = torch_speeds(path)
        lines.append(f"PyTorch bfloat16: {tg} {other[tg]:.1f} (ratio {gpu[tg] / other[tg]:.2f}), {pp} {other[pp]:.1f}.")
    return [*lines, *agreement(path, n_layers), ""]


def versions() -> str:
    found = []
    for package in ("numba", "numba-cuda", "cuda-bindings", "nvidia-cublas-cu12", "torch", "transformers"):
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            continue
    return ", ".join(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+")
    parser.add_argument("--torch", action="store_true")
    parser.add_argument("--record", action="store_true")
    arguments = parser.parse_args()
    from ggblock.engine.cuda.device import Device

    device = Device()
    if device.simulated:
        raise SystemExit("NUMBA_ENABLE_CUDASIM is set: there is nothing to measure")
    roof, peak = memory_roof(), matrix_peak()
    lines = [
        machine.title("GPU"), "",
        f"{device.name}; reads {roof / 1e9:.0f} GB/s, bfloat16 {peak / 1e12:.0f} TFLOP/s. {versions()}.",
        machine.sentence(), "",
    ]  # fmt: skip
    for path in arguments.models:
        lines += report(path, roof, peak, arguments.torch)
    machine.publish(lines, record=arguments.record)


if __name__ == "__main__":
    main()
