"""ONNX files and their smaller forms."""

import numpy as np
import onnxruntime
import pytest
import torch
from transformers import AutoModelForSequenceClassification

from kd.errors import KDError
from kd.export import graph
from kd.models import BiLSTMConfig, DANConfig, TextCNNConfig
from tests.export.conftest import SMALL


@pytest.fixture(scope="module")
def dan():
    torch.manual_seed(0)
    return AutoModelForSequenceClassification.from_config(DANConfig(vocab_size=5000, **SMALL, hidden_size=10)).eval()


def test_smaller_forms_are_smaller_and_take_any_shape(dan, tmp_path):
    source, small, half = (tmp_path / name for name in ("model.onnx", "int8.onnx", "fp16.onnx"))
    graph.save(dan, source)
    graph.quantise(source, small, "dynamic", [], 0)
    graph.halve(source, half)
    assert small.stat().st_size < 0.4 * source.stat().st_size and half.stat().st_size < 0.6 * source.stat().st_size
    sessions = [onnxruntime.InferenceSession(path) for path in (source, small, half)]
    for shape in [(1, 1), (1, 40), (7, 1), (5, 9)]:
        ids, mask = np.random.randint(0, 5000, shape), np.ones(shape, np.int64)
        mask[0, shape[1] // 2 :] = 0
        found = [each.run(None, {"input_ids": ids, "attention_mask": mask})[0] for each in sessions]
        expected = dan(torch.from_numpy(ids), torch.from_numpy(mask)).logits.detach().numpy()
        for logits, tolerance in zip(found, (1e-5, 1e-2, 1e-3), strict=True):
            np.testing.assert_allclose(logits, expected, atol=tolerance)


def test_weights_beyond_16_bits_are_refused(dan, tmp_path):
    with torch.no_grad():
        dan.embedding.weight[7, 0] = 1e6
    graph.save(dan, tmp_path / "model.onnx")
    with pytest.raises(
        KDError, match=r"the weights .*embedding.weight are outside the range of 16 bits; use --to onnx"
    ):
        graph.halve(tmp_path / "model.onnx", tmp_path / "half.onnx")


def test_convolutions_are_quantised_by_texts_and_all_else_without():
    models = {
        kind: AutoModelForSequenceClassification.from_config(kind(**SMALL)) for kind in (TextCNNConfig, BiLSTMConfig)
    }
    assert [graph.scheme_of(model) for model in models.values()] == ["static", "dynamic"]
