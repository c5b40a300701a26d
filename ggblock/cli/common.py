"""What commands share: the ``--json`` option, one JSON document, progress and notes on stderr, the MODEL argument."""
from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from ggblock.cli.paths import ModelNames

if TYPE_CHECKING:
    from ggblock.catalog import Progress

F = TypeVar("F", bound=Callable[..., Any])


def json_option(function: F) -> F:
    """Add ``--json`` as the boolean parameter ``as_json``."""
    return click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout, and nothing else there.")(
        function
    )


def model_argument(function: F) -> F:
    """Add MODEL as the string parameter ``model``; give it to ``resolve_model``."""
    return click.argument("model", shell_complete=ModelNames())(function)


def numpy_without_threads() -> None:
    """Import NumPy, for the first time, without the threads that its BLAS starts.

    A command that looks into a file multiplies no matrices, and the threads cost a third of ``ggblock dump``'s
    processor time: 0.30 s with them, 0.19 s without (2 cores). The environment is left as it was.
    """
    before = os.environ.get("OPENBLAS_NUM_THREADS")
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    import numpy  # noqa: F401

    if before is None:
        del os.environ["OPENBLAS_NUM_THREADS"]


def emit_json(document: object) -> None:
    """Write ``document`` as the one JSON document on stdout.

    Raises ValueError for NaN and infinities, which JSON does not have.
    """
    click.echo(json.dumps(document, ensure_ascii=False, allow_nan=False, indent=2))


def note(text: str) -> None:
    """Write one line for the person on stderr."""
    click.echo(text, err=True)


def resolve_model(model: str) -> Path:
    """The path of MODEL, a path or a catalog name; fetches a catalog model with a progress bar.

    Raises:
        CatalogError: the model is unknown or could not be fetched.
        NotGguf: MODEL is a directory.
    """
    if os.path.isfile(model):  # without the catalog, which takes 20 ms to import
        return Path(model)
    from ggblock import catalog

    with progress_bar(f"fetching {model}") as progress:
        return catalog.resolve(model, progress=progress, notify=note)


@contextlib.contextmanager
def progress_bar(description: str) -> Iterator[Progress | None]:
    """Yield a function ``(done_bytes, total_bytes)`` that draws a bar on stderr, or None when that is no terminal.

    The bar appears with the first call and disappears at the end.
    """
    if not sys.stderr.isatty():
        yield None
        return
    bar: Any = None
    task: Any = None

    def update(done_bytes: int, total_bytes: int) -> None:
        nonlocal bar, task
        if bar is None:
            from rich.console import Console
            from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

            bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                DownloadColumn(),
                TransferSpeedColumn(),
                console=Console(stderr=True),
                transient=True,
            )
            bar.start()
            task = bar.add_task(description, total=total_bytes)
        bar.update(task, completed=done_bytes, total=total_bytes)

    try:
        yield update
    finally:
        if bar is not None:
            bar.stop()
