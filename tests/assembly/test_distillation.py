"""A distillation run has the teacher's logits beside the training rows, and nowhere else."""

from kd.methods.distillation import Distillation, FrozenTeacher, cached_teacher


def test_logits_come_from_the_cache_or_from_the_live_teacher(assembled):
    cached, live = assembled("method=distillation"), assembled("method=distillation", "cache.use=false")
    assert cached.train().columns["teacher_logits"].shape == (len(cached.splits.train), 2)
    assert not live.train().columns and live.train().teacher_tokens is not None
    assert not cached.read("validation").columns and cached.read("validation").teacher_tokens is None
    assert isinstance(cached.method, Distillation) and cached.method.teacher is cached_teacher
    assert isinstance(live.method.teacher, FrozenTeacher)
