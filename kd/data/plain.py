"""Read JSON lines, JSON arrays, plain lines, fastText files, folders of texts, and texts beside a file of labels."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice, zip_longest
from pathlib import Path
from typing import Any

from kd.data.counts import Tally
from kd.data.dialect import Reading
from kd.data.opening import opened
from kd.errors import KDError

LABEL_MARK = "__label__"
"""The prefix of a label in a fastText file."""
COLUMNS = ["text", "label"]


def is_array(path: Path, reading: Reading) -> bool:
    """Return whether a JSON file is one list over all of its lines."""
    with opened(path, reading.encoding) as stream:
        start = next((line for line in stream if line.strip()), "")
    return start.lstrip().startswith("[") and not _is_row(start)


def _is_row(line: str) -> bool:
    """Return whether a line that begins with a bracket is complete, so that the file is no array over many lines."""
    try:
        found: Any = json.loads(line) if len(line) < 10_000 else None
    except (ValueError, RecursionError):
        return False
    return bool(found) and not isinstance(found[0], dict)


def array_rows(path: Path, reading: Reading, blank: Tally) -> Iterator[Any]:
    """Yield the keys of the first object of a list, then ``(number, object)``."""
    with opened(path, reading.encoding) as stream:
        try:
            rows = json.load(stream)
        except (ValueError, RecursionError) as error:
            if isinstance(error, UnicodeError):
                raise
            raise KDError(f"{path} is not JSON ({error}); expected a list of objects, or one in each line") from error
    wanted = 'a list of objects, such as [{"text": "...", "label": 1}]'
    yield from _objects(
        path, enumerate(rows, start=1), "entry {} is", wanted, "an empty list; expected a list of objects"
    )


def object_rows(path: Path, reading: Reading, blank: Tally) -> Iterator[Any]:
    """Yield the keys of the first object, then ``(line, object)``; each line is one object."""
    wanted = 'one object in each line, such as {"text": "...", "label": 1}'
    yield from _objects(
        path, _lines(path, reading, blank), "line {} holds", wanted, "empty; expected one JSON object in each line"
    )


def _objects(
    path: Path, rows: Iterable[tuple[int, Any]], place: str, wanted: str, empty: str
) -> Iterator[list[str] | tuple[int, dict[str, Any]]]:
    """Yield the keys of the first object, then all of them with their numbers.

    Args:
        path: of the file.
        rows: values with their numbers.
        place: where a value stands, with braces for its number.
        wanted: what is expected instead of another value.
        empty: what a file without a value is.
    """
    first = True
    for number, row in rows:
        if not isinstance(row, dict):
            raise KDError(f"{path}, {place.format(number)} a JSON {type(row).__name__}; expected {wanted}")
        if first:
            yield list(row)
            first = False
        yield number, row
    if first:
        raise KDError(f"{path} is {empty}")


def _lines(path: Path, reading: Reading, blank: Tally) -> Iterator[tuple[int, Any]]:
    """Yield the JSON value of each line with its number."""
    first = True
    with opened(path, reading.encoding) as stream:
        for line, content in enumerate(stream, start=1):
            if not content.strip():
                blank.add(line)
                continue
            try:
                value = json.loads(content)
            except (ValueError, RecursionError) as error:
                raise KDError(
                    f"{path}, line {line} is not JSON ({error}); expected one complete object in each line"
                    + (", or a list of objects" if first else "")
                ) from error
            yield line, value
            first = False


def is_fasttext(lines: Sequence[str]) -> bool:
    """Return whether the first lines of a file begin with a label as fastText writes it."""
    filled = [line for line in lines if line.strip()]
    return bool(filled) and all(line.startswith(LABEL_MARK) for line in filled)


def fasttext_rows(path: Path, reading: Reading, blank: Tally) -> Iterator[Any]:
    """Yield the columns, then the rows of lines such as ``__label__good a fine film``."""
    yield COLUMNS
    with opened(path, reading.encoding) as stream:
        for line, content in enumerate(stream, start=1):
            labels = []
            rest = content.strip()
            while rest.startswith(LABEL_MARK):
                label, *others = rest.split(maxsplit=1)
                labels.append(label.removeprefix(LABEL_MARK))
                rest = "".join(others)
            if len(labels) > 1:
                raise KDError(
                    f"{path}, line {line} has {len(labels)} labels ({', '.join(labels[:5])}); expected one label for "
                    "each text; keep one in each line"
                )
            if labels or rest:
                yield line, {"text": rest, "label": labels[0] if labels else ""}
            else:
                blank.add(line)


def line_rows(path: Path, reading: Reading, blank: Tally) -> Iterator[Any]:
    """Yield the column, then each line as a text."""
    yield COLUMNS[:1]
    with opened(path, reading.encoding) as stream:
        for line, content in enumerate(stream, start=1):
            if content.strip():
                yield line, {"text": content.rstrip("\r\n")}
            else:
                blank.add(line)


def folder_rows(label: str) -> Callable[[Path, Reading, Tally], Iterator[Any]]:
    """Return a reader of a folder whose files are one text each, all with this label."""

    def read(path: Path, reading: Reading, blank: Tally) -> Iterator[Any]:
        yield COLUMNS
        for number, file in enumerate(sorted(path.glob("*.txt")), start=1):
            with opened(file, reading.encoding) as stream:
                yield number, {"text": stream.read().strip(), "label": label}

    return read


def paired_rows(labels: Path) -> Callable[[Path, Reading, Tally], Iterator[Any]]:
    """Return a reader of a file of texts, one a line, whose labels are the lines of another file."""

    def read(path: Path, reading: Reading, blank: Tally) -> Iterator[Any]:
        yield COLUMNS
        with opened(path, reading.encoding) as texts, opened(labels, reading.encoding) as values:
            for line, (text, value) in enumerate(zip_longest(texts, values), start=1):
                if text is None or value is None:
                    shorter, longer = (path, labels) if text is None else (labels, path)
                    raise KDError(
                        f"{shorter} has {line - 1} lines and {longer.name} has more; expected a label for each text"
                    )
                yield line, {"text": text.rstrip("\r\n"), "label": value.strip()}

    return read


def first_lines(path: Path, encoding: str, characters: int = 1 << 16) -> list[str]:
    """Return the first lines of a text file, and the whole first line however long it is."""
    found, size = [], 0
    with opened(path, encoding) as stream:
        for line in islice(stream, 1000):
            found.append(line)
            size += len(line)
            if size > characters:
                break
    return found
