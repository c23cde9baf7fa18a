"""The students: what they compute, what they keep on disk, what they refuse."""

import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer, BertConfig, pipeline

import kd
from kd.contract import supported_outputs
from kd.data.tokenizers import WordTokenizer
from kd.errors import KDError
from kd.models import BiLSTMConfig, DANConfig, MLPConfig, TextCNNConfig
from kd.models.base import masked_max, masked_mean
from kd.models.bow import drop_words
from kd.models.pretrained import new_student, pretrained_config

SIZES = {"vocab_size": 40, "embedding_size": 12, "num_labels": 3, "pad_token_id": 0}
CONFIGS = {
    "mlp": lambda **more: MLPConfig(**SIZES, hidden_size=10, **more),
    "mlp0": lambda **more: MLPConfig(**SIZES, num_layers=0, **more),
    "dan": lambda **more: DANConfig(**SIZES, hidden_size=10, **more),
    "textcnn": lambda **more: TextCNNConfig(**SIZES, num_filters=7, **more),
    "bilstm": lambda **more: BiLSTMConfig(**SIZES, hidden_size=8, num_layers=2, **more),
}
TRANSFORMER = {"hidden_size": 12, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
every_student = pytest.mark.parametrize("name", CONFIGS)

IDS = torch.tensor([[5, 6, 7, 8, 9, 10], [11, 12, 0, 0, 0, 0], [13, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0]])
MASK = (IDS != 0).long()


def make(name, **more):
    torch.manual_seed(0)
    if name == "transformer":
        return new_student(BertConfig(vocab_size=40, num_labels=3, **TRANSFORMER, **more)).eval()
    return new_student(CONFIGS[name](**more)).eval()


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
    empty = student(torch.zeros(2, 0), torch.zeros(2, 0)).logits  # a tokenizer's answer to ["", ""] is float
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


@every_student
def test_reads_embeddings_and_ignores_token_types(name):
    student = make(name)
    logits = student(IDS, MASK, token_type_ids=torch.zeros_like(IDS), return_dict=True).logits
    embedded = student.get_input_embeddings()(IDS)
    torch.testing.assert_close(student(inputs_embeds=embedded, attention_mask=MASK).logits, logits)
    with pytest.raises(KDError, match="exactly one"):
        student(IDS, inputs_embeds=embedded)


@every_student
def test_word_table_can_be_replaced_and_resized(name):
    student = make(name)
    student.resize_token_embeddings(50, mean_resizing=False)
    assert student.config.vocab_size == 50
    assert student(torch.tensor([[49]])).logits.isfinite().all()
    student.set_input_embeddings(torch.nn.Embedding(60, 12, 0))
    assert student.get_input_embeddings().num_embeddings == 60


def test_mlp_without_hidden_layers_is_one_linear_map_of_the_mean():
    student = make("mlp0")
    assert {name for name, _ in student.named_parameters()} == {
        "embedding.weight",
        "head.weight",
        "head.bias",
    }
    table, head = student.embedding.weight, student.head
    means = torch.stack([table[[5, 6, 7, 8, 9, 10]].mean(0), table[[11, 12]].mean(0), table[13], table[0]])
    torch.testing.assert_close(student(IDS).logits, means @ head.weight.T + head.bias)


def test_textcnn_equals_filters_over_the_unpadded_text():
    student = make("textcnn")
    embedded = student.embedding(IDS[0])
    outputs = []
    for convolution, size in zip(student.convolutions, (3, 4, 5), strict=True):
        padded = torch.cat([torch.zeros(size // 2, 12), embedded, torch.zeros(size, 12)])
        windows = torch.stack([padded[start : start + size] for start in range(6)])
        outputs.append(torch.einsum("lke,fek->lf", windows, convolution.weight) + convolution.bias)
    tokens = torch.cat(outputs, dim=1).relu()
    _, given, pooled = student(IDS[:1], output_hidden_states=True).hidden_states
    torch.testing.assert_close(given[0], tokens)
    torch.testing.assert_close(pooled[0, 0], tokens.max(dim=0).values)


def test_bilstm_equals_the_unpacked_lstm_on_one_text():
    student = make("bilstm")
    tokens, _ = student.lstm(student.embedding(IDS[1:2, :2]))
    pooled = torch.cat([tokens.mean(1), tokens.amax(1)], dim=-1)
    torch.testing.assert_close(student(IDS[:2]).logits[1:], student.head(pooled))


@pytest.mark.parametrize("mask", [[0, 1, 1], [1, 0, 1]])
def test_bilstm_refuses_padding_before_tokens(mask):
    with pytest.raises(KDError, match="padding_side to 'right'"):
        make("bilstm")(torch.tensor([[1, 2, 3]]), torch.tensor([mask]))


def test_word_dropout_takes_its_share_and_never_the_whole_text():
    torch.manual_seed(0)
    mask = torch.ones(2000, 20, dtype=torch.bool)
    mask[:, 10:] = False
    kept = drop_words(mask, 0.3)
    assert not (kept & ~mask).any()
    assert kept[:, :10].float().mean().item() == pytest.approx(0.7, abs=0.02)
    assert drop_words(torch.ones(500, 1, dtype=torch.bool), 0.9).all()
    dan = make("dan", word_dropout=0.5, dropout=0.0)
    assert torch.equal(dan(IDS).logits, dan(IDS).logits)
    dan.train()
    assert not torch.equal(dan(IDS).logits, dan(IDS).logits)


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
    ("config", "wrong", "named"),
    [
        (MLPConfig, {"dropout": 1.0}, "student.dropout"),
        (MLPConfig, {"dropout": -0.1}, "student.dropout"),
        (MLPConfig, {"num_layers": -1}, "student.num_layers"),
        (MLPConfig, {"embedding_size": 0}, "student.embedding_size"),
        (MLPConfig, {"vocab_size": 10, "pad_token_id": 10}, "student.pad_token_id"),
        (MLPConfig, {"initializer_range": 0.0}, "student.initializer_range"),
        (DANConfig, {"word_dropout": 1.5}, "student.word_dropout"),
        (DANConfig, {"hidden_size": 0}, "student.hidden_size"),
        (TextCNNConfig, {"filter_sizes": []}, "student.filter_sizes"),
        (TextCNNConfig, {"filter_sizes": [3, 0]}, "student.filter_sizes"),
        (TextCNNConfig, {"num_filters": 0}, "student.num_filters"),
        (BiLSTMConfig, {"num_layers": 0}, "student.num_layers"),
        (BiLSTMConfig, {"hidden_size": 2.5}, "student.hidden_size"),
    ],
)
def test_values_out_of_range_are_refused(config, wrong, named):
    with pytest.raises(KDError, match=f"{named} must be .* got"):
        config(**wrong)


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
    with pytest.raises(KDError, match="knows 30 tokens, and the tokenizer has 31"):
        pretrained_config(str(tmp_path), vocab_size=31, num_labels=2, pad_token_id=0)


def test_a_missing_checkpoint_and_impossible_sizes_are_refused(tmp_path):
    with pytest.raises(KDError, match=r"set student\.name_or_path"):
        pretrained_config(str(tmp_path / "nothing"), vocab_size=9, num_labels=2, pad_token_id=0)
    with pytest.raises(KDError, match=r"student 'bert'.*change the sizes"):
        new_student(BertConfig(hidden_size=10, num_attention_heads=3))
