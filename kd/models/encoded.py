"""Initialise a student's word table from what the teacher answers to each word of the vocabulary, read as a text."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from kd.data.tokenizers import backend_json
from kd.errors import KDError
from kd.models.embeddings import Embeddings, KnownRows, TeacherTable, principal_components
from kd.options.declared import Positive, Spread


@dataclass(frozen=True)
class Encoder:
    """The teacher as a reader of whole texts.

    Args:
        width: of its vectors, E_t.
        vectors: n texts -> ``[n, E_t]``.
    """

    width: int
    vectors: Callable[[Sequence[str]], Tensor]


class EncodedEmbeddings(Embeddings):
    """The teacher's sentence vectors of single words, reduced to the student's width, weighted by frequency.

    Each word or piece of the vocabulary is sent through all layers of the teacher as a text of its own. The vectors are
    centred and reduced by `principal_components`. Two tokens with the same text, such as ``ly`` and ``##ly``, start
    from the same vector. Special tokens get random rows.

    Args:
        fine_tuned: true reads the words with the fine-tuned teacher, false with its backbone before any fine-tuning.
        pooling: how the teacher's last hidden states become one vector for each word.
        weighting: zipf multiplies the row of the word of rank r by ``sif / (sif + p(r))``, where the probability p(r)
            falls as 1/r (Zipf's law), so that frequent words have short vectors; none leaves the rows as they are.
        sif: the smoothing of this weight.
        std: standard deviation of the whole table; null keeps the scale.

    Source: model2vec (Tulkens and van Dongen, 2024), https://github.com/MinishLab/model2vec; the weight is that of
    Arora et al., A Simple but Tough-to-Beat Baseline for Sentence Embeddings, 2017
    """

    def __init__(
        self,
        fine_tuned: bool = True,
        pooling: Literal["mean", "cls"] = "mean",
        weighting: Literal["zipf", "none"] = "zipf",
        sif: Positive = 1e-4,
        std: Spread | None = 0.1,
    ):
        self.fine_tuned, self.pooling, self.weighting, self.sif, self.std = fine_tuned, pooling, weighting, sif, std

    def known(self, width: int, tokenizer: PreTrainedTokenizerBase, teacher: TeacherTable | None) -> KnownRows:
        """Return no rows: those of the teacher are known only after its fine-tuning; see `encoded`."""
        return KnownRows([], torch.empty(0, width), 1.0 if self.std is None else self.std)

    def require(self, width: int, tokenizer: PreTrainedTokenizerBase, encoder_width: int | None) -> dict[int, str]:
        """Return id -> text of each token, after a check against the teacher's width, before the teacher is run.

        Raises:
            KDError: there is no teacher, or the student's table is too wide.
        """
        if encoder_width is None:
            raise KDError("embeddings=encoded needs a teacher; set teacher=... or embeddings=random")
        texts = texts_of(tokenizer)
        most = min(encoder_width, len(set(texts.values())))
        if width > most:
            raise KDError(
                f"embeddings=encoded gives at most {most} numbers a word (the teacher's width is {encoder_width}, the "
                f"vocabulary has {len(texts)} tokens), found a student's table of width {width}; set "
                f"student.embedding_size={most} or less (hidden_size for student=transformer), or embeddings=random"
            )
        return texts

    def encoded(self, width: int, tokenizer: PreTrainedTokenizerBase, encoder: Encoder) -> KnownRows:
        """Return a row for each token that has a text."""
        texts = self.require(width, tokenizer, encoder.width)
        distinct = list(dict.fromkeys(texts.values()))
        vectors = encoder.vectors(distinct).float()
        reduced = principal_components(vectors - vectors.mean(dim=0), width)
        place = {text: number for number, text in enumerate(distinct)}
        rows = reduced[[place[text] for text in texts.values()]]
        if self.weighting == "zipf":
            rows = rows * zipf_weights(len(rows), self.sif).unsqueeze(1)
        return KnownRows.scaled(list(texts), rows, self.std)


def zipf_weights(count: int, sif: float) -> Tensor:
    """Return the weight ``sif / (sif + p(r))`` of the words of rank r = 1 to ``count``; ``p(r)`` is 1/(r+1), scaled.

    The order of the ids stands for the rank: `tokenizer=words` and the vocabularies of BERT list frequent words first.

    >>> zipf_weights(2, 0.5)
    tensor([0.4545, 0.5556])
    """
    shares = 1.0 / torch.arange(2, count + 2, dtype=torch.float64)
    shares = shares / shares.sum()
    return (sif / (sif + shares)).float()


def texts_of(tokenizer: PreTrainedTokenizerBase) -> dict[int, str]:
    """Return id -> text, by rising id, for each token that is no special token and not empty."""
    special = set(tokenizer.all_special_tokens)
    prefix = backend_json(tokenizer)["model"].get("continuing_subword_prefix")
    found = {}
    for token, number in sorted(tokenizer.get_vocab().items(), key=lambda item: item[1]):
        if token not in special:
            plain = token.removeprefix(prefix) if prefix else tokenizer.convert_tokens_to_string([token])
            if text := plain.strip():
                found[number] = text
    return found
