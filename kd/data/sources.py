"""Read files, or a data set on the hub, and split the rows into train, validation and test."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any

import datasets
from annotated_types import Ge, Gt, Le, Lt

from kd.data.dialect import Header, Quoting, Reading
from kd.data.folders import STEMS
from kd.data.folds import chosen_fold
from kd.data.labels import NO_LABEL, LabelReader, require_label_names
from kd.data.reading import ORDER, FileReader, any_label, finished, without_hidden_labels
from kd.data.splits import SplitBuilder, Splits
from kd.errors import KDError
from kd.options.declared import Count, checked, options_of
from kd.storage import hub

__all__ = ["Splits", "from_files", "from_files_or_hub", "from_hub"]

Part = Annotated[float, Gt(0), Lt(1)]
FoldNumber = Annotated[int, Ge(0), Le(999)]
Folds = Annotated[int, Ge(2), Le(1000)]
Places = str | list[str]


@checked
def from_files(
    path: Places | None = None,
    train: Places | None = None,
    validation: Places | None = None,
    test: Places | None = None,
    unlabelled: Places | None = None,
    text: str = "text",
    label: str = "label",
    label_names: list | None = None,
    where: dict[str, Any] | None = None,
    encoding: str = "utf-8",
    delimiter: str | None = None,
    quoting: Quoting | None = None,
    header: Header | None = None,
    validation_share: Part = 0.1,
    test_share: Part = 0.1,
    limit: Count | None = None,
    deduplicate: bool = True,
    fold: FoldNumber | None = None,
    folds: Folds = 10,
    stream: bool = False,
) -> Splits:
    """Read files of any format that kd knows, and split their rows into train, validation and test.

    Args:
        path: a file with all rows, or a folder with train, dev (or validation) and test files; like all of these, also
            a pattern such as ``train-*.parquet`` or a list of files.
        train: the file with the train rows, instead of ``path``.
        validation, test: the file of this split, also in place of a folder's. Without one, rows are taken out of train.
        unlabelled: one or more files of texts for the transfer set. Their rows are added to train without a label.
        text: name of the column with the texts.
        label: name of the column with the labels. An empty label or -100 means that the row has none.
        label_names: name of each label id; null for the values found, sorted.
        where: the rows to use, as column -> value or list of values; does not apply to ``unlabelled``.
        encoding: of text files.
        delimiter: the character between two fields of CSV or TSV, or its name, such as semicolon; null finds it.
        quoting: how a quote inside a quoted field is written, or none if quotes are normal characters; null finds it.
        header: false if no line has the names of the columns, or a list of the names; null takes the first line.
        validation_share, test_share: part of the rows that becomes this split if it has no file.
        limit: largest number of rows of each split's file, chosen by a hash of the text; ``unlabelled`` stays whole.
        deduplicate: whether to use only the first row of each text in a split.
        fold, folds: number of the fold that is test, by a hash of the text, and of all folds; kd report pools them.
        stream: whether ``unlabelled`` is read in shards (`kd.data.shards`), in constant memory.
    """
    shares = validation_share, test_share
    part, how = chosen_fold(fold, folds, *shares), Reading(encoding, delimiter, quoting, header, (text, label))
    reader = FileReader(text, label, where or {}, how)
    layout = reader.layout(path, train, validation, test)
    builder = SplitBuilder(reader.labels(layout, label_names), *shares, limit, deduplicate, part)
    return reader.read(builder, layout, unlabelled, stream)


@checked
def from_hub(
    name: str,
    config: str | None = None,
    text: str = "text",
    label: str = "label",
    label_names: list | None = None,
    splits: dict[str, str | None] | None = None,
    unlabelled: Places | None = None,
    encoding: str = "utf-8",
    validation_share: Part = 0.1,
    test_share: Part = 0.1,
    limit: Count | None = None,
    deduplicate: bool = True,
    fold: FoldNumber | None = None,
    folds: Folds = 10,
    stream: bool = False,
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
        unlabelled, encoding: files of texts for the transfer set, as in `from_files`.
        validation_share, test_share, limit, deduplicate, fold, folds, stream: as in `from_files`.
    """
    part = chosen_fold(fold, folds, validation_share, test_share)
    names = require_label_names(label_names)
    loaded = _load(name, config)
    roles = _hub_roles(name, loaded, label, splits)
    known = _class_names(loaded, label)
    labels = LabelReader(names or known, [NO_LABEL], are_ids=known is not None and names is None)
    builder = SplitBuilder(labels, validation_share, test_share, limit, deduplicate, part)
    for role in ORDER:
        if role in roles:
            builder.add(role, f"{name}/{roles[role]}", _hub_rows(name, loaded[roles[role]], text, label))
    FileReader(text, label, {}, Reading(encoding, wanted=(text,))).add_unlabelled(builder, unlabelled, stream)
    unused = [split for split in loaded if split not in roles.values()]
    return finished(builder, [f"not used: {', '.join(unused)} of {name}"] if unused else [])


@checked
def from_files_or_hub(
    path: Places | None = None,
    train: Places | None = None,
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
    unused = [name for name, value in options.items() if value and name not in shared]
    if unused:
        keys = ", ".join(f"data.{name}" for name in unused)
        raise KDError(f"{keys} cannot be used with {hub} from the hub; set data.path=FILE_OR_FOLDER as well")
    return from_hub(hub, hub_config, splits=hub_splits, **shared)


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
        roles = {
            role: split
            for role, stems in STEMS.items()
            for stem in stems
            for split in loaded
            if split.casefold() == stem
        }
        roles = without_hidden_labels(roles, "test" in roles and _has_labels(loaded[roles["test"]], label))
    unknown = [split for split in roles.values() if split not in loaded]
    unknown += [role for role in roles if role not in STEMS]
    if unknown or "train" not in roles:
        raise KDError(
            f"{name} has the splits {', '.join(loaded)}; expected one of them for train, and others for validation and "
            + (f"test, found {', '.join(unknown)} in data.hub_splits" if unknown else "test")
            + "; set data.hub_splits={train: NAME, validation: NAME or null, test: NAME or null}"
        )
    return roles


def _has_labels(split: datasets.Dataset, label: str) -> bool:
    """Return whether a row of a data set has a label."""
    if label not in split.column_names:
        return False
    column = split.select_columns([label]).with_format("arrow")
    return any(any_label(batch[label].to_pylist()) for batch in column.iter(batch_size=1000))


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
