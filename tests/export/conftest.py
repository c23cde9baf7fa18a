"""Small classifiers of all architectures, and an exported one."""

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer, BertConfig, MPNetConfig

from kd.export import checks, write
from kd.features.mapper import Linear
from kd.models import BiLSTMConfig, DANConfig, HashedNGramsConfig, MLPConfig, TextCNNConfig
from kd.models.composition import compose
from kd.predictor import Predictor
from tests.conftest import make_reviews

TEXTS = [text for text, _ in make_reviews(80)]
OPTIONS = {"pad_token_id": 0, "id2label": {0: "bad", 1: "good"}, "label2id": {"bad": 0, "good": 1}}
SMALL = {"embedding_size": 12, **OPTIONS}
ENCODER = {"hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 24, "num_hidden_layers": 2, **OPTIONS}
CONFIGS = {
    "dan": lambda words: DANConfig(vocab_size=words, **SMALL, hidden_size=10),
    "textcnn": lambda words: TextCNNConfig(vocab_size=words, **SMALL, num_filters=7),
    "bilstm": lambda words: BiLSTMConfig(vocab_size=words, **SMALL, hidden_size=8, num_layers=2),
    "ngrams": lambda words: HashedNGramsConfig(vocab_size=words, **SMALL, buckets=50),
    "bert": lambda words: BertConfig(vocab_size=words, **ENCODER),
    "mpnet": lambda words: MPNetConfig(vocab_size=words, **ENCODER | {"pad_token_id": 1}),
}


def classifier(name: str, teacher_folder: Path) -> Predictor:
    """A random classifier of an architecture, with the tokenizer of the teacher."""
    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(teacher_folder)
    if name == "composition":
        bert = AutoModelForSequenceClassification.from_config(CONFIGS["bert"](len(tokenizer)))
        model = compose(bert, None, Linear, MLPConfig(vocab_size=len(tokenizer), **SMALL, hidden_size=10))
    else:
        model = AutoModelForSequenceClassification.from_config(CONFIGS[name](len(tokenizer)))
    return Predictor(model.eval(), tokenizer, 32)


@pytest.fixture(scope="session")
def bilstm(teacher_folder) -> Predictor:
    return classifier("bilstm", teacher_folder)


@pytest.fixture(scope="session")
def exported(bilstm, tmp_path_factory) -> Path:
    """A folder with an export of each kind."""
    place = tmp_path_factory.mktemp("exports")
    kinds = ["onnx", "int8", "fp16", "torch"]
    list(write.exports(bilstm, kinds, place, checks.Rows(TEXTS), TEXTS, {"student": "bilstm"}))
    return place
