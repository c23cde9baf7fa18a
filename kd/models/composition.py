"""The composed student: a teacher's lowest layers, frozen, then a mapper, then a small classifier.

The classifier is called the body; it reads the mapped vectors in place of its own word vectors. The composition is
one Hugging Face model, which is saved, loaded and run without the teacher.

B rows, L tokens, d the encoder's width, C labels.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import SequenceClassifierOutput

from kd.errors import KDError
from kd.features.mapper import Mapper
from kd.features.mappers import new_mapper
from kd.losses.label import label_loss
from kd.measure.inference import evaluating
from kd.models.base import not_empty, token_mask, with_a_token
from kd.models.pretrained import new_student, two_rows
from kd.storage.model_folder import longest_text

DROPPED = (
    *("attn_implementation", "auto_map", "dtype", "experts_implementation", "id2label", "label2id", "name_or_path"),
    *("output_attentions", "output_hidden_states", "quantization_config", "return_dict", "torch_dtype"),
    "transformers_version",
)
"""Keys removed from a part's configuration: they would fetch code or weights, or set precision, labels or outputs."""


class ComposedStudentConfig(PreTrainedConfig):
    """The configuration of a `ComposedStudent`; `composed_config` builds one.

    Args:
        encoder: the encoder's configuration as a dict, with its ``model_type``.
        layer: number of the teacher's layers in the encoder; 0 is its embeddings alone.
        mapper: the mapper as `kd.features.mapper.Mapper.spec` returns it.
        student: the body's configuration as a dict; its labels are those of this config.
        pad_token_id: the encoder's id of the padding token.
        max_position_embeddings: largest number of tokens that encoder and body can read; None without a limit.
    """

    model_type = "kd-mapped"  # the name in the files of saved models, so it stays
    supported_outputs: ClassVar[frozenset[str]] = frozenset({"logits", "hidden_states"})

    encoder: dict | None = None
    layer: int = 0
    mapper: dict | None = None
    student: dict | None = None
    pad_token_id: int | None = None
    max_position_embeddings: int | None = None


