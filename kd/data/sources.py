"""Where texts come from: files on disk, and data sets of a hub; each function gives `Splits`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import datasets

from kd.data.files import SUFFIXES, Rows, Tally, file_format, read_rows
from kd.data.labels import LabelReader, require_label_names
from kd.data.splits import SplitBuilder, Splits, require_shares
from kd.errors import KDError
from kd.storage import hub
from kd.storage.assets import resolve

__all__ = ["Splits", "from_files", "from_files_or_hub", "from_hub", "read_rows"]

NO_LABEL = "-1"
"""How a benchmark's hidden test labels are written."""
STEMS = {"train": ("train",), "validation": ("validation", "valid", "dev"), "test": ("test",)}
PROBE_ROWS = 100

Place = TypeVar("Place")


def from_files(
    path: str | None = None,
    train: str | None = None,
    validation: str | None = None,
    test: str | None = None,
    unlabelled: str | Sequence[str] | None = None,
    text: str = "text",
    label: str = "label",
    label_names: Sequence[Any] | None = None,
    where: Mapping[str, Any] | None = None,
    encoding: str = "utf-8",
    validation_share: float = 0.1,
    test_share: float = 0.1,
    limit: int | None = None,
    deduplicate: bool = True,
    stream: bool = False,
) -> Splits:
    """Rows of CSV, TSV, JSONL, Parquet or Arrow files as train, validation and test.

    What is not given is cut out of train by a hash of the normalised text; see `splits.normalise`.

    Args:
        path: a file with all the rows, or a folder with train, dev (or validation) and test files.
            Without a test file that has labels, dev is the test split and validation is cut from train.
        train: instead of ``path``, the file with the train rows.
        validation, test: files of the splits that are held out; they go before those of a folder.
        unlabelled: files of texts for the transfer set; they join train without a label.
        text, label: names of the columns. A row whose label is empty or -100 has none; train may lack the
            column where validation and test are files of their own.
        label_names: name of each label id; None to take the values found, sorted.
        where: column -> value, or list of values, that a row must have; not asked of ``unlabelled``.
        encoding: of text files.
        validation_share, test_share: parts of the rows to cut, where no file is given.
        limit: of each split's file, use only so many rows, chosen by hash; for quick tries.
        deduplicate: within a split, keep the first row of each text.
        stream: leave ``unlabelled`` to `kd.data.shards`, which reads it at flat memory.

    Raises:
        KDError: a file or column that is not there, text in another encoding, a label outside the label
            names, an empty split, one class only.
    """
    if (path is None) == (train is None):
        raise KDError(
            "expected either data.path (a file or folder with all the rows) or data.train (a file with "
            f"the train rows), found {'both' if path else 'neither'}; set one of them"
        )
    require_shares(validation_share, test_share, limit)
    roles = _folder_roles(Path(resolve(path or str(train))), label, encoding)
    for role, given in (("validation", validation), ("test", test)):
        if given is not None:
            roles[role] = Path(resolve(given))
    labels = LabelReader(require_label_names(label_names))
    builder = SplitBuilder(labels, validation_share, test_share, limit, deduplicate)
    for role in ("test", "validation", "train"):
        if role in roles:
            # A teacher can teach from texts alone, as long as there are labels to choose and to measure by.
            teachable = role == "train" and {"validation", "test"} <= roles.keys()
            _add_file(builder, role, roles[role], text, label, dict(where or {}), encoding, label_optional=teachable)
    for place in [unlabelled] if isinstance(unlabelled, str) else unlabelled or ():
        if stream:
            read_rows(resolve(place), encoding).require(text, "data.text")
            continue
        _add_file(builder, "unlabelled", Path(resolve(place)), text, None, {}, encoding)
    return builder.finish()


