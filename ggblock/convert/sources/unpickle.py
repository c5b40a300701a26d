"""Read the pickle of a torch checkpoint without Python's unpickler and without torch.

A pickle is a program that can call anything. This reader runs only the instructions that a dictionary of tensors
needs, and the only things it can "call" are four constructors that it implements itself; every other name, and every
other instruction, is refused before anything happens. Nothing is imported.
"""
from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ... import errors

#: Values on the stack and in the memo: far more than a checkpoint of 100,000 tensors needs.
MAX_VALUES = 1 << 23

#: Storage classes of torch, and the dtype names (as in safetensors) of their elements.
STORAGES = {
    "DoubleStorage": "F64", "FloatStorage": "F32", "HalfStorage": "F16", "BFloat16Storage": "BF16",
    "LongStorage": "I64", "IntStorage": "I32", "ShortStorage": "I16", "CharStorage": "I8",
    "ByteStorage": "U8", "BoolStorage": "BOOL",
}


@dataclass(frozen=True)
class Storage:
    """One array of numbers: the entry ``key`` of the archive's ``data`` folder."""

    dtype: str
    key: str
    n: int


@dataclass(frozen=True)
class View:
    """A tensor: a view into a storage; ``offset`` and ``strides`` count elements."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


@dataclass(frozen=True)
class _Name:
    text: str


class _Mark:
    pass


_MARK = _Mark()


def load(data: bytes, path: str) -> Any:
    """The object that ``data`` describes: dicts, lists, tuples, strings, numbers, `View`.

    ``path`` is for messages. Raises `errors.UnsafePickle` for any name or instruction beyond those of tensors,
    `errors.BadCheckpoint` for a pickle that is damaged.
    """
    return _Machine(data, path).run()


class _Machine:
    def __init__(self, data: bytes, path: str) -> None:
        self.data, self.path, self.at = data, path, 0
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def run(self) -> Any:
        try:
            while True:
                start = self.at
                code = self.take(1)
                if code == b".":
                    return self.stack.pop()
                step = _STEPS.get(code)
                if step is None:
                    raise errors.UnsafePickle(
                        "the pickle holds an instruction that tensors do not need", file=self.path, offset_bytes=start,
                        actual=code,
                    )
                step(self)
                if len(self.stack) > MAX_VALUES or len(self.memo) > MAX_VALUES:
                    raise errors.BadCheckpoint("the pickle holds too many values", file=self.path, offset_bytes=start)
        except (IndexError, KeyError, TypeError, ValueError, AttributeError, struct.error, RecursionError) as fault:
            raise errors.BadCheckpoint(
                f"the pickle is damaged: {type(fault).__name__}", file=self.path, offset_bytes=self.at
            ) from None

    def take(self, n: int) -> bytes:
        if n > len(self.data) - self.at:
            raise errors.BadCheckpoint("the pickle ends too early", file=self.path, offset_bytes=self.at)
        part = self.data[self.at : self.at + n]
        self.at += n
        return part

    def number(self, letter: str) -> int:
        return int(struct.unpack("<" + letter, self.take(struct.calcsize("<" + letter)))[0])

    def line(self) -> str:
        end = self.data.index(b"\n", self.at)
        return self.take(end + 1 - self.at)[:-1].decode("utf-8")

    def marked(self) -> list[Any]:
        for i in range(len(self.stack) - 1, -1, -1):
            if self.stack[i] is _MARK:
                items = self.stack[i + 1 :]
                del self.stack[i:]
                return items
        raise IndexError

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def name(self, module: str, name: str) -> None:
        text = f"{module}.{name}"
        if text not in _CALLS and not (module == "torch" and name in STORAGES):
            raise errors.UnsafePickle(
                "the pickle names something that is no tensor; loading it could run code", file=self.path,
                offset_bytes=self.at, actual=text,
            )
        self.push(_Name(text))

    def reduce(self) -> None:
        arguments = self.stack.pop()
        called = self.stack.pop()
        if not isinstance(called, _Name) or called.text not in _CALLS or not isinstance(arguments, tuple):
            raise errors.UnsafePickle("the pickle calls something that is no tensor", file=self.path,
                                      offset_bytes=self.at)
        self.push(_CALLS[called.text](*arguments))

    def build(self) -> None:
        # Attributes of an OrderedDict (torch's ``_metadata``) say nothing about weights.
        self.stack.pop()
        if not isinstance(self.stack[-1], dict):
            raise TypeError

    def persistent(self) -> None:
        reference = self.stack.pop()
        kind, storage, key, _place, n = reference
        if kind != "storage" or not isinstance(storage, _Name) or not isinstance(key, str):
            raise TypeError
        dtype = STORAGES[storage.text.rpartition(".")[2]]
        self.push(Storage(dtype, key, _natural(n)))

    def put(self, index: int) -> None:
        self.memo[index] = self.stack[-1]

    def set_items(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if not isinstance(target, dict) or len(items) % 2:
            raise TypeError
        for i in range(0, len(items), 2):
            target[items[i]] = items[i + 1]

    def extend(self, items: list[Any]) -> None:
        if not isinstance(self.stack[-1], list):
            raise TypeError
        self.stack[-1].extend(items)

    def tuple_of(self, n: int) -> None:
        items = tuple(self.stack[len(self.stack) - n :])
        if len(items) != n:
            raise IndexError
        del self.stack[len(self.stack) - n :]
        self.push(items)


def _natural(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError
    return value


def _rebuild_tensor(storage: Any, offset: Any, shape: Any, strides: Any, *_flags: Any) -> View:
    if not isinstance(storage, Storage) or len(shape) != len(strides):
        raise TypeError
    return View(storage, _natural(offset), tuple(_natural(n) for n in shape), tuple(_natural(n) for n in strides))


def _rebuild_parameter(tensor: Any, *_flags: Any) -> View:
    if not isinstance(tensor, View):
        raise TypeError
    return tensor


def _ordered(*items: Any) -> dict[Any, Any]:
    return dict(*items)


_CALLS: dict[str, Callable[..., Any]] = {
    "torch._utils._rebuild_tensor_v2": _rebuild_tensor,
    "torch._utils._rebuild_tensor": _rebuild_tensor,
    "torch._utils._rebuild_parameter": _rebuild_parameter,
    "collections.OrderedDict": _ordered,
}


def _long(machine: _Machine) -> None:
    machine.push(int.from_bytes(machine.take(machine.number("B")), "little", signed=True))


def _stack_global(machine: _Machine) -> None:
    name, module = machine.stack.pop(), machine.stack.pop()
    if not isinstance(name, str) or not isinstance(module, str):
        raise TypeError
    machine.name(module, name)


def _set_item(machine: _Machine) -> None:
    value, key = machine.stack.pop(), machine.stack.pop()
    machine.set_items([key, value])


def _append(machine: _Machine) -> None:
    value = machine.stack.pop()
    machine.extend([value])


_STEPS: dict[bytes, Callable[[_Machine], Any]] = {
    b"\x80": lambda m: m.number("B"),  # protocol
    b"\x95": lambda m: m.number("Q"),  # frame
    b"(": lambda m: m.push(_MARK),
    b"}": lambda m: m.push({}),
    b"]": lambda m: m.push([]),
    b")": lambda m: m.push(()),
    b"N": lambda m: m.push(None),
    b"\x88": lambda m: m.push(True),
    b"\x89": lambda m: m.push(False),
    b"K": lambda m: m.push(m.number("B")),
    b"M": lambda m: m.push(m.number("H")),
    b"J": lambda m: m.push(m.number("i")),
    b"\x8a": _long,
    b"G": lambda m: m.push(struct.unpack(">d", m.take(8))[0]),
    b"X": lambda m: m.push(m.take(m.number("I")).decode("utf-8")),
    b"\x8c": lambda m: m.push(m.take(m.number("B")).decode("utf-8")),
    b"c": lambda m: m.name(m.line(), m.line()),
    b"\x93": _stack_global,
    b"q": lambda m: m.put(m.number("B")),
    b"r": lambda m: m.put(m.number("I")),
    b"\x94": lambda m: m.put(len(m.memo)),
    b"h": lambda m: m.push(m.memo[m.number("B")]),
    b"j": lambda m: m.push(m.memo[m.number("I")]),
    b"t": lambda m: m.push(tuple(m.marked())),
    b"\x85": lambda m: m.tuple_of(1),
    b"\x86": lambda m: m.tuple_of(2),
    b"\x87": lambda m: m.tuple_of(3),
    b"s": _set_item,
    b"u": lambda m: m.set_items(m.marked()),
    b"a": _append,
    b"e": lambda m: m.extend(m.marked()),
    b"Q": lambda m: m.persistent(),
    b"R": lambda m: m.reduce(),
    b"b": lambda m: m.build(),
}
