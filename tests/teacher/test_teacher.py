"""Which settings and rows are part of a fine-tuned teacher's name."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
from safetensors.torch import load_file, save_file
from tokenizers.processors import TemplateProcessing
from transformers import AutoTokenizer

from kd.errors import KDError
from kd.storage.model_folder import load_classifier
from kd.teacher.teacher import labelled_rows
from tests.conftest import make_teacher
from tests.teacher.conftest import split


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


def test_the_labelling_batch_size_does_not_change_the_teachers_name(teacher, splits):
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


def test_word_embeddings_are_those_of_the_backbone(teacher, teacher_folder):
    expected = load_classifier(teacher_folder).bert.embeddings.word_embeddings.weight
    np.testing.assert_array_equal(teacher.word_table, expected.detach())


def test_an_untrained_teacher_gives_features_without_a_head(teacher):
    ready = teacher.untrained()
    assert not ready.has_head and ready.facts == {} and ready.folder == teacher.backbone and ready.device == "cpu"


def test_options_reach_the_ready_teacher(teacher):
    half = dataclasses.replace(teacher, answer_precision="bf16-true", answer_device="cpu", max_length=12)
    ready = half.untrained()
    assert (ready.precision, ready.device, ready.max_length, ready.batch_size) == ("bf16-true", "cpu", 12, 8)


def another_task(teacher_folder, folder, **task):
    """A copy of the teacher whose configuration names another task."""
    shutil.copytree(teacher_folder, folder)
    content = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(content | task))
    return str(folder)


def test_a_multi_label_teacher_must_be_fine_tuned_and_is_no_longer_one(teacher, splits, teacher_folder, tmp_path):
    name = another_task(teacher_folder, tmp_path / "model", problem_type="multi_label_classification")
    taken = dataclasses.replace(teacher, name_or_path=name, fine_tune=False)
    with pytest.raises(KDError, match=r"one label a text, found .* with multi_label_classification, whose outputs are"):
        taken.ready(splits, tmp_path)
    trained = dataclasses.replace(taken, fine_tune=True).ready(splits, tmp_path)
    assert trained.config.problem_type is None and trained.config.id2label == {0: "negative", 1: "positive"}


def test_a_length_of_special_tokens_alone_is_refused(teacher, splits, tmp_path):
    with_three = AutoTokenizer.from_pretrained(make_teacher(tmp_path / "model"))
    with_three.backend_tokenizer.post_processor = TemplateProcessing(
        "[CLS] [CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    with_three.save_pretrained(tmp_path / "model")
    short = dataclasses.replace(teacher, name_or_path=str(tmp_path / "model"), max_length=3)
    with pytest.raises(KDError, match=r"more than the 3 special tokens of .*, found 3; raise it"):
        short.require(splits)


def test_a_teacher_whose_folder_contradicts_itself_is_refused_before_it_trains(teacher, splits, tmp_path):
    folder = make_teacher(tmp_path / "model")
    weights = load_file(folder / "model.safetensors")
    weights["bert.pooler.dense.bias"][0] = float("nan")
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    for fine_tune in (True, False):
        broken = dataclasses.replace(teacher, name_or_path=str(folder), fine_tune=fine_tune)
        with pytest.raises(KDError, match=r"finite numbers in bert.pooler.dense.bias, found 1 of 32"):
            _ = broken.ready(splits, tmp_path).model


def test_a_teacher_of_another_task_is_refused(teacher, splits, tmp_path):
    taken = dataclasses.replace(teacher, fine_tune=False)
    three = dataclasses.replace(splits, label_names=["a", "b", "c"])
    with pytest.raises(KDError, match=r"has 2 labels, the data has 3 \(a, b, c\); choose a teacher for this task"):
        taken.ready(three, tmp_path)
    with pytest.raises(KDError, match=r"reads at most 64 tokens, got 65; set teacher\.max_length=64 or less"):
        dataclasses.replace(taken, max_length=65).ready(splits, tmp_path)
    with pytest.raises(KDError, match="expected training rows with gold labels, found none"):
        labelled_rows(split([("a film", -100)]))
