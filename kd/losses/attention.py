"""Transfer terms on what tokens attend to, and on where the vectors of a text are large.

Notation: B rows, L tokens, H heads of width d_head; ``mask`` ``[B, L]`` is ``batch["attention_mask"]``, 1 for a token.
Student and teacher read the same tokens. Padded positions may hold any value: they are set to zero and left out of
every softmax and every mean. Queries are not scaled: the input of a softmax is ``q k^T / sqrt(d_head)``.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Annotated, ClassVar, final

import torch
import torch.nn.functional as F
from annotated_types import Ge, Le
from torch import Tensor
from transformers import PretrainedConfig

from kd.contract import Answer, Batch, FeatureLoss, Layers, precise
from kd.errors import KDError
from kd.losses.hint import mean_over_pairs
from kd.options.declared import Finite, NotNegative, Width

Tensors = tuple[Tensor, ...]


def tinybert_attention(student: Tensors, teacher: Tensors, mask: Tensor) -> Tensor:
    """Return the squared distance of the attention scores, before the softmax, head by head.

    ``sum_b,h,i,j m_bi m_bj (S_bhij - T_bhij)^2 / (H sum_b (sum_i m_bi)^2)``, ``S = Q K^T / sqrt(d_head)`` of the
    student, T of the teacher, m the mask.

    Args:
        student, teacher: (queries, keys), ``[B, H, L, d_head]`` each; d_head may differ between the two.

    Returns:
        Scalar >= 0, in squared scores; 0 at equality, and where there is no token.

    Source: Jiao et al. 2020 (TinyBERT; its code averages over padded rows as well), https://arxiv.org/abs/1909.10351
    """
    _require_same("rows, heads, tokens", student[0], teacher[0])
    difference = _scores(student[0], student[1], mask) - _scores(teacher[0], teacher[1], mask)
    # the scores of padded tokens are zero on both sides and add nothing
    return difference.square().sum() / (difference.shape[1] * mask.sum(-1).square().sum()).clamp(min=1)


def minilm(student: Tensors, teacher: Tensors, mask: Tensor) -> Tensor:
    """Return the divergence of the attention maps plus that of the value relations, head by head.

    ``KL(T^QK || S^QK) + KL(T^VV || S^VV)``; a map is ``softmax_j(X_i . Y_j / sqrt(d_head))`` over the tokens j, S
    of the student, T of the teacher; KL is the mean over heads and over the tokens i of all rows.

    Args:
        student, teacher: (queries, keys, values), ``[B, H, L, d_head]`` each; d_head may differ between the two.

    Returns:
        Scalar >= 0, in nats; 0 where the maps are equal.

    Source: Wang et al. 2020 (MiniLM), https://arxiv.org/abs/2002.10957
    """
    queries, keys, values = zip(student, teacher, strict=True)
    return _divergence(queries, keys, mask) + _divergence(values, values, mask)


def minilm_v2(student: Tensors, teacher: Tensors, mask: Tensor, relation_heads: int = 16) -> Tensor:
    """Return the divergence of the relations within queries, within keys and within values, over new heads.

    ``sum_X KL(T^XX || S^XX)``, X being queries, keys and values: all heads of X side by side, split into
    ``relation_heads`` of equal width; maps and KL as in `minilm`.

    Args:
        student, teacher: (queries, keys, values), ``[B, H, L, d_head]`` each; H and d_head may differ between the two.
        relation_heads: divides H d_head on both sides.

    Returns:
        Scalar >= 0, in nats, the sum of three; 0 where the maps are equal.

    Source: Wang et al. 2021 (MiniLMv2), https://arxiv.org/abs/2012.15828
    """
    pairs = (tuple(_new_heads(side, relation_heads) for side in both) for both in zip(student, teacher, strict=True))
    return torch.stack([_divergence(heads, heads, mask) for heads in pairs]).sum()


def attention_transfer(student_states: Tensor, teacher_states: Tensor, mask: Tensor, p: float = 2.0) -> Tensor:
    """Return the squared distance between maps of where the vectors of student and teacher are large.

    ``(1/B) sum_b |s_b / |s_b| - t_b / |t_b||^2``, ``s_bi = m_bi sum_d |h_bid|^p`` over the tokens i, t likewise of
    the teacher, m the mask. The sum over tokens is not a mean as in the published code, which would count padding.

    Args:
        student_states, teacher_states: ``[B, L, d]`` each; d may differ between the two.

    Returns:
        Scalar in [0, 2], no unit. The map of vectors that are all zero is zero.

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
    """A term on tokens, one matched pair of layers at a time; the mean over the pairs counts."""

    reads: ClassVar[tuple[str, ...]]
    """The outputs that the term `needs`, in the order in which `compare` takes them."""

    def __init__(self, layers: Layers = None, weight: NotNegative = 1.0):
        super().__init__("token", layers, weight)

    @abstractmethod
    def compare(self, student: Tensors, teacher: Tensors, mask: Tensor) -> Tensor:
        """Return the term of one pair of layers, a scalar."""

    @final
    def term(self, student: Answer, teacher: Answer, batch: Batch) -> Tensor:
        sides = (zip(*(getattr(answer, name) for name in self.reads), strict=True) for answer in (student, teacher))
        pairs = zip(*sides, strict=True)
        return mean_over_pairs(self.compare(own, other, batch["attention_mask"]) for own, other in pairs)


