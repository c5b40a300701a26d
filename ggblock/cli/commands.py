"""The table of commands. Adding one adds a file ``cli/NAME.py`` and a line here.

``name: (module, short help)``; the module holds a ``click`` command called ``command``. The short help stands here, so
that ``ggblock --help`` imports no command.
"""
from __future__ import annotations

COMMANDS: dict[str, tuple[str, str]] = {
    "pull": ("ggblock.cli.pull", "Fetch a catalog model into the cache and print its path."),
    "run": ("ggblock.cli.run", "Answer a prompt."),
    "chat": ("ggblock.cli.chat", "Hold a conversation in the terminal."),
    "dump": ("ggblock.cli.dump", "Show what is inside a file, down to one block."),
    "diff": ("ggblock.cli.diff", "Show what differs between two files."),
    "verify": ("ggblock.cli.verify", "Check that a file is whole, and name what is damaged."),
    "edit": ("ggblock.cli.edit", "Change metadata and tensor names; tensors stay as they are."),
    "convert": ("ggblock.cli.convert", "Turn a checkpoint into a GGUF file, quantized on the way."),
    "eval": ("ggblock.cli.eval", "Measure perplexity, and divergence from a reference model."),
    "bench": ("ggblock.cli.bench", "Measure tokens per second of prefill and decode."),
    "warmup": ("ggblock.cli.warmup", "Compile ahead what running a model takes."),
    "tokenize": ("ggblock.cli.tokenize", "Show the token ids and pieces of a text."),
    "completion": ("ggblock.cli.completion", "Print the script for completion in bash, zsh or fish."),
}
