"""Small students of each kind, and a batch with padding and an empty text."""

import torch
from transformers import BertConfig

from kd.models import BiLSTMConfig, DANConfig, HashedNGramsConfig, MLPConfig, TextCNNConfig
from kd.models.pretrained import new_student

SIZES = {"vocab_size": 40, "embedding_size": 12, "num_labels": 3, "pad_token_id": 0}
CONFIGS = {
    "mlp": lambda **more: MLPConfig(**SIZES, hidden_size=10, **more),
    "mlp0": lambda **more: MLPConfig(**SIZES, num_layers=0, **more),
    "dan": lambda **more: DANConfig(**SIZES, hidden_size=10, **more),
    "textcnn": lambda **more: TextCNNConfig(**SIZES, num_filters=7, **more),
    "ngrams": lambda **more: HashedNGramsConfig(**SIZES, hidden_size=10, buckets=60, sparse=False, **more),
    "bilstm": lambda **more: BiLSTMConfig(**SIZES, hidden_size=8, num_layers=2, **more),
}
TRANSFORMER = {"hidden_size": 12, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
IDS = torch.tensor([[5, 6, 7, 8, 9, 10], [11, 12, 0, 0, 0, 0], [13, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0]])
MASK = (IDS != 0).long()


def make(name, **more):
    torch.manual_seed(0)
    if name == "transformer":
        return new_student(BertConfig(vocab_size=40, num_labels=3, **TRANSFORMER, **more)).eval()
    return new_student(CONFIGS[name](**more)).eval()
