"""Coverage-guided fuzzing of the container reader; optional, needs the package ``atheris``.

    pip install atheris
    python tools/fuzz/fuzz_container.py --seconds 60

Anything but a sound file or a `GgblockError` is a crash, and so is a file of at most 4 kB that brings the process to
512 MB. Any other argument goes to libFuzzer, e.g. a folder to keep the corpus in.
"""
from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

import atheris

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

with atheris.instrument_imports(include=["ggblock"]):
    import ggblock
    from ggblock import errors
    from ggblock.format import ArrayValue

from tests.format import craft

_PATH = os.path.join(tempfile.mkdtemp(prefix="ggblock-fuzz-"), "m.gguf")


def one_input(data: bytes) -> None:
    """Open ``data`` as a file and read all of it."""
    with open(_PATH, "wb") as stream:
        stream.write(data)
    try:
        file = ggblock.open(_PATH)
    except errors.GgblockError as fault:
        if "\n" in str(fault) or fault.file is None:
            raise AssertionError(f"not one line with a file: {fault!r}") from fault
        return
    with file:
        for value in file.metadata.values():
            if isinstance(value, ArrayValue):
                value.tolist()
        for tensor in file.tensors.values():
            if tensor.raw.nbytes != tensor.n_bytes:
                raise AssertionError(tensor)
            tensor.dequantize()


def seeds(folder: Path) -> None:
    """Write the spec's vectors into ``folder``, where libFuzzer starts from."""
    spec = craft.spec()
    for number, vector in enumerate(spec["valid"] + spec["fault"]):
        (folder / f"{number:03d}").write_bytes(craft.assemble(vector["parts"], vector.get("big", False)))


def main() -> None:
    arguments = sys.argv[1:]
    if "--seconds" in arguments:
        at = arguments.index("--seconds")
        arguments[at : at + 2] = [f"-max_total_time={int(arguments[at + 1])}"]
    corpus = Path(tempfile.mkdtemp(prefix="ggblock-corpus-"))
    seeds(corpus)
    atheris.Setup([sys.argv[0], "-rss_limit_mb=512", "-max_len=4096", *arguments, str(corpus)], one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
