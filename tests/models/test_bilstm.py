"""BiLSTM: padded rows against packed ones, padding anywhere, dropout, and what is saved and exported."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.export._patches import register_lstm_while_loop_decomposition

from kd.models.bilstm import run_packed, run_padded
from tests.models.conftest import IDS, MASK, make


def lstm_of(layers: int, seed: int = 0, dropout: float = 0.0) -> nn.LSTM:
    torch.manual_seed(seed)
    return nn.LSTM(5, 4, layers, batch_first=True, bidirectional=True, dropout=dropout)


def test_bilstm_equals_the_unpacked_lstm_on_one_text():
    student = make("bilstm")
    tokens, _ = student.lstm(student.embedding(IDS[1:2, :2]))
    pooled = torch.cat([tokens.mean(1), tokens.amax(1)], dim=-1)
    torch.testing.assert_close(student(IDS[:2]).logits[1:], student.head(pooled))


@given(
    lengths=st.lists(st.integers(1, 12), min_size=1, max_size=6),
    more=st.integers(0, 3),
    layers=st.integers(1, 3),
    seed=st.integers(0, 99),
)
@settings(max_examples=60, deadline=None)
def test_padded_rows_give_what_packed_rows_give(lengths, more, layers, seed):
    lstm, width = lstm_of(layers, seed).eval(), max(lengths) + more
    rows, pull = torch.randn(len(lengths), width, 5), torch.randn(len(lengths), width, 8)
    lengths = torch.tensor(lengths)
    mask = torch.arange(width) < lengths.unsqueeze(1)
    found = []
    for run in (run_packed, run_padded):
        inputs = rows.clone().requires_grad_()
        states = run(lstm, inputs, lengths) * mask.unsqueeze(-1)
        found.append([states, *torch.autograd.grad((states * pull).sum(), [inputs, *lstm.parameters()])])
    for packed, padded in zip(*found, strict=True):
        torch.testing.assert_close(padded, packed, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("mask", [[0, 1, 1, 1], [1, 0, 1, 1], [0, 1, 1, 0, 0, 1]])
def test_padding_may_stand_anywhere(mask):
    student, places = make("bilstm"), torch.tensor(mask).nonzero().squeeze(1)
    ids = torch.zeros(1, len(mask), dtype=torch.long)
    ids[0, places] = torch.tensor([5, 6, 7])
    found = student(ids, torch.tensor([mask]), output_hidden_states=True)
    expected = student(torch.tensor([[5, 6, 7]]), output_hidden_states=True)
    torch.testing.assert_close(found.logits, expected.logits)
    torch.testing.assert_close(found.hidden_states[1][:, places], expected.hidden_states[1])
    assert not found.hidden_states[1][torch.tensor([mask]) == 0].any()


def test_dropout_lies_between_the_layers_and_only_in_training():
    """A layer that reads nothing but zeros gives the same states for all texts of one length."""
    rows, lengths = torch.randn(3, 4, 5), torch.tensor([4, 4, 4])
    lstm = lstm_of(2, dropout=1.0).train()
    states = run_padded(lstm, rows, lengths)
    torch.testing.assert_close(states, states[:1].expand_as(states))
    torch.testing.assert_close(run_padded(lstm.eval(), rows, lengths), lstm(rows)[0])
    single = lstm_of(1).train()
    torch.testing.assert_close(run_padded(single, rows, lengths), single(rows)[0])


def test_mixed_precision_is_close_to_the_full_one():
    student = make("bilstm")
    with torch.autocast("cpu", torch.bfloat16):
        found = student(IDS, MASK).logits
    found.float().sum().backward()
    torch.testing.assert_close(found.float(), student(IDS, MASK).logits, atol=0.02, rtol=0.05)


def test_names_and_shapes_of_the_saved_weights_are_those_of_torchs_lstm():
    saved = {name: tuple(weight.shape) for name, weight in make("bilstm").lstm.state_dict().items()}
    assert saved == {
        f"{kind}_l{layer}{direction}": shape
        for layer, width in enumerate((12, 16))
        for kind, shape in (("weight_ih", (32, width)), ("weight_hh", (32, 8)), ("bias_ih", (32,)), ("bias_hh", (32,)))
        for direction in ("", "_reverse")
    }


def test_it_is_exported_for_any_number_and_length_of_texts():
    student = make("bilstm")
    rows, length = torch.export.Dim("rows", max=512), torch.export.Dim("length", min=2, max=512)
    shapes = {"input_ids": {0: rows, 1: length}, "attention_mask": {0: rows, 1: length}}
    given = {"input_ids": IDS[:3], "attention_mask": MASK[:3]}
    with register_lstm_while_loop_decomposition():  # as torch.onnx.export does; torch would unroll the steps otherwise
        program = torch.export.export(student, (), given, dynamic_shapes=shapes).module()
    generator = torch.Generator().manual_seed(0)
    for count, width in ((1, 2), (5, 9), (2, 31)):
        ids = torch.randint(1, 40, (count, width), generator=generator)
        mask = (torch.arange(width) < torch.randint(1, width + 1, (count, 1), generator=generator)).long()
        found = program(input_ids=ids, attention_mask=mask).logits
        torch.testing.assert_close(found, student(ids, mask).logits, atol=1e-6, rtol=1e-5)
