"""Settings that contradict one another are named, and others are not."""

import pytest

from kd.config import build
from kd.config.compose import composed
from kd.config.contradictions import (
    OF_METHOD,
    of_counterparts,
    of_ngrams,
    of_selection,
    of_start,
    of_streaming,
    of_trainer,
)

STREAM = ["data.stream=true", "data.unlabelled=[more.csv]"]
PEERS = ["method=joint", "teacher=none"]


def found(*overrides: str) -> list[str]:
    config = composed(overrides)
    kind = build.method_class(config)
    streaming = of_streaming(config, kind) if config.data.stream else []
    of_method = OF_METHOD[kind](config) if kind in OF_METHOD else []
    return [
        *of_trainer(config),
        *streaming,
        *of_start(config, kind),
        *of_ngrams(config, kind),
        *of_selection(config, kind),
        *of_counterparts(config),
        *of_method,
    ]


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        STREAM,
        [*STREAM, "method=supervised"],
        ["method=composition", "mapper=least_squares"],
        ["method=joint"],
        ["method=joint", "cache.use=true", "method.frozen_layers=2"],
        [*PEERS, "method.copies=1"],
        ["trainer.max_epochs=null", "+trainer.max_steps=9"],
        ["student=truncated", "student.fine_tuned=false", "tokenizer=restricted"],
        ["student=truncated", "teacher=assistant"],
        ["embeddings=encoded", "teacher=ensemble"],
        ["student=ngrams"],
        ["optim.find=true", "selection.rows=9", "selection.by=disagreement", "selection.path=."],
        ["method=supervised", "selection.rows=9", "cache.use=false"],
        ["student=ngrams", "student.sparse=false", "trainer.devices=2", "compile=true", "optim=adadelta"],
    ],
    ids=" ".join,
)
def test_what_goes_together(overrides):
    assert found(*overrides) == []


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        ([*STREAM, "method=joint"], "data.stream=true is read by method=distillation"),
        ([*STREAM, "method.consistency=1"], "method.consistency compares rows in memory; set data.stream=false"),
        (["method.fair_weights=1", "cache.use=false"], "method.fair_weights reads the stored outputs of the teacher"),
        (
            ["data.stream=true"],
            "data.stream=true streams the files of data.unlabelled and the texts of transfer=[...], got none",
        ),
        ([*STREAM, "data.limit=9"], "data.limit chooses rows in memory"),
        ([*STREAM, "cache.use=false"], "data.stream=true reads the teacher's logits from disk"),
        (["selection.by=uncertain"], "selection: expected the number of rows to keep, got none"),
        (["selection.rows=9", "selection.by=disagreement"], "compares the teacher with the student in selection.path"),
        (["selection.rows=9", "selection.path=run"], "got selection.by=random and selection.path=run; set both or"),
        (
            ["selection.rows=9", "selection.by=disagreement", "selection.path=no"],
            "expected the folder of a student, such as RUN/model, found no 'no'",
        ),
        (["selection.rows=9", "cache.use=false"], "selection.rows needs method=distillation with the stored outputs"),
        (["optim.find=true", "method=joint"], "optim.find looks for one learning rate, and method=joint has several"),
        (["optim.find=true", "trainer.devices=2"], "optim.find=true trains on one device"),
        (["optim.find=true", "optim.scale=sqrt"], "leave optim.scale=none"),
        (["teacher=none"], "method=distillation learns from a teacher"),
        (["method=hints", "method.feature_epochs=3", "trainer.max_epochs=3"], "method.feature_epochs=3 leaves none"),
        (["method=composition", "teacher=ensemble"], "method=composition takes layers of one teacher"),
        (["method=composition", "mapper=procrustes", "embeddings=random"], "embeddings=random is noise"),
        (["method=composition", "teacher.answer_precision=bf16-true"], "leave teacher.answer_precision=32-true"),
        (["method=joint", "cache.use=true"], "leave cache.use=false, or freeze its lowest layers"),
        (["method=joint", "peers=null"], "peers: expected students by name"),
        (["method=joint", "+student@peers.teacher=dan"], "name other models of the run"),
        (PEERS, "method=joint needs a partner, got none"),
        ([*PEERS, "method.copies=1", "method.frozen_layers=2"], "method.frozen_layers=2 has no effect"),
        (["method=joint", "teacher=ensemble"], "method=joint trains one teacher, got an ensemble"),
        (["method=joint", "teacher=assistant", "method.teacher_start=cold"], "teacher=assistant has none; use warm"),
        (["trainer.max_epochs=null"], "trainer.max_epochs=null needs trainer.max_steps"),
        (["trainer=fsdp", "compile=true"], "compile=true and trainer=fsdp were never tried together"),
        (["trainer=fsdp", "callbacks=[checkpoint,ema]"], "trainer=fsdp has no whole model to average"),
        (["trainer=fsdp", "balance/weighting=pcgrad"], "this balance/weighting compares gradients of whole models"),
        (["student=hf", "student.name_or_path=x", "tokenizer=words"], "student=hf reads the tokens of its checkpoint"),
        (["student=hf", "student.name_or_path=x", "embeddings=random"], "student=hf keeps the word table of its"),
        (["student=truncated", "method=supervised", "teacher=none"], "cut out of the teacher, and teacher=none gives"),
        (["student=truncated", "teacher=ensemble"], "cut out of one teacher, got an ensemble"),
        (["student=truncated", "embeddings=pca"], "keeps the teacher's word table; leave embeddings=own"),
        (["student=truncated", "tokenizer=words"], "reads the teacher's tokens; use tokenizer=teacher or restricted"),
        (["student=truncated", "method=composition"], "student=truncated is some; choose another student"),
        (["student=truncated", "student.fine_tuned=false", "teacher=assistant"], "student.fine_tuned=false reads a"),
        (["embeddings=encoded", "embeddings.fine_tuned=false", "teacher=assistant"], "embeddings.fine_tuned=false"),
        (["embeddings=encoded", "method=composition", "mapper=procrustes"], "embeddings=encoded makes after the"),
        (["student=ngrams", "method=composition"], "which method=composition has not"),
        (["student=ngrams", "embeddings=pca"], "which no word fills; leave embeddings=own"),
        (["student=ngrams", "trainer.devices=2"], "one device trains; set trainer.devices=1"),
        (["student=ngrams", "compile=true"], "leaves the table out and gains nothing; set compile=false"),
        (["student=ngrams", "optim=adadelta"], "Adam trains the table; use optim=adamw, or student.sparse=false"),
        (["student=ngrams", "balance/weighting=pcgrad"], "no weighting can compare gradients"),
        (["trainer=deepspeed"], "DeepSpeed writes folders"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_does_not(overrides, said):
    (sentence,) = found(*overrides)
    assert said in sentence
