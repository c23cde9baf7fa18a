"""The middle of a chain: distilled once, named by everything that affects it, and used as any other teacher is."""

import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import BertConfig

from kd.data.sources import Splits
from kd.errors import KDError
from kd.features.feature import Feature
from kd.storage import records
from kd.teacher.assistant import Assistant
from kd.teacher.ensemble import Ensemble
from kd.teacher.ready import Wanted
from kd.teacher.teacher import Teacher
from tests.conftest import make_reviews, make_teacher
from tests.teacher.conftest import RECIPE, split

SMALL = partial(
    BertConfig,
    hidden_size=16,
    num_hidden_layers=1,
    num_attention_heads=2,
    intermediate_size=24,
    max_position_embeddings=24,
)
ROWS = make_reviews(120)


def splits_of(train) -> Splits:
    return Splits(split(train), split(ROWS[80:104]), split(ROWS[104:]), ["negative", "positive"], {})


@pytest.fixture(scope="module")
def splits() -> Splits:
    return splits_of(ROWS[:80])


@pytest.fixture(scope="module")
def teacher(teacher_folder, splits, tmp_path_factory) -> Teacher:
    """A teacher that was trained on these reviews before, and is not trained again."""
    learning = {**RECIPE, "epochs": 8, "batch_size": 8, "learning_rate": 3e-3}
    tuned = Teacher(str(teacher_folder), True, 24, **learning).ready(splits, tmp_path_factory.mktemp("tuned"))
    assert tuned.facts["validation_accuracy"] > 0.9
    return Teacher(str(tuned.folder), False, 24, **RECIPE)


@pytest.fixture(scope="module")
def assistant(teacher) -> Assistant:
    return Assistant(teacher, SMALL, alpha=0.9, temperature=2.0, **RECIPE)


@pytest.fixture(scope="module")
def outputs(assistant, splits, tmp_path_factory) -> Path:
    """The folder in which the trained assistant is stored."""
    folder = tmp_path_factory.mktemp("outputs")
    assistant.ready(splits, folder)
    return folder


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def same(one: Path, two: Path) -> bool:
    first, second = weights_of(one), weights_of(two)
    return all(torch.equal(first[name], second[name]) for name in first)


def test_it_is_distilled_once_and_found_again(assistant, splits, outputs, caplog):
    with caplog.at_level("INFO", logger="kd"):
        ready = assistant.ready(splits, outputs)
    name = assistant.teacher.name_or_path
    assert "distilling" not in caplog.text and f"teacher: found assistant of {name} in" in caplog.text
    assert ready.folder.parents[1] == outputs / "teachers" and ready.members == [ready]
    facts = records.read(ready.folder.parent / "teacher.json", records.TrainedTeacher)
    assert ready.facts == facts and facts["alpha"] == 0.9 and facts["rows"] == 80 and facts["training_seconds"] > 0
    cached = [json.loads(meta.read_text()) for meta in outputs.glob("teacher_cache/*/meta.json")]
    assert {meta["split"] for meta in cached if meta["teacher"] == name} == {"train", "validation"}


def test_it_gives_outputs_as_a_teacher_does(assistant, splits, outputs):
    ready = assistant.ready(splits, outputs)
    assert type(ready.model).__name__ == "BertForSequenceClassification" and ready.config.hidden_size == 16
    assert ready.config.id2label == {0: "negative", 1: "positive"} and ready.max_length == 24
    chosen = Feature("hidden_states", 1, "mean")
    columns, _ = ready.cached(Wanted(splits.test["text"], "test", outputs, [chosen]))
    assert columns["logits"].shape == (16, 2) and columns[chosen.column].shape == (16, 16)
    np.testing.assert_allclose(columns["logits"], ready.live_logits(splits.test["text"]), atol=1e-6)
    np.testing.assert_array_equal(
        ready.tokens(splits.test["text"]).values, assistant.tokens(splits.test["text"]).values
    )
    assert assistant.config.to_dict()["num_hidden_layers"] == 1, "the depth that layers are paired with"
    assert assistant.word_table is assistant.teacher.word_table


def test_it_learns_from_the_teacher(teacher, splits, tmp_path):
    """At alpha=1 no label is read: with the labels flipped, the assistant predicts what the teacher predicts."""
    longer = {**RECIPE, "epochs": 12, "learning_rate": 1e-2}
    distilled = Assistant(teacher, SMALL, alpha=1.0, temperature=1.0, **longer)
    ready = distilled.ready(splits, tmp_path)
    predicted = [found.live_logits(splits.test["text"]).argmax(1) for found in (ready, teacher.ready(splits, tmp_path))]
    assert (predicted[0] == predicted[1]).mean() > 0.8 and 0 < predicted[1].sum() < 16
    flipped = distilled.ready(splits_of([(text, 1 - label) for text, label in ROWS[:80]]), tmp_path)
    assert flipped.folder != ready.folder and same(flipped.folder, ready.folder)


