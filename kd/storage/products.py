"""Compare the files of a finished run with the checksums that it kept. Needs no torch."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from kd.errors import KDError
from kd.storage import records
from kd.storage.checksum import file_sha256

READ_BACK = (".yaml", ".json", ".csv", ".parquet", ".txt", ".model", ".jinja", ".safetensors", ".bin", ".ckpt", ".py")
"""Endings of the files that kd or transformers would read. Others, such as a README, may come and go."""


def products(place: Path, names: Sequence[str]) -> Iterator[str]:
    """Yield the files that are read back, relative to a run's directory.

    Args:
        place: the directory.
        names: of files and folders in it.
    """
    for name in names:
        path = place / name
        for file in [path] if path.is_file() else sorted(path.rglob("*")):
            if file.is_file() and file.suffix in READ_BACK and not file.name.startswith("."):
                yield file.relative_to(place).as_posix()


def require_whole(place: Path, expected: Mapping[str, str], names: Sequence[str]) -> None:
    """Compare files with their checksums.

    Args:
        place: the run's directory.
        expected: the checksums of its files when it was done.
        names: of the files and folders to compare.

    Raises:
        KDError: a file is missing, was changed, or was added.
    """
    found = set(products(place, names))
    for name in sorted(found | {name for name in expected if name.partition("/")[0] in names}):
        repair = "copy the run again, or train it again with rerun=true"
        if name not in found:
            what = "is missing"
        elif name not in expected:
            what, repair = "was not there when the run was done", "remove this file"
        elif file_sha256(place / name) != expected[name]:
            what = "does not match its checksum"
        else:
            continue
        raise KDError(f"the run in '{place}' is damaged: {name} {what}; {repair}")


def require_whole_model(folder: Path) -> None:
    """Compare the files of a model folder, if it is that of a finished run or one of its partners.

    Raises:
        KDError: a file is missing, was changed, or was added.
    """
    folder = Path(os.path.abspath(folder))
    name = "model" if folder.name == "model" else folder.parent.name
    run = folder.parent if name == "model" else folder.parent.parent
    status = run / "status.json"
    if name in ("model", "partners") and status.is_file():
        expected = records.read(status, records.Status).get("products")
        if expected is not None:
            require_whole(run, expected, [name])
