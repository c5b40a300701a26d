"""Tokenizers and chat templates, built from what a GGUF file says about itself.

>>> tokenizer = load_tokenizer("model.gguf")
>>> tokenizer.detokenize(tokenizer.tokenize("Hello"))
'Hello'

The ids are those of llama.cpp. Everything is plain Python over the file's own arrays: nothing is built that a start would
have to wait for (see `bpe` and `spm` for what that is measured against).
"""
from .stream import TokenStream
from .tokenizer import Tokenizer, from_metadata, load_tokenizer

__all__ = ["TokenStream", "Tokenizer", "from_metadata", "load_tokenizer"]
