"""A run with hints: whose features are read, and which losses are refused."""

import pytest
from transformers import AutoTokenizer, MPNetConfig, MPNetModel

from kd.errors import KDError

HINTS = ("method=hints", "loss=[soft_target,hint]")


def test_the_training_rows_have_the_features_of_the_matched_layers(assembled):
    assembly = assembled(*HINTS)
    (feature,) = assembly.features
    assert set(assembly.train().columns) == {"teacher_logits", f"teacher_{feature.column}"}
    assert not assembly.read("validation").columns
    assert assembly.figures() == {"layers": {"teacher/hint": [[2, 2]]}}
    assert assembly.method.options is assembly.options


def test_token_level_terms_need_equal_tokens(assembled):
    token = (*HINTS, "loss.hint.level=token")
    assert assembled(*token, "tokenizer=teacher").matchings["teacher"].by_token == ["hint"]
    with pytest.raises(KDError, match="loss 'hint' compares token by token, and student and teacher tokenise the"):
        assembled(*token, "tokenizer=words", "embeddings=random")


def test_a_single_teacher_has_no_member(assembled):
    with pytest.raises(KDError, match="features_from=nobody names a member of an ensemble"):
        assembled(*HINTS, "method.features_from=nobody")


def test_attention_that_cannot_be_recorded_is_refused_before_the_teacher_is_trained(
    assembled, teacher_folder, tmp_path
):
    tokenizer = AutoTokenizer.from_pretrained(teacher_folder)
    tokenizer.save_pretrained(tmp_path / "mpnet")
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16}
    MPNetModel(MPNetConfig(vocab_size=len(tokenizer), **sizes)).save_pretrained(tmp_path / "mpnet")
    attention = ("student=transformer", "embeddings=random", "method=hints", "loss=[soft_target,minilm]")
    with pytest.raises(KDError, match="attention through the interface of transformers, found another in 'mpnet'"):
        assembled(*attention, f"teacher.name_or_path={tmp_path / 'mpnet'}", "teacher.fine_tune=true")
    assert not (tmp_path / "teachers").exists()
