"""One file, mapped read-only."""
from __future__ import annotations

import mmap
import os
import stat

from .. import errors


class Mapped:
    """A regular, non-empty file mapped into memory for reading.

    ``path``: as given. ``size``: bytes. ``big_endian``: set by the reader once the version is known.
    A file that another process shortens while it is mapped cannot be read safely by any program that maps files:
    touching the lost part stops the process with a bus error.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.fsdecode(path)
        self.big_endian = False
        self._map: mmap.mmap | None = None
        try:
            # stat first: opening a FIFO would wait for a writer.
            self._check(os.stat(self.path))
            with open(self.path, "rb") as stream:
                status = os.fstat(stream.fileno())
                self._check(status)
                self.size = status.st_size
                self._map = mmap.mmap(stream.fileno(), self.size, access=mmap.ACCESS_READ)
        except FileNotFoundError:
            raise errors.CannotRead("no such file", file=self.path) from None
        except (OSError, ValueError) as fault:
            reason = fault.strerror if isinstance(fault, OSError) and fault.strerror else str(fault)
            raise errors.CannotRead(f"cannot be read: {reason}", file=self.path) from None

    def _check(self, status: os.stat_result) -> None:
        if stat.S_ISDIR(status.st_mode):
            raise errors.NotGguf("is a directory, not a file", file=self.path)
        if not stat.S_ISREG(status.st_mode):
            raise errors.NotGguf("is not a regular file", file=self.path)
        if status.st_size == 0:
            raise errors.NotGguf("is empty", file=self.path)

    @property
    def data(self) -> mmap.mmap:
        """The bytes; ValueError after `close`."""
        if self._map is None:
            raise ValueError(f"{self.path} is closed")
        return self._map

    def release(self, start: int, n_bytes: int) -> None:
        """Let the system drop the whole pages inside a range of the mapping from this process; a hint only."""
        page = mmap.PAGESIZE
        first, last = -(-start // page) * page, (start + n_bytes) // page * page
        if last > first and hasattr(mmap, "MADV_DONTNEED"):
            self.data.madvise(mmap.MADV_DONTNEED, first, last - first)

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._map is None

    def close(self) -> None:
        """Let go of the file. Arrays that still view it keep it mapped until they are gone."""
        mapped, self._map = self._map, None
        if mapped is not None:
            try:
                mapped.close()
            except BufferError:  # a view is alive; the mapping ends with it
                pass

    def __enter__(self) -> Mapped:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
