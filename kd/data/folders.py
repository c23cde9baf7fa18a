"""Find the files of each split: in a folder, in a list of files, or by a pattern."""

from __future__ import annotations

import glob
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from kd.data.dialect import Reading
from kd.data.files import SUFFIXES, Place, file_format, read_rows
from kd.data.opening import COMPRESSIONS
from kd.errors import KDError
from kd.storage.assets import resolve

STEMS = {
    "train": ("train", "training"),
    "validation": ("val", "eval", "development", "validation", "valid", "dev"),
    "test": ("test", "testing"),
}
"""Names of the splits of a folder or of a data set on the hub, in small letters; on the hub, the last one counts."""
SHARD = re.compile(r"(.*?)[-_.]?\d+(-of-\d+)?", re.IGNORECASE)
"""The name of a file that is one of several, such as ``train-00000-of-00002``."""
UNLABELLED = ("unsup", "unlabeled", "unlabelled")
"""Names of folders of texts without a label, beside those of the classes."""
OLDER = (".csv", ".tsv", ".jsonl", ".parquet", ".arrow")
"""Formats that go before the others, if there are two files for a split."""
NO_ROWS = ("readme", "license", "licence", "citation", "dataset_info", "dataset_infos", "requirements")
"""Names of files that describe a data set."""
PATTERN = re.compile(r"[*?\[]")


@dataclass
class Layout:
    """The places of each split.

    Args:
        kind: what the data are, in words.
        places: by role; a split without rows of its own is missing.
        unused: files with rows that belong to no split, each with the reason.
    """

    kind: str
    places: dict[str, list[Place]] = field(default_factory=dict)
    unused: list[str] = field(default_factory=list)


def files_of(places: str | Sequence[str]) -> list[Path]:
    """Return the files that a path, a pattern such as ``train-*.parquet``, an asset, or a list of them names.

    Raises:
        KDError: no file matches a pattern, or the list is empty.
    """
    found: list[Path] = []
    for place in [places] if isinstance(places, str) else places:
        path = Path(resolve(str(place)))
        if path.exists() or not PATTERN.search(str(place)):
            found.append(path)
            continue
        matches = sorted(Path(name) for name in glob.glob(str(path), recursive=True) if Path(name).is_file())
        if not matches:
            raise KDError(f"there is no file {place}; check the pattern (it is relative to {Path.cwd()})")
        found += matches
    if not found:
        raise KDError("expected at least one file in a list of files, found []; give a file, or leave the option out")
    return found


def texts_in(places: str | Sequence[str]) -> list[Path]:
    """Return the files of texts that `files_of` names. A folder stands for its files; if they are .txt, each is a text.

    Raises:
        KDError: as `files_of` does, or a folder holds no texts.
    """
    found: list[Path] = []
    for path in files_of(places):
        files = [entry for entry in sorted(path.iterdir()) if is_data(entry)] if path.is_dir() else []
        tables = [file for file in files if file.suffix.lower() != ".txt"]
        if path.is_dir() and not files:
            raise KDError(f"expected files with texts in the folder {path}, found none; give another place")
        found += tables or [path]
    return found


def layout_of(places: str | Sequence[str], wanted: Sequence[str], reading: Reading) -> Layout:
    """Return the places of each split in a folder; files are the train split.

    Args:
        wanted: columns that a file must have to be used for the sake of a part of its name, such as ``my_test.csv``.

    Raises:
        KDError: the folder has no train rows, or several files for one split.
    """
    paths = files_of(places)
    if len(paths) > 1 or not paths[0].is_dir():
        if folders := [path for path in paths if path.is_dir()]:
            raise KDError(f"expected files in the list, found the folder {folders[0]}; give its files, or it alone")
        return Layout("a file" if len(paths) == 1 else f"{len(paths)} files", {"train": [Place(p) for p in paths]})
    return _folder(paths[0], wanted, reading)


