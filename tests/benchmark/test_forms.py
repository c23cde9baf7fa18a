"""The forms of a classifier give the same answers, and its size is counted."""

import numpy as np
import pytest

from kd.benchmark.forms import forms_of, size_of
from kd.errors import KDError
from tests.export.conftest import TEXTS, classifier

LABELS = ["bad", "good"]


def test_all_forms_answer_as_the_model_does(teacher_folder, tmp_path):
    predictor = classifier("dan", teacher_folder)
    forms = list(forms_of("dan", predictor, tmp_path, ["eager", "onnx", "int8"], TEXTS, tmp_path / "new", LABELS[::-1]))
    assert [form.form for form in forms] == ["eager", "onnx", "int8"]
    for form, tolerance in zip(forms, (1e-6, 1e-5, 2e-2), strict=True):
        np.testing.assert_allclose(form.answer(TEXTS[:9]), predictor.logits(TEXTS[:9])[:, ::-1], atol=tolerance)
    with pytest.raises(KDError, match=r"expected the labels a, b in .* found bad, good; choose"):
        next(forms_of("dan", predictor, tmp_path, ["eager"], TEXTS, tmp_path, ["a", "b"]))
    assert forms[1].size == (tmp_path / "new" / "dan" / "onnx" / "model.onnx").stat().st_size


def test_an_export_that_is_there_is_used(bilstm, exported, tmp_path):
    (tmp_path / "exports").symlink_to(exported)
    (form,) = forms_of("bilstm", bilstm, tmp_path, ["onnx"], TEXTS, tmp_path / "new", LABELS)
    assert not (tmp_path / "new").exists() and form.size == (exported / "onnx" / "model.onnx").stat().st_size


def test_multiply_adds_are_counted_within_an_lstm_too(teacher_folder):
    found = size_of(classifier("bilstm", teacher_folder), ["a film"] * 3)
    tokens, hidden = found["mean_tokens"], 8
    assert tokens == 4  # [CLS] a film [SEP]
    layers = 2 * 4 * hidden * tokens * ((12 + hidden) + (2 * hidden + hidden))
    head, mean = 4 * hidden * 2, tokens * 2 * hidden
    assert found["multiply_adds"] == layers + head + mean
