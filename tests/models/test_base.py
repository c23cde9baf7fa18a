"""All small students: what they compute, save, load and refuse."""

from pathlib import Path

import pytest
import torch
from hydra.utils import get_class
from omegaconf import OmegaConf
from transformers import AutoModelForSequenceClassification, AutoTokenizer, pipeline

import kd
from kd.contract import supported_outputs
from kd.data.tokenizers import WordTokenizer
from kd.errors import KDError, OptionError
from kd.models import BiLSTMConfig, DANConfig, MLPConfig, TextCNNConfig
from kd.models.base import masked_max, masked_mean, not_empty, token_mask, with_a_token
from kd.models.pretrained import new_student
from kd.options.declared import options_of
from tests.models.conftest import CONFIGS, IDS, MASK, make

CONF = Path(__file__).parents[2] / "conf" / "student"
every_student = pytest.mark.parametrize("name", CONFIGS)
every_word_table = pytest.mark.parametrize("name", [name for name in CONFIGS if name != "ngrams"])


@every_student
def test_padding_changes_no_logit(name):
    student = make(name)
    logits = student(IDS, MASK).logits
    wider = torch.nn.functional.pad(IDS, (0, 9)), torch.nn.functional.pad(MASK, (0, 9))
    torch.testing.assert_close(student(*wider).logits, logits, atol=1e-6, rtol=0)
    for row in range(len(IDS)):
        length = int(MASK[row].sum())
        alone = student(IDS[row : row + 1, :length], MASK[row : row + 1, :length]).logits
        torch.testing.assert_close(alone, logits[row : row + 1], atol=1e-6, rtol=0)


@every_student
def test_masked_tokens_are_not_read(name):
    student = make(name)
    noise = torch.where(MASK.bool(), IDS, torch.full_like(IDS, 33))
    torch.testing.assert_close(student(noise, MASK).logits, student(IDS, MASK).logits, atol=1e-6, rtol=0)
    assert not torch.allclose(student(noise).logits, student(IDS).logits)


@every_student
def test_rows_do_not_see_each_other(name):
    student = make(name)
    order = torch.tensor([3, 1, 0, 2])
    logits = student(IDS, MASK).logits
    torch.testing.assert_close(student(IDS[order], MASK[order]).logits, logits[order], atol=1e-6, rtol=0)


@every_student
def test_empty_texts_and_single_tokens_are_classified(name):
    student = make(name)
    empty = student(torch.zeros(2, 0), torch.zeros(2, 0)).logits  # as a tokenizer returns ["", ""], in floats
    torch.testing.assert_close(empty, student(IDS[3:], MASK[3:]).logits.expand(2, -1), atol=1e-6, rtol=0)
    for length in range(1, 7):
        assert student(IDS[:1, :length]).logits.isfinite().all()


@every_student
def test_saves_and_loads(name, tmp_path):
    student = make(name, freeze_embeddings=True, id2label={0: "bad", 1: "so", 2: "good"})
    student.save_pretrained(tmp_path)
    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path).eval()
    assert type(loaded) is type(student)
    assert loaded.config.id2label == {0: "bad", 1: "so", 2: "good"}
    assert loaded.config.freeze_embeddings
    torch.testing.assert_close(loaded(IDS, MASK).logits, student(IDS, MASK).logits, atol=1e-6, rtol=0)


@pytest.mark.parametrize("name", [*CONFIGS, "transformer"])
def test_works_in_a_pipeline(name, tmp_path):
    assert kd.models
    texts = ["a fine film", "a dull film , dull film", "fine"]
    tokenizer = WordTokenizer(min_count=1)(texts)
    make(name).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    classify = pipeline("text-classification", model=str(tmp_path), device="cpu")
    together = classify([*texts, "", "unseen"], batch_size=5)
    assert {answer["label"] for answer in together} <= {"LABEL_0", "LABEL_1", "LABEL_2"}
    for text, answer in zip([*texts, ""], together, strict=False):
        assert classify(text)[0]["score"] == pytest.approx(answer["score"], abs=1e-6)
    with torch.no_grad():
        logits = make(name)(**AutoTokenizer.from_pretrained(tmp_path)(texts[:1], return_tensors="pt")).logits
    assert together[0]["score"] == pytest.approx(logits.softmax(-1).max().item(), abs=1e-6)