def _folder(path: Path, wanted: Sequence[str], reading: Reading) -> Layout:
    if (path / "dataset_dict.json").is_file() or (path / "state.json").is_file():
        return _saved(path)
    if texts := _tweet_eval(path):
        return texts
    layout = Layout("a folder")
    candidates = [entry for entry in sorted(path.iterdir()) if not entry.name.startswith(".")]
    files, folders = [entry for entry in candidates if is_data(entry)], [e for e in candidates if e.is_dir()]
    for role, stems in STEMS.items():
        layout.places |= {role: found} if (found := list(_of_role(path, role, stems, files, folders, layout))) else {}
    if not layout.places and (classes := _classes(path)):
        layout.kind, layout.places = "a folder for each class", {"train": classes}
    elif not layout.places and (path / "data").is_dir():
        return _folder(path / "data", wanted, reading)
    elif (
        not layout.places
        and len({match[1] if (match := SHARD.fullmatch(_stem(file))) else file for file in files}) == 1
    ):
        layout.places = {"train": [Place(file) for file in files]}
    _add_by_part_of_name(layout, files, wanted, reading)
    if "train" not in layout.places:
        present = ", ".join(entry.name for entry in candidates[:10]) or "nothing"
        raise KDError(
            f"the folder {path} has no train file: expected train{'|'.join(SUFFIXES)}, and dev or test "
            f"beside it, or a folder of .txt files for each class; found {present}; set data.path to a file, or "
            "data.train"
        )
    return layout


def _of_role(
    path: Path, role: str, stems: Sequence[str], files: Sequence[Path], folders: Sequence[Path], layout: Layout
) -> Iterator[Place]:
    """Yield the places of one split: a file, the shards of one, or what a folder holds."""
    exact = [file for file in files if _stem(file) in stems]
    exact = exact or [file for file in files if _stem(file).split(".")[0] in stems]
    if len(older := [file for file in exact if _stem(file, OLDER) != _stem(file, ())]) == 1:
        exact = older  # train.csv beside a train.txt that tells of it
    shards = [file for file in files if (match := SHARD.fullmatch(_stem(file))) and match[1] in stems]
    below = [folder for folder in folders if folder.name.casefold() in stems]
    if len(exact) + bool(shards) > 1 or (not exact and not shards and len(below) > 1):
        found = ", ".join(entry.name for entry in [*exact, *shards, *below])
        raise KDError(
            f"expected one {role} file in the folder {path}, found {found}; keep "
            "one, or set data.train, data.validation and data.test instead of data.path"
        )
    if exact or shards:
        layout.unused += (f"{folder.name}/ (beside {(exact or shards)[0].name})" for folder in below)
        yield from map(Place, exact or _whole(path, shards))
    elif below:
        yield from _below(below[0], layout)


def _add_by_part_of_name(layout: Layout, files: Iterable[Path], wanted: Sequence[str], reading: Reading) -> None:
    """Use files such as ``imdb_test.csv`` for splits that have none, and note the files that are not used."""
    used = {place.path for places in layout.places.values() for place in places}
    rest = [file for file in files if file not in used]
    parts = {file: set(re.split(r"[\W_]+", _stem(file))) for file in rest}
    for role, stems in STEMS.items():
        others = {stem for other in STEMS if other != role for stem in STEMS[other]}
        found = [file for file in rest if parts[file] & set(stems) and not parts[file] & others]
        if role not in layout.places and len(found) == 1 and _has_columns(found[0], wanted, reading):
            layout.places[role] = [Place(found[0])]
            rest.remove(found[0])
    layout.unused += (f"{file.name} (its name says no split, or one that has rows already)" for file in rest)


def _has_columns(file: Path, wanted: Sequence[str], reading: Reading) -> bool:
    try:
        return set(wanted) <= set(read_rows(file, reading).columns)
    except KDError:
        return False


def _whole(path: Path, shards: Sequence[Path]) -> list[Path]:
    """Return the shards of a split.

    Raises:
        KDError: one that their names count is missing.
    """
    for file in shards:
        if (total := re.search(r"-of-0*(\d+)$", _stem(file))) and len(shards) != int(total[1]):
            raise KDError(
                f"expected {int(total[1])} files beside {file.name} in {path}, as its name says, found {len(shards)}; "
                "download the missing ones"
            )
    return list(shards)


