"""Teachers that a Python program gives: a model object becomes a folder, and a function becomes a file of answers."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pandas

from kd.data.files import read_rows
from kd.data.objects import FOLDER, file_of
from kd.data.splits import text_keys, unusable
from kd.errors import KDError
from kd.storage.checksum import file_sha256
from kd.storage.locks import mark
from kd.teacher.answers import Answers
from kd.teacher.answers_file import KINDS

log = logging.getLogger(__name__)

CHUNK = 256
"""Texts of one call of a function."""
START = KINDS["probabilities"]
_unfinished: dict[tuple[object, ...], tuple[Callable[[list[str]], Any], list[pandas.DataFrame]]] = {}
"""The last function that failed, with its answers. While the function is in here, no other object has its id."""


def model_folder(teacher: Any, outputs: Path) -> Path | None:
    """Return the folder of a teacher that is a model; None if it is none.

    Args:
        teacher: a folder, a pipeline, a pair of model and tokenizer, or a model that was loaded from a folder.
        outputs: where a model object is saved, under a name made of its content.

    Raises:
        KDError: it is a model without a tokenizer.
    """
    if isinstance(teacher, str | Path):
        return Path(teacher) if (Path(teacher) / "config.json").is_file() else None
    if hasattr(teacher, "model") and hasattr(teacher, "tokenizer"):
        teacher = teacher.model, teacher.tokenizer
    if hasattr(teacher, "save_pretrained"):
        place = Path(getattr(teacher, "name_or_path", "") or "nowhere")
        if not (place / "tokenizer_config.json").is_file():
            raise KDError("teacher: expected a model with its tokenizer, got it alone; give teacher=(model, tokenizer)")
        from transformers import AutoTokenizer

        teacher = teacher, AutoTokenizer.from_pretrained(place, trust_remote_code=False)
    if not (isinstance(teacher, tuple) and len(teacher) == 2 and all(hasattr(x, "save_pretrained") for x in teacher)):
        return None
    folder = outputs.absolute() / FOLDER
    temporary = folder / f".{mark()}.teacher"
    try:
        for part in teacher:
            part.save_pretrained(temporary)
        sums = [(file.name, file_sha256(file)) for file in sorted(temporary.iterdir())]
        place = folder / f"teacher-{sha256(repr(sums).encode()).hexdigest()[:16]}"
        if not place.exists():
            temporary.rename(place)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return place


def answers_of(ask: Callable[[list[str]], Any], texts: Sequence[str], names: list[str] | None, outputs: Path) -> Path:
    """Ask a function for each different text once, and write its answers to a file for ``teacher=answers``.

    If the function fails, what it has answered is kept in memory until another one fails. The next call in this process
    with the same function object and names asks for the rest.

    Args:
        ask: takes at most `CHUNK` texts and returns for each the probabilities of the classes: an array ``[N, C]``, or
            a list of dictionaries by class.
        texts: those without letters or digits are not asked for.
        names: of the classes, in the order of an array's columns.
        outputs: where the file is written, under a name made of its content.

    Raises:
        KDError: the function returns something else.
    """
    different = list({text_keys(text)[0]: text for text in texts if not unusable(text)}.values())
    if not different:
        raise KDError("texts: expected at least one text that is not empty, got none; give some")
    key = id(getattr(ask, "__self__", None)), id(getattr(ask, "__func__", ask)), *(names or ())
    parts = list(_unfinished[key][1]) if key in _unfinished else []
    known = {text for part in parts for text in part.index}
    names = list(parts[0].columns) if parts else names
    if rest := [text for text in different if text not in known]:
        try:
            for start in range(0, len(rest), CHUNK):
                chunk = rest[start : start + CHUNK]
                table = _table(ask(chunk), names)
                names = list(table.columns)
                if len(table) != len(chunk):
                    raise KDError(
                        f"teacher: expected an answer for each of {len(chunk)} texts, got {len(table)}; correct it"
                    )
                parts.append(table.set_index(pandas.Index(chunk)))
        except BaseException:
            if parts:
                _unfinished.clear()
                _unfinished[key] = ask, parts
                log.warning("teacher: it failed; its answers for %d texts are kept in memory", sum(map(len, parts)))
            raise
    answers = pandas.concat(parts).loc[different].reset_index(drop=True).add_prefix(START)
    answers.insert(0, "text", different)
    place = file_of(answers, outputs)
    _unfinished.pop(key, None)
    log.info("teacher: the answers for %d texts are in %s; teacher=FILE uses them again", len(different), place)
    return place


def _table(answers: Any, names: list[str] | None) -> pandas.DataFrame:
    """Return answers as a table with a column for each class."""
    answers = answers.detach().cpu().numpy() if hasattr(answers, "detach") else answers
    if isinstance(answers, Sequence) and answers and isinstance(answers[0], dict):
        table = pandas.DataFrame(answers, columns=names)
    else:
        try:
            found = np.asarray(answers, dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise KDError(f"teacher: expected probabilities as numbers, got others ({error}); correct it") from error
        if found.ndim != 2:
            raise KDError(f"teacher: expected probabilities [texts, classes], got the shape {found.shape}; correct it")
        if names is None:
            raise KDError("label_names: expected the classes of the teacher's columns, got none; name them in order")
        if found.shape[1] != len(names):
            raise KDError(f"teacher: expected {len(names)} probabilities a text, got {found.shape[1]}; see label_names")
        table = pandas.DataFrame(found, columns=names)
    if table.empty or table.isna().to_numpy().any():
        raise KDError("teacher: expected a probability for each class and text, got fewer; correct it")
    return table


def names_in(path: Path) -> list[str] | None:
    """Return the classes that the columns of a file of answers name; None if they name none."""
    columns = read_rows(path, "utf-8").columns
    return [name.removeprefix(START) for name in columns if name.startswith(START)] or None


def answers_in(path: Path, texts: Sequence[str], names: Sequence[str]) -> np.ndarray:
    """Return what a file answers to texts, ``[N, C]``; NaN for a text without an answer."""
    return Answers(str(path)).table(names).of(texts)
