"""The initial weights of a student that come from the trained teacher."""

import pytest
import torch

from kd.storage.model_folder import load_classifier

TRUNCATED = ["student=truncated", "student.layers=[1]"]
METHODS = {
    "supervised": [],
    "distillation": [],
    "hints": ["loss=[soft_target,hint]", "mapper=identity"],
    "joint": ["cache.use=false"],
}


@pytest.fixture
def teacher(teacher_folder):
    return load_classifier(teacher_folder)


@pytest.mark.parametrize("fine_tuned", ["true", "false"])
@pytest.mark.parametrize("tokenizer", ["restricted", "words"])
def test_the_word_table_starts_from_the_teachers_vectors(assembled, tokenizer, fine_tuned):
    options = [f"tokenizer={tokenizer}", "embeddings=encoded", f"embeddings.fine_tuned={fine_tuned}"]
    assembly = assembled("method=supervised", "student=dan", *options)
    before = assembly.student.embedding.weight.detach().clone()
    assert "outputs" not in vars(assembly)  # the teacher is not trained yet
    assembly.start()
    after = assembly.student.embedding.weight.detach()
    assert not torch.allclose(after, before) and after[assembly.tokenizer.pad_token_id].abs().sum() == 0
    again = assembled("method=supervised", "student=dan", *options)
    again.start()
    assert torch.equal(again.student.embedding.weight, after)


@pytest.mark.parametrize("method", METHODS)
def test_a_truncated_student_has_the_teachers_weights_in_every_method(assembled, teacher, method):
    assembly = assembled(f"method={method}", *METHODS[method], *TRUNCATED)
    student = assembly.method.student
    assembly.start()
    own, theirs = student.bert.encoder.layer[0], teacher.bert.encoder.layer[1]
    assert torch.equal(own.output.dense.weight, theirs.output.dense.weight)
    assert torch.equal(student.classifier.weight, teacher.classifier.weight)
    assert len(student.bert.encoder.layer) == 1


def test_the_backbone_and_a_restricted_vocabulary(assembled, teacher):
    options = ["tokenizer=restricted", "student.fine_tuned=false", *TRUNCATED]
    assembly = assembled("method=supervised", *options)
    assembly.start()
    table, theirs = (model.get_input_embeddings().weight for model in (assembly.student, teacher))
    names = assembly.tokenizer.convert_ids_to_tokens(list(range(len(table))))
    assert torch.equal(table, theirs[assembly.teacher.tokenizer.convert_tokens_to_ids(names)])
    assert not torch.equal(assembly.student.classifier.weight, teacher.classifier.weight)


def test_peers_start_from_the_words_too(assembled):
    assembly = assembled("method=joint", "cache.use=false", "student=dan", "embeddings=encoded", "method.copies=1")
    before = [model.embedding.weight.detach().clone() for model in assembly.learners()]
    assembly.start()
    after = [model.embedding.weight for model in assembly.learners()]
    assert len(after) == 2 and not any(map(torch.allclose, before, after))


def test_other_students_and_runs_without_a_teacher_stay_as_they_are(assembled):
    for options in (["embeddings=random"], ["embeddings=random", "teacher=none", "tokenizer=words"]):
        assembly = assembled("method=supervised", "student=dan", *options)
        before = assembly.student.embedding.weight.detach().clone()
        assembly.start()
        assert torch.equal(before, assembly.student.embedding.weight) and "outputs" not in vars(assembly)
