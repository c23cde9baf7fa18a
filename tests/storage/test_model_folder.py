"""Models in the folder format of transformers."""

import json
import shutil

import pytest
import torch
from transformers import AutoConfig, AutoModel, BertConfig, DistilBertConfig, RobertaConfig

from kd.errors import KDError
from kd.storage.model_folder import (
    code_in,
    folder_checksum,
    load_classifier,
    load_config,
    load_tokenizer,
    local_model,
    longest_text,
    require_length,
)


@pytest.fixture
def folder(teacher_folder, tmp_path):
    return shutil.copytree(teacher_folder, tmp_path / "model")


def test_a_folder_is_its_own_place(folder, tmp_path):
    assert local_model(str(folder)) == folder
    with pytest.raises(KDError, match=r"expected a Hugging Face model in .*found no config.json"):
        local_model(str(tmp_path))


def test_what_is_loaded_evaluates_and_truncates_on_the_right(folder):
    model, tokenizer = load_classifier(folder), load_tokenizer(folder)
    assert not model.training and {value.dtype for value in model.parameters()} == {torch.float32}
    assert load_config(folder).num_labels == model.config.num_labels == 2
    assert (tokenizer.padding_side, tokenizer.truncation_side, tokenizer.chat_template) == ("right", "right", None)


def test_a_head_is_initialised_only_if_asked_for(folder):
    with pytest.raises(KDError, match="cannot read the model"):
        load_classifier(folder, label_names="abc")
    assert load_classifier(folder, new_head=True, label_names="abc").classifier.weight.shape[0] == 3


def test_damaged_files_are_one_clear_error(folder):
    for name, load in (("config.json", load_config), ("tokenizer.json", load_tokenizer)):
        (folder / name).write_text("{")
        with pytest.raises(KDError, match=r"cannot read the model in .*; download or save it again"):
            load(folder)


def test_keys_that_name_code_are_found_at_any_depth():
    assert list(code_in({"auto_map": {}, "attn_implementation": "eager", "layers": ["auto_map"]})) == []
    content = {"auto_map": {"AutoModel": "a.B"}, "text": {"_attn_implementation": "org/kernel"}}
    assert list(code_in(content)) == ["auto_map", "_attn_implementation"]


def test_the_checksum_covers_weights_and_configuration(folder):
    before = folder_checksum(folder)
    (folder / "README.md").write_text("not a part of the model")
    assert folder_checksum(folder) == before
    content = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(content | {"num_labels": 7}))
    assert folder_checksum(folder) != before


POSITIONS = [
    *("bert", "distilbert", "electra", "mpnet", "roberta", "xlm-roberta", "camembert", "data2vec-text", "esm", "ibert"),
    *("lilt", "longformer", "luke", "markuplm", "roberta-prelayernorm", "xlm-roberta-xl", "xmod"),
]


@pytest.mark.parametrize("kind", POSITIONS)
def test_the_longest_text_is_the_longest_that_the_model_reads(kind):
    sizes = {"hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    options = {"vocab_size": 30, "max_position_embeddings": 14, "pad_token_id": 1, **sizes}
    if kind == "distilbert":
        options |= {"dim": 8, "n_layers": 1, "n_heads": 2, "hidden_dim": 8}
    if kind == "xmod":
        options |= {"languages": ["en_XX"], "default_language": "en_XX"}
    config = AutoConfig.for_model(kind, **options)
    model, longest = AutoModel.from_config(config).eval(), longest_text(config)
    assert longest == (14 if kind in ("bert", "distilbert", "electra") else 12)
    model(input_ids=torch.full((1, longest), 5))
    with pytest.raises((IndexError, RuntimeError)):
        model(input_ids=torch.full((1, longest + 1), 5))


def test_a_text_may_be_as_long_as_the_positions_allow():
    assert longest_text(BertConfig(max_position_embeddings=20)) == 20
    assert longest_text(RobertaConfig(max_position_embeddings=514)) == 512
    assert longest_text(DistilBertConfig(max_position_embeddings=8, pad_token_id=0)) == 8
    require_length("tiny", BertConfig(max_position_embeddings=20), 20, "data.max_length")
    with pytest.raises(KDError, match=r"'tiny' reads at most 20 tokens, got 21; set data.max_length=20 or less"):
        require_length("tiny", BertConfig(max_position_embeddings=20), 21, "data.max_length")
