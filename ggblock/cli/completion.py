"""``ggblock completion``: the script that makes a shell complete commands, options, files, tensors and keys."""
from __future__ import annotations

import os
from pathlib import Path

import click
from click.shell_completion import get_completion_class

from ggblock.cli.common import emit_json, json_option

#: The variable by which the shell asks for completions; click derives the same from the program's name.
VARIABLE = "_GGBLOCK_COMPLETE"
_WHERE = {
    "bash": "~/.bashrc", "zsh": "~/.zshrc", "fish": "~/.config/fish/completions/ggblock.fish",
}  # fmt: skip


@click.command(epilog="Example:  eval \"$(ggblock completion bash)\"   (that line in ~/.bashrc keeps it)")
@click.argument("shell", required=False, type=click.Choice(["bash", "zsh", "fish"]))
@json_option
def command(shell: str | None, as_json: bool) -> None:
    """Print the completion script for SHELL; without SHELL, for the one that $SHELL names."""
    from ggblock.cli.main import main

    name = shell or Path(os.environ.get("SHELL", "")).name
    if name not in _WHERE:
        raise click.UsageError(f"which shell? {name or 'nothing'} is in $SHELL; give one of {', '.join(_WHERE)}")
    kind = get_completion_class(name)
    assert kind is not None
    script = kind(main, {}, "ggblock", VARIABLE).source()
    if as_json:
        emit_json({"schema": "ggblock/completion/1", "shell": name, "place": _WHERE[name], "script": script})
    else:
        click.echo(script)
