"""Where weights come from: a table of kinds of files, and folders as Hugging Face lays them out.

``open_source(path)`` looks at what is there, never at what a name promises alone.
"""
from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any

from ... import errors
from ...format.mapped import Mapped
from ...format.reader import GgufFile
from . import safetensors, torch_zip
from .stored import GgufTensor, PlainTensor, SourceTensor

__all__ = ["Source", "SourceTensor", "open_source"]

#: File name ending: reader of one file of a checkpoint.
READERS: dict[str, Callable[[Mapped], dict[str, PlainTensor]]] = {
    ".safetensors": safetensors.read,
    ".bin": torch_zip.read,
    ".pt": torch_zip.read,
    ".pth": torch_zip.read,
}
#: In a folder: (start, ending) of weight files and the index that lists them, in order of preference.
FOLDER_FILES = (
    ("model", ".safetensors", "model.safetensors.index.json"),
    ("pytorch_model", ".bin", "pytorch_model.bin.index.json"),
    ("consolidated", ".safetensors", "consolidated.safetensors.index.json"),
    ("", ".safetensors", ""),
    ("pytorch_model", ".pt", ""),
    ("", ".pth", ""),
)
#: Bytes of a JSON file beside the weights; Gemma's tokenizer.json has 33 MB.
MAX_JSON_BYTES = 1 << 28


class Source:
    """An open checkpoint: ``tensors`` by name, and what else it says. Close it, or use it in ``with``.

    ``path``: as given. ``folder``: where config.json and the tokenizer are ('' where there is none). ``config``:
    config.json's object, None where the source is a GGUF file. ``gguf``: the open file, or None. ``paths``: every
    file that is read.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.fsdecode(path)
        self.folder = ""
        self.config: dict[str, Any] | None = None
        self.gguf: GgufFile | None = None
        self._mapped: list[Mapped] = []
        tensors: dict[str, SourceTensor] = {}
        try:
            if os.path.isdir(self.path):
                self.folder = self.path
                tensors.update(self._open_folder())
            elif os.path.exists(self.path) and _magic(self.path) == b"GGUF":
                self.gguf = GgufFile(self.path)
                tensors.update({name: GgufTensor(tensor) for name, tensor in self.gguf.tensors.items()})
            else:
                self.folder = os.path.dirname(os.path.abspath(self.path))
                tensors.update(self._open_file(self.path))
            self.tensors: Mapping[str, SourceTensor] = tensors
            if self.gguf is None:
                self.config = self.json("config.json")
        except BaseException:
            self.close()
            raise

    @property
    def paths(self) -> tuple[str, ...]:
        return self.gguf.paths if self.gguf is not None else tuple(mapped.path for mapped in self._mapped)

    def json(self, name: str, required: bool = True) -> dict[str, Any]:
        """The object in a JSON file of the folder; empty where it is missing and not ``required``."""
        path = os.path.join(self.folder, name)
        if not required and not os.path.isfile(path):
            return {}
        try:
            with open(path, "rb") as stream:
                raw = stream.read(MAX_JSON_BYTES + 1)
        except FileNotFoundError:
            raise errors.BadCheckpoint(f"a checkpoint needs {name} beside its weights", file=path) from None
        except OSError as fault:
            raise errors.CannotRead(f"cannot be read: {fault.strerror or fault}", file=path) from None
        if len(raw) > MAX_JSON_BYTES:
            raise errors.BadCheckpoint("too large", file=path, expected=f"at most {MAX_JSON_BYTES} bytes")
        try:
            value = json.loads(raw.decode("utf-8"))
        except (UnicodeDecodeError, ValueError, RecursionError) as fault:
            raise errors.BadCheckpoint(f"no valid JSON: {fault}", file=path) from None
        if not isinstance(value, dict):
            raise errors.BadCheckpoint("no JSON object", file=path, actual=type(value).__name__)
        return value

    def file(self, name: str) -> str | None:
        """The path of a file in the folder, None where it is missing."""
        path = os.path.join(self.folder, name)
        return path if os.path.isfile(path) else None

    def _open_folder(self) -> dict[str, PlainTensor]:
        names = sorted(os.listdir(self.path))
        for start, ending, index in FOLDER_FILES:
            parts = [name for name in names if name.startswith(start) and name.endswith(ending)]
            if index in names and index:
                return self._open_index(index)
            if parts:
                tensors: dict[str, PlainTensor] = {}
                for part in parts:
                    self._add(tensors, self._open_file(os.path.join(self.path, part)))
                return tensors
        raise errors.NotACheckpoint(
            "the folder holds no weights", file=self.path, expected="*.safetensors or pytorch_model*.bin"
        )

    def _open_index(self, index: str) -> dict[str, PlainTensor]:
        where = os.path.join(self.path, index)
        weight_map = self.json(index).get("weight_map")
        if not isinstance(weight_map, dict) or not all(isinstance(part, str) for part in weight_map.values()):
            raise errors.BadCheckpoint("weight_map is missing or no object of names", file=where)
        tensors: dict[str, PlainTensor] = {}
        for part in sorted(set(weight_map.values())):
            path = os.path.join(self.path, part)
            if os.path.basename(part) != part:
                raise errors.BadCheckpoint("the index names a file outside the folder", file=where, actual=part)
            if not os.path.exists(path):
                missing = sum(1 for other in weight_map.values() if other == part)
                raise errors.BadCheckpoint(
                    f"a file of the index is missing, with {missing} tensors", file=path, actual="no such file"
                )
            found = self._open_file(path)
            lacking = [name for name, other in weight_map.items() if other == part and name not in found]
            if lacking:
                raise errors.BadCheckpoint("the index promises a tensor that the file lacks", file=path,
                                           where=lacking[0])
            self._add(tensors, found)
        return tensors

    def _add(self, tensors: dict[str, PlainTensor], more: dict[str, PlainTensor]) -> None:
        for name, tensor in more.items():
            if name in tensors:
                raise errors.BadCheckpoint(f"the tensor is also in {tensors[name].path}", file=tensor.path, where=name)
            tensors[name] = tensor

    def _open_file(self, path: str) -> dict[str, PlainTensor]:
        reader = READERS.get(os.path.splitext(path)[1].lower())
        if reader is None and os.path.exists(path):
            raise errors.NotACheckpoint(
                "not a kind of file that can be converted", file=path,
                expected="a folder, .gguf, .ggb or " + " ".join(READERS),
            )
        mapped = Mapped(path)
        self._mapped.append(mapped)
        assert reader is not None
        return reader(mapped)

    def close(self) -> None:
        """Let go of all files."""
        if self.gguf is not None:
            self.gguf.close()
        for mapped in self._mapped:
            mapped.close()

    def __enter__(self) -> Source:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _magic(path: str) -> bytes:
    try:
        with open(path, "rb") as stream:
            return stream.read(4)
    except OSError as fault:
        raise errors.CannotRead(f"cannot be read: {fault.strerror or fault}", file=path) from None


def open_source(path: str | os.PathLike[str]) -> Source:
    """Open a checkpoint: a Hugging Face folder, ``.safetensors``, ``.bin``/``.pt``/``.pth``, ``.gguf`` or ``.ggb``.

    Headers are validated; no weight is read. Raises `errors.CannotRead`, `errors.NotACheckpoint`,
    `errors.BadCheckpoint`, `errors.UnsafePickle`, and for GGUF files what `format.open_gguf` raises.
    """
    return Source(path)
