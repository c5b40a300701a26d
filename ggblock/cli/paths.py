"""Shell completion of what lies inside a file: the names of its tensors and keys."""
from __future__ import annotations

import click
from click.shell_completion import CompletionItem


class _Names:
    """Completes from the file that was given as the first argument; silent when that cannot be read."""

    def names(self, path: str) -> list[str]:
        raise ValueError("one of TensorNames and KeyNames")

    def __call__(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        path = ctx.params.get("model") or ctx.params.get("file")
        if not isinstance(path, str):
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
