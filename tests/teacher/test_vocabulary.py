"""The model that a student starts from, and its vectors of words."""

import numpy as np
import pytest
import torch

from kd.errors import KDError
from kd.runtime.devices import ONE_CPU
from kd.teacher.assistant import Assistant
from kd.teacher.ensemble import Ensemble
from kd.teacher.vocabulary import encoder, untrained
from tests.teacher.conftest import RECIPE


def test_words_are_read_once_and_then_found(ready, tmp_path, monkeypatch):
    texts = ["film", "dull", "a"]
    reader = encoder(ready, "mean", tmp_path)
    vectors = reader.vectors(texts)
    with torch.no_grad():
        inputs = ready.tokenizer(["film"], return_tensors="pt")
        states = ready.model(**inputs, output_hidden_states=True).hidden_states[-1]
    np.testing.assert_allclose(vectors[0], states[0].mean(dim=0), atol=2e-3)
    assert vectors.shape == (3, reader.width)
    monkeypatch.setattr("kd.teacher.ready.outputs_by_row", None)  # nothing is run again
    assert torch.equal(encoder(ready, "mean", tmp_path).vectors(texts), vectors)


def test_the_backbone_is_that_of_the_first_member(teacher):
    assert untrained(teacher, ONE_CPU).has_head is False
    assert untrained(Ensemble({"first": teacher, "second": teacher}), ONE_CPU).folder == teacher.backbone
    assistant = Assistant(teacher=teacher, model=lambda **sizes: None, alpha=0.5, temperature=1.0, **RECIPE)
    with pytest.raises(KDError, match="fine_tuned=false reads the backbone of the teacher, and 'assistant of"):
        untrained(assistant, ONE_CPU)
