"""Tokenizers and chat templates, built from what a GGUF file says about itself.

>>> tokenizer = load_tokenizer("model.gguf")
>>> tokenizer.detokenize(tokenizer.tokenize("Hello"))
'Hello'

The ids are those of llama.cpp. Everything is plain Python over the arrays of the file, so a start has nothing to build
(`bpe` and `spm` say what that was measured against).
"""
from .stream import TokenStream
from .tokenizer import Tokenizer, from_metadata, load_tokenizer

__all__ = ["TokenStream", "Tokenizer", "from_metadata", "load_tokenizer"]
