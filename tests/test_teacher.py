"""What the names of teachers and caches depend on, and how a damaged teacher is met."""

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import Dataset
from safetensors.torch import load_file, save_file

from kd.data.sources import Splits
from kd.errors import KDError
from kd.inference import latency, parameter_counts
from kd.ready_teacher import Answers, ReadyTeacher, check_label_order
from kd.teacher import Teacher, labelled_rows
from tests.conftest import make_reviews, make_teacher


def split(rows, labels=None) -> Dataset:
    texts, gold = zip(*rows, strict=True)
    gold = list(gold) if labels is None else labels
    return Dataset.from_dict({"text": list(texts), "label": gold, "line": list(range(len(texts)))})


@pytest.fixture(scope="module")
def splits() -> Splits:
    rows = make_reviews(90)
    return Splits(split(rows[:60]), split(rows[60:75]), split(rows[75:]), ["negative", "positive"], {})


@pytest.fixture
def teacher(teacher_folder) -> Teacher:
    recipe = {"epochs": 1, "batch_size": 16, "learning_rate": 1e-3, "weight_decay": 0.01, "warm_up": 0.1}
    more = {"gradient_clip": 1.0, "precision": "32-true", "seed": 0, "labelling_batch_size": 8}
    return Teacher(str(teacher_folder), True, 24, **recipe, **more)


@pytest.fixture
def ready(teacher_folder) -> ReadyTeacher:
    return ReadyTeacher("tiny", teacher_folder, 24, 8, {})


@pytest.mark.parametrize(
    "change",
    [
        {"epochs": 2},
        {"batch_size": 8},
        {"learning_rate": 2e-3},
        {"seed": 1},
        {"max_length": 12},
        {"precision": "bf16-true"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_the_recipe_changes_the_teachers_name(teacher, splits, change):
    assert dataclasses.replace(teacher, **change).key(splits) != teacher.key(splits)


def test_how_it_is_asked_does_not_change_the_teachers_name(teacher, splits):
    assert dataclasses.replace(teacher, labelling_batch_size=64).key(splits) == teacher.key(splits)


def test_backbone_and_rows_change_the_teachers_name(teacher, splits, tmp_path):
    other = dataclasses.replace(teacher, name_or_path=str(make_teacher(tmp_path / "other", seed=1)))
    assert other.key(splits) != teacher.key(splits)
    flipped = split(
        list(zip(splits.train["text"], splits.train["label"], strict=True)), [1 - y for y in splits.train["label"]]
    )
    assert teacher.key(dataclasses.replace(splits, train=flipped)) != teacher.key(splits)
    shorter = splits.train.select(range(59))
    assert teacher.key(dataclasses.replace(splits, train=shorter)) != teacher.key(splits)


def test_unlabelled_rows_do_not_change_the_teachers_name(teacher, splits):
    rows = [*zip(splits.train["text"], splits.train["label"], strict=True), ("a new scene", -100)]
    assert teacher.key(dataclasses.replace(splits, train=split(rows))) == teacher.key(splits)
    assert len(labelled_rows(split(rows))) == 60


def test_a_damaged_teacher_is_trained_anew(teacher, splits, tmp_path, caplog):
    first = teacher.ready(splits, tmp_path)
    weights = first.folder / "model.safetensors"
    before = {name: value.clone() for name, value in load_file(weights).items()}
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    again = teacher.ready(splits, tmp_path)
    assert "damaged" in caplog.text
    after = load_file(again.folder / "model.safetensors")
    assert all(torch.equal(before[name], after[name]) for name in before), (
        "the recipe and the seed give the same weights"
    )


def test_teacher_tokenizer_texts_and_length_change_the_cache_key(ready, splits, tmp_path):
    texts = splits.test["text"]
    key = ready.key(texts).digest
    assert ready.key(list(texts)).digest == key
    assert ready.key([*texts[:-1], texts[-1] + " x"]).digest != key
    assert ready.key([*texts[1:], texts[0]]).digest != key
    assert dataclasses.replace(ready, max_length=12).key(texts).digest != key
    assert dataclasses.replace(ready, batch_size=1).key(texts).digest == key

    other = Path(shutil.copytree(ready.folder, tmp_path / "weights"))
    weights = load_file(other / "model.safetensors")
    weights["classifier.bias"][0] += 1e-3
    save_file(weights, other / "model.safetensors", metadata={"format": "pt"})
    assert dataclasses.replace(ready, folder=other).key(texts).digest != key

    other = Path(shutil.copytree(ready.folder, tmp_path / "tokenizer"))
    backend = json.loads((other / "tokenizer.json").read_text())
    backend["normalizer"]["lowercase"] = False
    (other / "tokenizer.json").write_text(json.dumps(backend))
    assert dataclasses.replace(ready, folder=other).key(texts).digest != key


def test_cached_logits_stand_at_their_rows(ready, splits, tmp_path):
    """Against one text at a time, in the order of the split: batching by length must not move a row."""
    answers = Answers(ready, tmp_path, cache=True)
    found = answers.of(splits.train, "train")
    for row in (0, 7, 31, 59):
        inputs = ready.tokenizer(splits.train["text"][row], return_tensors="pt")
        with torch.inference_mode():
            alone = ready.model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"]).logits[0]
        np.testing.assert_allclose(found[row], alone.numpy(), atol=1e-5)
    assert answers.seconds["train"] > 0
    live = Answers(ready, tmp_path, cache=False).of(splits.train, "train")
    np.testing.assert_allclose(found, live, atol=1e-6)


def test_label_order_is_checked_beyond_chance():
    labels = np.arange(200) % 2
    right = np.eye(2)[labels]
    assert check_label_order("t", right, labels, ["neg", "pos"]) == 1.0
    with pytest.raises(KDError, match=r"right on 0\.0% .* 100\.0% .*\[pos, neg\]"):
        check_label_order("t", right[:, ::-1], labels, ["neg", "pos"])
    guesses = np.eye(2)[np.random.default_rng(0).integers(0, 2, 200)]
    assert 0.3 < check_label_order("t", guesses, labels, ["neg", "pos"]) < 0.7, "a useless teacher is not a mix-up"


def test_parameters_and_latency_of_a_model(ready):
    model = ready.model
    counts = parameter_counts(model)
    assert counts["total"] == sum(p.numel() for p in model.parameters())
    tables = model.bert.embeddings
    words = sum(
        t.weight.numel() for t in (tables.word_embeddings, tables.position_embeddings, tables.token_type_embeddings)
    )
    assert counts["without_embeddings"] == counts["total"] - words
    model.train()
    times = latency(model, ready.tokenizer, ["the film is dull", "a very warm story"], 24, warm_up=2, timed=20)
    assert 0 < times["p50_ms"] <= times["p95_ms"] and times["threads"] == torch.get_num_threads()
    assert model.training, "the mode before is restored"
