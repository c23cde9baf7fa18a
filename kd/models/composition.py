"""A teacher's encoder, cut and frozen, a mapper, and a small classifier that reads the mapped vectors as its words.

B rows, L tokens, d the encoder's width, C labels. The composition is one Hugging Face model that saves, loads and
runs by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import SequenceClassifierOutput

from kd.errors import KDError
from kd.features.mapper import Mapper
from kd.features.mappers import new_mapper
from kd.models.base import label_loss
from kd.models.pretrained import new_student
from kd.storage.model_folder import longest_text

DROPPED = ("attn_implementation", "auto_map", "dtype", "experts_implementation", "id2label", "label2id", "name_or_path")
DROPPED += ("output_attentions", "output_hidden_states", "quantization_config", "return_dict", "torch_dtype")
DROPPED += ("transformers_version",)
"""What a part's configuration must not decide: what is fetched, precision, labels, what it returns."""


class ComposedStudentConfig(PreTrainedConfig):
    """Everything that `ComposedStudent` is built from; `composed_config` makes one.

    Args:
        encoder: the cut encoder's configuration as a dict, with its ``model_type``.
        layer: layers of the teacher that are left; 0 is its embeddings alone.
        mapper: as `kd.features.mapper.Mapper.spec` says it.
        student: the body's configuration as a dict; its labels are those of this config.
        pad_token_id: the encoder's.
        max_position_embeddings: tokens that encoder and body have positions for; None without a limit.
    """

    model_type = "kd-mapped"
    supported_outputs: ClassVar[frozenset[str]] = frozenset({"logits", "hidden_states"})

    encoder: dict | None = None
    layer: int = 0
    mapper: dict | None = None
    student: dict | None = None
    pad_token_id: int | None = None
    max_position_embeddings: int | None = None


