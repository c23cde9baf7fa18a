"""Transfer terms on what tokens attend to, and on where the vectors of a text are large.

All are of level "token": student and teacher read the same tokens. B rows, L tokens, H heads of width d_head;
``mask`` ``[B, L]`` is ``batch["attention_mask"]``, 1 for a token. Padded positions may hold anything: they are
set to zero, left out of every softmax, and their rows of every mean. A term is the mean over the matched pairs
of layers; the functions below take one pair, compute in float32 at least, and leave it to `Loss` to detach the
teacher. Queries are not scaled: what goes into a softmax is ``q k^T / sqrt(d_head)``.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import ClassVar, final

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import PretrainedConfig

from kd.contract import Answer, Batch, FeatureLoss, number, precise
from kd.errors import KDError

Tensors = tuple[Tensor, ...]


def tinybert_attention(student: Tensors, teacher: Tensors, mask: Tensor) -> Tensor:
    """Squared distance of the attention scores, before the softmax, head by head.

    ``sum_b,h,i,j m_bi m_bj (S_bhij - T_bhij)^2 / (H sum_b (sum_i m_bi)^2)``, ``S = Q K^T / sqrt(d_head)`` of the
    student, T of the teacher, m the mask.

    Args:
        student, teacher: (queries, keys), ``[B, H, L, d_head]`` each; d_head may differ between the two.
        mask: ``[B, L]``, 1 for a token.

    Returns:
        Scalar >= 0, in squared scores; 0 at equality, and where there is no token.

    Raises:
        KDError: other rows, tokens or numbers of heads.

    Source: Jiao et al. 2020 (TinyBERT; its code averages over padded rows as well),
    https://arxiv.org/abs/1909.10351
    """
    _require_same("rows, heads, tokens", student[0], teacher[0])
    difference = _scores(*student, mask) - _scores(*teacher, mask)
    # The scores of padding are zero on both sides and add nothing.
    return difference.square().sum() / (difference.shape[1] * mask.sum(-1).square().sum()).clamp(min=1)


def minilm(student: Tensors, teacher: Tensors, mask: Tensor) -> Tensor:
    """Divergence of the attention maps plus that of the value relations, head by head.

    ``KL(T^QK || S^QK) + KL(T^VV || S^VV)``; a map is ``softmax_j(X_i . Y_j / sqrt(d_head))`` over the tokens j, S
    of the student, T of the teacher; KL is the mean over heads and over the tokens i of all rows.

    Args:
        student, teacher: (queries, keys, values), ``[B, H, L, d_head]`` each; d_head may differ between the two.
        mask: ``[B, L]``, 1 for a token.

    Returns:
        Scalar >= 0, in nats; 0 where the maps are equal.

    Raises:
        KDError: other rows, tokens or numbers of heads.

    Source: Wang et al. 2020 (MiniLM), https://arxiv.org/abs/2002.10957
    """
    queries, keys, values = zip(student, teacher, strict=True)
    return _divergence(queries, keys, mask) + _divergence(values, values, mask)


def minilm_v2(student: Tensors, teacher: Tensors, mask: Tensor, relation_heads: int = 12) -> Tensor:
    """Divergence of the relations within queries, within keys and within values, over heads cut anew.

    ``sum_X KL(T^XX || S^XX)``, X being queries, keys and values: all heads of X side by side, cut into
    ``relation_heads`` of equal width; maps and KL as in `minilm`.

    Args:
        student, teacher: (queries, keys, values), ``[B, H, L, d_head]`` each; H and d_head may differ between
            the two.
        mask: ``[B, L]``, 1 for a token.
        relation_heads: >= 1, divides H d_head on both sides.

    Returns:
        Scalar >= 0, in nats, the sum of three; 0 where the maps are equal.

    Raises:
        KDError: other rows or tokens, or a width that ``relation_heads`` does not divide.

    Source: Wang et al. 2021 (MiniLMv2), https://arxiv.org/abs/2012.15828
    """
    terms = []
    for both in zip(student, teacher, strict=True):
        heads = tuple(_cut_anew(vectors, relation_heads) for vectors in both)
        terms.append(_divergence(heads, heads, mask))
    return torch.stack(terms).sum()


def attention_transfer(student_states: Tensor, teacher_states: Tensor, mask: Tensor, p: float = 2.0) -> Tensor:
    """Squared distance between the two models' maps of where their vectors are large.

    ``(1/B) sum_b |s_b / |s_b| - t_b / |t_b||^2``, ``s_bi = m_bi sum_d |h_bid|^p`` over the tokens i, t likewise of
    the teacher, m the mask. The sum over tokens stays a sum: the mean of the published code would count padding.

    Args:
        student_states, teacher_states: ``[B, L, d]`` each; d may differ between the two.
        mask: ``[B, L]``, 1 for a token.
        p: power of the magnitudes, >= 1; the higher, the more the largest entries count.

    Returns:
        Scalar in [0, 2], no unit. The map of vectors that are all zero is zero.

    Raises:
        KDError: other rows or tokens.

    Source: Zagoruyko and Komodakis 2017, https://arxiv.org/abs/1612.03928

    >>> first, second = torch.tensor([[[3.0], [0.0]]]), torch.tensor([[[0.0], [1.0]]])
    >>> attention_transfer(first, second, mask=torch.ones(1, 2)).item()
    2.0
    """
    _require_same("rows, tokens", student_states, teacher_states)
    student, teacher = (
        F.normalize(_without_padding(states, mask[:, :, None]).abs().pow(p).sum(-1), dim=-1)
        for states in (student_states, teacher_states)
    )
    return (student - teacher).square().sum(-1).mean()


class AttentionLoss(FeatureLoss, ABC):
    """A term of level "token" alone, pair by pair of layers; concrete terms say how a pair is compared.

    Args:
        layers: the pairs that this term reads, a rule or a list; None: those of the method.
        weight: factor within the transfer part, >= 0.
    """

    levels = ("token",)

    reads: ClassVar[tuple[str, ...]]
    """What the term `needs`, in the order in which `compare` is given it."""

    def __init__(self, layers: str | list | None = None, weight: float = 1.0):
        super().__init__("token", layers, weight)

    @abstractmethod
    def compare(self, student: Tensors, teacher: Tensors, mask: Tensor) -> Tensor:
        """The term of one pair of layers, a scalar."""

    @final
    def term(self, student: Answer, teacher: Answer, batch: Batch) -> Tensor:
        pairs = zip(self._layers_of(student), self._layers_of(teacher), strict=True)
        return torch.stack([self.compare(*pair, batch["attention_mask"]) for pair in pairs]).mean()

    def _layers_of(self, answer: Answer) -> list[Tensors]:
        return list(zip(*(getattr(answer, name) for name in self.reads), strict=True))


class HeadByHeadLoss(AttentionLoss, ABC):
    """A term that compares the first head with the first head, and so on."""

    def mismatch(self, student: PretrainedConfig, teacher: PretrainedConfig) -> str | None:
        """Both need the same number of attention heads."""
        if student.num_attention_heads == teacher.num_attention_heads:
            return None
        own, needed = student.num_attention_heads, teacher.num_attention_heads
        return (
            f"it needs equally many attention heads, and the student has {own}, the teacher {needed}; use minilm_v2, "
            f"or a student with {needed} (student.num_attention_heads, which must divide student.hidden_size)"
        )


@final
class TinyBertAttention(HeadByHeadLoss):
    """`tinybert_attention`: squared distance of the scores before the softmax.

    Args:
        layers: the pairs that this term reads, a rule or a list; as published spread over the teacher's depth.
        weight: factor within the transfer part, >= 0.
    """

    reads = ("queries", "keys")
    needs = frozenset(reads)

    def __init__(self, layers: str | list | None = "uniform", weight: float = 1.0):
        super().__init__(layers, weight)

    def compare(self, student: Tensors, teacher: Tensors, mask: Tensor) -> Tensor:
        return tinybert_attention(student, teacher, mask)


@final
class MiniLM(HeadByHeadLoss):
    """`minilm`: KL of the attention maps and of the value relations.

    Args:
        layers: the pairs that this term reads, a rule or a list; as published the last layer of each.
        weight: factor within the transfer part, >= 0.
    """

    reads = ("queries", "keys", "values")
    needs = frozenset(reads)

    def __init__(self, layers: str | list | None = "top", weight: float = 1.0):
        super().__init__(layers, weight)

    def compare(self, student: Tensors, teacher: Tensors, mask: Tensor) -> Tensor:
        return minilm(student, teacher, mask)


@final
class MiniLMv2(AttentionLoss):
    """`minilm_v2`: KL of the relations within queries, keys and values, for any numbers of heads.

    Args:
        relation_heads: heads into which all are cut anew, a whole number >= 1; divides both hidden sizes.
        layers: the pairs that this term reads, a rule or a list; as published one layer of each, the last of
            the student.
        weight: factor within the transfer part, >= 0.
    """

    reads = ("queries", "keys", "values")
    needs = frozenset(reads)

    def __init__(self, relation_heads: int = 16, layers: str | list | None = "top", weight: float = 1.0):
        super().__init__(layers, weight)
        self.relation_heads = number(
            "relation_heads", relation_heads, "a whole number >= 1", lambda value: isinstance(value, int) and value >= 1
        )

    def compare(self, student: Tensors, teacher: Tensors, mask: Tensor) -> Tensor:
        return minilm_v2(student, teacher, mask, self.relation_heads)

    def mismatch(self, student: PretrainedConfig, teacher: PretrainedConfig) -> str | None:
        """The relation heads must divide both hidden sizes."""
        common = math.gcd(student.hidden_size, teacher.hidden_size)
        if common % self.relation_heads == 0:
            return None
        return (
            f"relation_heads={self.relation_heads} must divide the hidden sizes {student.hidden_size} of the student "
            f"and {teacher.hidden_size} of the teacher; set relation_heads to a divisor of {common}"
        )


@final
class AttentionTransfer(AttentionLoss):
    """`attention_transfer`: squared distance of the normalised maps of magnitudes over tokens.

    Args:
        p: power of the magnitudes, >= 1.
        layers: the pairs that this term reads, a rule or a list; None: those of the method.
        weight: factor within the transfer part, >= 0.
    """

    reads = ("hidden_states",)
    needs = frozenset(reads)

    def __init__(self, p: float = 2.0, layers: str | list | None = None, weight: float = 1.0):
        super().__init__(layers, weight)
        self.p = number("p", p, "a number >= 1", lambda value: value >= 1)

    def compare(self, student: Tensors, teacher: Tensors, mask: Tensor) -> Tensor:
        return attention_transfer(*student, *teacher, mask, self.p)


def _without_padding(vectors: Tensor, mask: Tensor) -> Tensor:
    # Filled, not multiplied: padding may hold what is not finite.
    return precise(vectors.masked_fill(mask == 0, 0))


def _scores(first: Tensor, second: Tensor, mask: Tensor) -> Tensor:
    """``first_i . second_j / sqrt(d_head)``, ``[B, H, L, L]``."""
    first, second = (_without_padding(vectors, mask[:, None, :, None]) for vectors in (first, second))
    return first @ second.transpose(-1, -2) / math.sqrt(first.shape[-1])


def _log_map(first: Tensor, second: Tensor, mask: Tensor) -> Tensor:
    """Log-softmax of the scores over the tokens, ``[B, H, L, L]``."""
    scores = _scores(first, second, mask)
    return scores.masked_fill(mask[:, None, None, :] == 0, torch.finfo(scores.dtype).min).log_softmax(-1)


def _divergence(firsts: Tensors, seconds: Tensors, mask: Tensor) -> Tensor:
    """``KL(T || S)`` of the maps of (student, teacher), the mean over heads and tokens."""
    _require_same("rows, heads, tokens", *firsts)
    student, teacher = (_log_map(*pair, mask) for pair in zip(firsts, seconds, strict=True))
    # The rows of padding are uniform on both sides and add nothing.
    return (teacher.exp() * (teacher - student)).sum() / (student.shape[1] * mask.sum()).clamp(min=1)


def _cut_anew(vectors: Tensor, heads: int) -> Tensor:
    """``[B, H, L, d_head]`` -> ``[B, heads, L, H d_head / heads]``."""
    joined = vectors.transpose(1, 2).flatten(2)
    if joined.shape[-1] % heads:
        raise KDError(
            f"relation_heads must divide the width of all heads together, found {heads} and {joined.shape[-1]}; "
            "correct relation_heads in the configuration"
        )
    return joined.unflatten(-1, (heads, -1)).transpose(1, 2)


def _require_same(sizes: str, student: Tensor, teacher: Tensor) -> None:
    count = len(sizes.split(", "))
    found = [list(vectors.shape[:count]) for vectors in (student, teacher)]
    if found[0] != found[1]:
        raise KDError(
            f"student and teacher must agree in [{sizes}], found student {found[0]} and teacher {found[1]}; "
            "use one tokenizer for both, and minilm_v2 where the numbers of heads differ"
        )
