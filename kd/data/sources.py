"""Read files, or a data set on the hub, and split the rows into train, validation and test."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, TypeVar

import datasets
from annotated_types import Gt, Lt

from kd.data.files import SUFFIXES, Counts, Rows, file_format, read_rows
from kd.data.labels import LabelReader, require_label_names
from kd.data.splits import SplitBuilder, Splits, require_shares
from kd.errors import KDError
from kd.options.declared import Count, checked, options_of
from kd.storage import hub
from kd.storage.assets import resolve

__all__ = ["Splits", "from_files", "from_files_or_hub", "from_hub", "read_rows"]

NO_LABEL = "-1"
"""The value that benchmarks such as GLUE write in place of a hidden test label."""
STEMS = {"train": ("train",), "validation": ("validation", "valid", "dev"), "test": ("test",)}
"""Names of the splits of a folder or of a data set on the hub."""
ORDER = ("test", "validation", "train")
"""In which the splits are read: a text of an earlier split is left out of the later ones."""
PROBE_ROWS = 100

Part = Annotated[float, Gt(0), Lt(1)]
Place = TypeVar("Place")


@checked
def from_files(
    path: str | None = None,
    train: str | None = None,
    validation: str | None = None,
    test: str | None = None,
    unlabelled: str | list[str] | None = None,
    text: str = "text",
    label: str = "label",
    label_names: list | None = None,
    where: dict[str, Any] | None = None,
    encoding: str = "utf-8",
    validation_share: Part = 0.1,
    test_share: Part = 0.1,
    limit: Count | None = None,
    deduplicate: bool = True,
    stream: bool = False,
) -> Splits:
    """Read CSV, TSV, JSONL, Parquet or Arrow files and split their rows into train, validation and test.

    Args:
        path: a file with all rows, or a folder with train, dev (or validation) and test files.
        train: the file with the train rows, instead of ``path``.
        validation, test: the file of this split, also in place of a folder's. Without one, rows are taken out of train.
        unlabelled: one or more files of texts for the transfer set. Their rows are added to train without a label.
        text: name of the column with the texts.
        label: name of the column with the labels. An empty label or -100 means that the row has none.
        label_names: name of each label id; null for the values found, sorted.
        where: the rows to use, as column -> value or list of values; does not apply to ``unlabelled``.
        encoding: of text files.
        validation_share, test_share: part of the rows that becomes this split if it has no file.
        limit: largest number of rows to use from each split's file, chosen by a hash of the text.
        deduplicate: whether to use only the first row of each text in a split.
        stream: whether ``unlabelled`` is read in shards instead (`kd.data.shards`), in constant memory.
    """
    require_shares(validation_share, test_share)
    files = _files_by_role(path, train, validation, test, label, encoding)
    labels = LabelReader(require_label_names(label_names))
    builder = SplitBuilder(labels, validation_share, test_share, limit, deduplicate)
    reader = _FileReader(builder, text, label, where or {}, encoding)
    reader.add_splits(files)
    reader.add_unlabelled([unlabelled] if isinstance(unlabelled, str) else unlabelled or [], stream)
    return builder.finish()


@checked
def from_hub(
    name: str,
    config: str | None = None,
    text: str = "text",
    label: str = "label",
    label_names: list | None = None,
    splits: dict[str, str | None] | None = None,
    validation_share: Part = 0.1,
    test_share: Part = 0.1,
    limit: Count | None = None,
    deduplicate: bool = True,
) -> Splits:
    """Read a data set from the hub, without running any code of it.

    Args:
        name: of the data set; ``org/data@commit`` pins it to a commit.
        config: name of the data set's configuration, as in `datasets.load_dataset`.
        text: name of the column with the texts.
        label: name of the column with the labels. The label -1 means that the row has none.
        label_names: name of each label id; null for the data set's own names.
        splits: ``train``, ``validation``, ``test`` -> the data set's split, or null. By default they are found by name;
            if the test split has no labels, the validation split takes its place.
        validation_share, test_share, limit, deduplicate: as in `from_files`.
    """
    require_shares(validation_share, test_share)
    names = require_label_names(label_names)
    loaded = _load(name, config)
    roles = _hub_roles(name, loaded, label, splits)
    labels = LabelReader(names or _class_names(loaded, label), [NO_LABEL])
    builder = SplitBuilder(labels, validation_share, test_share, limit, deduplicate)
    for role in ORDER:
        if role in roles:
            builder.add(role, f"{name}/{roles[role]}", _hub_rows(name, loaded[roles[role]], text, label))
    return builder.finish()


@checked
def from_files_or_hub(
    path: str | None = None,
    train: str | None = None,
    hub: str | None = None,
    hub_config: str | None = None,
    hub_splits: dict[str, str | None] | None = None,
    **options: Any,
) -> Splits:
    """Call `from_files` if ``path`` or ``train`` is given, otherwise `from_hub`.

    Args:
        path, train: as in `from_files`.
        hub, hub_config, hub_splits: ``name``, ``config`` and ``splits`` of `from_hub`.
        options: the other options of `from_files`.

    Raises:
        KDError: as these functions; or an option is set that `from_hub` does not have.
    """
    if path is not None or train is not None or hub is None:
        return from_files(path, train, **options)
    shared = {name: value for name, value in options.items() if name in options_of(from_hub)}
    unused = [name for name, value in options.items() if value and name not in (*shared, "encoding")]
    if unused:
        keys = ", ".join(f"data.{name}" for name in unused)
        raise KDError(f"{keys} cannot be used with {hub} from the hub; set data.path=FILE_OR_FOLDER as well")
    return from_hub(hub, hub_config, splits=hub_splits, **shared)


@dataclass(frozen=True)
class _FileReader:
    """Reads files into a `SplitBuilder`. The arguments are those of `from_files`."""

    builder: SplitBuilder
    text: str
    label: str
    where: Mapping[str, Any]
    encoding: str

    def add_splits(self, files: Mapping[str, Path]) -> None:
        """Add the files of the splits, by role."""
        for role in ORDER:
            if role in files:
                rows = read_rows(files[role], self.encoding)
                # Distillation can learn from texts alone, but selecting and evaluating a model needs labels.
                optional = role == "train" and {"validation", "test"} <= files.keys()
                label = None if optional and self.label not in rows.columns else self.label
                self._add(role, rows, label, self.where)

    def add_unlabelled(self, files: Sequence[str], stream: bool) -> None:
        """Add files of texts, or only check their column if they are streamed."""
        for file in files:
            rows = read_rows(resolve(file), self.encoding)
            if stream:
                rows.require(self.text, "data.text")
            else:
                self._add("unlabelled", rows, None, {})

    def _add(self, role: str, rows: Rows, label: str | None, where: Mapping[str, Any]) -> None:
        rows.require(self.text, "data.text")
        if label is not None:
            rows.require(label, "data.label")
        for column in where:
            rows.require(column, "data.where")
        counts = self.builder.counts
        self.builder.add(role, rows.path.name, _matching(rows, self.text, label, where, counts))
        counts.add_unread(rows)


def _matching(
    rows: Rows, text: str, label: str | None, where: Mapping[str, Any], counts: Counts
) -> Iterator[tuple[int, Any, Any]]:
    """Yield ``(line, text, label value)`` of the rows that have the values of ``where``, and count the others."""
    wanted = {
        column: {str(value) for value in (values if isinstance(values, list | tuple) else [values])}
        for column, values in where.items()
    }
    for line, row in rows:
        if all(str(row.get(column)) in values for column, values in wanted.items()):
            yield line, row.get(text), None if label is None else row.get(label)
        else:
            counts.read += 1
            counts.add("filtered", 1)


def _files_by_role(
    path: str | None, train: str | None, validation: str | None, test: str | None, label: str, encoding: str
) -> dict[str, Path]:
    """Return the file of each split; a split without a file is missing."""
    if (path is None) == (train is None):
        raise KDError(
            "expected either data.path (a file or folder with all the rows) or data.train (a file with "
            f"the train rows), found {'both' if path else 'neither'}; set one of them"
        )
    found = _folder_roles(Path(resolve(str(train if path is None else path))), label, encoding)
    given = {"validation": validation, "test": test}
    return found | {role: Path(resolve(place)) for role, place in given.items() if place is not None}


def _folder_roles(path: Path, label: str, encoding: str) -> dict[str, Path]:
    """Return the file of each split in a folder. A path that is a file is the train split."""
    if not path.is_dir():
        return {"train": path}
    found: dict[str, Path] = {}
    for role, stems in STEMS.items():
        files = sorted(file for file in path.iterdir() if file.name.split(".")[0] in stems and _is_data(file))
        if len(files) > 1:
            raise KDError(
                f"expected one {role} file in the folder {path}, found {', '.join(file.name for file in files)}; keep "
                "one, or set data.train, data.validation and data.test instead of data.path"
            )
        if files:
            found[role] = files[0]
    if "train" not in found:
        present = ", ".join(sorted(file.name for file in path.iterdir())[:10]) or "nothing"
        raise KDError(
            f"the folder {path} has no train file: expected train{'|'.join(SUFFIXES)}, and dev or test "
            f"beside it; found {present}; set data.path to a file, or data.train"
        )
    return _without_hidden_labels(found, "test" in found and _has_labels(read_rows(found["test"], encoding), label))


def _is_data(file: Path) -> bool:
    try:
        return file.is_file() and bool(file_format(file))
    except KDError:
        return False


def _load(name: str, config: str | None) -> datasets.DatasetDict:
    try:
        bare, revision = hub.parted(name)
        loaded = datasets.load_dataset(bare, config, revision=revision)
    # Errors of the hub, the network, the cache and the files come as a dozen classes of four libraries.
    except Exception as error:
        reason = (str(error).splitlines() or [""])[0]
        raise KDError(
            f"cannot load {name} from the hub ({type(error).__name__}: {reason}); check the name and the "
            "network, or set data.path=FILE_OR_FOLDER to use a local copy"
        ) from error
    _note_commit(name, loaded)
    return loaded


def _note_commit(name: str, loaded: Mapping[str, datasets.Dataset]) -> None:
    """Record the commit of a data set, which is part of the addresses that its files were downloaded from."""
    for split in loaded.values():
        for address in split.info.download_checksums or ():
            if found := re.search(r"@([0-9a-f]{40})/", address):
                hub.note(name, found[1])
                return


def _class_names(loaded: Mapping[str, datasets.Dataset], label: str) -> list[str] | None:
    """Return the data set's own label names; None if the label column has none."""
    features = (split.features.get(label) for split in loaded.values())
    return next((list(feature.names) for feature in features if isinstance(feature, datasets.ClassLabel)), None)


