"""A distillation run has the teacher's logits beside the training rows, and nowhere else."""

import pytest

from kd.errors import KDError
from kd.methods.distillation import Distillation, FrozenTeacher, cached_teacher


def test_logits_come_from_the_cache_or_from_the_live_teacher(assembled):
    cached, live = assembled("method=distillation"), assembled("method=distillation", "cache.use=false")
    assert cached.train().columns["teacher_logits"].shape == (len(cached.splits.train), 2)
    assert not live.train().columns and live.train().teacher_tokens is not None
    assert not cached.read("validation").columns and cached.read("validation").teacher_tokens is None
    assert isinstance(cached.method, Distillation) and cached.method.teacher is cached_teacher
    assert isinstance(live.method.teacher, FrozenTeacher)


def test_few_labels_and_a_selection_of_the_other_rows(assembled, fine_tuned, teacher_folder):
    options = ["method=distillation", "data.labelled=20", "selection.rows=30"]
    split = assembled(*options, "selection.by=uncertain", "selection.balanced=true").train()
    assert len(split) == 50 and (split.labels >= 0).sum() == 20
    student = next(fine_tuned.rglob("config.json")).parent
    against = assembled(*options, "selection.by=disagreement", f"selection.path={student}").train()
    assert len(against) == 50 and (against.labels >= 0).sum() == 20
    with pytest.raises(KDError, match=r"selection.path: expected a student for the labels negative, positive, found"):
        assembled(*options, "selection.by=disagreement", f"selection.path={teacher_folder}").train()
