"""Exports answer as the model does, for every architecture."""

import json

import numpy as np
import pytest

from kd.errors import KDError
from kd.export import checks, classifier, write
from tests.export import conftest

SCHEMES = {"textcnn": "static"}


OTHERS = [*sorted({*conftest.CONFIGS} - {"textcnn"}), "composition"]


@pytest.mark.parametrize("name", ["textcnn", *(pytest.param(name, marks=pytest.mark.slow) for name in OTHERS)])
def test_every_architecture_is_exported(name, teacher_folder, tmp_path):
    predictor = conftest.classifier(name, teacher_folder)
    rows = checks.Rows(conftest.TEXTS)
    kinds = ["onnx", "int8", "fp16", "torch"]
    for place, about in write.exports(predictor, kinds, tmp_path, rows, conftest.TEXTS, {}):
        kind = about["kind"]
        found = classifier.load(place).logits(checks.ODD + conftest.TEXTS, batch_size=7)
        tolerance = {"int8": 0.02, "fp16": 2e-3}.get(kind, 1e-5)
        np.testing.assert_allclose(found, predictor.logits(checks.ODD + conftest.TEXTS), atol=tolerance, err_msg=kind)
        assert about["check"]["texts"] == len(conftest.TEXTS) and about["check"]["flips"] == 0
        assert about.get("scheme") == (SCHEMES.get(name, "dynamic") if kind == "int8" else None)


def test_the_folder_says_what_was_found(exported):
    about = json.loads((exported / "int8" / "export.json").read_text())
    assert about["labels"] == ["bad", "good"] and about["max_length"] == 32 and about["source"] == {"student": "bilstm"}
    assert about["check"]["largest_difference"] > 0 and "onnxruntime" in about["made_with"]


def test_an_export_that_changes_labels_is_refused_and_leaves_no_folder(bilstm, tmp_path, monkeypatch):
    monkeypatch.setattr(checks, "MOST_FLIPS", -1)
    rows = checks.Rows(conftest.TEXTS)
    with pytest.raises(KDError, match=r"--to torch: expected at most .* of the labels to change, found 0 of 80 texts"):
        list(write.exports(bilstm, ["torch"], tmp_path, rows, [], {}))
    assert not list(tmp_path.rglob("export.json"))
    assert list(write.exports(bilstm, ["torch"], tmp_path, rows, [], {}, force=True))
