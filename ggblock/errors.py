"""Every exception that ggblock raises on purpose.

The tree; a caller may catch any level of it::

    GgblockError
    ├── CannotRead                  a file that is missing or may not be read
    ├── CannotWrite                 a file that cannot be created, finished or put in its place
    │   ├── DiskFull                no room for it
    │   └── WouldOverwriteInput     the target is one of the files that are being read
    ├── FormatError                 a file breaks the rules of its container
    │   ├── NotGguf                 wrong magic, empty file, a directory
    │   ├── UnsupportedVersion      a GGUF version other than 2 or 3
    │   ├── Truncated               the file ends before what it announces
    │   ├── CountTooLarge           a count or length larger than the file can hold or a limit allows
    │   ├── StringTooLong           a string longer than what is left of the file
    │   ├── NestingTooDeep          arrays of arrays beyond the limit
    │   ├── UnknownValueType        a metadata value type that GGUF does not define
    │   ├── BadBoolean              a boolean that is neither 0 nor 1
    │   ├── DuplicateKey            the same metadata key twice
    │   ├── DuplicateTensor         the same tensor name twice
    │   ├── BadTensorName           empty or longer than GGUF allows
    │   ├── BadShape                dimensions: how many, a zero, an overflowing product, a row of broken blocks
    │   ├── BadAlignment            general.alignment is no power of two, or an offset does not respect it
    │   ├── TensorOutOfFile         a tensor's bytes lie outside the file
    │   ├── TensorOverlap           two tensors share bytes, or are out of order
    │   └── SplitMismatch           the parts of a split file do not belong together
    ├── UnknownType                 a block type id or name that no one defined
    │   └── RemovedType             an id that ggml once used and has withdrawn
    ├── NoEncoder                   a block type that can be read but not written
    ├── NonFiniteWeight             a NaN, an infinity or a huge number where a block type has no room for it
    ├── MetadataError               a needed key is missing or of the wrong kind
    │   ├── MissingKey
    │   └── WrongKeyKind
    ├── ModelError                  a well-formed file that cannot be run
    │   ├── UnknownArchitecture
    │   ├── MissingTensor
    │   └── ShapeMismatch
    ├── CheckpointError             a checkpoint that cannot be converted
    │   ├── NotACheckpoint          neither a file nor a folder of any kind that can be converted
    │   ├── BadCheckpoint           its files break the rules of their format, or contradict each other
    │   ├── UnsafePickle            a pickle that names anything but tensors
    │   ├── UnmappedTensor          a tensor that its architecture does not have
    │   └── RowDoesNotFit           a row that is no whole number of blocks, where a fallback is forbidden
    ├── TokenizerError              a vocabulary that cannot be used
    │   ├── MissingVocabulary
    │   └── InvalidText             text that has no UTF-8 form (lone surrogates)
    ├── TemplateError               a chat template failed, took too long, or tried to escape its sandbox
    ├── ContextOverflow             more tokens than the context holds
    ├── CatalogError                a catalog model could not be fetched
    │   ├── UnknownModel            neither a path nor a catalog name
    │   ├── Offline                 the package index cannot be reached
    │   ├── ChecksumMismatch        the bytes are not those that the catalog promises
    │   ├── SourceUnsupported       a kind of source that this version cannot fetch from
    │   └── CacheUnusable           the cache folder cannot be written, or its disk is full
    ├── DeviceError                 an accelerator that was asked for is missing or failed
    └── SettingError                a setting outside its range or unknown
"""
from __future__ import annotations

import os


class GgblockError(Exception):
    """A named failure with the facts a person needs to act on it.

    The text is always one line: ``file: where: message (byte N; expected X, found Y)``, each part only
    when it is known. ``where`` is a tensor name, a metadata key or a setting; ``offset_bytes`` counts from
    the start of ``file``.
    """

    def __init__(
        self,
        message: str,
        *,
        file: str | os.PathLike[str] | None = None,
        where: str | None = None,
        offset_bytes: int | None = None,
        expected: object = None,
        actual: object = None,
    ) -> None:
        self.message = message
        self.file = None if file is None else os.fspath(file)
        self.where = where
        self.offset_bytes = offset_bytes
        self.expected = expected
        self.actual = actual
        super().__init__(message)

    def __str__(self) -> str:
        details = []
        if self.offset_bytes is not None:
            details.append(f"byte {self.offset_bytes}")
        if self.expected is not None:
            details.append(f"expected {self.expected}")
        if self.actual is not None:
            details.append(f"found {self.actual}")
        where = self.where  # of a damaged file it may be anything, and long
        if where and len(where) > 200:
            where = f"{where[:150]}… ({len(where)} characters)"
        head = ": ".join(part for part in (self.file, where, self.message) if part)
        text = f"{head} ({'; '.join(details)})" if details else head
        return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


