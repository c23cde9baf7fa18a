"""A joint run: its partners, what they read, and what is refused."""

import pytest

from kd.errors import KDError

PEERS = ("method=joint", "teacher=none", "embeddings=random", "tokenizer=words", "method.copies=1")


def test_the_teacher_is_a_copy_that_reads_its_own_tokens(assembled):
    assembly = assembled("method=joint", "method.frozen_layers=1")
    assert list(assembly.partners) == ["teacher"]
    frozen = {name for name, weight in assembly.partners["teacher"].named_parameters() if not weight.requires_grad}
    assert any("embeddings" in name for name in frozen) and any("layer.0." in name for name in frozen)
    assert not any("layer.1." in name or "classifier" in name for name in frozen)
    for split in (assembly.train(), assembly.read("validation")):
        assert split.teacher_tokens is not None and not split.columns
    assert assembly.teacher_logits("test").shape == (len(assembly.splits.test), 2)


def test_above_frozen_layers_it_reads_their_output_from_the_cache(assembled):
    assembly = assembled("method=joint", "method.frozen_layers=1", "cache.use=true")
    assert set(assembly.train().columns) == {"teacher_hidden_states-1-tokens"}
    assert assembly.method.column == "hidden_states-1-tokens"
    upper = {name for name, _ in assembly.method.partners["teacher"].named_parameters()}
    assert upper and not any("embeddings" in name for name in upper)


def test_peers_have_other_weights_and_no_teacher(assembled):
    assembly = assembled(*PEERS, "method.keep_partners=true")
    student, peer = assembly.student.state_dict(), assembly.partners["copy_1"].state_dict()
    assert student.keys() == peer.keys() and any(not value.equal(peer[name]) for name, value in student.items())
    assert assembly.teacher_logits("test") is None and assembly.train().teacher_tokens is None
    assert assembly.models_to_keep() == {"copy_1": (assembly.partners["copy_1"], assembly.tokenizer)}


def test_what_refuses_the_student_is_found_before_the_teacher_is_made_ready(assembled, monkeypatch):
    assembly = assembled("method=joint", "embeddings=pca", "student.embedding_size=64")
    monkeypatch.setattr(type(assembly.teacher), "ready", lambda *_: pytest.fail("the teacher was made ready"))
    with pytest.raises(KDError, match=r"embeddings=pca gives at most the teacher's width 32, found .* of width 64"):
        _ = assembly.method


def test_more_frozen_layers_than_the_teacher_has_are_refused(assembled):
    with pytest.raises(KDError, match="the teacher has 2 layers, got 3; give 0 to 2"):
        assembled("method=joint", "method.frozen_layers=3")