@every_student
def test_every_parameter_learns_and_the_padding_row_does_not(name):
    student = make(name).train()
    student(IDS, MASK, labels=torch.tensor([0, 1, 2, 0])).loss.backward()
    for parameter_name, parameter in student.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, parameter_name
    table = student.get_input_embeddings().weight
    assert table.grad[0].abs().sum() == 0
    assert table[0].abs().sum() == 0


@every_student
def test_frozen_embeddings_stay(name):
    student = make(name, freeze_embeddings=True)
    student(IDS, labels=torch.tensor([0, 1, 2, 0])).loss.backward()
    assert student.get_input_embeddings().weight.grad is None


@every_student
def test_loss_is_the_mean_over_labelled_rows(name):
    student = make(name)
    answer = student(IDS, MASK, labels=torch.tensor([0, -100, 2, -100]))
    expected = -answer.logits.log_softmax(-1)[[0, 2], [0, 2]].mean()
    torch.testing.assert_close(answer.loss, expected)
    assert student(IDS, MASK, labels=torch.full((4,), -100)).loss == 0
    assert student(IDS, MASK).loss is None


@pytest.mark.parametrize(
    ("name", "shapes"),
    [
        ("mlp", [(4, 6, 12), (4, 1, 12), (4, 1, 10)]),
        ("mlp0", [(4, 6, 12), (4, 1, 12)]),
        ("dan", [(4, 6, 12), (4, 1, 12), (4, 1, 10), (4, 1, 10)]),
        ("ngrams", [(4, 1, 12), (4, 1, 12), (4, 1, 10), (4, 1, 10)]),
        ("textcnn", [(4, 6, 12), (4, 6, 21), (4, 1, 21)]),
        ("bilstm", [(4, 6, 12), (4, 6, 16), (4, 1, 32)]),
    ],
)
def test_hidden_states(name, shapes):
    student = make(name)
    assert [tuple(state.shape) for state in student(IDS, output_hidden_states=True).hidden_states] == shapes
    assert student(IDS).hidden_states is None
    assert supported_outputs(student.config) == {"logits", "hidden_states"}


@every_student
def test_attention_maps_are_refused(name):
    with pytest.raises(KDError, match=r"gives no attention maps.*hint, relation or logits"):
        make(name)(IDS, output_attentions=True)


@every_word_table
def test_reads_embeddings_and_ignores_token_types(name):
    student = make(name)
    logits = student(IDS, MASK, token_type_ids=torch.zeros_like(IDS), return_dict=True).logits
    embedded = student.get_input_embeddings()(IDS)
    torch.testing.assert_close(student(inputs_embeds=embedded, attention_mask=MASK).logits, logits)
    with pytest.raises(KDError, match="expected input_ids or inputs_embeds, found both; give exactly one"):
        student(IDS, inputs_embeds=embedded)


@every_word_table
def test_word_table_can_be_replaced_and_resized(name):
    student = make(name)
    student.resize_token_embeddings(50, mean_resizing=False)
    assert student.config.vocab_size == 50
    assert student(torch.tensor([[49]])).logits.isfinite().all()
    student.set_input_embeddings(torch.nn.Embedding(60, 12, 0))
    assert student.get_input_embeddings().num_embeddings == 60


def test_pooling_ignores_what_is_masked():
    states = torch.tensor([[[1.0], [3.0], [100.0]], [[-4.0], [100.0], [100.0]]])
    mask = torch.tensor([[True, True, False], [True, False, False]])
    assert masked_mean(states, mask).flatten().tolist() == [2.0, -4.0]
    assert masked_max(states, mask).flatten().tolist() == [3.0, -4.0]
    assert masked_mean(states, torch.zeros(2, 3)).flatten().tolist() == [0.0, 0.0]


