"""The texts of an audit: kd's own templates, the Equity Evaluation Corpus, or a file with a column of groups."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files
from itertools import chain
from pathlib import Path

import numpy as np
import pandas as pd
import yaml

from kd.contract import IGNORED_LABEL
from kd.data.dialect import Reading
from kd.data.files import read_rows
from kd.data.labels import LabelReader
from kd.data.splits import unusable
from kd.errors import KDError
from kd.transfer.counterfactual import people, swapped

OWN = ("gender", "origin")
EEC = ("Sentence", "Template", "Person", "Gender", "Race", "Emotion", "Emotion word")
"""Columns of the Equity Evaluation Corpus (Kiritchenko and Mohammad 2018), https://aclanthology.org/S18-2005"""
MOST_GROUPS = 20


@dataclass(frozen=True)
class AuditTexts:
    """Texts in which groups of people are named.

    Args:
        source: the name of their file, or "templates".
        rows: ``text``; ``unit``: texts that differ in the person alone; ``group ATTRIBUTE``, empty where a text has
            none; ``key ATTRIBUTE``: within a unit, the texts of a key are a pair, such as she and he, and the units
            have the same keys; ``frame``: what units have in common, such as a template; ``label``: class ids, -100
            where there is none.
        attributes: what tells the groups apart, such as gender.
        paired: whether the units pair texts of several groups.
    """

    source: str
    rows: pd.DataFrame
    attributes: tuple[str, ...]
    paired: bool

    def groups(self, attribute: str) -> tuple[str, list[str]]:
        """Return the reference, which is the most frequent group, and the others. Of equal ones the first counts.

        Raises:
            KDError: there is one group alone, or there are too many.
        """
        values = self.rows[f"group {attribute}"]
        counts = values[values != ""].value_counts(sort=False).sort_values(ascending=False, kind="stable")
        if not 1 < len(counts) <= MOST_GROUPS:
            found = ", ".join(map(repr, counts.index[:3])) or "none"
            raise KDError(
                f"expected 2 to {MOST_GROUPS} groups in the column {attribute!r} of {self.source}, found {len(counts)} "
                f"({found}{', ...' * (len(counts) > 3)}); name a column of groups with --group"
            )
        return str(counts.index[0]), list(map(str, counts.index[1:]))


def templates() -> AuditTexts:
    """Return the texts of ``templates.yaml`` with the persons of `kd.transfer.counterfactual.people`."""
    content = yaml.safe_load(files("kd.audit").joinpath("templates.yaml").read_text("utf-8"))
    persons = [(*pair, "") for pair in content["persons"]]
    persons += [(*map(str.capitalize, pair), origin) for origin, pairs in people()["names"].items() for pair in pairs]
    rows = []
    for frame, kind in (
        (frame, next((k for k in ("state", "event") if k in frame), "")) for frame in content["frames"]
    ):
        for emotion, word in _words(content.get(kind)):
            # Men come first, so that the reference, the first of equally frequent groups, is one of the larger lists.
            for person, gender, origin in chain.from_iterable(
                ((m, "male", o), (f, "female", o)) for f, m, o in persons
            ):
                subject, _, whom = person.partition("/")
                text = frame.format(person=subject, whom=whom or subject, state=word, event=word)
                text = text[0].upper() + text[1:]
                rows.append((text, frame, subject, gender, origin, emotion, word))
    return _of_people("templates", pd.DataFrame(rows, columns=["text", *EEC[1:3], *OWN, *EEC[5:]]), OWN)


def _words(by_emotion: dict[str, list[str]] | None) -> Iterator[tuple[str, str]]:
    """Yield (emotion, word); for a frame without an emotion a pair of empty texts."""
    for emotion, words in (by_emotion or {"": [""]}).items():
        yield from ((emotion, word) for word in words)


def _of_people(source: str, rows: pd.DataFrame, attributes: tuple[str, ...]) -> AuditTexts:
    """Pair the texts of a template and a word of emotion: she with he, and the first name of a group with the first."""
    gender, origin = attributes
    subjects = [{"her": "she", "him": "he"}.get(person, person) for person in rows["Person"].str.lower()]
    nouns = [min(one, swapped(one)) if swapped(one) != one else "" for one in subjects]
    rows["frame"], rows["unit"] = rows["Template"], rows["Template"] + " | " + rows["Emotion word"]
    rows["noun"] = np.where(rows[origin] == "", nouns, "")
    place = rows.groupby(["unit", gender, origin, "noun"]).cumcount().astype(str)
    rows[f"key {gender}"] = rows[origin] + " | " + rows["noun"] + " | " + place
    rows[f"key {origin}"] = rows[gender] + " | " + place
    rows = rows.rename(columns={name: f"group {name}" for name in attributes})
    rows["label"] = IGNORED_LABEL
    return AuditTexts(source, rows, attributes, paired=True)


def corpus(path: Path, encoding: str = "utf-8") -> AuditTexts:
    """Read a file in the format of the Equity Evaluation Corpus.

    Raises:
        KDError: it lacks one of the columns, or has no rows.
    """
    opened = read_rows(path, Reading(encoding, wanted=EEC))
    if missing := [name for name in EEC if name not in opened.columns]:
        raise KDError(
            f"expected the columns of the Equity Evaluation Corpus ({', '.join(EEC)}) in {path}, found no "
            f"{', '.join(missing)}; for another file name its column of groups with --group"
        )
    found = [[str(row[name] or "").strip() for name in EEC] for _, row in opened if not unusable(row["Sentence"])]
    if not found:
        raise KDError(f"expected rows with a text in {path}, found none; give another file")
    return _of_people(path.name, pd.DataFrame(found, columns=["text", *EEC[1:]]), EEC[3:5])


def grouped(path: Path, columns: dict[str, str], names: list[str], encoding: str = "utf-8") -> AuditTexts:
    """Read a file with a column of groups.

    Args:
        path: of the file.
        columns: the names of its columns ``text``, ``group``, ``pair`` (empty without pairs) and ``label``, which is
            read where the file has it.
        names: of the labels.

    Raises:
        KDError: a column is missing, a label is of another set, no row can be used, or it has neither pairs nor labels.
    """
    text, group, pair, label = (columns[key] for key in ("text", "group", "pair", "label"))
    opened = read_rows(path, Reading(encoding, wanted=tuple(filter(None, (text, group, pair, label)))))
    for option, column in (("--text", text), ("--group", group), ("--pair", pair)):
        if column:
            opened.require(column, option)
    labelled = label in opened.columns
    if not (labelled or pair):
        raise KDError(
            f"expected labels or pairs in {path}, found no column {label!r}: equalised odds need labels; name their "
            "column with --label, or the column that pairs the texts with --pair"
        )
    reader, found = LabelReader(names), []
    for line, row in opened:
        if not unusable(row.get(text)) and not (pair and row.get(pair) in (None, "")):
            code = reader.read(row.get(label), path.name, line) if labelled else IGNORED_LABEL
            member = row.get(group)
            member = "" if member is None else str(member).strip()  # 0 is a group
            found.append((row[text], str(row[pair]) if pair else "", member, "", code))
    rows = pd.DataFrame(found, columns=["text", "unit", f"group {group}", f"key {group}", "label"])
    if labelled and len(rows):
        codes, ids = rows["label"].to_numpy(), reader.finish()[1]
        rows["label"] = np.where(codes == IGNORED_LABEL, IGNORED_LABEL, ids[np.maximum(codes, 0)])
    if not len(rows):
        raise KDError(f"expected rows with a text in {path}, found none; give another file")
    return AuditTexts(path.name, rows, (group,), bool(pair))
