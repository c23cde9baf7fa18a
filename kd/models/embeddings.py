"""Initialise a student's word table: at random, from the teacher's table, or from a file of word vectors.

`Embeddings.known` returns the rows that do not depend on the seed, and `Embeddings.start` the whole table [V, E]. V is
the size of the student's vocabulary, E the width of its table.
"""

from __future__ import annotations

import gzip
import logging
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from torch import Generator, Tensor
from transformers import PreTrainedTokenizerBase

from kd.errors import KDError
from kd.measure.inference import torch_threads
from kd.options.declared import Checked, Spread

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TeacherTable:
    """The teacher's word-piece table [V_t, E_t] and the tokenizer whose ids are its rows."""

    weight: Tensor
    tokenizer: PreTrainedTokenizerBase


@dataclass(frozen=True)
class KnownRows:
    """The rows of a word table that do not depend on the seed.

    Args:
        ids: n token ids.
        values: [n, E], float32.
        std: standard deviation of the other rows, which are random.
    """

    ids: list[int]
    values: Tensor
    std: float

    @classmethod
    def scaled(cls, ids: list[int], rows: Tensor, std: float | None) -> KnownRows:
        """Return rows scaled to a standard deviation; None keeps their scale."""
        scale = 1.0 if std is None else std / rows.std().item()
        return cls(ids, rows * scale, rows.std().item() * scale)


class Embeddings(Checked, ABC):
    """An initialisation of the word table."""

    reads_teacher: ClassVar[bool] = False
    """Whether the initialisation needs the teacher's table."""

    @abstractmethod
    def known(self, width: int, tokenizer: PreTrainedTokenizerBase, teacher: TeacherTable | None) -> KnownRows:
        """Return the rows that do not depend on the seed.

        Args:
            width: E of the student's table.
            tokenizer: the student's.
            teacher: the teacher's word table, if there is a teacher.

        Raises:
            KDError: the teacher or the file does not have what this initialisation needs.
        """

    def start(
        self, table: Tensor, tokenizer: PreTrainedTokenizerBase, known: KnownRows, generator: Generator | None = None
    ) -> Tensor:
        """Return the initial table [V, E], float32: the known rows, zeros for the padding, and other rows at random.

        Args:
            table: [V, E], the student's table.
            tokenizer: the student's.
            known: rows of this width.
            generator: the source of all random rows.
        """
        filled = torch.empty(table.shape).normal_(std=known.std, generator=generator)
        filled[known.ids] = known.values
        if tokenizer.pad_token_id is not None:
            filled[tokenizer.pad_token_id] = 0
        return filled


class OwnEmbeddings(Embeddings):
    """The table that the student already has, such as that of a pretrained checkpoint."""

    def known(self, width: int, tokenizer: PreTrainedTokenizerBase, teacher: TeacherTable | None) -> KnownRows:
        return KnownRows([], torch.empty(0, width), std=0.0)

    def start(
        self, table: Tensor, tokenizer: PreTrainedTokenizerBase, known: KnownRows, generator: Generator | None = None
    ) -> Tensor:
        return table.clone()


class RandomEmbeddings(Embeddings):
    """Normally distributed numbers of mean zero.

    Args:
        std: standard deviation.
    """

    def __init__(self, std: Spread = 0.02):
        self.std = std

    def known(self, width: int, tokenizer: PreTrainedTokenizerBase, teacher: TeacherTable | None) -> KnownRows:
        return KnownRows([], torch.empty(0, width), self.std)


class TeacherEmbeddings(Embeddings):
    """The teacher's word-piece table, reduced to the student's width by `principal_components`.

    A token in the teacher's vocabulary gets its row there. Any other word gets the mean of the rows of its pieces. A
    special token that the teacher lacks gets a random row.

    Args:
        std: standard deviation of the whole table; None keeps the teacher's scale.
    """

    reads_teacher = True

    def __init__(self, std: Spread | None = 0.1):
        self.std = std

    def known(self, width: int, tokenizer: PreTrainedTokenizerBase, teacher: TeacherTable | None) -> KnownRows:
        if teacher is None:
            raise KDError("embeddings=pca needs a teacher; set teacher=... or embeddings=random")
        teacher_width = teacher.weight.shape[1]
        if width > teacher_width:
            raise KDError(
                f"embeddings=pca gives at most the teacher's width {teacher_width}, found a student's table of width "
                f"{width}; set student.embedding_size={teacher_width} or less (hidden_size for student=transformer), "
                "or embeddings=random"
            )
        rows = teacher_rows(tokenizer, teacher)
        if len(rows) < width:
            raise KDError(
                f"embeddings=pca needs at least {width} tokens with a row in the teacher's table for {width} "
                f"components, found {len(rows)} in the student's vocabulary; "
                f"set student.embedding_size={len(rows)} or less, or embeddings=random"
            )
        reduced = principal_components(torch.stack(list(rows.values())), width)
        return KnownRows.scaled(list(rows), reduced, self.std)