def from_hub(
    name: str,
    config: str | None = None,
    text: str = "text",
    label: str = "label",
    label_names: Sequence[Any] | None = None,
    splits: Mapping[str, str | None] | None = None,
    validation_share: float = 0.1,
    test_share: float = 0.1,
    limit: int | None = None,
    deduplicate: bool = True,
) -> Splits:
    """A data set of the hub; no code of it is run.

    Args:
        name, config: as for ``datasets.load_dataset``; the name may be pinned, as in ``org/data@commit``.
        text, label: names of the columns; a label of -1 is none.
        label_names: None to take those of the data set.
        splits: ``train``, ``validation``, ``test`` -> the data set's name of it; None where there is
            none. By default as with a folder in `from_files`: a test split without labels is left
            alone, validation takes its place.
        validation_share, test_share, limit, deduplicate: as in `from_files`.

    Raises:
        KDError: a hub that cannot be reached, a split or column that is not there, and as `from_files`.
    """
    require_shares(validation_share, test_share, limit)
    names = require_label_names(label_names)
    try:
        bare, revision = hub.parted(name)
        loaded = datasets.load_dataset(bare, config, revision=revision)
    # Hub, network, cache and file errors come as a dozen classes of four libraries.
    except Exception as error:
        reason = (str(error).splitlines() or [""])[0]
        raise KDError(
            f"cannot load {name} from the hub ({type(error).__name__}: {reason}); check the name and the "
            "network, or set data.path=FILE_OR_FOLDER to use a local copy"
        ) from error
    _note_commit(name, loaded)
    roles = _hub_roles(name, loaded, label, splits)
    for split in loaded.values():
        if names is None and isinstance(feature := split.features.get(label), datasets.ClassLabel):
            names = list(feature.names)
    builder = SplitBuilder(LabelReader(names, {NO_LABEL}), validation_share, test_share, limit, deduplicate)
    for role in ("test", "validation", "train"):
        if role in roles:
            split = loaded[roles[role]]
            for column, option in ((text, "data.text"), (label, "data.label")):
                if column not in split.column_names:
                    found = ", ".join(map(repr, split.column_names))
                    raise KDError(f"{name} has no column {column!r}; it has {found}; set {option} to one of them")
            builder.add(role, f"{name}/{roles[role]}", _hub_rows(split, text, label))
    return builder.finish()


def from_files_or_hub(
    path: str | None = None,
    train: str | None = None,
    hub: str | None = None,
    hub_config: str | None = None,
    hub_splits: Mapping[str, str | None] | None = None,
    text: str = "text",
    label: str = "label",
    label_names: Sequence[Any] | None = None,
    validation_share: float = 0.1,
    test_share: float = 0.1,
    limit: int | None = None,
    deduplicate: bool = True,
    **files: Any,
) -> Splits:
    """`from_files` where ``path`` or ``train`` is given, `from_hub` of ``hub`` where neither is.

    Args:
        files: the arguments that `from_files` alone takes; only their defaults go with the hub.

    Raises:
        KDError: as both; and for an option that the hub cannot serve.
    """
    shared: dict[str, Any] = {
        "text": text,
        "label": label,
        "label_names": label_names,
        "validation_share": validation_share,
        "test_share": test_share,
        "limit": limit,
        "deduplicate": deduplicate,
    }
    if path is not None or train is not None or hub is None:
        return from_files(path, train, **files, **shared)
    unused = [name for name, value in files.items() if value and name != "encoding"]
    if unused:
        options = ", ".join(f"data.{name}" for name in unused)
        raise KDError(f"{options} cannot be used with the hub's {hub}; set data.path=FILE_OR_FOLDER as well")
    return from_hub(hub, hub_config, splits=hub_splits, **shared)


def _add_file(
    builder: SplitBuilder,
    role: str,
    path: Path,
    text: str,
    label: str | None,
    where: Mapping[str, Any],
    encoding: str,
    label_optional: bool = False,
) -> None:
    rows = read_rows(path, encoding)
    rows.require(text, "data.text")
    if label_optional and label not in rows.columns:
        label = None
    if label is not None:
        rows.require(label, "data.label")
    for column in where:
        rows.require(column, "data.where")
    filtered = Tally()
    builder.add(role, path.name, _wanted(rows, text, label, where, filtered))
    builder.drop("malformed", path.name, rows.malformed)
    builder.drop("empty", path.name, rows.blank)
    builder.drop("filtered", path.name, Tally(filtered.count))


