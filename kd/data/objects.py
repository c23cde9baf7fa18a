"""Write tables of a Python program to files, which are then read as any other data."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kd.errors import KDError
from kd.storage.checksum import file_sha256
from kd.storage.locks import mark

FOLDER = "given"
"""Folder below the outputs."""


def is_table(value: Any) -> bool:
    """Return whether a value is a pandas DataFrame, a `datasets.Dataset` or another table that writes Parquet."""
    return hasattr(value, "to_parquet") and not isinstance(value, Mapping)  # a DatasetDict holds several


def has_table(value: Any) -> bool:
    """Return whether a value is a table, or a dictionary or list with one."""
    parts = value.values() if isinstance(value, Mapping) else value if isinstance(value, list | tuple) else ()
    return is_table(value) or any(map(has_table, parts))


def file_of(table: Any, outputs: Path) -> Path:
    """Write a table as Parquet below the outputs, and return the file, which is named after its content.

    Raises:
        KDError: a column holds values of several types, or other values that Parquet cannot hold.
    """
    folder = outputs.absolute() / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / f".{mark()}.parquet"
    try:
        table.to_parquet(temporary, **({"index": False} if hasattr(table, "iloc") else {}))
        place = folder / f"{file_sha256(temporary)[:16]}.parquet"
        os.replace(temporary, place)
    except (OSError, ValueError, TypeError) as error:  # pyarrow's errors are of these kinds
        reason = " ".join(str(error).split())[:200]
        raise KDError(
            f"expected a table that Parquet can hold, found one that it cannot ({reason}); give columns of texts and "
            "numbers"
        ) from error
    finally:
        temporary.unlink(missing_ok=True)
    return place


def with_files(value: Any, outputs: Path) -> Any:
    """Return a value with the path of a file for each table in it."""
    if is_table(value):
        return file_of(value, outputs)
    if isinstance(value, Mapping):
        return {key: with_files(each, outputs) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [with_files(each, outputs) for each in value]
    return value
