"""What a model folder says about itself must be possible, and its weights and tokenizer must fit to it."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoTokenizer, GPT2Config, GPT2ForSequenceClassification, PreTrainedTokenizerFast

from kd.errors import KDError
from kd.storage.model_check import check_pair, encoded_samples, refusing, rows_of, settings_in
from kd.storage.model_folder import load_classifier, load_config, load_tokenizer


@pytest.fixture
def folder(teacher_folder, tmp_path):
    return shutil.copytree(teacher_folder, tmp_path / "model")


def change(folder, name, **values):
    content = json.loads((folder / name).read_text())
    (folder / name).write_text(json.dumps(content | values))


def change_weights(folder, **values):
    weights = load_file(folder / "model.safetensors") | values
    save_file({name: value for name, value in weights.items() if value is not None}, folder / "model.safetensors")


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"max_position_embeddings": 0}, "expected a whole number from 1 to 2147483647 as max_position_embeddings, "),
        ({"max_position_embeddings": -3}, "as max_position_embeddings, found -3"),
        ({"max_position_embeddings": "64"}, "as max_position_embeddings, found '64'"),
        ({"vocab_size": "many"}, "as vocab_size, found 'many'"),
        ({"vocab_size": 2.5}, "as vocab_size, found 2.5"),
        ({"hidden_size": True}, "as hidden_size, found True"),
        ({"intermediate_size": 10**500}, "as intermediate_size, found 1000"),
        ({"num_hidden_layers": -1}, "a whole number from 0 to 100000 as num_hidden_layers, found -1"),
        ({"num_hidden_layers": 10**7}, "as num_hidden_layers, found 10000000"),
        ({"model_type": "distilbert", "n_layers": 10**12}, "as n_layers, found 1000000000000"),
        ({"num_labels": 10**12}, "a whole number from 1 to 1000000 as num_labels, found 1000000000000"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_impossible_numbers_are_refused_before_anything_is_built(folder, values, said):
    change(folder, "config.json", **values)
    with pytest.raises(KDError, match="cannot read the model in") as error:
        load_config(folder)
    assert said in str(error.value)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("[1, 2]", r"config.json: expected keys with values, found \[1, 2\]"),
        ("[" * 100_000 + "]" * 100_000, "cannot read the model"),
        ('{"vocab_size": 1' + "0" * 5000 + "}", "digits"),
        ("{", "cannot read the model"),
        (b"\xff\xfe", "cannot read the model"),
    ],
    ids=["list", "deep", "digits", "cut", "bytes"],
)
def test_what_is_no_settings_file_is_refused(folder, content, said):
    (folder / "config.json").write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(KDError, match=said):
        load_config(folder)
    assert settings_in(folder, "no such file") == {}


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"id2label": {"1": "a", "2": "b"}}, r"expected the numbers 0 to 1 in id2label, found \['1', '2'\]"),
        ({"id2label": {"0": "a", "1": "a"}}, "expected different names in id2label, found 'a' twice"),
        ({"id2label": ["a", "b"]}, "expected a name for each label in id2label"),
        ({"id2label": {"0": None, "1": "b"}}, "expected a name for each label in id2label"),
        ({"id2label": {}}, r"expected a name for each label in id2label, found {}"),
        ({"id2label": {"0": "a", "1": "b"}, "num_labels": 3}, "3"),
        (
            {"id2label": {"0": "a", "1": "b"}, "label2id": {"a": 1, "b": 0}},
            "expected the names of id2label in label2id",
        ),
        ({"id2label": {"0": "a", "1": "b"}, "label2id": {"a": 0}}, r"in label2id, found {'a': 0} beside {'0': 'a'"),
        ({"id2label": {"0": "a", "1": "b"}, "label2id": [0, 1]}, "expected the names of id2label in label2id"),
    ],
    ids=["numbers", "repeated", "list", "null", "empty", "more", "swapped", "fewer", "no keys"],
)
def test_each_label_has_a_number_and_a_name_of_its_own(folder, values, said):
    change(folder, "config.json", **values)
    with pytest.raises(KDError, match=said):
        load_classifier(folder)


def test_labels_of_more_than_ten_classes_are_in_order(folder, teacher_folder):
    names = {str(number): f"class {number}" for number in range(12)}
    change(folder, "config.json", id2label=names, label2id={name: int(key) for key, name in names.items()})
    assert load_classifier(folder, new_head=True).config.id2label[11] == "class 11"


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("new_head", [False, True])
def test_weights_that_are_not_finite_are_refused(folder, value, new_head):
    table = load_file(folder / "model.safetensors")["bert.embeddings.word_embeddings.weight"]
    table[3, :2] = value
    change_weights(folder, **{"bert.embeddings.word_embeddings.weight": table})
    said = rf"finite numbers in bert.embeddings.word_embeddings.weight, found 2 of {table.numel()} that are not"
    with pytest.raises(KDError, match=said):
        load_classifier(folder, new_head=new_head)


def test_large_finite_weights_pass_and_their_logits_do_not(folder):
    weights = load_file(folder / "model.safetensors")
    large = {"bert.pooler.dense.bias": 9, "classifier.weight": 3e38}  # each finite, and 32 of them have no finite sum
    change_weights(folder, **{name: torch.full_like(weights[name], value) for name, value in large.items()})
    model, tokenizer = load_classifier(folder), load_tokenizer(folder)
    with pytest.raises(KDError, match="expected 2 x 2 finite logits for 2 texts, found"):
        check_pair(folder, model, tokenizer, 64)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"num_hidden_layers": 3}, "expected weights for bert.encoder.layer.2.* by config.json, found none"),
        ({"num_hidden_layers": 1}, "expected the layers that config.json counts, found one more: bert.encoder.layer.1"),
        ({"num_hidden_layers": 0}, "expected the layers that config.json counts, found one more: bert.encoder.layer.0"),
        ({"vocab_size": 50}, r"expected 50 x 32 numbers in bert.embeddings.word_embeddings.weight .*found 80 x 32"),
        ({"max_position_embeddings": 65}, "expected 65 x 32 numbers in bert.embeddings.position_embeddings.weight"),
        ({"num_hidden_layers": 90_000}, "found a far larger model than 41 tensors in"),
        ({"intermediate_size": 10**9}, "found a far larger model than 41 tensors in"),
        ({"type_vocab_size": 10**13}, "found a far larger model than 41 tensors in"),
    ],
    ids=lambda value: "-".join(map(str, *value.items())) if isinstance(value, dict) else "",
)
def test_a_new_head_is_no_reason_for_other_new_weights(folder, values, said):
    change(folder, "config.json", **values)
    with pytest.raises(KDError, match=said):
        load_classifier(folder, new_head=True)


def test_a_backbone_without_pooler_and_head_gets_both(folder):
    weights = load_file(folder / "model.safetensors")
    change_weights(folder, **{name: None for name in weights if "pooler" in name or "classifier" in name})
    assert load_classifier(folder, new_head=True, label_names="abcde").config.num_labels == 5


@pytest.mark.parametrize("length", [0, -5, 2, "x", True, None, float("nan")])
def test_a_length_that_leaves_no_room_for_a_text_is_refused(folder, length):
    change(folder, "tokenizer_config.json", model_max_length=length)
    if length is None:  # as if the key were missing
        assert load_tokenizer(folder).model_max_length > 10**9
        return
    with pytest.raises(KDError, match="expected more than 2 as model_max_length, found"):
        load_tokenizer(folder)


def test_a_length_written_as_a_float_is_a_whole_number(folder):
    change(folder, "tokenizer_config.json", model_max_length=48.0)
    assert type(load_tokenizer(folder).model_max_length) is int


@pytest.mark.parametrize("kind", ["bert", "roberta", "distilbert", "mpnet", "albert", "gpt2", "deberta-v2"])
def test_a_folder_without_tokenizer_files_is_refused(kind, tmp_path):
    """transformers makes a tokenizer without words for it, and every word would be unknown."""
    (tmp_path / "config.json").write_text(json.dumps({"model_type": kind}))
    with pytest.raises(KDError, match=r"expected a tokenizer|cannot read the model"):
        load_tokenizer(tmp_path)


def test_a_tokenizer_needs_a_padding_token(folder):
    content = json.loads((folder / "tokenizer_config.json").read_text())
    del content["pad_token"]
    (folder / "tokenizer_config.json").write_text(json.dumps(content))
    with pytest.raises(KDError, match=r"expected a padding token in the tokenizer of .*, found none"):
        load_tokenizer(folder)


def test_a_tokenizer_must_not_have_more_words_than_the_table(folder):
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens(["@user"])
    tokenizer.save_pretrained(folder)
    with pytest.raises(KDError, match=r"for the 80 rows of the word table in .*, found the token id 80"):
        load_tokenizer(folder)


def test_a_regex_that_panics_is_one_sentence(folder):
    tokenizer = AutoTokenizer.from_pretrained(folder)
    content = json.loads(tokenizer.backend_tokenizer.to_str())
    for pattern in ("(", "(?<=a*)b", "(?:(?:a|a)*)*$"):
        content["pre_tokenizer"] = {
            **{"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
        }
        (folder / "tokenizer.json").write_text(json.dumps(content))
        try:
            load_tokenizer(folder)
        except KDError as error:
            assert "cannot read the model" in str(error)


def test_a_panic_is_refused_and_an_interrupt_is_not(folder):
    panic = type("PanicException", (BaseException,), {})
    with pytest.raises(KDError, match=r"\(called `Option::unwrap\(\)`\); download or save it again"), refusing(folder):
        raise panic("called `Option::unwrap()`")
    with pytest.raises(KeyboardInterrupt), refusing(folder):
        raise KeyboardInterrupt


def test_a_model_must_classify_two_texts(folder):
    model, tokenizer = load_classifier(folder), load_tokenizer(folder)
    assert max(encoded_samples(folder, tokenizer)) < rows_of(model.config) == 80
    check_pair(folder, model, tokenizer, 64)
    with pytest.raises(KDError, match="expected room for more than 2 special tokens, found 2 positions"):
        check_pair(folder, model, tokenizer, 2)
    model.config.num_labels = 3
    with pytest.raises(KDError, match="expected 2 x 3 finite logits"):
        check_pair(folder, model, tokenizer, 64)


def test_a_decoder_finds_its_last_token_by_the_padding_of_its_tokenizer(tmp_path):
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.add_special_tokens(["<pad>"])
    backend.add_tokens(pre_tokenizers.ByteLevel.alphabet())
    size = backend.get_vocab_size()
    vocabulary = {token: number for number, token in enumerate(["<pad>", *sorted(pre_tokenizers.ByteLevel.alphabet())])}
    backend = Tokenizer(models.BPE(vocabulary, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="<pad>").save_pretrained(tmp_path)
    config = GPT2Config(vocab_size=size, n_embd=8, n_layer=1, n_head=1, n_positions=256)
    GPT2ForSequenceClassification(config).save_pretrained(tmp_path)
    assert load_config(tmp_path).pad_token_id is None
    model, tokenizer = load_classifier(tmp_path), load_tokenizer(tmp_path)
    assert model.config.pad_token_id == tokenizer.pad_token_id == 0
    check_pair(tmp_path, model, tokenizer, 256)
