"""What the tests of teachers share: rows, a recipe, and the tiny teacher before and after training."""

import pytest
from datasets import Dataset

from kd.data.sources import Splits
from kd.teacher.ready import ReadyTeacher
from kd.teacher.teacher import Teacher
from tests.conftest import make_reviews

RECIPE = {"epochs": 1, "batch_size": 16, "learning_rate": 1e-3, "weight_decay": 0.01, "warm_up": 0.1}
RECIPE |= {"gradient_clip": 1.0, "precision": "32-true", "seed": 0, "labelling_batch_size": 8}


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
    return Teacher(str(teacher_folder), True, 24, **RECIPE)


@pytest.fixture
def ready(teacher_folder) -> ReadyTeacher:
    return ReadyTeacher("tiny", teacher_folder, 24, 8, {})
