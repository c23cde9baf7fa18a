"""Any checkpoint as a student, and transformers with frozen or removed lower layers."""

import json

import pytest
import torch
from transformers import BertConfig, pipeline

from kd.errors import KDError
from kd.models.pretrained import freeze_lowest, new_student, pretrained_config, require_depth, upper_part
from kd.predictor import Predictor
from kd.storage.model_folder import set_labels
from tests.conftest import make_teacher
from tests.models.conftest import IDS, MASK, TRANSFORMER, make


def test_any_checkpoint_can_be_a_student(tmp_path):
    small = BertConfig(vocab_size=30, num_labels=2, **TRANSFORMER)
    original = new_student(small).half()
    original.save_pretrained(tmp_path)
    config = pretrained_config(str(tmp_path), vocab_size=28, num_labels=3, pad_token_id=0)
    student = new_student(config)
    assert student.classifier.out_features == 3
    assert student.dtype == torch.float32
    assert torch.equal(student.get_input_embeddings().weight, original.get_input_embeddings().weight.float())
    kept = new_student(pretrained_config(str(tmp_path), vocab_size=30, num_labels=2, pad_token_id=0))
    assert torch.equal(kept.classifier.weight, original.classifier.weight.float())
    with pytest.raises(KDError, match="a vocabulary of 30 tokens, found a tokenizer with 31"):
        pretrained_config(str(tmp_path), vocab_size=31, num_labels=2, pad_token_id=0)


@pytest.mark.parametrize(
    "task",
    [
        {"problem_type": "multi_label_classification"},
        {"problem_type": "regression", "num_labels": 1},
        {"num_labels": 1},
        {"function_to_apply": "sigmoid", "problem_type": "multi_label_classification"},
        {"task_specific_params": {"text-classification": {"function_to_apply": "none"}}},
        {"return_dict": False, "output_hidden_states": True, "output_attentions": True},
    ],
    ids=lambda task: "-".join(map(str, task.values())),
)
def test_a_student_from_a_checkpoint_of_another_task_gives_the_probabilities_of_a_softmax(task, tmp_path):
    make_teacher(tmp_path, num_labels=task.get("num_labels", 2))
    content = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(content | task))
    config = pretrained_config(str(tmp_path), vocab_size=80, num_labels=2, pad_token_id=0)
    set_labels(config, ["bad", "good"])
    new_student(config).save_pretrained(tmp_path)
    predictor = Predictor.load(tmp_path)
    with torch.no_grad():
        predictor.model.classifier.weight *= 500
    found = pipeline("text-classification", model=predictor.model, tokenizer=predictor.tokenizer, top_k=None)("a film")[
        0
    ]
    expected = dict(zip(["bad", "good"], predictor.probabilities(["a film"])[0], strict=True))
    assert {each["label"]: pytest.approx(each["score"], abs=1e-6) for each in found} == expected
    assert max(expected.values()) > 0.55


def test_a_missing_checkpoint_and_impossible_sizes_are_refused(tmp_path):
    with pytest.raises(KDError, match=r"set student\.name_or_path"):
        pretrained_config(str(tmp_path / "nothing"), vocab_size=9, num_labels=2, pad_token_id=0)
    with pytest.raises(KDError, match=r"student 'bert'.*change the sizes"):
        new_student(BertConfig(hidden_size=10, num_attention_heads=3))


def test_a_checkpoint_needs_a_name():
    with pytest.raises(KDError, match="name_or_path must be text, found 5"):
        pretrained_config(5, vocab_size=9, num_labels=2, pad_token_id=0)


def test_the_upper_part_gives_the_logits_of_the_whole():
    whole = make("transformer")
    upper = upper_part(whole, 1)
    states = whole(IDS[:3], MASK[:3], output_hidden_states=True)
    found = upper(inputs_embeds=states.hidden_states[1], attention_mask=MASK[:3])
    torch.testing.assert_close(found.logits, states.logits)
    assert upper.classifier.weight is whole.classifier.weight and upper.config.num_hidden_layers == 0


def test_the_lowest_layers_are_frozen_with_the_embeddings():
    whole = make("transformer")
    freeze_lowest(whole, 1)
    assert {name.split(".")[0] for name, p in whole.named_parameters() if p.requires_grad} == {"bert", "classifier"}
    assert not any(p.requires_grad for part in (whole.bert.embeddings, whole.bert.encoder) for p in part.parameters())
    with pytest.raises(KDError, match=r"method\.frozen_layers: the teacher has 1 layers, got 2; give 0 to 1"):
        require_depth(whole.config, 2)
    with pytest.raises(KDError, match="'kd-dan' has no layers to freeze, got 1; set it to 0"):
        freeze_lowest(make("dan"), 1)
