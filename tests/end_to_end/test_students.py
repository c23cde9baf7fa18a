"""Students that start from their teacher, and the one with sparse updates, by command."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification, pipeline

from tests.conftest import run_kd

NGRAMS = ["student=ngrams", "student.buckets=300", "student.hidden_size=8", "student.characters=[2,3]"]


def without_sizes(options: list[str]) -> list[str]:
    return [option for option in options if not option.startswith("student.")]


@pytest.mark.slow
@pytest.mark.parametrize(
    "method",
    [
        ["method=supervised"],
        ["method=distillation", "tokenizer=restricted"],
        ["method=hints", "loss=[soft_target,hint,tinybert_attention]", "mapper=identity", "method.layers=[[1,2]]"],
        ["method=joint", "method.copies=1", "cache.use=false"],
    ],
    ids=lambda method: method[0],
)
def test_a_truncated_student_trains_with_every_method(options, method):
    cut = ["student=truncated", "student.layers=[1]", "trainer.max_epochs=1", "optim.optimizer.lr=1e-4"]
    assert run_kd("train", *without_sizes(options), *cut, *method, "hydra.run.dir=run") == 0
    model = AutoModelForSequenceClassification.from_pretrained("run/model")
    assert type(model).__name__ == "BertForSequenceClassification" and model.config.num_hidden_layers == 1
    (teacher,) = Path("outputs/teachers").glob("*/model/model.safetensors")
    before = load_file(teacher)["bert.encoder.layer.1.output.dense.weight"]
    after = model.bert.encoder.layer[0].output.dense.weight
    assert torch.allclose(after, before, atol=0.01) and not torch.equal(after, before)
    assert pipeline("text-classification", model="run/model", device="cpu")("a dull film")[0]["label"]


@pytest.mark.slow
def test_words_are_read_once_for_all_runs(options, capsys):
    common = [*options, "student=dan", "embeddings=encoded", "trainer.max_epochs=1"]
    readings = []
    for name, more in (("first", []), ("second", ["seed=1"]), ("backbone", ["embeddings.fine_tuned=false"])):
        assert run_kd("train", *common, *more, f"hydra.run.dir={name}") == 0
        readings.append(capsys.readouterr().out.count("vocabulary rows (once)"))
    assert readings == [1, 0, 1]
    found = {json.loads(Path(run, "status.json").read_text())["identity"] for run in ("first", "second", "backbone")}
    assert len(found) == 3


def test_a_student_of_hashed_ngrams_trains_and_is_used(options):
    more = ["callbacks=[checkpoint,ema]", "trainer.accumulate_grad_batches=2", "hydra.run.dir=run"]
    assert run_kd("train", *options, *NGRAMS, *more) == 0
    (state,) = torch.load("run/checkpoints/last.ckpt", weights_only=True)["optimizer_states"]
    assert len(state["param_groups"]) == 3  # matrices, biases, the table
    classify = pipeline("text-classification", model="run/model", device="cpu")
    together = classify(["a dull film", "", "charming"], batch_size=3)
    assert together[0]["score"] == pytest.approx(classify("a dull film")[0]["score"], abs=1e-6)
    assert run_kd("predict", "run", "a dull film") == 0


def test_a_bag_reads_characters(options):
    bag = ["student=bag", "method=supervised", "student.characters=[2,3]"]
    assert run_kd("train", *without_sizes(options), *bag, "hydra.run.dir=bag") == 0
    weights = load_file("bag/model/model.safetensors")
    assert (weights["keys"] < -1).any() and weights["spelling"].shape[0] > 10
    assert pipeline("text-classification", model="bag/model", device="cpu")("dull")[0]["label"] == "negative"
