"""Comparisons with torch, transformers and llama-cpp-python: ``pytest -m oracle`` (extra ``oracle``)."""
