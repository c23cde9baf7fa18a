"""Which layer of the student learns from which layer of the teacher, and what brings their features together."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import SequenceClassifierOutput

from kd.contract import ATTENTION_OUTPUTS, Answer, FeatureLoss
from kd.errors import KDError
from kd.features.feature import PLACES, Feature, depth_of, pooled, split_heads, width
from kd.features.fitted_mapper import FittedMapper
from kd.features.mapper import Linear, Mapper

Pairs = list[tuple[int, int]]
"""(student layer, teacher layer); 0 is the embeddings, 1 the lowest layer."""

INITIAL_VARIANCE = 5.0


def _uniform(student: Sequence[int], depth: int) -> Pairs:
    """The m-th of M layers learns from layer m N / M, halves upwards (Jiao et al. 2020)."""
    return [(layer, max(1, math.floor(m * depth / len(student) + 0.5))) for m, layer in enumerate(student, start=1)]


def _last(student: Sequence[int], depth: int) -> Pairs:
    return [(layer, depth - len(student) + m) for m, layer in enumerate(student, start=1)]


def _first(student: Sequence[int], depth: int) -> Pairs:
    return [(layer, m) for m, layer in enumerate(student, start=1)]


def _top(student: Sequence[int], depth: int) -> Pairs:
    return [(student[-1], depth)]


def _random(student: Sequence[int], depth: int) -> Pairs:
    """As many teacher layers as the student has, drawn anew at each call, in rising order (Haidar et al. 2022)."""
    drawn = sorted((torch.randperm(depth)[: len(student)] + 1).tolist())
    return list(zip(student, drawn, strict=True))


RULES: dict[str, Callable[[Sequence[int], int], Pairs]] = {
    "uniform": _uniform,
    "last": _last,
    "first": _first,
    "top": _top,
    "random": _random,
}
EVERY = re.compile(r"every_([1-9]\d*)")


def layer_pairs(rule: str | Sequence[Sequence[int]], student: Sequence[int], depth: int, lowest: int = 0) -> Pairs:
    """The pairs by a rule or by name.

    Args:
        rule: "uniform" (m-th of M student layers: teacher layer m N / M), "last" (the teacher's last M), "first"
            (its first M), "every_K" (K, 2K, ...), "random" (M of them, drawn at each call), "top" (the last layer of
            each), or a list of [student layer, teacher layer].
        student: the M student layers that can take part, lowest first.
        depth: the teacher's N layers.
        lowest: what a list may go down to: 0, the embeddings, or 1 for what those do not have.

    Raises:
        KDError: an unknown rule, one that does not fit the depths, or layers that are not there.

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
    if step:
        return [(layer, m * int(step[1])) for m, layer in enumerate(student, start=1)]
    return RULES[rule](student, depth)


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
    """What a student's hidden states look like, lowest first.

    Args:
        widths: of each state, the embeddings first.
        by_token: whether each holds a vector a token.
    """

    widths: list[int]
    by_token: list[bool]


@torch.no_grad()
def shape_of(student: PreTrainedModel) -> Shape:
    """Found by asking the student about two tokens."""
    ids = torch.ones(1, 2, dtype=torch.long, device=student.device)
    was_training = student.training
    states = student.eval()(input_ids=ids, attention_mask=torch.ones_like(ids), output_hidden_states=True).hidden_states
    student.train(was_training)
    return Shape([state.shape[-1] for state in states], [state.shape[1] == 2 for state in states])


@final
class Matching(nn.Module):
    """Pairs of layers, the mappers between them, and the answers that the feature losses read.

    A mapper brings a student layer to the teacher's width; one that is fitted on a single side (PCA) brings the
    teacher's features to the student's width instead. Mappers learn with the student and are not part of it.

    Args:
        losses: the feature losses by name.
        student: asked once for the shape of its states.
        teacher: the teacher's configuration.
        layers: see `layer_pairs`; a loss may have its own.
        pooling: how one vector is made of a text's token states, "mean" or "cls".
        mapper: (width in, width out) -> mapper.
        shared: one mapper for all student layers above the embeddings.
        member: the teacher's name in an ensemble.

    Raises:
        KDError: pairs, levels or widths that cannot be.
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
        self.member = member
        self.losses, self.pooling, self.shared = dict(losses), pooling, shared
        self.depth, self.teacher = depth_of(teacher), teacher
        self.shape = shape_of(student)
        self.rules = {name: layers if loss.layers is None else loss.layers for name, loss in losses.items()}
        self.mappers, self.variances = nn.ModuleDict(), nn.ParameterDict()
        wanted: set[Feature] = set()
        self.possible: dict[str, Pairs] = {}
        for name, loss in losses.items():
            if reason := loss.mismatch(student.config, teacher):
                raise KDError(f"loss '{name}' cannot compare this student and teacher: {reason}")
            pairs = self.possible[name] = self._possible(name)
            features = {pair: self._features(loss, pair[1]) for pair in pairs}
            wanted |= {feature for found in features.values() for feature in found}
            for own, other in pairs if loss.same_width else ():
                self._add_mapper(mapper, loss, own, width(teacher, features[own, other][0]))
            for own, _ in pairs if loss.needs_variances else ():
                key = self._key(own, loss.level)
                start = torch.tensor(INITIAL_VARIANCE - 1e-5).expm1().log()  # softplus of it is the variance
                self.variances[key] = nn.Parameter(start.repeat(self.mappers[key].out_size))
        self.features = frozenset(wanted)

    def learners(self) -> list[nn.Module]:
        """The modules that learn with the student."""
        return [self] if self.variances else list(self.mappers.values())

    @property
    def outputs(self) -> set[str]:
        """What the student must give beyond logits."""
        return {output for loss in self.losses.values() for output in loss.needs - {"logits"}}

    @property
    def by_token(self) -> list[str]:
        """The losses that need both models to read the same tokens."""
        return [name for name, loss in self.losses.items() if loss.level == "token"]

    def eligible(self, loss: FeatureLoss) -> list[int]:
        """The student layers above the embeddings that can take part in a loss."""
        every = range(1, len(self.shape.widths))
        if loss.level == "sentence":
            return list(every)
        return [layer for layer in every if self.shape.by_token[layer]]

    def pairs(self, name: str) -> Pairs:
        """The pairs of a loss at this step."""
        loss = self.losses[name]
        return layer_pairs(
            self.rules[name], self.eligible(loss), self.depth, 1 if loss.needs & ATTENTION_OUTPUTS else 0
        )

    def _possible(self, name: str) -> Pairs:
        """All pairs that a loss may ever read."""
        own = self.eligible(self.losses[name])
        if not own and isinstance(self.rules[name], str):
            raise KDError(
                f"loss '{name}' compares token by token, and this student keeps no vector for each token above its "
                "embeddings; use level=sentence, student=bilstm or student=transformer"
            )
        pairs = self.pairs(name)
        if self.rules[name] == "random":
            return [(layer, other) for layer in own for other in range(1, self.depth + 1)]
        return pairs

    def _features(self, loss: FeatureLoss, layer: int) -> list[Feature]:
        outputs = sorted(loss.needs - {"logits"})
        pooling = self.pooling if loss.level == "sentence" else None
        return [Feature(output, layer, pooling, self.member) for output in outputs]

    def _key(self, layer: int, level: str) -> str:
        return f"{'all' if self.shared and layer else layer}-{level}"

    def _add_mapper(self, mapper: Callable[[int, int], Mapper], loss: FeatureLoss, layer: int, other: int) -> None:
        key, own = self._key(layer, loss.level), self.shape.widths[layer]
        kind = getattr(mapper, "func", mapper)  # what a partial makes
        size = (other, own) if issubclass(kind, FittedMapper) and not kind.needs_target else (own, other)
        if key not in self.mappers:
            self.mappers[key] = mapper(*size)
        found = self.mappers[key]
        if (found.in_size, found.out_size) != size:
            raise KDError(
                f"one mapper cannot serve layers of different widths ({found.in_size} to {found.out_size} and "
                f"{size[0]} to {size[1]}); set method.shared_mapper=false or choose other layers"
            )
        if found.pools and loss.level == "token":
            raise KDError(
                f"mapper '{found.name}' makes one vector of a text, and a loss here compares token by token; "
                "use mapper=linear or level=sentence"
            )

    def forward(
        self,
        student: SequenceClassifierOutput,
        attention: Sequence[tuple[Tensor, Tensor, Tensor]],
        teacher_logits: Tensor,
        teacher: Mapping[Feature, Tensor],
        mask: Tensor,
    ) -> dict[str, tuple[Answer, Answer]]:
        """What each feature loss reads at this step.

        Args:
            student: its output, with hidden states.
            attention: its (queries, keys, values) a layer where a loss reads attention.
            teacher_logits: ``[B, C]``.
            teacher: its features, as `kd.features.feature.read` gives them.
            mask: ``[B, L]``, 1 for a token of the student.

        Returns:
            (student, teacher) by the name of the loss.
        """
        found = {}
        for name, loss in self.losses.items():
            own: dict[str, list[Tensor]] = {}
            other: dict[str, list[Tensor]] = {}
            pairs = self.pairs(name)
            for output in loss.needs - {"logits"}:
                sides = [self._pair(loss, output, pair, student, attention, teacher, mask) for pair in pairs]
                own[output], other[output] = map(tuple, zip(*sides, strict=True))
            if loss.needs_variances:
                raw = (self.variances[self._key(layer, loss.level)] for layer, _ in pairs)
                own["variances"] = tuple(functional.softplus(value) + 1e-5 for value in raw)
            found[name] = Answer(logits=student.logits, **own), Answer(logits=teacher_logits, **other)
        return found

    def _pair(self, loss, output, pair, student, attention, teacher, mask) -> tuple[Tensor, Tensor]:
        """Both sides of a pair, brought to one width where the loss wants it."""
        layer, other_layer = pair
        (feature,) = [feature for feature in self._features(loss, other_layer) if feature.output == output]
        other = teacher[feature].float()
        if output != "hidden_states":
            return attention[layer - 1][PLACES[output]], split_heads(other, self.teacher.num_attention_heads)
        states = student.hidden_states[layer]
        mapper = self.mappers[self._key(layer, loss.level)] if loss.same_width else None
        return self._mapped(mapper, loss.level, states, other, mask if self.shape.by_token[layer] else None)

    def _mapped(
        self, mapper: Mapper | None, level: str, states: Tensor, other: Tensor, mask: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Student states ``[B, L, d]`` (``[B, 1, d]`` without a mask) and a teacher's feature, ready to compare."""
        if mask is None:
            mask = torch.ones(states.shape[:2], device=states.device)
        if level == "token":
            return apply(mapper, states, other, mask)
        if mapper is not None and mapper.pools:
            return mapper(states, mask).squeeze(1), other
        own = pooled(states, mask, self.pooling)
        one = torch.ones(len(own), 1, device=own.device)
        own, other = apply(mapper, own.unsqueeze(1), other.unsqueeze(1), one)
        return own.squeeze(1), other.squeeze(1)

    @torch.no_grad()
    def fit_mappers(self, answers: Iterable[tuple[SequenceClassifierOutput, Mapping[Feature, Tensor], Tensor]]) -> None:
        """Fit the closed-form mappers.

        Args:
            answers: student output, teacher features and student mask, batch by batch.
        """
        sides: dict[str, tuple[list[Tensor], list[Tensor]]] = {key: ([], []) for key in self.mappers}
        for student, teacher, mask in answers:
            for name, loss in self.losses.items():
                for layer, other_layer in self.possible[name] if loss.same_width else ():
                    (feature,) = self._features(loss, other_layer)
                    states, other = student.hidden_states[layer], teacher[feature].float()
                    own_mask = mask if self.shape.by_token[layer] else None
                    own, other = self._mapped(None, loss.level, states, other, own_mask)
                    if loss.level == "token":
                        own, other = own[mask.bool()], other[mask.bool()]
                    own_side, other_side = sides[self._key(layer, loss.level)]
                    own_side.append(own.cpu())
                    other_side.append(other.cpu())
        for key, mapper in self.mappers.items():
            if isinstance(mapper, FittedMapper) and not mapper.is_fitted:
                own, other = (torch.cat(side) for side in sides[key])
                mapper.fit(own, other) if mapper.needs_target else mapper.fit(other)

    def waits(self) -> bool:
        """Whether a closed-form mapper has still to be fitted."""
        return any(isinstance(mapper, FittedMapper) and not mapper.is_fitted for mapper in self.mappers.values())


def apply(mapper: Mapper | None, own: Tensor, other: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Both sides ``[B, L, d]`` with the mapper between them, on the side that it reads."""
    if mapper is None:
        return own, other
    if isinstance(mapper, FittedMapper) and not mapper.needs_target:
        return own, mapper(other, mask)
    return mapper(own, mask), other
