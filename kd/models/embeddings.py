"""How a student's word table starts: at random, from the teacher's table, or from a file of word vectors.

Each way is called as ``embeddings(table, tokenizer, teacher, generator) -> table``: ``table`` [V, E] is the
one that the student has, and the answer, of the same shape, is the one to begin with. What does not hang on the seed
can be had before (`Embeddings.known`). V is the student's
vocabulary, E its width; the padding row of the answer is zero.
"""

from __future__ import annotations

import gzip
import logging
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from torch import Generator, Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from kd.errors import KDError

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TeacherTable:
    """The teacher's word-piece table [V_t, E_t] and the tokenizer that numbers its rows."""

    weight: Tensor
    tokenizer: PreTrainedTokenizerBase

    @classmethod
    def of(cls, teacher: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> TeacherTable:
        """The table of a teacher, as float32 on the CPU."""
        return cls(teacher.get_input_embeddings().weight.detach().float().cpu(), tokenizer)


@dataclass(frozen=True)
class KnownRows:
    """The rows of a word table that no seed decides.

    Args:
        ids: n token numbers.
        values: [n, E], float32.
        std: standard deviation of the rows that are drawn between them.
    """

    ids: list[int]
    values: Tensor
    std: float


class Embeddings(ABC):
    """A way to start the word table."""

    reads_teacher: ClassVar[bool] = False
    """Whether the teacher's table has to be loaded."""

    @abstractmethod
    def known(self, width: int, tokenizer: PreTrainedTokenizerBase, teacher: TeacherTable | None) -> KnownRows:
        """What the table holds whatever the seed.

        Args:
            width: E of the student's table.
            tokenizer: the student's.
            teacher: its word table, where there is a teacher.

        Raises:
            KDError: what this way needs is not there.
        """

    def start(
        self, table: Tensor, tokenizer: PreTrainedTokenizerBase, known: KnownRows, generator: Generator | None = None
    ) -> Tensor:
        """The table to begin with: the known rows, random ones between them, zero for the padding.

        Args:
            table: [V, E], the one that the student has.
            tokenizer: the student's.
            known: of this width.
            generator: draws every random row.

        Returns:
            [V, E], float32.
        """
        filled = torch.empty(table.shape).normal_(std=known.std, generator=generator)
        filled[known.ids] = known.values
        if tokenizer.pad_token_id is not None:
            filled[tokenizer.pad_token_id] = 0
        return filled

    def __call__(
        self,
        table: Tensor,
        tokenizer: PreTrainedTokenizerBase,
        teacher: TeacherTable | None,
        generator: Generator | None = None,
    ) -> Tensor:
        """`start` from what is `known`."""
        return self.start(table, tokenizer, self.known(table.shape[1], tokenizer, teacher), generator)


class OwnEmbeddings(Embeddings):
    """The table that the student came with: the one of a pretrained checkpoint."""

    def known(self, width: int, tokenizer: PreTrainedTokenizerBase, teacher: TeacherTable | None) -> KnownRows:
        """Nothing."""
        return nothing(width, 0.0)

    def start(
        self, table: Tensor, tokenizer: PreTrainedTokenizerBase, known: KnownRows, generator: Generator | None = None
    ) -> Tensor:
        """A copy of the table."""
        return table.clone()


class RandomEmbeddings(Embeddings):
    """Normal around zero.

    Args:
        std: standard deviation.
    """

    def __init__(self, std: float = 0.02):
        self.std = _positive("embeddings.std", std)

    def known(self, width: int, tokenizer: PreTrainedTokenizerBase, teacher: TeacherTable | None) -> KnownRows:
        """Nothing: noise in every row but the padding's."""
        return nothing(width, self.std)


class TeacherEmbeddings(Embeddings):
    """The teacher's word-piece table, brought to the student's width by `principal_components`.

    A token that is one of the teacher's pieces takes its row, a whole word that is not takes the mean of
    the rows of its pieces, and a special token of the student's own starts random.

    Args:
        std: standard deviation of the whole table; None leaves the teacher's scale.
    """

    reads_teacher = True

    def __init__(self, std: float | None = 0.1):
        self.std = None if std is None else _positive("embeddings.std", std)

    def known(self, width: int, tokenizer: PreTrainedTokenizerBase, teacher: TeacherTable | None) -> KnownRows:
        """The teacher's rows at the student's width."""
        if teacher is None:
            raise KDError("embeddings=pca needs a teacher; set teacher=... or embeddings=random")
        teacher_width = teacher.weight.shape[1]
        if width > teacher_width:
            raise KDError(
                f"embeddings=pca gives at most the teacher's width {teacher_width}, and the student's table "
                f"is {width} wide; set student.embedding_size={teacher_width} or less (hidden_size for "
                "student=transformer), or embeddings=random"
            )
        rows = teacher_rows(tokenizer, teacher)
        if len(rows) < width:
            raise KDError(
                f"embeddings=pca needs at least {width} tokens that the teacher knows for {width} "
                f"components, and the student's vocabulary has {len(rows)}; "
                f"set student.embedding_size={len(rows)} or less, or embeddings=random"
            )
        reduced = principal_components(torch.stack(list(rows.values())), width)
        scale = 1.0 if self.std is None else self.std / reduced.std().item()
        return KnownRows(list(rows), reduced * scale, reduced.std().item() * scale)


class VectorFile(Embeddings):
    """Word vectors in the text format of GloVe or word2vec; a word without one starts random.

    Args:
        path: the file, gzipped where it ends in ``.gz``.
        std: standard deviation of the whole table; None leaves the file's scale.
    """

    def __init__(self, path: str, std: float | None = 0.1):
        self.path = path
        self.std = None if std is None else _positive("embeddings.std", std)

    def known(self, width: int, tokenizer: PreTrainedTokenizerBase, teacher: TeacherTable | None) -> KnownRows:
        """The file's rows; noise of the same scale stands for the words it lacks."""
        vocabulary = tokenizer.get_vocab()
        vectors, found_width = read_vectors(self.path, vocabulary)
        if found_width != width:
            raise KDError(
                f"the vectors in '{self.path}' are {found_width} wide, and the student's table is {width}"
                f"; set student.embedding_size={found_width} (hidden_size for student=transformer)"
            )
        if len(vectors) < 2:
            raise KDError(
                f"'{self.path}' has vectors for {len(vectors)} of the {len(vocabulary)} words of the "
                "vocabulary; use a file of the texts' language and tokenizer=words"
            )
        log.info("%s covers %d of %d words of the vocabulary", self.path, len(vectors), len(vocabulary))
        found = torch.stack(list(vectors.values()))
        scale = 1.0 if self.std is None else self.std / found.std().item()
        return KnownRows([vocabulary[word] for word in vectors], found * scale, found.std().item() * scale)


def principal_components(rows: Tensor, width: int) -> Tensor:
    """The best table of fewer columns: ``rows @ V[:, :width]`` of the SVD ``rows = U S V^T``.

    Not centred: what is kept is every inner product, as well as any table of this width can (Eckart and
    Young, 1936), and with it what a linear map over the table can read.

    Args:
        rows: [V, E_t].
        width: E, at most E_t and at most V.

    Returns:
        [V, E], columns by falling size.

    >>> principal_components(torch.tensor([[3.0, 0.0], [0.0, 1.0]]), 1).abs()
    tensor([[3.],
            [0.]])
    """
    # Of the [E_t, E_t] product, which is quick and in double precision loses nothing.
    rows = rows.double()
    with one_thread():
        _, vectors = torch.linalg.eigh(rows.T @ rows)
        return (rows @ vectors.flip(1)[:, :width]).float()


@contextmanager
def one_thread() -> Iterator[None]:
    """The same sums, in the same order, however many threads the run has: a start is a start on any machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def teacher_rows(tokenizer: PreTrainedTokenizerBase, teacher: TeacherTable) -> dict[int, Tensor]:
    """For each student token that the teacher can read: its id -> its vector [E_t], by rising id."""
    pieces = teacher.tokenizer.get_vocab()
    own, unknown = set(tokenizer.all_special_tokens), teacher.tokenizer.unk_token_id
    rows = {}
    for token, number in sorted(tokenizer.get_vocab().items(), key=lambda item: item[1]):
        if token in pieces:
            rows[number] = teacher.weight[pieces[token]]
        elif token not in own:
            ids = teacher.tokenizer(token, add_special_tokens=False)["input_ids"]
            if ids and unknown not in ids:
                rows[number] = teacher.weight[ids].mean(dim=0)
    return rows


def read_vectors(path: str, words: Collection[str]) -> tuple[dict[str, Tensor], int]:
    """The vectors of some words, out of a text file of many; nothing else is kept in memory.

    Args:
        path: one word a line and its numbers after it, split by single spaces, in UTF-8; a first line of
            two integers (word2vec's header) is skipped. Of a repeated word the first line counts.
        words: what to look for.

    Returns:
        word -> [width], and the file's width.

    Raises:
        KDError: no such file, an empty one, or a line that is none of this, by its number.
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


def nothing(width: int, std: float) -> KnownRows:
    """No known row."""
    return KnownRows([], torch.empty(0, width), std)


def _positive(name: str, value: float) -> float:
    if not value > 0:
        raise KDError(f"{name} must be a number above 0, got {value!r}; set {name}=...")
    return value
