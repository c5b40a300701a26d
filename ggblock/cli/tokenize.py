"""``ggblock tokenize``: the token ids and pieces of a text."""
from __future__ import annotations

import click

from ggblock.cli.common import emit_json, json_option, model_argument, resolve_model
from ggblock.cli.options import text_or_stdin


@click.command(
    epilog="Example:  ggblock tokenize smollm2-135m-instruct 'Hello there'",
)
@model_argument
@click.argument("text")
@click.option("--no-special", is_flag=True, help="Without what the vocabulary puts around a text, such as BOS.")
@click.option("--parse-special", is_flag=True, help="Read <|im_start|> and the like as the tokens they name.")
@json_option
def command(model: str, text: str, no_special: bool, parse_special: bool, as_json: bool) -> None:
    """Show the token ids and pieces of TEXT (- reads standard input).

    MODEL may be a file that holds only a vocabulary. Bytes of a piece that are not whole characters appear as \\xNN.
    """
    text = text_or_stdin(text)
    path = resolve_model(model)
    from ggblock.tokenizer import load_tokenizer

    tokenizer = load_tokenizer(path)
    ids = tokenizer.tokenize(text, add_special=not no_special, parse_special=parse_special)
    pieces = [
        tokenizer.token_text(i) if tokenizer.is_special(i) else tokenizer.piece(i).decode("utf-8", "backslashreplace")
        for i in ids
    ]
    if as_json:
        emit_json({"ids": ids, "pieces": pieces})
        return
    for token, piece in zip(ids, pieces, strict=True):
        shown = "".join(c if c.isprintable() else repr(c)[1:-1] for c in piece)
        click.echo(f'{token:8d}  "{shown}"')
