"""TextCNN against its formula."""

import torch

from tests.models.conftest import IDS, make


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