def _wanted(
    rows: Rows, text: str, label: str | None, where: Mapping[str, Any], filtered: Tally
) -> Iterator[tuple[int, Any, Any]]:
    """``(line, text, label value)`` of the rows that ``where`` lets through."""
    wanted = {
        column: {str(value) for value in (values if isinstance(values, list | tuple) else [values])}
        for column, values in where.items()
    }
    for line, row in rows:
        if all(str(row.get(column)) in values for column, values in wanted.items()):
            yield line, row.get(text), None if label is None else row.get(label)
        else:
            filtered.add(line)


def _folder_roles(path: Path, label: str, encoding: str) -> dict[str, Path]:
    """Which file serves which split; a path that is no folder is all train."""
    if not path.is_dir():
        return {"train": path}
    found: dict[str, Path] = {}
    for role, stems in STEMS.items():
        files = sorted(file for file in path.iterdir() if file.name.split(".")[0] in stems and _is_data(file))
        if len(files) > 1:
            raise KDError(
                f"{path} has more than one {role} file ({', '.join(file.name for file in files)}); leave "
                "one, or name it with data.train, data.validation and data.test instead of data.path"
            )
        if files:
            found[role] = files[0]
    if "train" not in found:
        there = ", ".join(sorted(file.name for file in path.iterdir())[:10]) or "nothing"
        raise KDError(
            f"the folder {path} has no train file: expected train{'|'.join(SUFFIXES)}, and dev or test "
            f"beside it; found {there}; set data.path to a file, or data.train"
        )
    return _serve(found, "test" in found and _has_labels(read_rows(found["test"], encoding), label))


def _is_data(file: Path) -> bool:
    try:
        return file.is_file() and bool(file_format(file))
    except KDError:
        return False


def _hub_roles(
    name: str, loaded: Mapping[str, datasets.Dataset], label: str, splits: Mapping[str, str | None] | None
) -> dict[str, str]:
    if splits is not None:
        roles = {role: split for role, split in splits.items() if split is not None}
    else:
        roles = {role: stem for role, stems in STEMS.items() for stem in stems if stem in loaded}
        probe = loaded[roles["test"]].select(range(min(PROBE_ROWS, len(loaded["test"])))) if "test" in roles else ()
        roles = _serve(roles, _any_label(row.get(label) for row in probe))
    strange = [split for split in roles.values() if split not in loaded]
    strange += [role for role in roles if role not in STEMS]
    if strange or "train" not in roles:
        raise KDError(
            f"{name} has the splits {', '.join(loaded)}; expected a train split"
            + (f", found {', '.join(strange)} asked for" if strange else "")
            + "; set data.hub_splits={train: NAME, validation: NAME or null, test: NAME or null}"
        )
    return roles


def _serve(found: Mapping[str, Place], test_has_labels: bool) -> dict[str, Place]:
    """Where the test labels are hidden, as in GLUE, dev is the test split; validation comes out of train."""
    if test_has_labels or "validation" not in found:
        return {role: place for role, place in found.items() if role != "test" or test_has_labels}
    return {"train": found["train"], "test": found["validation"]}


def _has_labels(rows: Rows, label: str) -> bool:
    return label in rows.columns and _any_label(row.get(label) for _, row in islice(rows, PROBE_ROWS))


def _any_label(values: Iterable[Any]) -> bool:
    return any(value is not None and str(value).strip() not in ("", NO_LABEL) for value in values)


def _note_commit(name: str, loaded: Mapping[str, datasets.Dataset]) -> None:
    """The commit stands in the addresses that the files of a data set were downloaded from."""
    for split in loaded.values():
        for address in split.info.download_checksums or ():
            if found := re.search(r"@([0-9a-f]{40})/", address):
                hub.note(name, found[1])
                return


def _hub_rows(split: datasets.Dataset, text: str, label: str) -> Iterator[tuple[int, Any, Any]]:
    columns = split.select_columns([text, label]).with_format("arrow")
    line = 0
    for batch in columns.iter(batch_size=1000):
        for value, name in zip(batch[text].to_pylist(), batch[label].to_pylist(), strict=True):
            line += 1
            yield line, value, name
