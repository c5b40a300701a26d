"""Put a finished file in its place: whole or not at all."""
from __future__ import annotations

import errno
import os
from collections.abc import Iterable
from contextlib import suppress

from .. import errors

#: Metadata key of the filler, ``u8[]`` of zeros, that keeps a header's size, so that the tensors stay where they are,
#: or moves them by whole blocks of the file system, which the old file and the new one can then share.
PADDING = "ggblock.padding"


def refuse_inputs(path: str, inputs: Iterable[str]) -> None:
    """Raise `errors.WouldOverwriteInput` when ``path`` is one of ``inputs``, by whatever name."""
    for each in inputs:
        with suppress(OSError):
            if os.path.realpath(each) == os.path.realpath(path) or os.path.samefile(each, path):
                raise errors.WouldOverwriteInput("the file to be written is also being read", file=path)


def named(fault: OSError, path: str) -> errors.CannotWrite:
    """The error for a failed write of ``path``."""
    if fault.errno in (errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC)):
        return errors.DiskFull(f"no room for the file: {fault.strerror}", file=path)
    return errors.CannotWrite(f"cannot be written: {fault.strerror or fault}", file=path)


def temporary_name(path: str) -> str:
    """A new name beside what ``path`` is (the target of a symbolic link)."""
    folder, name = os.path.split(os.path.realpath(path))
    return os.path.join(folder, f".{name[:80]}.{os.urandom(6).hex()}.tmp")


def write_whole(path: str, data: bytes, inputs: Iterable[str] = ()) -> None:
    """Write ``data`` beside ``path``, then rename. Raises `errors.CannotWrite` or a subclass."""
    refuse_inputs(path, inputs)
    temporary = temporary_name(path)
    try:
        if os.path.isdir(path):
            raise errors.CannotWrite("is a directory", file=path)
        try:
            with open(temporary, "xb") as stream:
                stream.write(data)
                stream.flush()
                os.fsync(stream.fileno())
            os.replace(temporary, os.path.realpath(path))
        except OSError as fault:
            raise named(fault, path) from None
    finally:
        with suppress(OSError):
            os.unlink(temporary)