@pytest.mark.parametrize(
    ("config", "parameters"),
    [
        (MLPConfig(num_labels=2, num_layers=0), 30522 * 128 + 128 * 2 + 2),
        (DANConfig(num_labels=2), 30522 * 128 + 2 * (128 * 128 + 128) + 128 * 2 + 2),
        (TextCNNConfig(num_labels=2), 30522 * 128 + 100 * (12 * 128 + 3) + 300 * 2 + 2),
        (BiLSTMConfig(num_labels=2), 30522 * 128 + 2 * 4 * 128 * (128 + 128 + 2) + 512 * 2 + 2),
        (
            BiLSTMConfig(num_labels=2, vocab_size=12000, embedding_size=64, hidden_size=64, num_layers=2),
            12000 * 64 + 2 * 4 * 64 * (64 + 64 + 2) + 2 * 4 * 64 * (128 + 64 + 2) + 256 * 2 + 2,
        ),
    ],
)
def test_parameter_counts(config, parameters):
    assert new_student(config).num_parameters() == parameters
    assert config.vocab_size > 12000 or parameters < 1_000_000


@pytest.mark.parametrize(
    ("config", "wrong", "message"),
    [
        (MLPConfig, {"dropout": 1.0}, r"dropout must be a number in \[0, 0.95\], found 1.0"),
        (MLPConfig, {"dropout": -0.1}, "dropout must be"),
        (MLPConfig, {"dropout": "0.1"}, "dropout must be"),
        (MLPConfig, {"num_layers": -1}, "num_layers must be a whole number of at least 0, found -1"),
        (MLPConfig, {"embedding_size": 0}, "embedding_size must be a whole number of at least 1, found 0"),
        (MLPConfig, {"embedding_size": True}, "embedding_size must be"),
        (MLPConfig, {"vocab_size": 10, "pad_token_id": 10}, "pad_token_id must be below vocab_size=10, found 10"),
        (MLPConfig, {"pad_token_id": -1}, "pad_token_id must be"),
        (MLPConfig, {"initializer_range": 0.0}, "initializer_range must be a number in \\[1e-06, 100\\], found 0.0"),
        (MLPConfig, {"freeze_embeddings": "no"}, "freeze_embeddings must be true or false, found 'no'"),
        (DANConfig, {"word_dropout": 1.5}, "word_dropout must be"),
        (DANConfig, {"hidden_size": 0}, "hidden_size must be"),
        (TextCNNConfig, {"filter_sizes": []}, r"filter_sizes must be .*, found \[\]"),
        (TextCNNConfig, {"filter_sizes": [3, 0]}, r"filter_sizes must be a list of a whole number of at least 1.* 0\]"),
        (TextCNNConfig, {"num_filters": 0}, "num_filters must be"),
        (BiLSTMConfig, {"num_layers": 0}, "num_layers must be"),
        (BiLSTMConfig, {"hidden_size": 2.5}, "hidden_size must be a whole number of at least 1, found 2.5"),
    ],
)
def test_values_out_of_range_are_refused(config, wrong, message):
    with pytest.raises(OptionError, match=f"^{message}"):
        config(**wrong)


def test_masks_come_from_the_ids_and_leave_no_row_empty():
    assert torch.equal(token_mask(None, IDS, None, 0), MASK.bool())
    assert token_mask(None, IDS, None, None).all() and token_mask(None, None, torch.zeros(2, 3, 5), 0).shape == (2, 3)
    assert torch.equal(token_mask(MASK, None, None, 0), MASK.bool())
    assert with_a_token(MASK.bool()).sum(1).tolist() == [6, 2, 1, 1] and with_a_token(MASK.bool())[3, 0]
    vectors, mask = not_empty(torch.zeros(2, 0, 5), torch.zeros(2, 0, dtype=torch.bool))
    assert vectors.shape == (2, 1, 5) and mask.tolist() == [[False], [False]]


@pytest.mark.parametrize("name", ["mlp", "dan", "textcnn", "bilstm"])
def test_every_option_is_declared_with_a_meaning_and_the_default_of_its_yaml(name):
    node = dict(OmegaConf.load(CONF / f"{name}.yaml"))
    config = get_class(node.pop("_target_"))
    options = options_of(config)
    assert {"vocab_size", "pad_token_id", "initializer_range", *node} == set(options)
    assert all(option.meaning for option in options.values())
    assert node == {key: getattr(config(), key) for key in node}
