"""The files of spec/files in llama.cpp: it reads the GGUF ones as the specification says, and refuses the GGB ones."""
from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.oracle import peer
from tools import spec_reader

pytestmark = pytest.mark.oracle

FILES = spec_reader.SPEC / "files"
#: Opens a file with ggml's own reader, and prints its tensors.
PROGRAM = """
import ctypes, json, pathlib, sys
import llama_cpp
folder = pathlib.Path(llama_cpp.__file__).parent / "lib"
ggml = ctypes.CDLL(str(next(p for p in sorted(folder.iterdir()) if "ggml-base" in p.name)))
class Params(ctypes.Structure):
    _fields_ = [("no_alloc", ctypes.c_bool), ("ctx", ctypes.c_void_p)]
for name, kind in (("gguf_init_from_file", ctypes.c_void_p), ("gguf_get_tensor_name", ctypes.c_char_p),
                   ("gguf_get_tensor_offset", ctypes.c_size_t), ("gguf_get_data_offset", ctypes.c_size_t),
                   ("gguf_get_tensor_size", ctypes.c_size_t), ("gguf_get_n_tensors", ctypes.c_int64),
                   ("gguf_get_n_kv", ctypes.c_int64)):
    getattr(ggml, name).restype = kind
ggml.gguf_init_from_file.argtypes = [ctypes.c_char_p, Params]
context = ggml.gguf_init_from_file(sys.argv[1].encode(), Params(True, None))
if not context:
    print(json.dumps(None))
    sys.exit()
context = ctypes.c_void_p(context)
base, tensors = ggml.gguf_get_data_offset(context), []
for i in range(ggml.gguf_get_n_tensors(context)):
    i = ctypes.c_int64(i)
    tensors.append([ggml.gguf_get_tensor_name(context, i).decode(), ggml.gguf_get_tensor_type(context, i),
                    base + ggml.gguf_get_tensor_offset(context, i), ggml.gguf_get_tensor_size(context, i)])
print(json.dumps({"keys": ggml.gguf_get_n_kv(context), "tensors": tensors}))
"""


def opened(path: Path) -> dict[str, Any] | None:
    done = subprocess.run([peer.PYTHON, "-c", PROGRAM, str(path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    found: dict[str, Any] | None = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.parametrize("name", sorted(path.name for path in FILES.glob("*.gguf") if path.name != "big-endian.gguf"))
def test_it_places_every_tensor_where_we_do(name: str) -> None:
    (part,), found = spec_reader.read(FILES / name).parts, opened(FILES / name)
    assert found is not None and found["keys"] == len(part.values)
    ours = [[t.name, spec_reader.TYPES[t.type]["id"], t.start, t.n_bytes] for t in part.tensors]
    assert found["tensors"] == ours


@pytest.mark.parametrize("name", sorted(path.name for path in FILES.glob("*.ggb") if path.name != "empty.ggb"))
def test_it_refuses_tensors_in_panels(name: str) -> None:
    in_panels = any(t.in_panels for t in spec_reader.read_part(name, (FILES / name).read_bytes()).tensors)
    assert (opened(FILES / name) is None) == in_panels
