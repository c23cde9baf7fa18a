"""Keep the texts that a step makes in Arrow files, one a part."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa

from kd.data.slices import write_table
from kd.errors import KDError
from kd.storage.locks import lock
from kd.transfer.base import LabelledTexts, Step

Item = TypeVar("Item")


def make_parts(name: str, step: Step, train: LabelledTexts, seed: int, folder: Path) -> list[Path]:
    """Make the texts of a step, and return the files with its parts. Those that are there are not made again.

    Raises:
        KDError: the step yields something else than texts.
        OSError: the disk is full, or cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    with lock(folder):
        for leftover in folder.glob(".part-*"):  # of a killed process, or of a full disk
            leftover.unlink()
        for number, texts in enumerate(step.parts(train, seed)):
            path = folder / f"part-{number:05}.arrow"
            if not is_whole(path):
                write_part(name, path, texts)
            files.append(path)
    return files


def write_part(name: str, path: Path, texts: Iterable[Any]) -> None:
    """Write the texts of a part in one step."""
    try:
        table = pa.table({"text": pa.array(list(texts), pa.string())})
    except (pa.ArrowException, TypeError, UnicodeError) as error:
        raise KDError(f"transfer.{name}: expected a step that yields texts, found other values ({error})") from error
    write_table(path, table)


def is_whole(path: Path) -> bool:
    """Return whether there is a part that can be read."""
    try:
        texts_in_part(path)
    except (OSError, pa.ArrowException):
        return False
    return True


def texts_in_part(path: Path) -> list[str]:
    """Return the texts of a part."""
    table = pa.ipc.open_file(pa.BufferReader(path.read_bytes())).read_all()  # Arrow would read the file with threads
    table.validate(full=True)
    return table["text"].to_pylist()


def texts_of(files: Iterable[Path]) -> Iterator[str]:
    """Yield the texts of all parts."""
    for file in files:
        yield from texts_in_part(file)


def texts_at(files: Iterable[Path], places: Sequence[int]) -> Iterator[str]:
    """Yield the texts at some places among those of all parts; the places rise."""
    wanted = iter(places)
    place = next(wanted, None)
    for number, text in enumerate(texts_of(files)):
        if place is None:
            return
        if number == place:
            yield text
            place = next(wanted, None)


def chunks(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Yield lists of this size; the last may be shorter."""
    iterator = iter(items)
    while found := list(islice(iterator, size)):
        yield found