class ComposedStudent(PreTrainedModel):
    """Frozen encoder -> mapper -> body.

    The encoder is never trained: it gets no gradient, has no dropout, and keeps full precision under autocast. For the
    body, tokens outside the mask are zero vectors, and an empty text is one zero vector.

    Args:
        config: the configuration of all parts.
        encoder: the teacher's lowest layers; None for random weights.
        body: the classifier; None for random weights.
    """

    config_class = ComposedStudentConfig
    config: ComposedStudentConfig

    def __init__(
        self, config: ComposedStudentConfig, encoder: PreTrainedModel | None = None, body: PreTrainedModel | None = None
    ):
        super().__init__(config)
        self.encoder = encoder or _new_encoder(_read(config.encoder))
        self.body = body or new_student(_body_config(config))
        self.mapper = new_mapper(config.mapper or {}, self.encoder.config.hidden_size, _word_size(self.body))
        self.post_init()
        self.train(self.training)

    def train(self, mode: bool = True) -> ComposedStudent:
        """Set the mode of mapper and body; the encoder, and the body's unused word table, stay frozen."""
        super().train(mode)
        self.encoder.eval()
        # Here, because from_pretrained creates new parameters that require gradients, and then calls eval().
        self.encoder.requires_grad_(False)
        self.body.get_input_embeddings().requires_grad_(False)
        return self

    def features_of(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Return the encoder's output [B, L, d], without gradient and with arbitrary values at padded positions."""
        if input_ids.shape[1] == 0:
            return torch.zeros(*input_ids.shape, self.encoder.config.hidden_size, device=input_ids.device)
        with torch.no_grad(), torch.autocast(input_ids.device.type, enabled=False):
            return self.encoder(input_ids=input_ids, attention_mask=attention_mask.long()).last_hidden_state

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        features: Tensor | None = None,
        labels: Tensor | None = None,
        output_hidden_states: bool | None = None,
        output_attentions: bool | None = None,
        **ignored: Any,
    ) -> SequenceClassifierOutput:
        """Classify as `kd.models.base.Student.forward` does; the ids are those of the teacher's vocabulary.

        Args:
            features: [B, L, d], an earlier output of `features_of`, in any float type; then the encoder is not run.
            output_hidden_states: return features, mapped features and the body's states above its embeddings.

        Raises:
            KDError: ``output_attentions`` is set, or there are neither ids nor features.
        """
        if output_attentions or self.config.output_attentions:
            raise KDError("a composed student gives no attention maps, found output_attentions=true; set it to false")
        if input_ids is None and features is None:
            raise KDError("a composed student expected input_ids or features, found neither; give one of them")
        mask = token_mask(attention_mask, input_ids, features, self.config.pad_token_id)
        if features is None:
            features = self.features_of(cast(Tensor, input_ids), mask)
        features, mask = not_empty(features, mask)
        mapped = self.mapper(features, mask).to(self.body.dtype)
        if self.mapper.pools:
            mask = torch.ones_like(mask[:, :1])
        mapped = mapped.masked_fill(~mask.unsqueeze(-1), 0)
        if output_hidden_states is None:
            output_hidden_states = self.config.output_hidden_states
        mask = with_a_token(mask).long()
        answer = self.body(inputs_embeds=mapped, attention_mask=mask, output_hidden_states=output_hidden_states)
        return SequenceClassifierOutput(
            loss=None if labels is None else label_loss(answer.logits, labels),
            logits=answer.logits,
            hidden_states=(features, mapped, *answer.hidden_states[1:]) if output_hidden_states else None,
        )

    def get_input_embeddings(self) -> nn.Module:
        return self.encoder.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.encoder.set_input_embeddings(value)

    def _init_weights(self, module: nn.Module) -> None:
        """Do nothing: each part has its own initialisation, which Hugging Face's would replace."""


def composed_config(
    encoder_config: PreTrainedConfig, layer: int | None, mapper: Callable[..., Mapper], student_config: PreTrainedConfig
) -> ComposedStudentConfig:
    """Build the configuration of a composition, without any weights.

    Args:
        encoder_config: the teacher's configuration.
        layer: the last layer to keep; 0 keeps the embeddings alone, None keeps all layers.
        mapper: (in_size, out_size) -> a new mapper.
        student_config: the body's configuration, with the labels; its vocabulary is dropped.

    Raises:
        KDError: an impossible layer number, impossible sizes of the body, or widths that the mapper refuses.
    """
    layer = _layer_number(encoder_config, layer)
    encoder = _read(encoder_config.to_dict())
    encoder.num_hidden_layers = layer
    limits = [longest_text(encoder), longest_text(student_config)]
    config = ComposedStudentConfig(
        encoder=_plain(encoder.to_dict()),
        layer=layer,
        # The body reads vectors, so its word table is a single unused row.
        student=_plain(student_config.to_dict()) | {"vocab_size": 1, "pad_token_id": 0},
        id2label=copy.copy(student_config.id2label),
        label2id=copy.copy(student_config.label2id),
        pad_token_id=encoder.pad_token_id,
        max_position_embeddings=min((limit for limit in limits if limit is not None), default=None),
    )
    with torch.device("meta"):  # the widths alone, without memory or random numbers
        config.mapper = mapper(in_size=encoder.hidden_size, out_size=word_size(config)).spec()
    return config


def compose(
    teacher: PreTrainedModel, layer: int | None, mapper: Callable[..., Mapper], student_config: PreTrainedConfig
) -> ComposedStudent:
    """Build a student from a copy of the teacher's encoder, a new mapper and a new body, on the teacher's device.

    Args:
        teacher: a Hugging Face classifier, which is not changed.
        layer, mapper: as for `composed_config`.
        student_config: the body's configuration, with the labels. If it comes from a checkpoint, the body gets all
            of its weights except the word table.

    Raises:
        KDError: as `composed_config`, or the teacher cannot be cut after this layer.
    """
    config = composed_config(teacher.config, layer, mapper, student_config)
    body = _body_config(config)
    body.name_or_path = student_config.name_or_path
    student: Any = ComposedStudent(config, _cut(teacher, config), new_student(body))
    return student.to(teacher.device)


