"""What every assembly does: splits as the student reads them, the teacher's outputs, and the room that they take."""

import pytest

from kd.assembly import ASSEMBLIES
from kd.config import build
from kd.errors import KDError
from kd.features.feature import Feature


def test_every_method_has_an_assembly_of_its_own(assembled):
    assert len(set(ASSEMBLIES.values())) == len(ASSEMBLIES) == 5
    for method, kind in ASSEMBLIES.items():
        assert kind.__name__ == f"{method.__name__}Assembly" and kind.__module__.endswith(method.__name__.lower())


def test_without_a_teacher_there_is_neither_output_nor_cost(assembled):
    assembly = assembled("method=supervised", "teacher=none", "embeddings=random", "tokenizer=words")
    assert (
        assembly.teacher_logits("test") is None and assembly.teacher_cost() is None and not assembly.teacher_readers()
    )
    assert assembly.figures() == {} and assembly.models_to_keep() == {}


def test_features_must_have_room_in_the_cache(assembled):
    pooled, by_token = Feature("hidden_states", 1, "mean"), Feature("hidden_states", 1)
    assembly = assembled("method=distillation", "cache.max_gb=0.00001")
    assembly.require_room(assembly.teacher, [pooled])
    with pytest.raises(KDError, match=r"\(hidden_states-1-tokens\) for \d+ train rows would take .*max_gb=1e-05 is"):
        assembly.require_room(assembly.teacher, [by_token])
    live = assembled("method=distillation", "cache.max_gb=0.00001", "cache.use=false")
    live.require_room(live.teacher, [by_token])


def test_what_the_runs_of_a_sweep_have_in_common_needs_no_trained_teacher(assembled, tmp_path):
    assembly = assembled("method=distillation")
    assembly.share()
    assert "outputs" not in vars(assembly) and not list(tmp_path.iterdir())
    assert build.method_options(assembly.config) == assembly.options
