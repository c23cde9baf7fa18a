"""The parts of a run with hints."""

from __future__ import annotations

from functools import cached_property
from typing import Any, final

import numpy as np
from omegaconf import DictConfig

from kd.assembly.base import Assembly
from kd.config import build
from kd.contract import ATTENTION_OUTPUTS
from kd.data.batching import EncodedSplit
from kd.data.sources import Splits
from kd.errors import KDError
from kd.features.attention import require_recordable
from kd.methods.base import Method
from kd.options.methods import HintsOptions
from kd.teacher.base import AnyTeacher


@final
class HintsAssembly(Assembly):
    """A run that compares the student's layers with the teacher's."""

    options: HintsOptions
    teacher: AnyTeacher  # kd.config.contradictions refuses teacher=none

    def __init__(self, config: DictConfig, splits: Splits, teacher: AnyTeacher | None):
        super().__init__(config, splits, teacher)
        sources = self.teacher.sources(self.options.features_from)
        self.matchings = {
            member or "teacher": build.matching(
                config, self.options, self.objective.transfer, self.student, source.config, member
            )
            for member, source in sources.items()
        }
        self.features = {feature for matching in self.matchings.values() for feature in matching.features}
        for matching, source in zip(self.matchings.values(), sources.values(), strict=True):
            if matching.by_token:
                self._require_same_tokens(matching.by_token[0], source)
            if matching.outputs & ATTENTION_OUTPUTS:
                for model in (source.config, self.student.config):
                    require_recordable(model)
            self.require_room(source, matching.features)

    def _require_same_tokens(self, loss: str, source: AnyTeacher) -> None:
        """Refuse token-level terms between models that tokenise a text differently."""
        own, other = self.encoded("train").tokens, source.tokens(self.splits.train["text"])
        names = self.tokenizer.convert_ids_to_tokens(list(range(len(self.tokenizer))))
        ids = np.array(source.tokenizer.convert_tokens_to_ids(names))
        if not np.array_equal(own.offsets, other.offsets) or not np.array_equal(ids[own.values], other.values):
            raise KDError(
                f"loss '{loss}' compares token by token, and student and teacher tokenise the texts differently; use "
                "tokenizer=teacher or tokenizer=restricted with one max_length for both, or a loss on one vector a "
                "text, such as hint"
            )

    @cached_property
    def method(self) -> Method:
        return self.taught(matchings=self.matchings, teacher=self.outputs.source(self.features))

    def read(self, name: str) -> EncodedSplit:
        return self.attached(name, self.features) if name == "train" else self.encoded(name)

    def figures(self) -> dict[str, Any]:
        layers = {
            f"{teacher}/{name}": [list(pair) for pair in pairs]
            for teacher, matching in self.matchings.items()
            for name, pairs in matching.possible.items()
        }
        return {"layers": layers}
