"""A student of some layers of its teacher, for every architecture that keeps its layers in one list."""

import pytest
import torch
from transformers import AutoConfig, AutoModelForSequenceClassification

from kd.errors import KDError, OptionError
from kd.models.pretrained import new_student
from kd.models.truncated import TruncatedConfig, copy_layers
from tests.models.conftest import MASK

SIZES = {"vocab_size": 40, "hidden_size": 12, "num_attention_heads": 2, "intermediate_size": 16, "num_labels": 3}
SIZES |= {"max_position_embeddings": 20, "num_hidden_layers": 4, "pad_token_id": 1}
KINDS = {
    "bert": {},
    "roberta": {},
    "mpnet": {},
    "electra": {"embedding_size": 8},
    "deberta-v2": {},
    "distilbert": {"dim": 12, "n_heads": 2, "hidden_dim": 16, "n_layers": 4},
}
IDS = torch.where(MASK.bool(), torch.arange(5, 11).expand(4, -1), 1)


def teacher_of(kind, **more):
    torch.manual_seed(0)
    return new_student(AutoConfig.for_model(kind, **SIZES | KINDS[kind] | more)).eval()


def cut(teacher, layers, with_head=True, words=range(40)):
    sizes = {"vocab_size": len(words), "num_labels": 3, "pad_token_id": 1}
    student = new_student(TruncatedConfig(layers=layers, **sizes).of(teacher.config)).eval()
    copy_layers(teacher, student, layers, words, with_head)
    return student


@pytest.mark.parametrize("kind", KINDS)
def test_all_layers_give_the_teachers_logits_and_the_lowest_its_states(kind):
    teacher = teacher_of(kind)
    whole = teacher(IDS, MASK, output_hidden_states=True)
    torch.testing.assert_close(cut(teacher, [0, 1, 2, 3])(IDS, MASK).logits, whole.logits)
    lower = cut(teacher, [0, 1])(IDS, MASK, output_hidden_states=True).hidden_states
    real = MASK.bool()
    assert len(lower) == 3
    torch.testing.assert_close(lower[2][real], whole.hidden_states[2][real])


@pytest.mark.parametrize("kind", KINDS)
def test_a_student_is_saved_as_the_teachers_own_architecture(kind, tmp_path):
    teacher = teacher_of(kind)
    student = cut(teacher, [0, 2])
    student.save_pretrained(tmp_path)
    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path).eval()
    assert type(loaded) is type(teacher) and loaded.config.num_hidden_layers == 2
    torch.testing.assert_close(loaded(IDS, MASK).logits, student(IDS, MASK).logits)
    state, theirs = loaded.state_dict(), teacher.state_dict()
    moved = {name: name.replace("layer.1.", "layer.2.") for name in state}
    assert any(name != other for name, other in moved.items())
    assert all(torch.equal(state[name], theirs[other]) for name, other in moved.items())


def test_a_smaller_vocabulary_keeps_its_rows_and_a_backbone_gives_no_head():
    teacher = teacher_of("bert")
    words = [3, 1, *range(20, 30)]
    student = cut(teacher, [1, 3], with_head=False, words=words)
    table = student.get_input_embeddings().weight
    assert torch.equal(table, teacher.get_input_embeddings().weight[words])
    assert not torch.equal(student.classifier.weight, teacher.classifier.weight)
    assert torch.equal(student.bert.pooler.dense.weight, teacher.bert.pooler.dense.weight)


@pytest.mark.parametrize("layers", [[], [2, 1], [1, 1], [-1], [0.5]])
def test_impossible_layers_are_refused_without_a_teacher(layers):
    with pytest.raises(OptionError, match="layers must be"):
        TruncatedConfig(layers=layers)


def test_a_teacher_that_does_not_fit_is_refused():
    with pytest.raises(KDError, match="the teacher 'bert' has layers 0 to 3, got 4; name some of its layers"):
        cut(teacher_of("bert"), [0, 4])
    with pytest.raises(KDError, match="the teacher's padding id 0, found a tokenizer with 1; use tokenizer=teacher"):
        cut(teacher_of("bert", pad_token_id=0), [0])
    shared = AutoConfig.for_model("albert", **SIZES, embedding_size=8, num_hidden_groups=1)
    with pytest.raises(KDError, match=r"cannot take single layers out of a teacher of type 'albert' .*one list"):
        TruncatedConfig(layers=(0,), num_labels=3, pad_token_id=1).of(shared)
