"""Save tiny random checkpoints as transformers and torch write them, with the logits that transformers computes.

    python tools/gen_golden_checkpoints.py      # needs torch and transformers (the extra `oracle`)

Writes tests/convert/golden/{gemma3,llama3,mistral,smollm3,torch}: config.json, weights (bfloat16; sharded
safetensors, or pytorch_model.bin), and logits.npz with ``ids`` int64 (n,) and ``logits`` float32 (n, n_vocab).
Vocabularies are added
by the tests.
"""
from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import torch
from transformers import (
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    SmolLM3Config,
    SmolLM3ForCausalLM,
)

OUT = Path(__file__).parents[1] / "tests" / "convert" / "golden"
SIZES = {"vocab_size": 262, "hidden_size": 32, "intermediate_size": 64, "max_position_embeddings": 128}


def save(name: str, model: torch.nn.Module, as_torch: bool = False) -> None:
    torch.manual_seed(len(name))
    with torch.no_grad():
        for each in model.parameters():
            each.copy_(torch.randn_like(each) * (0.3 if each.ndim == 1 else 0.15))
            if each.ndim == 1 and "Gemma" not in type(model).__name__:
                each.add_(1)
            each.copy_(each.to(torch.bfloat16).float())
    # Before the model itself becomes bfloat16, which would round its rotary frequencies too.
    ids = torch.arange(0, 30)[None] * 7 % 250
    with torch.no_grad():
        logits = model.eval()(ids).logits[0].numpy()
    model = model.to(torch.bfloat16)
    folder = OUT / name
    shutil.rmtree(folder, ignore_errors=True)
    model.save_pretrained(folder, max_shard_size="60KB")
    if as_torch:
        for path in folder.glob("model*"):
            path.unlink()
        torch.save(model.state_dict(), folder / "pytorch_model.bin")
    (folder / "generation_config.json").unlink(missing_ok=True)
    np.savez_compressed(folder / "logits.npz", ids=ids[0].numpy(), logits=logits.astype(np.float32))


def main() -> None:
    scaling = {"rope_type": "llama3", "rope_theta": 500.0, "factor": 8.0, "low_freq_factor": 1.0,
               "high_freq_factor": 4.0, "original_max_position_embeddings": 64}  # fmt: skip
    gemma = Gemma3TextConfig(
        **SIZES, num_hidden_layers=7, num_attention_heads=2, num_key_value_heads=1, head_dim=16, sliding_window=8,
        query_pre_attn_scalar=16, tie_word_embeddings=True,
    )  # fmt: skip
    llama = LlamaConfig(
        **SIZES, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1, attention_bias=True,
        rope_parameters=scaling,
    )  # fmt: skip
    mistral = MistralConfig(
        **SIZES, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, head_dim=16, sliding_window=None,
    )  # fmt: skip
    smollm3 = SmolLM3Config(
        **SIZES, num_hidden_layers=5, num_attention_heads=4, num_key_value_heads=2, pad_token_id=None,
        bos_token_id=256, eos_token_id=257, rope_parameters={"rope_type": "default", "rope_theta": 500.0},
    )  # fmt: skip
    save("gemma3", Gemma3ForCausalLM(gemma))
    save("llama3", LlamaForCausalLM(llama))
    save("mistral", MistralForCausalLM(mistral))
    save("smollm3", SmolLM3ForCausalLM(smollm3))
    save("torch", LlamaForCausalLM(llama), as_torch=True)


if __name__ == "__main__":
    main()
