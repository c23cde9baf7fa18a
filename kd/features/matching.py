"""Pair layers of the student with layers of the teacher, and map their features to one width."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast, final

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import SequenceClassifierOutput

from kd.contract import ATTENTION_OUTPUTS, Answer, FeatureLoss
from kd.errors import KDError
from kd.features.feature import PLACES, Feature, depth_of, pooled, split_heads
from kd.features.fitted_mapper import FittedMapper
from kd.features.mapper import Linear, Mapper

Pair = tuple[int, int]
Pairs = list[Pair]
"""(student layer, teacher layer); 0 is the embeddings, 1 the lowest layer."""
Tensors = tuple[Tensor, ...]
Outputs = Mapping[Feature, Tensor]
"""A teacher's features."""
Attention = Sequence[tuple[Tensor, Tensor, Tensor]]
"""(queries, keys, values) of each layer."""

INITIAL_VARIANCE = 5.0
"""Of the student's features about the teacher's (VID), before training."""

RULES: dict[str, Callable[[int, int], Sequence[int]]] = {
    # the m-th of M layers is paired with layer m N / M, halves rounded up (Jiao et al. 2020)
    "uniform": lambda count, depth: [max(1, math.floor(m * depth / count + 0.5)) for m in range(1, count + 1)],
    "last": lambda count, depth: range(depth - count + 1, depth + 1),
    "first": lambda count, depth: range(1, count + 1),
    "top": lambda count, depth: [depth],
    "random": lambda count, depth: sorted((torch.randperm(depth)[:count] + 1).tolist()),  # Haidar et al. 2022
}
"""The teacher layers of each rule, for the M layers of the student and the N layers of the teacher."""
EVERY = re.compile(r"every_([1-9]\d*)")


def layer_pairs(rule: str | Sequence[Sequence[int]], student: Sequence[int], depth: int, lowest: int = 0) -> Pairs:
    """Return the pairs of a rule, or those of a list.

    Args:
        rule: "uniform" (m-th of M student layers: teacher layer m N / M), "last" (the teacher's last M), "first"
            (its first M), "every_K" (K, 2K, ...), "random" (M of them, drawn at each call), "top" (the last layer of
            each), or a list of [student layer, teacher layer].
        student: the M student layers that a rule may use, lowest first.
        depth: the teacher's number N of layers.
        lowest: the lowest layer that a list may name: 0 for the embeddings, or 1, as attention has no layer 0.

    Raises:
        KDError: an unknown rule, a rule that does not fit the numbers of layers, or a layer that does not exist.

    >>> layer_pairs("uniform", [1, 2], 6), layer_pairs("every_2", [1, 2, 3], 6)
    ([(1, 3), (2, 6)], [(1, 2), (2, 4), (3, 6)])
    """
    if isinstance(rule, Sequence) and not isinstance(rule, str):
        return _listed(rule, [*range(lowest, 1), *student], range(lowest, depth + 1))
    rule = str(rule)
    step = EVERY.fullmatch(rule)
    if not step and rule not in RULES:
        raise KDError(
            f"layers: expected {', '.join(RULES)}, every_K or a list of [student layer, teacher layer], got '{rule}'"
        )
    needed = int(step[1]) * len(student) if step else 1 if rule == "top" else len(student)
    if needed > depth:
        raise KDError(
            f"layers={rule} needs {needed} teacher layers for the student's {len(student)}, and the teacher has "
            f"{depth}; choose layers=top or a list such as [[1,{depth}]]"
        )
    teacher = [m * int(step[1]) for m in range(1, len(student) + 1)] if step else RULES[rule](len(student), depth)
    return list(zip(student[-1:] if rule == "top" else student, teacher, strict=True))


def _listed(rule: Sequence, student: Sequence[int], teacher: range) -> Pairs:
    pairs = []
    for pair in rule:
        if not (isinstance(pair, (list, tuple)) and len(pair) == 2 and all(type(layer) is int for layer in pair)):
            raise KDError(
                f"layers: expected a list of [student layer, teacher layer], got {pair!r}; write [[1,3],[2,6]]"
            )
        own, other = pair
        if own not in student or other not in teacher:
            raise KDError(
                f"layers: there is no pair [{own}, {other}]: for this term the student has layers "
                f"{', '.join(map(str, student))} and the teacher {teacher[0]} to {teacher[-1]} (0: the embeddings)"
            )
        pairs.append((own, other))
    if not pairs:
        raise KDError("layers: expected at least one pair, got an empty list; give a rule or [[1,3]]")
    return pairs


@dataclass(frozen=True)
class Shape:
    """The shape of a student's hidden states, lowest first.

    Args:
        widths: of each state; the embeddings come first.
        by_token: whether each state holds a vector for each token.
    """

    widths: list[int]
    by_token: list[bool]