class HeadByHeadLoss(AttentionLoss, ABC):
    """A term that compares head i of the student with head i of the teacher."""

    def mismatch(self, student: PretrainedConfig, teacher: PretrainedConfig) -> str | None:
        own, needed = student.num_attention_heads, teacher.num_attention_heads
        if own == needed:
            return None
        return (
            f"it needs equally many attention heads, and the student has {own}, the teacher {needed}; use minilm_v2, "
            f"or a student with {needed} (student.num_attention_heads, which must divide student.hidden_size)"
        )


@final
class TinyBertAttention(HeadByHeadLoss):
    """The loss of `tinybert_attention`; by default the layers are spread over the teacher's depth, as published."""

    reads = ("queries", "keys")
    needs = frozenset(reads)

    def __init__(self, layers: Layers = "uniform", weight: NotNegative = 1.0):
        super().__init__(layers, weight)

    compare = staticmethod(tinybert_attention)


@final
class MiniLM(HeadByHeadLoss):
    """The loss of `minilm`; by default for the last layer of each model, as published."""

    reads = ("queries", "keys", "values")
    needs = frozenset(reads)

    def __init__(self, layers: Layers = "top", weight: NotNegative = 1.0):
        super().__init__(layers, weight)

    compare = staticmethod(minilm)


@final
class MiniLMv2(AttentionLoss):
    """The loss of `minilm_v2`; by default for the last layer of each model.

    The source takes one layer of each too, the student's last.

    Args:
        relation_heads: number of heads into which all heads together are split; it divides both hidden sizes.
    """

    reads = ("queries", "keys", "values")
    needs = frozenset(reads)

    def __init__(self, relation_heads: Width = 16, layers: Layers = "top", weight: NotNegative = 1.0):
        super().__init__(layers, weight)
        self.relation_heads = relation_heads

    def compare(self, student: Tensors, teacher: Tensors, mask: Tensor) -> Tensor:
        return minilm_v2(student, teacher, mask, self.relation_heads)

    def mismatch(self, student: PretrainedConfig, teacher: PretrainedConfig) -> str | None:
        common = math.gcd(student.hidden_size, teacher.hidden_size)
        if common % self.relation_heads == 0:
            return None
        return (
            f"relation_heads={self.relation_heads} must divide the hidden sizes {student.hidden_size} of the student "
            f"and {teacher.hidden_size} of the teacher; set relation_heads to a divisor of {common}"
        )


@final
class AttentionTransfer(AttentionLoss):
    """The loss of `attention_transfer`.

    Args:
        p: power of the magnitudes; the higher, the more the largest entries count.
    """

    reads = ("hidden_states",)
    needs = frozenset(reads)
    is_mean_over_rows = True

    def __init__(self, p: Annotated[Finite, Ge(1), Le(100)] = 2.0, layers: Layers = None, weight: NotNegative = 1.0):
        super().__init__(layers, weight)
        self.p = p

    def compare(self, student: Tensors, teacher: Tensors, mask: Tensor) -> Tensor:
        return attention_transfer(student[0], teacher[0], mask, self.p)


def _without_padding(vectors: Tensor, mask: Tensor) -> Tensor:
    # filled and not multiplied, because padding may hold inf or NaN
    return precise(vectors.masked_fill(mask == 0, 0))


def _scores(first: Tensor, second: Tensor, mask: Tensor) -> Tensor:
    """Return ``first_i . second_j / sqrt(d_head)``, ``[B, H, L, L]``."""
    first, second = (_without_padding(vectors, mask[:, None, :, None]) for vectors in (first, second))
    return first @ second.transpose(-1, -2) / math.sqrt(first.shape[-1])


def _divergence(firsts: Tensors, seconds: Tensors, mask: Tensor) -> Tensor:
    """Return ``KL(T || S)`` of the maps of (student, teacher), the mean over heads and tokens."""
    _require_same("rows, heads, tokens", *firsts)
    padding = mask[:, None, None, :] == 0
    scores = [_scores(*pair, mask) for pair in zip(firsts, seconds, strict=True)]
    student, teacher = (side.masked_fill(padding, torch.finfo(side.dtype).min).log_softmax(-1) for side in scores)
    # the maps of padded tokens are uniform on both sides and add nothing
    return (teacher.exp() * (teacher - student)).sum() / (student.shape[1] * mask.sum()).clamp(min=1)


def _new_heads(vectors: Tensor, heads: int) -> Tensor:
    """Split all heads together into other heads: ``[B, H, L, d_head]`` -> ``[B, heads, L, H d_head / heads]``."""
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
