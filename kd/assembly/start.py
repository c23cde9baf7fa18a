"""Set the initial weights of a student that come from the trained teacher: its layers, or its vectors of the words."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from omegaconf import DictConfig
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from kd.config.contradictions import TRUNCATED
from kd.config.make import make
from kd.models.encoded import EncodedEmbeddings
from kd.models.fitted import FittedStudent
from kd.models.hashed import HashedNGrams
from kd.models.truncated import copy_layers
from kd.runtime.devices import Devices
from kd.storage.model_folder import load_classifier
from kd.teacher.base import AnyTeacher
from kd.teacher.outputs import TeacherOutputs
from kd.teacher.ready import ReadyTeacher
from kd.teacher.vocabulary import encoder, untrained


def start(
    model: PreTrainedModel,
    config: DictConfig,
    seed: int,
    tokenizer: PreTrainedTokenizerBase,
    teacher: AnyTeacher | None,
    outputs: Callable[[], TeacherOutputs],
) -> None:
    """Set the weights of a model that `kd.config.build.student` made; without a teacher, leave them as they are.

    Args:
        model: changed in place.
        config: of the run.
        seed: of the rows that the teacher does not have.
        tokenizer: the student's.
        teacher: before its training.
        outputs: returns those of the trained teacher; its first call trains it.
    """
    embeddings = make(config.embeddings)
    if teacher is None or isinstance(model, FittedStudent | HashedNGrams):
        return

    def source(fine_tuned: bool) -> ReadyTeacher:
        return outputs().members[0] if fine_tuned else untrained(teacher, Devices.of(config))

    if config.student._target_ == TRUNCATED:
        chosen = config.student
        folder = (ready := source(chosen.fine_tuned)).folder
        whole = load_classifier(folder, new_head=not ready.has_head)  # in float32, whatever the teacher answers in
        theirs = ready.tokenizer.get_vocab()
        words = [theirs[token] for token in tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))]
        copy_layers(whole, model, chosen.layers, words, ready.has_head)
    elif isinstance(embeddings, EncodedEmbeddings):
        table = model.get_input_embeddings().get_parameter("weight")
        reader = encoder(source(embeddings.fine_tuned), embeddings.pooling, Path(config.outputs))
        known = embeddings.encoded(table.shape[1], tokenizer, reader)
        with torch.no_grad():
            table.copy_(embeddings.start(table, tokenizer, known, torch.Generator().manual_seed(seed)))
