"""What a classifier is compared with, beside a run of the tests."""

import numpy as np

from kd.evaluation.rows import of_split
from kd.evaluation.subject import Subject
from kd.run.directory import RunDirectory
from kd.run.own_teacher import own_teacher


def test_the_teacher_is_not_asked_again_about_the_splits_of_the_run(pair):
    subject = Subject(pair / "dan")
    rows = of_split(subject.run, "validation")
    subject.teacher = None  # so that only stored answers can be given
    np.testing.assert_array_equal(subject.teacher_logits(rows), subject.stored["validation"].teacher.logits)
    assert subject.is_run and subject.temperature(None) > 0
    assert subject.bag is None and "no finished bag of n-grams" in subject.notes[0]


def test_labels_in_another_order_are_put_in_the_order_of_the_run(pair):
    place = own_teacher(RunDirectory(pair / "dan"))
    other = Subject(place, given_run=pair / "dan")
    rows = of_split(other.run, "test")
    wanted = other.stored["test"].teacher.logits
    np.testing.assert_allclose(other.logits(rows.texts), wanted, atol=1e-4)
    assert other.teacher_logits(rows) is None, "a teacher is not compared with itself"
    assert not other.is_run and other.temperature(of_split(other.run, "validation")) > 0