def _below(folder: Path, layout: Layout) -> Iterator[Place]:
    """Yield the places of the folder of one split: one folder for each class, or files that are all used."""
    files = [entry for entry in sorted(folder.iterdir()) if is_data(entry)]
    if (folder / "state.json").is_file():
        yield from _saved(folder).places["train"]
    elif classes := _classes(folder):
        layout.kind = "a folder for each class"
        layout.unused += (f"{folder.name}/{file.name} (beside the folders of the classes)" for file in files)
        yield from classes
    else:
        yield from map(Place, files)


def _classes(path: Path) -> list[Place]:
    """Return the folders below that hold texts, at least two; their names are the labels."""
    folders = [entry for entry in sorted(path.iterdir()) if entry.is_dir() and next(entry.glob("*.txt"), None)]
    labels = {folder: "" if folder.name.casefold() in UNLABELLED else folder.name for folder in folders}
    return [Place(folder, label) for folder, label in labels.items()] if sum(map(bool, labels.values())) > 1 else []


def _tweet_eval(path: Path) -> Layout | None:
    """Return the splits of a folder with ``train_text.txt`` and ``train_labels.txt``; None if it is no such folder."""
    if not ((path / "train_text.txt").is_file() and (path / "train_labels.txt").is_file()):
        return None
    mapping, names = path / "mapping.txt", None
    if mapping.is_file():
        rows = [line.split("\t") for line in mapping.read_text(encoding="utf-8").splitlines() if line.strip()]
        if [row[0].strip() for row in rows] != [str(number) for number in range(len(rows))] or len(rows[0]) != 2:
            raise KDError(f"expected lines such as '0<tab>name' in {mapping}, the ids in order; set data.label_names")
        names = tuple(row[1].strip() for row in rows)
    layout, used = Layout("texts and labels in files of their own"), set()
    for role, stems in STEMS.items():
        for stem in stems:
            texts, labels = path / f"{stem}_text.txt", path / f"{stem}_labels.txt"
            if role not in layout.places and texts.is_file() and labels.is_file():
                layout.places[role] = [Place(texts, labels=labels, names=names)]
                used |= {texts, labels}
    rest = sorted(entry for entry in path.iterdir() if is_data(entry) and entry not in {*used, mapping})
    layout.unused += (f"{entry.name} (it belongs to no pair of texts and labels)" for entry in rest)
    return layout


def _saved(path: Path) -> Layout:
    """Return the splits of a folder that `datasets` has written with ``save_to_disk``."""
    layout = Layout("a data set of save_to_disk")
    try:
        if (path / "state.json").is_file():
            folders = {"train": path}
        else:
            names = json.loads((path / "dataset_dict.json").read_text())["splits"]
            roles = {role: [name for name in names if name.casefold() in STEMS[role]] for role in STEMS}
            folders = {role: path / found[0] for role, found in roles.items() if found}
            used = [folder.name for folder in folders.values()]
            layout.unused += (f"{name} (its name says no split, or one more)" for name in names if name not in used)
        for role, folder in folders.items():
            state = json.loads((folder / "state.json").read_text())
            layout.places[role] = [Place(folder / Path(file["filename"]).name) for file in state["_data_files"]]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise KDError(
            f"{path} is not a whole folder of save_to_disk ({type(error).__name__}: {error}); save it again"
        ) from error
    if not layout.places.get("train"):
        raise KDError(f"the data set {path} has no train split: found {', '.join(layout.unused)}; set data.train")
    return layout


def is_data(path: Path) -> bool:
    """Return whether a path is a file whose suffix is one of a format that kd reads."""
    try:
        told = path.name.startswith(".") or path.stem.casefold() in NO_ROWS
        return not told and path.is_file() and bool(file_format(path))
    except KDError:
        return False


def _series(file: Path) -> str:
    """Return the name of a file without what numbers it, such as the one of ``part-00001.csv``."""
    match = SHARD.fullmatch(_stem(file))
    return match[1] if match else _stem(file)


def _stem(file: Path, suffixes: Sequence[str] = SUFFIXES) -> str:
    """Return the name of a file in small letters, without the suffixes of its format."""
    name = file.name.casefold()
    for endings in (COMPRESSIONS, suffixes):
        name = next((name.removesuffix(ending) for ending in endings if name.endswith(ending)), name)
    return name
