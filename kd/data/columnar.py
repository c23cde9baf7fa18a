"""Read Parquet and Arrow files, one batch of rows at a time, and the class names that they hold."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kd.data.opening import codec_of, unreadable
from kd.errors import KDError

if TYPE_CHECKING:  # an export reads CSV and JSON without it
    import pyarrow

NAMES = {".parquet": "Parquet", ".arrow": "Arrow", ".feather": "Arrow"}
Wanted = Callable[[], list[str] | None]
"""Returns the names of the columns to read, None for all; called when the first row is read."""


def parquet_rows(path: Path, wanted: Wanted) -> Iterator[Any]:
    """Yield the names of the columns and the schema of a Parquet file, then ``(number, row)``."""
    from pyarrow import parquet

    # Without reading whole row groups ahead, memory does not depend on their size.
    with columnar(path), parquet.ParquetFile(path, pre_buffer=False, buffer_size=1 << 20) as file:
        yield file.schema_arrow.names, file.schema_arrow
        # No threads: a sweep's fork server reads files as well, and a process with threads must not fork.
        yield from _numbered(file.iter_batches(batch_size=1000, columns=wanted(), use_threads=False))


def arrow_rows(path: Path, wanted: Wanted) -> Iterator[Any]:
    """Yield the names of the columns and the schema of an Arrow file or stream, then ``(number, row)``."""
    import pyarrow
    from pyarrow import ipc

    with columnar(path), pyarrow.OSFile(str(path)) as source:
        magic = source.read(6)
        source.seek(0)
        if magic == b"ARROW1":
            file = ipc.open_file(source)
            batches = (file.get_batch(number) for number in range(file.num_record_batches))
        else:
            file = batches = ipc.open_stream(source)
        yield file.schema.names, file.schema
        yield from _numbered(batch.select(wanted() or file.schema.names) for batch in batches)


def _numbered(batches: Iterable[Any]) -> Iterator[tuple[int, dict[str, Any]]]:
    line = 0
    for batch in batches:
        batch.validate(full=True)  # a damaged offset would end the process, and a string may not be UTF-8
        for start in range(0, len(batch), 1000):
            for row in batch.slice(start, 1000).to_pylist():
                line += 1
                yield line, row


def decoded(
    path: Path, rows: Iterator[tuple[int, dict[str, Any]]], columns: Collection[str], encoding: str
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the rows with the bytes of these columns as text.

    Raises:
        KDError: they are not in this encoding.
    """
    codec = codec_of(path, encoding)
    for line, row in rows:
        for name in columns:
            if isinstance(row.get(name), bytes):
                try:
                    row[name] = row[name].decode(codec)
                except UnicodeError as error:
                    raise KDError(
                        f"{path}, row {line}: the bytes of the column {name!r} are not {encoding} text; write the "
                        "column as strings, or set its encoding: data.encoding=cp1252, or --encoding cp1252"
                    ) from error
        yield line, row


def binary_columns(schema: pyarrow.Schema, names: Collection[str]) -> list[str]:
    """Return those of the columns that hold bytes, as some programs write texts."""
    from pyarrow import types as kinds

    return [
        field.name
        for field in schema
        if field.name in names and (kinds.is_binary(field.type) or kinds.is_large_binary(field.type))
    ]


def class_names(schema: pyarrow.Schema) -> dict[str, list[str]]:
    """Return the class names of each column whose values are their ids, as Hugging Face's `datasets` writes them."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        found = {name: feature for name, feature in features.items() if isinstance(feature, dict)}
        return {
            name: list(map(str, feature["names"]))
            for name, feature in found.items()
            if feature.get("_type") == "ClassLabel" and isinstance(feature.get("names"), list)
        }
    except (KeyError, TypeError, ValueError, AttributeError):
        return {}


@contextmanager
def columnar(path: Path) -> Iterator[None]:
    """Turn what is raised for a Parquet or Arrow file that cannot be read into one sentence."""
    import pyarrow

    name = NAMES[path.suffix.lower()]
    try:
        yield
    except (pyarrow.ArrowException, OSError, ValueError, OverflowError) as error:
        if isinstance(error, KDError):
            raise
        if isinstance(error, OSError) and error.errno is not None:  # Arrow raises an OSError without a number, too
            raise KDError(unreadable(path, error)) from error
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        if "UTF8" in reason:
            raise KDError(
                f"{path}: a string in it is not UTF-8, which those of a {name} file must be ({reason}); write it again "
                "from the texts"
            ) from error
        raise KDError(f"{path} is not a {name} file, or is damaged ({reason}); convert or download it again") from error