class CannotRead(GgblockError):
    """A file that is missing or may not be read."""


class CannotWrite(GgblockError):
    """A file that cannot be created, finished or put in its place."""


class DiskFull(CannotWrite):
    """No room for the file that is being written."""


class WouldOverwriteInput(CannotWrite):
    """The target of a writer is one of the files that are being read."""


class FormatError(GgblockError):
    """A file breaks the rules of its container."""


class NotGguf(FormatError):
    """Wrong magic, an empty file, or something that is not a regular file."""


class UnsupportedVersion(FormatError):
    """A GGUF version other than 2 or 3."""


class Truncated(FormatError):
    """The file ends before what it announces."""


class CountTooLarge(FormatError):
    """A count or length larger than the file can hold or a limit allows."""


class StringTooLong(FormatError):
    """A string longer than what is left of the file."""


class NestingTooDeep(FormatError):
    """Arrays of arrays beyond the limit."""


class UnknownValueType(FormatError):
    """A metadata value type that GGUF does not define."""


class BadBoolean(FormatError):
    """A boolean that is neither 0 nor 1."""


class DuplicateKey(FormatError):
    """The same metadata key twice."""


class DuplicateTensor(FormatError):
    """The same tensor name twice."""


class BadTensorName(FormatError):
    """A tensor name that is empty or longer than GGUF allows."""


class BadShape(FormatError):
    """Dimensions that are too many, zero, overflow, or do not divide into blocks."""


class BadAlignment(FormatError):
    """An alignment that is no power of two, or an offset that does not respect it."""


class TensorOutOfFile(FormatError):
    """A tensor's bytes lie outside the file."""


class TensorOverlap(FormatError):
    """Two tensors share bytes or are out of order."""


class SplitMismatch(FormatError):
    """The parts of a split file do not belong together."""


class UnknownType(GgblockError):
    """A block type id or name that no one defined."""


class RemovedType(UnknownType):
    """A block type id that ggml once used and has withdrawn."""


class NoEncoder(GgblockError):
    """A block type that can be read but not written."""


class NonFiniteWeight(GgblockError):
    """A NaN, an infinity or a huge number where a block type has no room for it."""


class MetadataError(GgblockError):
    """A needed metadata key is missing or of the wrong kind."""


class MissingKey(MetadataError):
    """A needed metadata key is missing."""


class WrongKeyKind(MetadataError):
    """A metadata key holds a value of the wrong kind."""


class ModelError(GgblockError):
    """A well-formed file that cannot be run."""


class UnknownArchitecture(ModelError):
    """``general.architecture`` names an architecture that ggblock does not know."""


class MissingTensor(ModelError):
    """The architecture needs a tensor that the file lacks."""


class ShapeMismatch(ModelError):
    """A tensor's shape contradicts the metadata."""


class CheckpointError(GgblockError):
    """A checkpoint that cannot be converted."""


class NotACheckpoint(CheckpointError):
    """Neither a file nor a folder of any kind that can be converted."""


class BadCheckpoint(CheckpointError):
    """The checkpoint's files break the rules of their format, or contradict each other."""


class UnsafePickle(CheckpointError):
    """A pickle that names anything but tensors, storages and dictionaries: loading it could run code."""


class UnmappedTensor(CheckpointError):
    """A tensor that its architecture does not have."""


class RowDoesNotFit(CheckpointError):
    """A row that is no whole number of blocks, where a fallback is forbidden."""


class TokenizerError(GgblockError):
    """A vocabulary that cannot be used."""


class MissingVocabulary(TokenizerError):
    """The file holds no tokenizer."""


class InvalidText(TokenizerError):
    """Text that has no UTF-8 form, such as a lone surrogate."""


class TemplateError(GgblockError):
    """A chat template failed, took too long, or tried to escape its sandbox."""


class ContextOverflow(GgblockError):
    """More tokens than the context holds."""


class CatalogError(GgblockError):
    """A catalog model could not be fetched."""


class UnknownModel(CatalogError):
    """A name that is neither a path nor in the catalog."""


class Offline(CatalogError):
    """The package index cannot be reached."""


class ChecksumMismatch(CatalogError):
    """The bytes are not those that the catalog promises."""


class SourceUnsupported(CatalogError):
    """A kind of source that this version cannot fetch from."""


class CacheUnusable(CatalogError):
    """The cache folder cannot be written, or its disk is full."""


class DeviceError(GgblockError):
    """An accelerator that was asked for is missing or failed."""


class SettingError(GgblockError):
    """A setting that is unknown or outside its range."""