@torch.no_grad()
def shape_of(student: PreTrainedModel) -> Shape:
    """Run the student on two tokens and read the shape from its output."""
    ids = torch.ones(1, 2, dtype=torch.long, device=student.device)
    was_training = student.training
    states = student.eval()(input_ids=ids, attention_mask=torch.ones_like(ids), output_hidden_states=True).hidden_states
    student.train(was_training)
    return Shape([state.shape[-1] for state in states], [state.shape[1] == 2 for state in states])


@final
class Matching(nn.Module):
    """Pairs of layers, the mappers between them, and the `Answer` pairs that the feature losses read.

    A mapper maps a student layer to the teacher's width. A mapper that is fitted on one side alone (PCA) maps the
    teacher's features to the student's width instead. Mappers are trained with the student and are not part of it.

    Args:
        losses: the feature losses by name.
        student: run once to read the shape of its hidden states.
        teacher: the teacher's configuration.
        layers: see `layer_pairs`; a loss may have its own.
        pooling: how the tokens' vectors become one vector for the text, "mean" or "cls".
        mapper: (width in, width out) -> mapper.
        shared: use one mapper for all student layers above the embeddings.
        member: the teacher's name in an ensemble.
    """

    def __init__(
        self,
        losses: Mapping[str, FeatureLoss],
        student: PreTrainedModel,
        teacher: PretrainedConfig,
        layers: str | Sequence = "uniform",
        pooling: str = "mean",
        mapper: Callable[[int, int], Mapper] = Linear,
        shared: bool = False,
        member: str = "",
    ):
        super().__init__()
        self.losses, self.pooling, self.shared, self.member = dict(losses), pooling, shared, member
        self.depth, self.teacher = depth_of(teacher), teacher
        self.shape = shape_of(student)
        self.rules = {name: layers if loss.layers is None else loss.layers for name, loss in losses.items()}
        self.mappers, self.variances = nn.ModuleDict(), nn.ParameterDict()
        wanted: set[Feature] = set()
        self.possible: dict[str, Pairs] = {}
        for name, loss in losses.items():
            if reason := loss.mismatch(student.config, teacher):
                raise KDError(f"loss '{name}' cannot compare this student and teacher: {reason}")
            self.possible[name] = self._possible(name)
            for own, other in self.possible[name]:
                wanted |= {self._feature(loss, output, other) for output in loss.needs - {"logits"}}
                if loss.same_width:
                    self._add_mapper(mapper, loss, own)
                if loss.needs_variances:
                    self._add_variances(self._key(loss, own))
        self.features = frozenset(wanted)

    def learners(self) -> list[nn.Module]:
        """Return the modules that are trained with the student."""
        return [self] if self.variances else list(self.mappers.values())

    @property
    def outputs(self) -> set[str]:
        """The outputs of the student that the losses read, without the logits."""
        return {output for loss in self.losses.values() for output in loss.needs - {"logits"}}

    @property
    def by_token(self) -> list[str]:
        """The losses that need both models to read the same tokens."""
        return [name for name, loss in self.losses.items() if loss.level == "token"]

    def eligible(self, loss: FeatureLoss) -> list[int]:
        """Return the student layers above the embeddings that a loss can compare."""
        above = range(1, len(self.shape.widths))
        return [layer for layer in above if loss.level == "sentence" or self.shape.by_token[layer]]

    def pairs(self, name: str) -> Pairs:
        """Return the pairs of a loss at this step."""
        loss = self.losses[name]
        lowest = 1 if loss.needs & ATTENTION_OUTPUTS else 0
        return layer_pairs(self.rules[name], self.eligible(loss), self.depth, lowest)

    def _possible(self, name: str) -> Pairs:
        """Return all pairs that a loss may read at any step."""
        own = self.eligible(self.losses[name])
        if not own and isinstance(self.rules[name], str):
            raise KDError(
                f"loss '{name}' compares token by token, found a student without a vector for each token above its "
                "embeddings; use level=sentence, student=bilstm or student=transformer"
            )
        pairs = self.pairs(name)  # refuses a rule that does not fit
        return list(itertools.product(own, range(1, self.depth + 1))) if self.rules[name] == "random" else pairs

    def _feature(self, loss: FeatureLoss, output: str, layer: int) -> Feature:
        return Feature(output, layer, self.pooling if loss.level == "sentence" else None, self.member)

    def _key(self, loss: FeatureLoss, layer: int) -> str:
        return f"{'all' if self.shared and layer else layer}-{loss.level}"

    def _add_mapper(self, mapper: Callable[[int, int], Mapper], loss: FeatureLoss, layer: int) -> None:
        key = self._key(loss, layer)
        size = self.shape.widths[layer], self.teacher.hidden_size
        kind: Any = getattr(mapper, "func", mapper)  # the class, where a functools.partial holds its options
        if not kind.needs_target:
            size = size[::-1]
        if key not in self.mappers:
            self.mappers[key] = mapper(*size)
        found = self.mappers[key]
        if (found.in_size, found.out_size) != size:
            raise KDError(
                f"expected layers of one width for a shared mapper, found {found.in_size} to {found.out_size} and "
                f"{size[0]} to {size[1]}; set method.shared_mapper=false or choose other layers"
            )
        if found.pools and loss.level == "token":
            raise KDError(
                f"expected a mapper of single tokens for a loss that compares token by token, found '{found.name}', "
                "which gives one vector for each text; use mapper=linear or level=sentence"
            )

    def _add_variances(self, key: str) -> None:
        start = torch.tensor(INITIAL_VARIANCE - 1e-5).expm1().log()  # its softplus, plus 1e-5, is the variance
        self.variances[key] = nn.Parameter(start.repeat(cast(Mapper, self.mappers[key]).out_size))

    def forward(
        self,
        student: SequenceClassifierOutput,
        attention: Attention,
        teacher_logits: Tensor,
        teacher: Outputs,
        mask: Tensor,
    ) -> dict[str, tuple[Answer, Answer]]:
        """Return the input of each feature loss at this step.

        Args:
            student: its output, with hidden states.
            attention: the student's, if a loss reads attention.
            teacher_logits: ``[B, C]``.
            teacher: its features, as returned by `kd.features.feature.read`.
            mask: ``[B, L]``, 1 for a token of the student.

        Returns:
            (student, teacher) by the name of the loss.
        """
        found, states = {}, student.hidden_states or ()
        for name, loss in self.losses.items():
            own: dict[str, Tensors] = {}
            other: dict[str, Tensors] = {}
            pairs = self.pairs(name)
            for output in loss.needs - {"logits"}:
                if output == "hidden_states":
                    sides = [self._mapped(loss, pair, states, teacher, mask) for pair in pairs]
                else:
                    sides = [self._attention(loss, output, pair, attention, teacher) for pair in pairs]
                own[output], other[output] = zip(*sides, strict=True)
            if loss.needs_variances:
                raw = (self.variances[self._key(loss, layer)] for layer, _ in pairs)
                own["variances"] = tuple(functional.softplus(value) + 1e-5 for value in raw)
            found[name] = Answer(cast(Tensor, student.logits), **own), Answer(teacher_logits, **other)
        return found

    def _attention(
        self, loss: FeatureLoss, output: str, pair: Pair, attention: Attention, teacher: Outputs
    ) -> tuple[Tensor, Tensor]:
        """Return both sides of a pair of attention layers, ``[B, H, L, d_head]`` each."""
        other = teacher[self._feature(loss, output, pair[1])].float()
        return attention[pair[0] - 1][PLACES[output]], split_heads(other, self.teacher.num_attention_heads)

    def _mapped(
        self, loss: FeatureLoss, pair: Pair, student: Tensors, teacher: Outputs, mask: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return both sides of a pair of hidden states, of one width if the loss needs it."""
        own, other, mask = self._unmapped(loss, pair, student, teacher, mask)
        if loss.same_width:
            mapper = self.mappers[self._key(loss, pair[0])]
            own, other = (mapper(own, mask), other) if mapper.needs_target else (own, mapper(other, mask))
        return (own, other) if loss.level == "token" else (own.squeeze(1), other.squeeze(1))

    def _unmapped(
        self, loss: FeatureLoss, pair: Pair, student: Tensors, teacher: Outputs, mask: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return both sides of a pair of hidden states, ``[B, L, d]``, and the mask of the student's side.

        At level "sentence" L is 1, except for a student's side whose mapper pools its tokens.
        """
        layer, other_layer = pair
        own, other = student[layer], teacher[self._feature(loss, "hidden_states", other_layer)].float()
        if loss.level == "token":
            return own, other, mask
        if not self.shape.by_token[layer]:
            mask = torch.ones(own.shape[:2], device=own.device)
        if not (loss.same_width and self.mappers[self._key(loss, layer)].pools):
            own = pooled(own, mask, self.pooling).unsqueeze(1)
            mask = torch.ones(own.shape[:2], device=own.device)
        return own, other.unsqueeze(1), mask

    @torch.no_grad()
    def fit_mappers(self, answers: Iterable[tuple[SequenceClassifierOutput, Outputs, Tensor]]) -> None:
        """Fit the closed-form mappers.

        Args:
            answers: student output, teacher features and student mask of each batch.
        """
        unfitted = self.unfitted()
        sides: dict[str, list[tuple[Tensor, Tensor]]] = {key: [] for key in unfitted}
        for student, teacher, mask in answers:
            for name, loss in self.losses.items():
                for pair in self.possible[name] if loss.same_width else ():
                    if (key := self._key(loss, pair[0])) in sides:
                        states = student.hidden_states or ()
                        own, other, kept = self._unmapped(loss, pair, states, teacher, mask)
                        sides[key].append((own[kept.bool()].cpu(), other[kept.bool()].cpu()))
        for key, mapper in unfitted.items():
            own, other = map(torch.cat, zip(*sides[key], strict=True))
            mapper.fit(own, other) if mapper.needs_target else mapper.fit(other)

    def unfitted(self) -> dict[str, FittedMapper]:
        """Return the closed-form mappers that have still to be fitted."""
        return {key: m for key, m in self.mappers.items() if isinstance(m, FittedMapper) and not m.is_fitted}
