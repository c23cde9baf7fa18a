"""Open text files: encodings, byte order marks and compression, with one sentence for what cannot be read."""

from __future__ import annotations

import bz2
import codecs
import gzip
import io
import lzma
import sys
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TextIO, cast

from kd.errors import KDError

COMPRESSIONS = (".gz", ".bz2", ".xz", ".zst", ".zip")
NO_TEXT = frozenset({"idna", "punycode", "undefined", "unicode_escape", "raw_unicode_escape"})
"""Codecs that Python counts as text, but in which no file of texts is written."""
MARKS = {codecs.BOM_UTF32_LE: "utf-32", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}
"""Byte order marks that no UTF-8 file begins with, the longer ones first."""
OTHER_KINDS: tuple[tuple[bytes, tuple[str, ...], str, str], ...] = (
    (b"version https://git-lfs", (), "a pointer of Git LFS, not the data", "fetch it with git lfs pull"),
    (b"/annex/objects/", (), "a pointer of git-annex, not the data", "fetch it with git annex get"),
    (b"<!doctype html", (), "an HTML page, such as one that reports an error", "download the data again"),
    (b"<html", (), "an HTML page, such as one that reports an error", "download the data again"),
    (b"<?xml", (), "an XML page, such as one that reports an error", "download the data again"),
    (b"%PDF-", (".pdf",), "a PDF", "save the rows as CSV"),
    (b"\xd0\xcf\x11\xe0", (".xls",), "a workbook of Excel", "save the rows as CSV UTF-8"),
    (b"PK\x03\x04", (".zip",), "a zip archive or a workbook of Excel", "name it .zip, or save the rows as CSV UTF-8"),
    (b"\x1f\x8b", (".gz", ".tgz"), "a gzip file", "add .gz to its name, or unpack it"),
    (b"BZh", (".bz2",), "a bzip2 file", "add .bz2 to its name, or unpack it"),
    (b"\xfd7zXZ\0", (".xz",), "an xz file", "add .xz to its name, or unpack it"),
    (b"\x28\xb5\x2f\xfd", (".zst",), "a zstd file", "add .zst to its name, or unpack it"),
    (b"PAR1", (".parquet",), "a Parquet file", "name it .parquet"),
    (b"ARROW1", (".arrow", ".feather"), "an Arrow file", "name it .arrow"),
    (b"SQLite format 3\0", (".db",), "an SQLite database", "export the rows as CSV"),
)
"""First bytes of other files, the suffixes that such a file may have (none for text in any letters), what it is, and
what to do."""


def broken(*others: type[Exception]) -> tuple[type[Exception], ...]:
    """Return what the libraries raise for a damaged or encrypted archive, and others; pyarrow may be missing."""
    own = (*others, EOFError, zlib.error, lzma.LZMAError, zipfile.BadZipFile, RuntimeError)
    return (*own, sys.modules["pyarrow"].ArrowException) if "pyarrow" in sys.modules else own


def codec_of(path: Path, encoding: str) -> str:
    """Return the codec of a file. A file that is called UTF-8 and has the byte order mark of UTF-16 is UTF-16.

    Raises:
        KDError: Python has no such encoding, or it is not one of texts, such as base64; or the file cannot be read.
    """
    try:
        found = codecs.lookup(encoding)
        is_text = found._is_text_encoding and found.name.replace("-", "_") not in NO_TEXT
    except (LookupError, ValueError):  # ValueError: a name with a NUL or a letter that is not ASCII
        is_text = False
    if not is_text:
        raise KDError(f"unknown encoding {encoding!r}: expected one of texts, such as utf-8, latin-1 or gb18030")
    if found.name != "utf-8":
        return found.name
    with readable(path), binary(path) as stream:
        start = stream.read(4)
    return next((codec for mark, codec in MARKS.items() if start.startswith(mark)), "utf-8-sig")


