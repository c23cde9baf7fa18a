"""BiLSTM against torch's LSTM without packing."""

import pytest
import torch

from kd.errors import KDError
from tests.models.conftest import IDS, make


def test_bilstm_equals_the_unpacked_lstm_on_one_text():
    student = make("bilstm")
    tokens, _ = student.lstm(student.embedding(IDS[1:2, :2]))
    pooled = torch.cat([tokens.mean(1), tokens.amax(1)], dim=-1)
    torch.testing.assert_close(student(IDS[:2]).logits[1:], student.head(pooled))


@pytest.mark.parametrize("mask", [[0, 1, 1], [1, 0, 1]])
def test_bilstm_refuses_padding_before_tokens(mask):
    with pytest.raises(KDError, match="padding_side to 'right'"):
        make("bilstm")(torch.tensor([[1, 2, 3]]), torch.tensor([mask]))
