"""Cut a student out of its teacher: some of its layers, with its embeddings, pooler and head.

The student has the teacher's own architecture with fewer layers, so it is saved as an ordinary Hugging Face model.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor
from transformers import AutoModelForSequenceClassification, PreTrainedConfig, PreTrainedModel

from kd.errors import KDError, OptionError
from kd.models.base import OwnConfig
from kd.models.pretrained import layer_lists
from kd.options.declared import DepthOrNone


class TruncatedConfig(OwnConfig):
    """Which layers of the teacher the student keeps; `of` makes the configuration of the student itself.

    Args:
        layers: numbers of the teacher's layers, from 0 for the lowest, rising.
        fine_tuned: true takes the weights of the fine-tuned teacher, with its head; false those of its backbone, with a
            new head.

    Source: Sanh et al. 2019 (DistilBERT), https://arxiv.org/abs/1910.01108, which keeps every other layer
    """

    model_type = "kd-truncated"

    layers: tuple[DepthOrNone, ...] = (0, 2, 4)
    fine_tuned: bool = True

    def __post_init__(self, **kwargs: Any) -> None:
        super().__post_init__(**kwargs)
        if not self.layers or list(self.layers) != sorted(set(self.layers)):
            raise OptionError("layers", "at least one number, rising, such as [0, 2, 4]", list(self.layers))

    def of(self, teacher: PreTrainedConfig) -> PreTrainedConfig:
        """Return the teacher's configuration with these layers only, this vocabulary and this number of labels.

        Raises:
            KDError: the teacher has fewer layers, no single list of them, or another padding id.
        """
        depth, kind = getattr(teacher, "num_hidden_layers", 0), teacher.model_type
        if depth <= (last := max(self.layers)):
            has = f"layers 0 to {depth - 1}" if depth else "no layers"
            raise KDError(f"student.layers: the teacher '{kind}' has {has}, got {last}; name some of its layers")
        if teacher.pad_token_id != self.pad_token_id:
            raise KDError(
                f"student=truncated reads the teacher's padding id {teacher.pad_token_id}, found a tokenizer with "
                f"{self.pad_token_id}; use tokenizer=teacher"
            )
        found = copy.deepcopy(teacher)
        found.name_or_path, found.dtype = "", torch.float32
        found.num_hidden_layers, found.vocab_size = len(self.layers), self.vocab_size
        found.num_labels = cast(int, self.num_labels)
        try:
            with torch.device("meta"):  # the names alone, without memory or random numbers
                whole, part = map(AutoModelForSequenceClassification.from_config, (teacher, found))
            lists = [layer_lists(model) for model in (whole, part)]
            reason = "" if [len(each) for each in lists] == [1, 1] else "it does not keep them in one list"
            reason = reason or _lacking(whole, part, lists[0][0][0], self.layers)
        except Exception as error:  # what an architecture that cannot be cut raises differs from one to the next
            reason = " ".join(str(error).split())[:200] or type(error).__name__
        if reason:
            raise KDError(
                f"student=truncated cannot take single layers out of a teacher of type '{kind}' ({reason}); use an "
                "encoder such as BERT, RoBERTa, MPNet, DistilBERT or ELECTRA"
            )
        return found


def _lacking(whole: PreTrainedModel, part: PreTrainedModel, place: str, layers: Sequence[int]) -> str:
    """Return a clause that names a weight of the part that the whole does not have; empty if it has all."""
    known = whole.state_dict().keys()
    lacking = [name for name in part.state_dict() if _name_in_whole(name, place, layers) not in known]
    return f"it lacks {lacking[0]}" if lacking else ""


def _name_in_whole(name: str, place: str, layers: Sequence[int]) -> str:
    """Return the teacher's name of a student's weight.

    >>> _name_in_whole("bert.encoder.layer.1.output.dense.bias", "bert.encoder.layer", [0, 2, 4])
    'bert.encoder.layer.2.output.dense.bias'
    """
    if not name.startswith(f"{place}."):
        return name
    number, _, rest = name.removeprefix(f"{place}.").partition(".")
    return f"{place}.{layers[int(number)]}.{rest}"


@torch.no_grad()
def copy_layers(
    whole: PreTrainedModel, student: PreTrainedModel, layers: Sequence[int], words: Sequence[int], with_head: bool
) -> None:
    """Copy the teacher's weights into a student of the configuration that `TruncatedConfig.of` made.

    Args:
        whole: the teacher, or its backbone with any head.
        student: its head keeps its own weights, unless ``with_head``.
        layers: as in `TruncatedConfig`.
        words: the teacher's id of each token of the student's vocabulary.
        with_head: copy the head too.
    """
    ((place, _),) = layer_lists(whole)
    theirs, table = whole.state_dict(), whole.get_input_embeddings().get_parameter("weight")
    prefix = f"{whole.base_model_prefix}."
    for name, own in student.state_dict().items():
        if with_head or name.startswith(prefix):
            value: Tensor = theirs[_name_in_whole(name, place, layers)]
            own.copy_(value[list(words)] if value.data_ptr() == table.data_ptr() else value)
