"""A package index on the loopback interface with wheels that the tests build, and a catalog that names them."""
from __future__ import annotations

import hashlib
import io
import os
import random
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from ggblock import catalog

PART_BYTES = 1_200_000  # more than twice what pip reads at once, so that half of it can be seen to come


def part_bytes(number: int) -> bytes:
    """PART_BYTES bytes, incompressible and different for each number."""
    return random.Random(number).randbytes(PART_BYTES)


def wheel(project: str, member: str, content: bytes) -> bytes:
    """A minimal wheel, version 1.0, with one data file."""
    buffer = io.BytesIO()
    info = f"{project}-1.0.dist-info"
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(member, content)
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {project}\nVersion: 1.0\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", f"{member},,\n{info}/METADATA,,\n{info}/WHEEL,,\n{info}/RECORD,,\n")
    return buffer.getvalue()


class LocalIndex:
    """The index. A test may change ``wheels``, ``hashes`` and the faults while it runs."""

    def __init__(self) -> None:
        self.wheels: dict[str, bytes] = {}  # project: wheel
        self.hashes: dict[str, str] = {}  # project: the sha256 that the index announces, when it is a wrong one
        self.cut_at: int | None = None  # send only so many bytes of a wheel, then hang up
        self.stall = threading.Event()  # set: a wheel's second half waits until it is cleared
        self.stalled = threading.Event()  # set by the index when it has begun to wait
        self.requests: list[str] = []  # projects whose wheels were asked for
        index = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                _, kind, project, *_ = self.path.split("/")
                if project not in index.wheels:
                    self.send_error(404)
                elif kind == "simple":
                    self.reply("text/html", index.page(project))
                else:
                    index.requests.append(project)
                    self.reply("application/octet-stream", index.wheels[project], faulty=True)

            def reply(self, kind: str, body: bytes, faulty: bool = False) -> None:
                self.send_response(200)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if faulty and index.cut_at is not None:
                    self.wfile.write(body[: index.cut_at])
                    self.close_connection = True
                    return
                half = len(body) // 2
                self.wfile.write(body[:half])
                if faulty and index.stall.is_set():
                    self.wfile.flush()
                    index.stalled.set()
                    while index.stall.is_set():
                        threading.Event().wait(0.02)
                try:
                    self.wfile.write(body[half:])
                except OSError:  # the client was interrupted meanwhile
                    pass

            def log_message(self, format: str, *args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/simple/"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True)
        self.thread.start()

    def page(self, project: str) -> bytes:
        digest = self.hashes.get(project) or hashlib.sha256(self.wheels[project]).hexdigest()
        name = f"{project}-1.0-py3-none-any.whl"
        return f'<!DOCTYPE html><a href="/files/{project}/{name}#sha256={digest}">{name}</a>'.encode()

    def close(self) -> None:
        self.stall.clear()
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


def entry_of(name: str, numbers: list[int]) -> catalog.CatalogEntry:
    """A catalog entry of the parts ``numbers``, each in a wheel called ``ggbtestpart<number>``."""
    whole = b"".join(part_bytes(number) for number in numbers)
    parts = tuple(
        catalog.WheelPart(
            project=f"ggbtestpart{number}",
            version="1.0",
            member=f"ggbtestpart{number}/data.bin",
            n_bytes=len(part_bytes(number)),
            sha256=hashlib.sha256(part_bytes(number)).hexdigest(),
            wheel_bytes=len(wheel(f"ggbtestpart{number}", f"ggbtestpart{number}/data.bin", part_bytes(number))),
        )
        for number in numbers
    )
    return catalog.CatalogEntry(
        name=name,
        file_name=f"{name}.gguf",
        n_bytes=len(whole),
        sha256=hashlib.sha256(whole).hexdigest(),
        summary="for the tests",
        licence="CC0-1.0",
        terms="https://example.org/terms",
        notice="the notice of the tests",
        sources=(catalog.PypiSource(parts),),
    )


@pytest.fixture
def index() -> Iterator[LocalIndex]:
    local = LocalIndex()
    for number in (0, 1, 2):
        project = f"ggbtestpart{number}"
        local.wheels[project] = wheel(project, f"{project}/data.bin", part_bytes(number))
    yield local
    local.close()


@pytest.fixture
def environment(index: LocalIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The process's environment: an empty cache, and the local index as the only one for pip and uv. Returns a copy."""
    for name in list(os.environ):
        if name.startswith(("PIP_", "UV_")) or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    for name, value in {
        "GGBLOCK_CACHE": str(tmp_path / "cache"),
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_INDEX_URL": index.url,
        "PIP_RETRIES": "0",
        "UV_NO_CONFIG": "1",
        "UV_DEFAULT_INDEX": index.url,
        "UV_HTTP_RETRIES": "0",
        "PYTHONPATH": str(Path(catalog.__file__).parents[2]),
    }.items():
        monkeypatch.setenv(name, value)
    return dict(os.environ)


@pytest.fixture
def one(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> catalog.CatalogEntry:
    """An entry of one part, in the catalog."""
    entry = entry_of("tiny", [0])
    monkeypatch.setitem(catalog.CATALOG, entry.name, entry)
    return entry


@pytest.fixture
def three(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> catalog.CatalogEntry:
    """An entry of three parts, in the catalog."""
    entry = entry_of("triple", [2, 0, 1])
    monkeypatch.setitem(catalog.CATALOG, entry.name, entry)
    return entry
