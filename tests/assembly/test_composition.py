"""A composition run: what it reads, how its mapper is fitted, and what is refused."""

import pytest
import torch

from kd.errors import KDError
from kd.features.fitted_mapper import FittedMapper

COMPOSITION = ("method=composition", "loss=[]", "method.layer=1")


def test_it_reads_the_teachers_tokens_and_the_output_of_the_layer_below_the_cut(assembled):
    assembly = assembled(*COMPOSITION)
    assert assembly.tokenizer is assembly.teacher.tokenizer
    for split in (assembly.train(), assembly.read("validation")):
        assert "teacher_hidden_states-1-tokens" in split.columns
    assert assembly.student.config.layer == 1 == len(assembly.student.encoder.encoder.layer)


@pytest.mark.parametrize("cache", ["true", "false"])
def test_a_closed_form_mapper_is_fitted_before_training(assembled, cache):
    assembly = assembled(*COMPOSITION, "mapper=pca", f"cache.use={cache}")
    mapper = assembly.student.mapper
    before = {name: value.clone() for name, value in mapper.state_dict().items()}
    assert isinstance(mapper, FittedMapper) and assembly.method.student.mapper is mapper
    assert any(not torch.equal(value, before[name]) for name, value in mapper.state_dict().items())


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("teacher.max_length=12", "found data.max_length=24 and teacher.max_length=12; set both to one length"),
        ("mapper=procrustes embeddings=pca student.embedding_size=64", "at most the teacher's width 32, found .* 64"),
        ("method.layer=99", "impossible layer number 99"),
        ("cache.max_gb=0.00001", r"\(hidden_states-1-tokens\) .* is the limit; raise"),
    ],
)
def test_what_cannot_be_composed_is_refused(assembled, override, message):
    with pytest.raises(KDError, match=message):
        assembled(*COMPOSITION, *override.split())
