"""Shell completion of models, and of what lies inside a file: the names of its tensors and keys."""
from __future__ import annotations

import os

import click
from click.shell_completion import CompletionItem


class ModelNames:
    """Catalog names, and with ``files`` also files, which shells offer where no name begins like that."""

    def __init__(self, files: bool = True) -> None:
        self._files = files

    def __call__(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        from ggblock.catalog import CATALOG

        names = [CompletionItem(name) for name in CATALOG if name.startswith(incomplete)]
        return [CompletionItem(incomplete, type="file"), *names] if self._files else names


class _Names:
    """Completes from the file that was given as the first argument; silent when that cannot be read."""

    def names(self, path: str) -> list[str]:
        raise ValueError("one of TensorNames and KeyNames")

    def __call__(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        # With an option whose value is still missing, click leaves the arguments in ctx.args.
        given = [ctx.params.get("model"), ctx.params.get("file"), *ctx.args]
        path = next((each for each in given if isinstance(each, str) and os.path.isfile(each)), None)
        if path is None:
            return []
        from ggblock.errors import GgblockError

        try:
            return [CompletionItem(name) for name in self.names(path) if name.startswith(incomplete)]
        except GgblockError:
            return []


class TensorNames(_Names):
    """The names of the file's tensors."""

    def names(self, path: str) -> list[str]:
        from ggblock.format import open_gguf

        with open_gguf(path) as file:
            return list(file.tensors)


class KeyNames(_Names):
    """The file's metadata keys."""

    def names(self, path: str) -> list[str]:
        from ggblock.format import open_gguf

        with open_gguf(path) as file:
            return list(file.metadata)