def word_size(config: ComposedStudentConfig) -> int:
    """Return the width of the vectors that the body reads, without its weights."""
    with torch.device("meta"):
        return _word_size(new_student(_body_config(config)))


def teacher_share(model: ComposedStudent) -> dict[str, int]:
    """Return the number of parameters of each part; the encoder's are the teacher's."""
    parts = {"encoder": model.encoder, "mapper": model.mapper, "body": model.body}
    return {name: sum(parameter.numel() for parameter in part.parameters()) for name, part in parts.items()}


def _cut(teacher: PreTrainedModel, config: ComposedStudentConfig) -> PreTrainedModel:
    """Return the teacher's encoder with the layers of this config, after a check against the whole teacher."""
    base = cast(PreTrainedModel, teacher.base_model)
    encoder: Any = None
    try:
        encoder = _new_encoder(_read(config.encoder))
        encoder.to(teacher.device, teacher.dtype).eval()
        weights = base.state_dict()
        encoder.load_state_dict({name: weights[name] for name in encoder.state_dict()})
        inputs = two_rows(base, min(8, longest_text(base.config) or 8))
        with torch.no_grad(), evaluating(base):
            whole = base(**inputs, return_dict=True, output_hidden_states=True).hidden_states[config.layer]
            found = encoder(**inputs, return_dict=True).last_hidden_state
        real = inputs["attention_mask"].bool()
        same = torch.allclose(found[real], whole[real], atol=1e-4, rtol=1e-4)
        reason = "" if same else "the lower part gives other hidden states"
    except Exception as error:  # what an architecture that cannot be cut raises differs from one to the next
        reason = str(error).strip() or type(error).__name__
    if reason:
        raise KDError(
            f"teacher '{teacher.config.model_type}' cannot be cut after layer {config.layer} "
            f"({' '.join(reason.split())[:200]}); keep all layers (method.layer=null), or use another teacher"
        )
    return encoder.float()


def _layer_number(config: PreTrainedConfig, layer: int | None) -> int:
    depth = getattr(config, "num_hidden_layers", None)
    if depth is None:
        raise KDError(f"teacher '{config.model_type}' has no layers to cut after; use a transformer as the teacher")
    if layer is None:
        return depth
    if type(layer) is not int or not 0 <= layer <= depth:
        raise KDError(
            f"impossible layer number {layer!r}: teacher '{config.model_type}' can be cut after layer 1 to {depth}, "
            "or 0 for its embeddings alone; set method.layer to one of these, or to null for all"
        )
    return layer


def _new_encoder(config: PreTrainedConfig) -> PreTrainedModel:
    with torch.random.fork_rng(devices=[]):  # so that mapper and body start from the seed, whatever the encoder's size
        try:
            return AutoModel.from_config(config, add_pooling_layer=False)
        except TypeError:  # an architecture without a pooler
            return AutoModel.from_config(config)


def _body_config(config: ComposedStudentConfig) -> PreTrainedConfig:
    """Return the body's configuration with the labels of the composition, which loading may have changed."""
    body = _read(config.student)
    body.id2label, body.label2id = copy.copy(config.id2label), copy.copy(config.label2id)
    return body


def _word_size(body: PreTrainedModel) -> int:
    return cast(nn.Embedding, body.get_input_embeddings()).embedding_dim


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name not in DROPPED and not name.startswith("_")}


def _read(values: dict[str, Any] | None) -> PreTrainedConfig:
    """Build a configuration of a registered type; code that the values name is never run."""
    return AutoConfig.for_model(**_plain(values or {}))
