"""The predictor: its logits are those of the model, in the order of the texts."""

import json
import shutil

import numpy as np
import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from kd.errors import KDError
from kd.predictor import Predictor

TEXTS = ["a very dull film", "the plot", "", "the story is warm and the actors are very funny", "film"]


@torch.no_grad()
def test_logits_are_those_of_the_model_in_the_order_of_the_texts(teacher_folder):
    predictor = Predictor.load(teacher_folder)
    model = AutoModelForSequenceClassification.from_pretrained(teacher_folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(teacher_folder)
    expected = np.concatenate([model(**tokenizer(text, return_tensors="pt")).logits.numpy() for text in TEXTS])
    for batch_size in (1, 2, 64):
        np.testing.assert_allclose(predictor.logits(TEXTS, batch_size), expected, atol=1e-6)
    np.testing.assert_allclose(predictor.probabilities(TEXTS).sum(axis=1), 1, rtol=1e-6)
    assert predictor.logits([]).shape == (0, 2) and predictor.label_names == ["LABEL_0", "LABEL_1"]


def test_longer_texts_are_truncated_to_what_the_model_reads(teacher_folder):
    predictor = Predictor.load(teacher_folder)
    assert predictor.max_length == 64
    long, longer = ("film " * words for words in (62, 500))
    np.testing.assert_allclose(predictor.logits([long]), predictor.logits([longer]), atol=1e-6)


def test_a_classifier_of_several_labels_a_text_is_refused(teacher_folder, tmp_path):
    folder = shutil.copytree(teacher_folder, tmp_path / "model")
    content = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(content | {"problem_type": "multi_label_classification"}))
    with pytest.raises(KDError, match=r"expected a classifier of one label a text, found .*multi_label_classification"):
        Predictor.load(folder)


def test_logits_that_are_not_finite_are_refused(teacher_folder):
    predictor = Predictor.load(teacher_folder)
    with torch.no_grad():
        predictor.model.bert.embeddings.word_embeddings.weight[predictor.tokenizer.vocab["dull"]] = float("nan")
    assert np.isfinite(predictor.logits(["a film"])).all()
    with pytest.raises(KDError, match="expected finite logits, found others for 2 texts, first 'a dull film'"):
        predictor.logits(["a film", "a dull film", "dull"])


def test_a_folder_without_a_model_is_refused(tmp_path):
    with pytest.raises(KDError, match="expected the directory of a kd run, found no"):
        Predictor.load(tmp_path)
