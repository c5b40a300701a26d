"""``ggblock edit``: change metadata and tensor names without touching tensors."""
from __future__ import annotations

import click

from ggblock.cli.common import emit_json, json_option, note, numpy_without_threads
from ggblock.cli.paths import KeyNames


@click.command(epilog="Example:  ggblock edit model.gguf --set tokenizer.chat_template=@template.jinja -o new.gguf")
@click.argument("file", type=click.Path(dir_okay=False))
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE",
              help="KEY:KIND=VALUE gives a key another kind (u32, f32, str[], ...); @PATH takes a file's text.")
@click.option("--remove", multiple=True, metavar="KEY", shell_complete=KeyNames(), help="Leave a key out.")
@click.option("--rename-tensor", "renames", multiple=True, metavar="OLD=NEW", help="Give a tensor another name.")
@click.option("--checksum", is_flag=True, help="Add checksums, which ggblock verify checks.")
@click.option("-o", "--output", type=click.Path(dir_okay=False), metavar="OUT", help="The file to write.")
@click.option("--in-place", is_flag=True, help="Replace FILE, where the new header fits in the place of the old.")
@json_option
def command(
    file: str, settings: tuple[str, ...], remove: tuple[str, ...], renames: tuple[str, ...], checksum: bool,
    output: str | None, in_place: bool, as_json: bool,
) -> None:  # fmt: skip
    """Change the metadata and tensor names of FILE; the bytes of its tensors stay as they are.

    The result is made beside its place and renamed, so it is there whole or not at all.
    """
    if (output is None) == (not in_place):
        raise click.UsageError("give one of -o OUT and --in-place")
    if not (settings or remove or renames or checksum):
        raise click.UsageError("nothing to change; give --set, --remove, --rename-tensor or --checksum")
    numpy_without_threads()
    from ggblock.format import open_gguf
    from ggblock.inspect.edit import Changes, edit, parse_setting

    with open_gguf(file) as opened:
        known = opened.metadata.typed_items()
        pairs = [parse_setting(text, known) for text in settings]
    if len({key for key, _ in pairs}) < len(pairs):
        raise click.UsageError("a key is set twice")
    names = dict(_rename(text) for text in renames)
    done = edit(file, output, Changes(dict(pairs), remove, names, checksum))
    if as_json:
        emit_json({
            "schema": "ggblock/edit/1", "path": file, "output": done.path, "n_bytes": done.n_bytes, "how": done.how,
            "set": [key for key, _ in pairs], "removed": list(remove), "renamed": names,
            "header_bytes": done.header_bytes, "tensor_bytes": done.tensor_bytes,
        })  # fmt: skip
    else:
        how = "shared with the input" if done.how == "reflink" else "copied"
        note(f"{done.path}: {done.header_bytes} bytes of header written, {done.tensor_bytes} bytes of tensors {how}")


def _rename(text: str) -> tuple[str, str]:
    old, sign, new = text.partition("=")
    if not sign or not old or not new:
        raise click.UsageError(f"--rename-tensor wants OLD=NEW, not {text!r}")
    return old, new