@contextmanager
def opened(path: Path, encoding: str) -> Iterator[TextIO]:
    """Open a text file. Its line ends (LF, CR LF, CR) are not changed.

    Raises:
        KDError: also during reading: the file cannot be read, or is not text in this encoding.
    """
    codec = codec_of(path, encoding)
    try:
        with readable(path), binary(path) as raw, io.TextIOWrapper(raw, encoding=codec, newline="") as stream:
            yield stream
    except UnicodeError as error:
        raise KDError(
            f"{path}{_undecodable(path, codec)} not {encoding} text; convert the file, or set its encoding, "
            "such as cp1252 of Excel (data.encoding=cp1252 for kd train, otherwise --encoding cp1252)"
        ) from error


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Turn what is raised for a file that is missing, damaged or incomplete into one sentence."""
    try:
        yield
    except KDError:
        raise
    except OSError as error:
        raise KDError(unreadable(path, error)) from error
    except broken() as error:
        kind = path.suffix.lower().lstrip(".")
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise KDError(
            f"{path} is not a complete {'gzip' if kind == 'gz' else kind} file ({reason}); download or compress it "
            "again, or unpack it"
        ) from error


def require_kind(path: Path) -> None:
    """Refuse a file whose first bytes are those of another kind than its name says, such as a page of an error.

    Raises:
        KDError: says what the file is; or it cannot be read.
    """
    with readable(path), path.open("rb") as stream:
        start = stream.read(512)
    own = {suffix.lower() for suffix in path.suffixes[-2:]}
    shown = start.lstrip(codecs.BOM_UTF8 + b" \t\r\n").lower()
    for mark, suffixes, what, advice in OTHER_KINDS:
        if (start if suffixes else shown).startswith(mark) and own.isdisjoint(suffixes):
            raise KDError(f"expected rows in {path}, found {what}; {advice}")


def unreadable(path: Path, error: OSError) -> str:
    """Return the sentence for a file that the operating system does not give."""
    if isinstance(error, FileNotFoundError):
        return f"there is no file {path}; check the path (it is relative to {Path.cwd()})"
    return f"cannot read {path}: {error.strerror or ' '.join(str(error).split())}"


def binary(path: Path) -> IO[bytes]:
    """Open the bytes of a file; those that were compressed, if its suffix is one of `COMPRESSIONS`."""
    match path.suffix.lower():
        case ".gz":
            return cast(IO[bytes], gzip.open(path))
        case ".bz2":
            return cast(IO[bytes], bz2.open(path))
        case ".xz":
            return cast(IO[bytes], lzma.open(path))
        case ".zst":
            import pyarrow

            with path.open("rb"):  # the system's own error for a missing file
                return cast(IO[bytes], pyarrow.input_stream(str(path), compression="zstd"))
        case ".zip":
            with zipfile.ZipFile(path) as archive:
                return archive.open(member(path))
    return path.open("rb")


def member(path: Path) -> str:
    """Return the name of the only file in a zip archive.

    Raises:
        KDError: it holds none or several.
    """
    with readable(path), zipfile.ZipFile(path) as archive:
        names = [name for name in archive.namelist() if not name.endswith("/") and not name.startswith("__MACOSX/")]
    if len(names) != 1:
        listed = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "") or "none"
        raise KDError(f"expected one file in {path}, found {listed}; unpack it, and set data.path to a file or folder")
    return names[0]


def _undecodable(path: Path, codec: str) -> str:
    """Return the position of the first byte that is not in ``codec``, in words. This reads the file a second time."""
    decoder = codecs.getincrementaldecoder(codec)()
    line, after_cr = 1, False
    try:
        with binary(path) as stream:
            while chunk := stream.read(1 << 20):
                try:
                    text, fault = decoder.decode(chunk), ""
                except UnicodeDecodeError as error:
                    text = error.object[: error.start].decode(codec, errors="replace")
                    fault = f"byte 0x{error.object[error.start]:02X} is"
                # A CR LF that is divided between two chunks is one line end.
                line += text.count("\n") + text.count("\r") - text.count("\r\n")
                line -= after_cr and text.startswith("\n")
                after_cr = text.endswith("\r")
                if fault:
                    return f", line {line}: {fault}"
    except broken(UnicodeError, OSError):  # the codec names no byte; or the end of the archive is missing as well
        return " is"
    return ", its last character: it is"
