"""How much of anything a file may announce. Every number here is checked before memory is taken for it.

Most lengths are bounded by what is left of the file; these limits stop what a large file could still do:
make the reader build millions of Python objects, or loop for minutes. ``spec/container.toml`` repeats them and
the tests compare the two.
"""
from __future__ import annotations

#: The four bytes that every file starts with, in both byte orders.
MAGIC = b"GGUF"
#: Versions that can be read. Version 3 is the same layout as 2 and adds big-endian files.
VERSIONS = (2, 3)
#: The version that is written.
WRITE_VERSION = 3

#: Metadata keys in one file. Real files have 20 to 60; one checksum a tensor may be added to that.
MAX_KEYS = 1 << 18
#: Tensors in one file (all parts together). The largest published files have some 70,000.
MAX_TENSORS = 1 << 18
#: Bytes of a key; the format's own limit.
MAX_KEY_BYTES = (1 << 16) - 1
#: Bytes of one string, llama.cpp's limit.
MAX_STRING_BYTES = 1 << 30
#: Strings in one array: their offsets take 8 bytes each.
MAX_ARRAY_STRINGS = 1 << 24
#: Numbers in one array, llama.cpp's limit. They stay in the mapped file until somebody asks for them.
MAX_ARRAY_NUMBERS = 1 << 30
#: Arrays within arrays: 1 is a plain array.
MAX_ARRAY_DEPTH = 4
#: Arrays that lie within other arrays, in one file.
MAX_INNER_ARRAYS = 1 << 16
#: Bytes of a tensor name that is read: the format's own limit.
MAX_TENSOR_NAME_BYTES = 64
#: Bytes of a tensor name that is written: llama.cpp keeps names in 64 bytes, the last one zero.
MAX_WRITTEN_TENSOR_NAME_BYTES = 63
#: Dimensions of a tensor.
MAX_DIMS = 4
#: Weights or bytes of a tensor, and the end of any tensor: they must fit a signed 64-bit number.
MAX_TENSOR_SIZE = (1 << 63) - 1
#: ``general.alignment`` where the file does not say, and the largest that is believed.
DEFAULT_ALIGNMENT = 32
MAX_ALIGNMENT = 1 << 30
#: Parts of a split file: ``split.count`` is a 16-bit number.
MAX_PARTS = (1 << 16) - 1

#: Smallest possible sizes, to check counts against what is left of the file.
MIN_KEY_BYTES = 8 + 4 + 1  # an empty key, its kind, one byte of value
MIN_TENSOR_BYTES = 8 + 4 + 4 + 8  # an empty name, no dimensions, type, offset