CHANGES = {
    **{name: {name: 2} for name in ("epochs", "batch_size", "learning_rate", "temperature", "gradient_clip", "seed")},
    **{name: {name: 0.5} for name in ("alpha", "weight_decay", "warm_up")},
    "precision": {"precision": "bf16-true"},
    "model": {"model": partial(SMALL, num_hidden_layers=2)},
}


@pytest.mark.parametrize("name", CHANGES)
def test_the_recipe_changes_its_name(assistant, splits, name):
    assert replace(assistant, **CHANGES[name])._key("t", splits) != assistant._key("t", splits)


def test_the_labelling_batch_size_does_not_change_its_name(assistant, splits):
    assert replace(assistant, labelling_batch_size=64)._key("t", splits) == assistant._key("t", splits)


@pytest.mark.parametrize(
    "rows",
    [ROWS[:79], [*ROWS[1:80], ROWS[0]], [(ROWS[0][0], -100), *ROWS[1:80]], [*ROWS[:80], ("a new scene", -100)]],
    ids=["fewer", "another order", "one without its label", "one more"],
)
def test_rows_change_its_name(assistant, splits, rows):
    """Rows without a label too, since the teacher labels them."""
    assert assistant._key("t", splits_of(rows)) != assistant._key("t", splits)
    assert assistant._key("t", splits_of(ROWS[:80])) == assistant._key("t", splits)


def test_its_teacher_changes_its_name(assistant, splits):
    assert assistant._key("u", splits) != assistant._key("t", splits)
    shorter = replace(assistant, teacher=replace(assistant.teacher, max_length=12))
    assert shorter._key("t", splits) != assistant._key("t", splits), "the same weights read less of a text"
    named = replace(splits, label_names=["bad", "good"])
    assert assistant._key("t", named) != assistant._key("t", splits)


def test_chain_of_two(assistant, splits, outputs, caplog):
    """The upper assistant is found, and the lower one learns only from it."""
    lower = replace(assistant, teacher=assistant, model=partial(SMALL, hidden_size=8))
    with caplog.at_level("INFO", logger="kd"):
        ready = lower.ready(splits, outputs)
    name = assistant.teacher.name_or_path
    assert ready.name == lower.name_or_path == f"assistant of assistant of {name}"
    assert f"distilling it from assistant of {name} on 80 rows" in caplog.text
    assert caplog.text.count("distilling") == 1 and ready.config.hidden_size == 8
    assert lower.ready(splits, outputs).folder == ready.folder
    labelled_by = {json.loads(meta.read_text())["teacher"] for meta in outputs.glob("teacher_cache/*/meta.json")}
    assert f"assistant of {name}" in labelled_by


def test_assistant_of_an_ensemble(assistant, teacher, splits, outputs, tmp_path_factory):
    other = replace(teacher, name_or_path=str(make_teacher(tmp_path_factory.mktemp("other"), seed=1)))
    ensemble = Ensemble({"one": teacher, "two": other}, "confidence")
    ready = replace(assistant, teacher=ensemble).ready(splits, outputs)
    assert ready.name == f"assistant of {teacher.name_or_path}+{other.name_or_path}"
    again = replace(assistant, teacher=replace(ensemble, combine="mean_logits")).ready(splits, outputs)
    assert not same(again.folder, ready.folder), "other outputs make another assistant"


def test_a_teacher_whose_labels_have_another_order_is_refused(assistant, splits, tmp_path):
    """The mistake would be distilled into the assistant, where no check finds it."""
    wrong = replace(splits, validation=split([(text, 1 - label) for text, label in ROWS[80:104]]))
    with pytest.raises(KDError, match=r"is right on \d\.\d% .* in the order \[positive, negative\]"):
        assistant.ready(wrong, tmp_path)
    assert not list(tmp_path.glob("teachers/*/teacher.json"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"max_position_embeddings": 20}, "reads at most 20 tokens, got 24; set data.max_length=20 or less"),
        ({"num_attention_heads": 3}, r"teacher\.model of teacher=assistant cannot be made: .*multiple of the number"),
    ],
    ids=["positions", "heads"],
)
def test_an_impossible_model_is_refused_before_the_teacher_trains(assistant, splits, tmp_path, change, message):
    tuned = replace(assistant.teacher, fine_tune=True)
    with pytest.raises(KDError, match=message):
        replace(assistant, teacher=tuned, model=partial(SMALL, **change)).ready(splits, tmp_path)
    assert list(tmp_path.iterdir()) == []
