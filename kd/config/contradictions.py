"""Find settings that contradict one another: each value is allowed, but not together with the others."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from kd.errors import KDError
from kd.features.matching import layer_pairs
from kd.methods.base import Method
from kd.methods.composition import Composition
from kd.methods.distillation import Distillation
from kd.methods.hints import Hints
from kd.methods.joint import Joint
from kd.methods.supervised import Supervised
from kd.options.methods import JointOptions
from kd.run.identity import TOWARDS_WORDS, has_transfer_set
from kd.runtime.devices import _strategy, is_sharded
from kd.storage.paths import plain_name

ENCODED = "kd.models.encoded.EncodedEmbeddings"
TRUNCATED = "kd.models.truncated.TruncatedConfig"
CHECKPOINT = "kd.models.pretrained.pretrained_config"
OWN = "kd.models.embeddings.OwnEmbeddings"
NGRAMS = "kd.models.hashed.HashedNGramsConfig"


def of_streaming(config: DictConfig, kind: type[Method]) -> list[str]:
    """Return what contradicts ``data.stream=true``, one sentence for each."""
    mistakes = []
    if kind not in (Distillation, Supervised):
        mistakes.append(
            "data.stream=true is read by method=distillation and by its baseline method=supervised, got method="
            f"{config.choices.method}; choose one of them, or set data.stream=false"
        )
    if not config.data.get("unlabelled") and not has_transfer_set(config):
        mistakes.append(
            "data.stream=true streams the files of data.unlabelled and the texts of transfer=[...], got none; give "
            "them, or leave it out"
        )
    if config.data.get("limit") is not None:
        mistakes.append("data.limit chooses rows in memory; with data.stream=true give a smaller file instead")
    if kind is Distillation and not config.cache.use:
        mistakes.append("data.stream=true reads the teacher's logits from disk; leave cache.use=true")
    return mistakes


def of_counterparts(config: DictConfig) -> list[str]:
    """Return what contradicts comparing rows about women with rows about men, one sentence for each."""
    method = config.method
    named = next((key for key in ("consistency", "fair_weights") if method.get(key)), None)
    if named and config.data.get("stream"):
        return [f"method.{named} compares rows in memory; set data.stream=false, or method.{named}=0"]
    if method.get("fair_weights") and not config.cache.use:
        return ["method.fair_weights reads the stored outputs of the teacher; leave cache.use=true, or set it to 0"]
    return []


def of_selection(config: DictConfig, kind: type[Method]) -> list[str]:
    """Return what contradicts the choice of rows without a label, one sentence for each."""
    node: Any = config.get("selection")
    mistakes: list[str] = []
    if kind is Supervised or not node:
        return mistakes
    if node.rows is None:
        if node.by != "random" or node.balanced or node.path:
            mistakes.append("selection: expected the number of rows to keep, got none; set selection.rows")
        return mistakes
    if (node.by == "disagreement") != bool(node.path):
        mistakes.append(
            f"selection.by=disagreement compares the teacher with the student in selection.path, got selection.by="
            f"{node.by} and selection.path={node.path or 'null'}; set both or neither"
        )
    elif node.path and not Path(node.path).is_dir():
        mistakes.append(f"selection.path: expected the folder of a student, such as RUN/model, found no '{node.path}'")
    if kind is not Distillation or not config.cache.use or config.data.get("stream") or is_answers(config):
        mistakes.append(
            "selection.rows needs method=distillation with the stored outputs of a model in memory; leave "
            "cache.use=true and data.stream=false, or set selection.rows=null"
        )
    return mistakes


def is_answers(config: DictConfig) -> bool:
    """Return whether the teacher is a file of answers."""
    return bool(config.teacher) and config.teacher.get("_target_") == "kd.teacher.answers.Answers"


def of_answers(config: DictConfig, kind: type[Method]) -> list[str]:
    """Return what a teacher that is a file cannot give, one sentence for each."""
    mistakes = []
    if config.tokenizer._target_ == "kd.data.tokenizers.TeacherTokenizer" and not config.teacher.get("words_of"):
        mistakes.append(
            f"tokenizer={config.choices.tokenizer} is made from the teacher's, and teacher=answers is a file without "
            "one; set tokenizer=words embeddings=random, or teacher.words_of=MODEL for a model that has one"
        )
    if config.embeddings._target_ == "kd.models.embeddings.TeacherEmbeddings" and not config.teacher.get("words_of"):
        mistakes.append(
            f"embeddings={config.choices.embeddings} is made from the teacher's word table, and teacher=answers is a "
            "file without one; set embeddings=random or vectors, or teacher.words_of=MODEL for a model that has one"
        )
    if config.embeddings._target_ == ENCODED:
        mistakes.append(
            "embeddings=encoded is what the teacher answers to single words, and teacher=answers is a file without a "
            "model to ask; set embeddings=random or vectors"
        )
    if config.student._target_ == TRUNCATED:
        mistakes.append(
            "student=truncated is cut out of the teacher, and teacher=answers is a file without layers; choose another "
            "student"
        )
    if kind not in (Distillation, Supervised):
        mistakes.append(
            f"method={config.choices.method} reads the teacher's layers, and teacher=answers is a file of logits; "
            "choose method=distillation"
        )
    if not config.cache.use:
        mistakes.append("teacher=answers has no model to run at every step; leave cache.use=true")
    if config.data.get("stream"):
        mistakes.append("teacher=answers is read into memory as a whole; set data.stream=false")
    return mistakes


def _needs_teacher(config: DictConfig) -> list[str]:
    if config.teacher:
        return []
    return [f"method={config.choices.method} learns from a teacher, and teacher=none gives none; choose teacher=..."]


def _of_hints(config: DictConfig) -> list[str]:
    mistakes, layers = _needs_teacher(config), config.method.layers
    if not layers:
        mistakes.append("method.layers: expected at least one pair of layers, got none; use method.layers=top")
    elif isinstance(layers, str):
        try:
            layer_pairs(layers, [1], 1000)  # a depth of which the teacher has less, but no rule needs more
        except KDError as error:
            mistakes.append(f"method.{error}")
    if 0 < (config.trainer.max_epochs or math.inf) <= config.method.feature_epochs:
        mistakes.append(
            f"method.feature_epochs={config.method.feature_epochs} leaves none of trainer.max_epochs="
            f"{config.trainer.max_epochs} for the task; lower the one or raise the other"
        )
    return mistakes


def is_ensemble(teacher: DictConfig | None) -> bool:
    """Return whether a teacher is several models: members by name, or several seeds of one."""
    if not teacher or not OmegaConf.is_dict(teacher):
        return False
    return "members" in teacher or (isinstance(seeds := teacher.get("seeds"), int) and seeds > 1)


def _of_composition(config: DictConfig) -> list[str]:
    mistakes = _needs_teacher(config)
    if is_ensemble(config.teacher):
        mistakes.append("method=composition takes layers of one teacher, got an ensemble; choose a single teacher")
    if config.choices.embeddings == "random" and config.mapper._target_ in TOWARDS_WORDS:
        mistakes.append(
            "this mapper is fitted to the initial word table of the student, and embeddings=random is noise; use "
            "embeddings=pca, or mapper=linear or pca"
        )
    if config.teacher and config.teacher.get("answer_precision", "32-true") != "32-true":
        mistakes.append(
            "method=composition takes layers of the teacher into the student; leave teacher.answer_precision=32-true"
        )
    return mistakes


def _of_joint(config: DictConfig) -> list[str]:
    mistakes = []
    peers = config.peers
    if not OmegaConf.is_dict(peers) or not all(OmegaConf.is_dict(node) for node in peers.values()):
        return [f"peers: expected students by name, as +student@peers.NAME=dan adds one, got {peers or 'null'}"]
    for name in peers:
        plain_name(name, "peers")  # it becomes a folder in partners/
    if {"teacher", "student"} & set(peers):
        mistakes.append("peers: 'teacher' and 'student' name other models of the run; choose other names")
    if config.cache.use and not (config.teacher and config.method.frozen_layers):
        mistakes.append(
            "method=joint trains the teacher, and cached outputs would no longer be its own; leave cache.use=false, or "
            "freeze its lowest layers (method.frozen_layers): their outputs do not change"
        )
    if not config.teacher and not peers and not config.method.copies:
        mistakes.append(
            "method=joint needs a partner, got none; choose teacher=..., method.copies=1 or +student@peers.NAME=..."
        )
    for name in () if config.teacher else JointOptions.needs_teacher:
        default = getattr(JointOptions, name)
        if config.method[name] != default:
            mistakes.append(
                f"method.{name}={config.method[name]} has no effect with teacher=none; leave it at {default}"
            )
    if is_ensemble(config.teacher):
        mistakes.append("method=joint trains one teacher, got an ensemble; choose a single teacher")
    if config.teacher and "teacher" in config.teacher and config.method.teacher_start == "cold":
        mistakes.append("method.teacher_start=cold starts from a backbone, and teacher=assistant has none; use warm")
    return mistakes


def of_start(config: DictConfig, kind: type[Method]) -> list[str]:
    """Return what contradicts a student that starts from a trained model, one sentence for each."""
    mistakes, embeddings, teacher = [], config.embeddings._target_, config.teacher
    if config.student._target_ == CHECKPOINT and kind is not Composition:
        if embeddings != OWN:
            mistakes.append(
                f"student=hf keeps the word table of its checkpoint, got embeddings={config.choices.embeddings}; leave "
                "embeddings=own"
            )
        if not config.tokenizer._target_.endswith("PretrainedTokenizer") and config.tokenizer.get("restrict", True):
            mistakes.append(
                f"student=hf reads the tokens of its checkpoint, got tokenizer={config.choices.tokenizer}; leave "
                "tokenizer=pretrained, or choose tokenizer=teacher if both have one vocabulary"
            )
    cut = config.student._target_ == TRUNCATED
    peers = config.peers if OmegaConf.is_dict(config.peers) else {}
    for name in [name for name, node in peers.items() if OmegaConf.is_dict(node) and node._target_ == TRUNCATED]:
        mistakes.append(f"peers.{name}: only the student itself can be cut out of the teacher; choose another student")
    if cut and kind is Composition:
        return ["method=composition takes layers of the teacher, and student=truncated is some; choose another student"]
    if cut:
        if not teacher:
            mistakes.append("student=truncated is cut out of the teacher, and teacher=none gives none; choose one")
        elif is_ensemble(teacher):
            mistakes.append("student=truncated is cut out of one teacher, got an ensemble; choose a single teacher")
        if peers:
            mistakes.append("student=truncated starts from the teacher, and peers do not; use method.copies alone")
        if embeddings != OWN:
            mistakes.append("student=truncated keeps the teacher's word table; leave embeddings=own")
        if config.tokenizer._target_ != "kd.data.tokenizers.TeacherTokenizer":
            mistakes.append("student=truncated reads the teacher's tokens; use tokenizer=teacher or restricted")
    encoded = embeddings == ENCODED
    if encoded and kind is Composition and config.mapper._target_ in TOWARDS_WORDS:
        mistakes.append(
            "this mapper is fitted to the initial word table of the student, which embeddings=encoded makes after the "
            "teacher's training; use embeddings=pca, or mapper=linear or pca"
        )
    node = config.student if cut else config.embeddings
    if (cut or encoded) and teacher and not node.fine_tuned and "teacher" in teacher:
        place = "student" if cut else "embeddings"
        mistakes.append(f"{place}.fine_tuned=false reads a backbone, and teacher=assistant has none; set it to true")
    return mistakes


def of_ngrams(config: DictConfig, kind: type[Method]) -> list[str]:
    """Return what contradicts a student of hashed n-grams, one sentence for each."""
    peers = config.peers.values() if OmegaConf.is_dict(config.peers) else []
    found = [node for node in (config.student, *peers) if OmegaConf.is_dict(node) and node._target_ == NGRAMS]
    if not found:
        return []
    if kind is Composition:
        return ["student=ngrams finds n-grams in the ids of words, which method=composition has not; choose another"]
    mistakes = []
    if config.student._target_ == NGRAMS and config.embeddings._target_ != "kd.models.embeddings.OwnEmbeddings":
        mistakes.append("student=ngrams has a table of hashed n-grams, which no word fills; leave embeddings=own")
    if any(node.sparse and not node.freeze_embeddings for node in found):
        place = "with the sparse gradients of student=ngrams"
        if config.trainer.devices * config.trainer.num_nodes > 1 or is_sharded(config):
            mistakes.append(
                f"{place} one device trains; set trainer.devices=1 and trainer.num_nodes=1, or sparse=false"
            )
        if config.compile:
            mistakes.append(
                f"{place} torch.compile leaves the table out and gains nothing; set compile=false, or sparse=false"
            )
        if config.optim.optimizer._target_ not in ("torch.optim.AdamW", "torch.optim.Adam"):
            mistakes.append(f"{place} Adam trains the table; use optim=adamw, or student.sparse=false")
        if config.balance.weighting._target_.rpartition(".")[2] in ("GradNorm", "PCGrad"):
            mistakes.append(
                f"{place} no weighting can compare gradients; use balance/weighting=constant or uncertainty"
            )
    return mistakes


OF_METHOD: dict[type[Method], Callable[[DictConfig], list[str]]] = {
    Distillation: _needs_teacher,
    Hints: _of_hints,
    Composition: _of_composition,
    Joint: _of_joint,
}
"""For each method with a second model: what finds its contradictions, one sentence for each."""

COMPARES_GRADIENTS = ("kd.methods.weighting.GradNorm", "kd.methods.weighting.PCGrad")


def of_trainer(config: DictConfig) -> list[str]:
    """Return what the trainer of the run cannot do, one sentence for each."""
    kinds = [node.get("_target_", "").rpartition(".")[2] for node in config.callbacks.values()]
    mistakes = []
    if config.trainer.get("max_epochs") is None and config.trainer.get("max_steps", -1) < 1:
        mistakes.append("trainer.max_epochs=null needs trainer.max_steps, got neither; set one of the two")
    every, epochs = config.trainer.get("check_val_every_n_epoch") or 1, config.trainer.get("max_epochs")
    if epochs and every > epochs:
        mistakes.append(
            f"trainer.check_val_every_n_epoch={every} leaves trainer.max_epochs={epochs} without a validation, from "
            "which the best epoch is known; lower it"
        )
    if config.optim.get("find"):
        if config.method._target_ == "kd.methods.joint.Joint":
            mistakes.append(
                "optim.find looks for one learning rate, and method=joint has several; set optim.find=false"
            )
        if config.trainer.devices * config.trainer.num_nodes > 1:
            mistakes.append(
                "optim.find=true trains on one device; find the rate with trainer.devices=1 and trainer.num_nodes=1, "
                "then give it as optim.optimizer.lr"
            )
        if config.optim.scale != "none":
            mistakes.append(
                f"optim.find=true finds the rate of this global batch, and optim.scale={config.optim.scale} would "
                "scale it again; leave optim.scale=none"
            )
    if is_sharded(config):
        if any(kind.endswith("WeightAveraging") for kind in kinds):
            mistakes.append("trainer=fsdp has no whole model to average; leave out callbacks ema, or use trainer=ddp")
        if config.compile:
            mistakes.append("compile=true and trainer=fsdp were never tried together; set compile=false")
        if config.balance.weighting.get("_target_") in COMPARES_GRADIENTS:
            mistakes.append(
                "this balance/weighting compares gradients of whole models, and trainer=fsdp has none; use "
                "balance/weighting=constant or uncertainty, or trainer=ddp"
            )
    if "deepspeed" in _strategy(config).lower() and "ModelCheckpoint" in kinds:
        mistakes.append(
            "DeepSpeed writes folders that kd neither resumes from nor takes the best epoch from; set "
            "callbacks=[progress] to keep the weights of the last step, or use trainer=fsdp"
        )
    return mistakes
