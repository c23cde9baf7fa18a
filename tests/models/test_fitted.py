"""What the students that are fitted in closed form have in common, and the majority."""

import numpy as np
import pytest
import torch
from transformers import AutoModelForSequenceClassification

from kd.errors import KDError
from kd.models import Majority, MajorityConfig
from kd.models.fitted import Rows
from kd.models.pretrained import new_student
from tests.models.conftest import IDS, MASK
from tests.models.test_ngrams import ragged

TARGETS = np.array([[1.0, 0.0, 0.0], [0.0, 0.5, 0.0], [0.5, 0.0, 0.0]])


@pytest.fixture
def majority() -> Majority:
    student = new_student(MajorityConfig(vocab_size=40, num_labels=3, pad_token_id=0)).eval()
    rows = Rows(ragged([[5], [6], [7]]), TARGETS)
    student.fit(rows, rows, frozenset())
    return student


def test_the_majority_answers_with_the_shares_of_the_classes(majority):
    logits = majority(IDS, MASK).logits
    torch.testing.assert_close(logits.softmax(1), torch.tensor([[0.75, 0.25, 0.0]]).expand(4, -1), atol=1e-5, rtol=0)
    assert logits.isfinite().all()  # also of a class without a row
    assert majority(torch.zeros(2, 0), torch.zeros(2, 0)).logits.shape == (2, 3)


def test_saves_and_loads(majority, tmp_path):
    majority.save_pretrained(tmp_path)
    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    assert type(loaded) is Majority and torch.equal(loaded.bias, majority.bias)


def test_the_loss_is_the_mean_over_labelled_rows(majority):
    found = majority(IDS, MASK, labels=torch.tensor([0, -100, 1, -100]))
    torch.testing.assert_close(found.loss, -found.logits.log_softmax(1)[[0, 1], [0, 1]].mean())


def test_it_reads_no_embeddings(majority):
    with pytest.raises(KDError, match="student 'kd-majority': expected input_ids, found none"):
        majority(inputs_embeds=torch.zeros(2, 3, 4))
