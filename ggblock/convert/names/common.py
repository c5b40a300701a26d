"""What all decoder-only architectures have in common: sizes, and the metadata that follow from config.json."""
from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ...format.metadata import Typed
from ..config import Config


@dataclass(frozen=True)
class Sizes:
    """Sizes of a transformer, in elements."""

    n_layers: int
    n_embd: int
    n_ff: int
    n_heads: int
    n_kv_heads: int
    head: int
    n_vocab: int


def sizes_of(
    config: Config, *, heads: int | None = None, kv_heads: int | None = None, head: int | None = None
) -> Sizes:
    """The sizes in ``config``; the arguments stand for settings that are missing. Raises `errors.BadCheckpoint`."""
    n_embd = config.integer("hidden_size", high=1 << 24)
    n_heads = config.integer("num_attention_heads", default=... if heads is None else heads, high=1 << 16)
    n_kv_heads = config.integer("num_key_value_heads", default=n_heads if kv_heads is None else kv_heads, high=1 << 16)
    n_head = config.integer("head_dim", default=head or n_embd // n_heads, high=1 << 16)
    if n_heads % n_kv_heads:
        raise config.fault("num_key_value_heads", "does not divide num_attention_heads", n_heads, n_kv_heads)
    if n_head % 2:
        raise config.fault("head_dim", "a head must have an even number of dimensions", actual=n_head)
    return Sizes(
        config.integer("num_hidden_layers", high=4096), n_embd, config.integer("intermediate_size", high=1 << 24),
        n_heads, n_kv_heads, n_head, config.integer("vocab_size", high=1 << 24),
    )


def base_metadata(config: Config, sizes: Sizes) -> dict[str, Any]:
    """The keys of every architecture, in the order in which they are usually written."""
    values: dict[str, Any] = {"block_count": Typed("u32", sizes.n_layers)}
    n_ctx = config.integer("max_position_embeddings", "n_ctx", "model_max_length", default=None)
    if n_ctx is not None:
        values["context_length"] = Typed("u32", n_ctx)
    values["embedding_length"] = Typed("u32", sizes.n_embd)
    values["feed_forward_length"] = Typed("u32", sizes.n_ff)
    values["attention.head_count"] = Typed("u32", sizes.n_heads)
    values["attention.head_count_kv"] = Typed("u32", sizes.n_kv_heads)
    values.update(_rope(config))
    eps = config.number("rms_norm_eps", "norm_eps", default=1e-6)
    values["attention.layer_norm_rms_epsilon"] = Typed("f32", eps)
    values["attention.key_length"] = Typed("u32", sizes.head)
    values["attention.value_length"] = Typed("u32", sizes.head)
    return values


def _rope(config: Config) -> dict[str, Any]:
    wide, narrow = config.rope()
    kind, factor = str(wide.get("rope_type", "")).lower(), wide.get("factor")
    values: dict[str, Any] = {}
    if kind in ("linear", "yarn") and factor is not None:
        values["rope.scaling.type"] = kind
        values["rope.scaling.factor"] = Typed("f32", factor)
    if kind == "yarn" and factor is not None:
        original = wide.get("original_max_position_embeddings") or config.integer(
            "original_max_position_embeddings", "max_position_embeddings"
        )
        values["rope.scaling.original_context_length"] = Typed("u32", int(original))
        for key, names in (
            ("yarn_ext_factor", ("extrapolation_factor",)), ("yarn_attn_factor", ("attention_factor", "attn_factor")),
            ("yarn_beta_fast", ("beta_fast",)), ("yarn_beta_slow", ("beta_slow",)),
        ):  # fmt: skip
            found = [wide[name] for name in names if wide.get(name) is not None]
            if found:
                values["rope.scaling." + key] = Typed("f32", found[0])
    elif kind not in ("", "default", "none", "linear", "yarn", "llama3"):
        raise config.fault("rope_type", "a rotary scaling that cannot be converted", "linear, yarn or llama3", kind)
    for key, settings in (("freq_base", wide), ("freq_base_swa", narrow)):
        if settings.get("rope_theta") is not None:
            values["rope." + key] = Typed("f32", settings["rope_theta"])
    return values