class ComposedStudent(PreTrainedModel):
    """Frozen encoder -> mapper -> body.

    The encoder never trains: no gradient, no dropout, full precision under autocast. Tokens outside the mask are
    zero vectors for the body, and a row without any token reads as one zero vector.

    Args:
        config: what each part is built from, unless it is given.
        encoder: as it was cut.
        body: the classifier.
    """

    config_class = ComposedStudentConfig
    config: ComposedStudentConfig

    def __init__(
        self, config: ComposedStudentConfig, encoder: PreTrainedModel | None = None, body: PreTrainedModel | None = None
    ):
        super().__init__(config)
        self.encoder = encoder or _new_encoder(_read(config.encoder))
        self.body = body or new_student(_body_config(config))
        self.mapper = new_mapper(config.mapper, self.encoder.config.hidden_size, _word_size(self.body))
        self.post_init()
        self.train(self.training)

    def train(self, mode: bool = True) -> ComposedStudent:
        """Training mode for mapper and body; the encoder, and the word table that nobody reads, stay frozen."""
        super().train(mode)
        self.encoder.eval()
        # Loading makes new parameters, all of which take gradients, and ends with a call of eval().
        self.encoder.requires_grad_(False)
        self.body.get_input_embeddings().requires_grad_(False)
        return self

    def features_of(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """The encoder's output [B, L, d], without gradient; padded positions hold anything."""
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
        """Classify; ``token_type_ids`` and the like are accepted and ignored.

        Args:
            input_ids: [B, L], in the teacher's vocabulary.
            attention_mask: [B, L], 1 for a token; without it every id but the padding is a token.
            features: [B, L, d], what `features_of` said earlier, in any float type; the encoder is not run.
            labels: [B]; rows with -100 add nothing to the loss.
            output_hidden_states: return features, mapped features and the body's states above its embeddings.
            output_attentions: refused.

        Returns:
            loss (mean cross-entropy of the labelled rows; 0 where there are none; None without labels),
            logits [B, C], hidden_states.

        Raises:
            KDError: attention maps asked for, or nothing to read.
        """
        if output_attentions or self.config.output_attentions:
            raise KDError("a composed student gives no attention maps, and output_attentions asks for them; unset it")
        read = features if input_ids is None else input_ids
        if read is None:
            raise KDError("a composed student reads input_ids or features, and got neither; give one of them")
        if attention_mask is not None:
            mask = attention_mask.bool()
        elif input_ids is not None and self.config.pad_token_id is not None:
            mask = input_ids != self.config.pad_token_id
        else:
            mask = torch.ones(read.shape[:2], dtype=torch.bool, device=read.device)
        if features is None:
            features = self.features_of(input_ids, mask)
        if mask.shape[1] == 0:
            features, mask = F.pad(features, (0, 0, 0, 1)), F.pad(mask, (0, 1))
        mapped = self.mapper(features, mask).to(self.body.dtype)
        if self.mapper.pools:
            mask = torch.ones_like(mask[:, :1])
        mapped = mapped.masked_fill(~mask.unsqueeze(-1), 0)
        if output_hidden_states is None:
            output_hidden_states = self.config.output_hidden_states
        mask = _never_empty(mask).long()
        answer = self.body(inputs_embeds=mapped, attention_mask=mask, output_hidden_states=output_hidden_states)
        return SequenceClassifierOutput(
            loss=None if labels is None else label_loss(answer.logits, labels),
            logits=answer.logits,
            hidden_states=(features, mapped, *answer.hidden_states[1:]) if output_hidden_states else None,
        )

    def get_input_embeddings(self) -> nn.Module:
        """The encoder's word table."""
        return self.encoder.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Put another word table in its place."""
        self.encoder.set_input_embeddings(value)

    def _init_weights(self, module: nn.Module) -> None:
        """Nothing: encoder and body have started themselves, and Hugging Face's start is not the mapper's."""


def composed_config(
    encoder_config: PreTrainedConfig,
    layer: int | None,
    mapper: Mapper | Mapping[str, Any] | Callable[..., Mapper],
    student_config: PreTrainedConfig,
) -> ComposedStudentConfig:
    """The configuration of a composition, made without any weights.

    Args:
        encoder_config: the teacher's.
        layer: the last layer that is kept; 0 keeps the embeddings alone, None everything.
        mapper: or what its ``spec()`` says, or what makes one when called with ``in_size`` and ``out_size``.
        student_config: the body's, with the labels; its vocabulary is dropped.

    Raises:
        KDError: an impossible layer number, sizes that make no body, or widths that the mapper cannot join.
    """
    layer = _layer_number(encoder_config, layer)
    encoder = _read(encoder_config.to_dict())
    encoder.num_hidden_layers = layer
    limits = [longest_text(encoder), longest_text(student_config)]
    config = ComposedStudentConfig(
        encoder=_plain(encoder.to_dict()),
        layer=layer,
        student=_plain(student_config.to_dict()) | {"vocab_size": 1, "pad_token_id": 0},
        id2label=dict(student_config.id2label),
        label2id=dict(student_config.label2id),
        pad_token_id=encoder.pad_token_id,
        max_position_embeddings=min((limit for limit in limits if limit is not None), default=None),
    )
    if not isinstance(mapper, Mapper):
        new = partial(new_mapper, mapper) if isinstance(mapper, Mapping) else mapper
        with torch.device("meta"):
            mapper = new(in_size=encoder.hidden_size, out_size=_word_size(new_student(_body_config(config))))
    config.mapper = mapper.spec()
    return config


def compose(
    teacher: PreTrainedModel, layer: int | None, mapper: Callable[..., Mapper], student_config: PreTrainedConfig
) -> ComposedStudent:
    """A copy of the teacher's encoder up to a layer, with a new mapper and a new body on top, on its device.

    Args:
        teacher: a Hugging Face classifier; it stays as it is.
        layer, mapper: as for `composed_config`.
        student_config: the body's, with the labels. A checkpoint that it came from gives all weights but the words'.

    Raises:
        KDError: as `composed_config`, or a teacher that cannot be cut there.
    """
    config = composed_config(teacher.config, layer, mapper, student_config)
    body = _body_config(config)
    body.name_or_path = student_config.name_or_path
    return ComposedStudent(config, _cut(teacher, config), new_student(body)).to(teacher.device)


def teacher_share(model: ComposedStudent) -> dict[str, int]:
    """Parameters of each part: how much of the teacher is still there."""
    parts = {"encoder": model.encoder, "mapper": model.mapper, "body": model.body}
    return {name: sum(parameter.numel() for parameter in part.parameters()) for name, part in parts.items()}


def _cut(teacher: PreTrainedModel, config: ComposedStudentConfig) -> PreTrainedModel:
    """The teacher's encoder with the layers that this config leaves it, checked against the whole."""
    base = teacher.base_model
    try:
        encoder = _new_encoder(_read(config.encoder)).to(teacher.device, teacher.dtype).eval()
        weights = base.state_dict()
        encoder.load_state_dict({name: weights[name] for name in encoder.state_dict()})
        reason = "" if _gives_state(encoder, base, config.layer) else "what is left gives other hidden states"
    except Exception as error:  # architectures that cannot be cut show it as any of a dozen kinds
        reason = str(error).strip() or type(error).__name__
    if reason:
        raise KDError(
            f"teacher '{teacher.config.model_type}' cannot be cut after layer {config.layer} "
            f"({' '.join(reason.split())[:200]}); keep all layers (method.layer=null), or use another teacher"
        )
    return encoder.float()


@torch.no_grad()
def _gives_state(encoder: PreTrainedModel, whole: PreTrainedModel, layer: int) -> bool:
    """Whether the encoder's output is ``hidden_states[layer]`` of the whole, on two random rows."""
    length = min(8, longest_text(whole.config) or 8)
    ids = torch.randint(whole.config.vocab_size, (2, length), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    mask[1, (length + 1) // 2 :] = 0
    inputs = {"input_ids": ids.to(whole.device), "attention_mask": mask.to(whole.device), "return_dict": True}
    training = whole.training
    whole.eval()
    try:
        expected = whole(**inputs, output_hidden_states=True).hidden_states[layer]
    finally:
        whole.train(training)
    tokens = inputs["attention_mask"].bool()
    return torch.allclose(encoder(**inputs).last_hidden_state[tokens], expected[tokens], atol=1e-4, rtol=1e-4)


def _layer_number(config: PreTrainedConfig, layer: int | None) -> int:
    depth = getattr(config, "num_hidden_layers", None)
    if depth is None:
        raise KDError(f"teacher '{config.model_type}' has no layers to cut between; use a transformer as the teacher")
    if layer is None:
        return depth
    if type(layer) is not int or not 0 <= layer <= depth:
        raise KDError(
            f"impossible layer number {layer!r}: teacher '{config.model_type}' can be cut after layer 1 to {depth}, "
            "or 0 for its embeddings alone; set method.layer to one of these, or to null for all"
        )
    return layer


def _new_encoder(config: PreTrainedConfig) -> PreTrainedModel:
    with torch.random.fork_rng(devices=[]):  # so that the start of mapper and body depends on the seed alone
        try:
            return AutoModel.from_config(config, add_pooling_layer=False)
        except TypeError:  # an architecture without a pooler
            return AutoModel.from_config(config)


def _body_config(config: ComposedStudentConfig) -> PreTrainedConfig:
    """The body's configuration with the labels of the composition, which loading may have changed."""
    body = _read(config.student)
    body.id2label, body.label2id = dict(config.id2label), dict(config.label2id)
    return body


def _word_size(body: PreTrainedModel) -> int:
    return body.get_input_embeddings().embedding_dim


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name not in DROPPED and not name.startswith("_")}


def _read(values: dict[str, Any]) -> PreTrainedConfig:
    """A configuration of a registered type; code that it names is never run."""
    return AutoConfig.for_model(**_plain(values))


def _never_empty(mask: Tensor) -> Tensor:
    """The mask [B, L], with the first place of a row without any token set."""
    first = torch.arange(mask.shape[1], device=mask.device) == 0
    return mask | (first & ~mask.any(dim=1, keepdim=True))
