"""Supervised training: the label loss alone."""

import torch

from kd.methods.supervised import Supervised
from tests.methods.test_base import RECIPE, make_split, make_student


def test_unlabelled_rows_add_nothing_to_the_label_loss():
    method = Supervised(make_student(), RECIPE)
    split = make_split(unlabelled=True)
    assert method.losses(split[[0, 1, 2]])["total"].item() == 0.0


def test_the_loss_is_the_mean_cross_entropy_of_the_labelled_rows():
    method, batch = Supervised(make_student(), RECIPE).eval(), make_split()[[0, 1, 2, 3]]
    batch["labels"][2] = -100
    parts = method.losses(batch)
    probabilities = method.logits(batch).double().softmax(1)
    expected = -torch.stack([probabilities[row, batch["labels"][row]].log() for row in (0, 1, 3)]).mean()
    torch.testing.assert_close(parts["total"].double(), expected)
    assert parts["label"] is parts["total"] and not method.reads_teacher