class VectorFile(Embeddings):
    """Word vectors in the text format of GloVe or word2vec; a word without a vector gets a random row.

    Args:
        path: the file; a name that ends in ``.gz`` means that it is compressed by gzip.
        std: standard deviation of the whole table; None keeps the file's scale.
    """

    def __init__(self, path: str, std: Spread | None = 0.1):
        self.path, self.std = path, std

    def known(self, width: int, tokenizer: PreTrainedTokenizerBase, teacher: TeacherTable | None) -> KnownRows:
        vocabulary = tokenizer.get_vocab()
        vectors, found_width = read_vectors(self.path, vocabulary)
        if found_width != width:
            raise KDError(
                f"expected vectors of width {width}, as the student's table, found width {found_width} in "
                f"'{self.path}'; set student.embedding_size={found_width} (hidden_size for student=transformer)"
            )
        if len(vectors) < 2:
            raise KDError(
                f"expected vectors for words of the vocabulary in '{self.path}', found {len(vectors)} of "
                f"{len(vocabulary)}; use a file of the texts' language and tokenizer=words"
            )
        log.info("%s covers %d of %d words of the vocabulary", self.path, len(vectors), len(vocabulary))
        return KnownRows.scaled([vocabulary[word] for word in vectors], torch.stack(list(vectors.values())), self.std)


def principal_components(rows: Tensor, width: int) -> Tensor:
    """Return the best table of fewer columns, ``rows @ V[:, :width]`` of the SVD ``rows = U S V^T``.

    The rows are not centred. No table of this width has inner products closer to those of the rows (Eckart and Young,
    1936), and these decide what a linear map over the table can compute.

    Args:
        rows: [V, E_t].
        width: E, at most E_t and at most V.

    Returns:
        [V, E], the columns by falling norm.

    >>> principal_components(torch.tensor([[3.0, 0.0], [0.0, 1.0]]), 1).abs()
    tensor([[3.],
            [0.]])
    """
    # From the eigenvectors of the [E_t, E_t] product: faster than an SVD, and precise enough in double precision.
    rows = rows.double()
    with torch_threads(1):  # so that sums are in the same order, and the result is the same, on any machine
        _, vectors = torch.linalg.eigh(rows.T @ rows)
        return (rows @ vectors.flip(1)[:, :width]).float()


def teacher_rows(tokenizer: PreTrainedTokenizerBase, teacher: TeacherTable) -> dict[int, Tensor]:
    """Return id -> vector [E_t], by rising id, for each student token that the teacher's tokenizer can represent."""
    pieces = teacher.tokenizer.get_vocab()
    own, unknown = set(tokenizer.all_special_tokens), teacher.tokenizer.unk_token_id
    rows = {}
    for token, number in sorted(tokenizer.get_vocab().items(), key=lambda item: item[1]):
        if token in pieces:
            rows[number] = teacher.weight[pieces[token]]
        elif token not in own:  # a special token such as [PAD] has no meaning to take from pieces
            ids = teacher.tokenizer(token, add_special_tokens=False)["input_ids"]
            if ids and unknown not in ids:
                rows[number] = teacher.weight[ids].mean(dim=0)
    return rows


def read_vectors(path: str, words: Collection[str]) -> tuple[dict[str, Tensor], int]:
    """Read the vectors of some words from a text file, without keeping the other words in memory.

    Args:
        path: a file in UTF-8; each line is a word and its numbers, split by single spaces. A first line of two
            integers (word2vec's header) is skipped. If a word is repeated, its first line counts.
        words: the words to read.

    Returns:
        word -> [width], and the file's width.

    Raises:
        KDError: the file is missing or empty, or a line has another format; the message has its number.
    """
    vectors: dict[str, Tensor] = {}
    width = 0
    for number, line in enumerate(_lines(path), start=1):
        fields = line.split(" ")
        if number == 1 and len(fields) == 2 and all(field.isdecimal() for field in fields):
            continue
        width = width or len(fields) - 1
        word, *numbers = line.rsplit(" ", width)  # from the right: GloVe has words with spaces in them
        try:
            if width < 1 or len(numbers) != width:
                raise ValueError
            if word in words and word not in vectors:
                vectors[word] = torch.tensor([float(value) for value in numbers])
        except ValueError as error:
            raise KDError(
                f"'{path}', line {number}: expected a word and {max(width, 1)} numbers split by single "
                f"spaces, got {line[:60]!r}; give a GloVe or word2vec file in text format"
            ) from error
    if not width:
        raise KDError(f"'{path}' holds no vectors; give a GloVe or word2vec file in text format")
    return vectors, width


def _lines(path: str) -> Iterator[str]:
    opened = gzip.open if Path(path).suffix == ".gz" else open
    try:
        # Only "\n" ends a line: a vector file may hold other line separators as words.
        with opened(path, "rt", encoding="utf-8", errors="replace", newline="\n") as file:
            for line in file:
                yield line.rstrip("\r\n ")
    except (OSError, EOFError) as error:
        raise KDError(f"cannot read the word vectors '{path}' ({error}); set embeddings.path=...") from error