def _hub_roles(
    name: str, loaded: Mapping[str, datasets.Dataset], label: str, splits: Mapping[str, str | None] | None
) -> dict[str, str]:
    """Return the data set's split for each role; a role without a split is missing."""
    if splits is not None:
        roles = {role: split for role, split in splits.items() if split is not None}
    else:
        roles = {role: stem for role, stems in STEMS.items() for stem in stems if stem in loaded}
        probe = loaded[roles["test"]].select(range(min(PROBE_ROWS, len(loaded["test"])))) if "test" in roles else ()
        roles = _without_hidden_labels(roles, _any_label(row.get(label) for row in probe))
    unknown = [split for split in roles.values() if split not in loaded]
    unknown += [role for role in roles if role not in STEMS]
    if unknown or "train" not in roles:
        raise KDError(
            f"{name} has the splits {', '.join(loaded)}; expected one of them for train, and others for validation and "
            + (f"test, found {', '.join(unknown)} in data.hub_splits" if unknown else "test")
            + "; set data.hub_splits={train: NAME, validation: NAME or null, test: NAME or null}"
        )
    return roles


def _without_hidden_labels(found: Mapping[str, Place], test_has_labels: bool) -> dict[str, Place]:
    """Replace a test split without labels, as GLUE's, by the validation split. Then validation is taken from train."""
    if test_has_labels or "validation" not in found:
        return {role: place for role, place in found.items() if role != "test" or test_has_labels}
    return {"train": found["train"], "test": found["validation"]}


def _has_labels(rows: Rows, label: str) -> bool:
    return label in rows.columns and _any_label(row.get(label) for _, row in islice(rows, PROBE_ROWS))


def _any_label(values: Iterable[Any]) -> bool:
    return any(value is not None and str(value).strip() not in ("", NO_LABEL) for value in values)


def _hub_rows(name: str, split: datasets.Dataset, text: str, label: str) -> Iterator[tuple[int, Any, Any]]:
    for column, option in ((text, "data.text"), (label, "data.label")):
        if column not in split.column_names:
            found = ", ".join(map(repr, split.column_names))
            raise KDError(f"{name} has no column {column!r}; it has {found}; set {option} to one of them")
    columns = split.select_columns([text, label]).with_format("arrow")
    line = 0
    for batch in columns.iter(batch_size=1000):
        for value, label_value in zip(batch[text].to_pylist(), batch[label].to_pylist(), strict=True):
            line += 1
            yield line, value, label_value
