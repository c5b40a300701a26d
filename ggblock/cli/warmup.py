"""``ggblock warmup``: compile ahead what running a model takes."""
from __future__ import annotations

from dataclasses import asdict

import click

from ggblock.cli.common import emit_json, json_option, note, resolve_model
from ggblock.cli.options import activations_option, kv_option, reference_option
from ggblock.cli.paths import ModelNames


@click.command(
    epilog="Example:  ggblock warmup smollm2-135m-instruct",
)
@click.argument("model", required=False, shell_complete=ModelNames())
@kv_option
@activations_option
@reference_option
@json_option
def command(model: str | None, kv: str | None, activations: str | None, reference: bool, as_json: bool) -> None:
    """Compile everything that running MODEL takes, so that its first run starts like any later one.

    Without MODEL: for every catalog model in the cache; none is fetched. Kernels depend on the options given here and
    on this CPU, not on context, threads or text.
    """
    from ggblock import catalog
    from ggblock.runtime.warmup import warm_up

    if model is not None:
        paths = [resolve_model(model)]
    else:
        paths = [path for path in map(catalog.cached, catalog.CATALOG) if path is not None]
        if not paths:
            note(f"no catalog model is in {catalog.models_folder()}: nothing to do; "
                 f"`ggblock pull NAME` fetches one of {', '.join(catalog.CATALOG)}")  # fmt: skip
    done = []
    for path in paths:
        result = warm_up(path, kv=kv, activations=activations, reference=reference, notify=note)
        done.append(result)
        if not as_json:
            made = f"{result.n_compiled} compiled in {result.elapsed_s:.1f} s" if result.n_compiled else "all ready"
            click.echo(f"{result.path}: {result.n_kernels} kernels, {made}")
    if as_json:
        emit_json({"models": [asdict(result) for result in done]})
