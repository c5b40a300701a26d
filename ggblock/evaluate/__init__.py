"""How good a file is, and how exact a run of it: perplexity and divergence from exact logits."""
