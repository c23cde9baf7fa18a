"""One function loads exports, runs and Hugging Face folders."""

import pytest

from kd.classifier import load
from kd.errors import KDError


def test_a_hugging_face_folder_is_loaded(teacher_folder):
    found = load(teacher_folder)
    assert found.probabilities(["a film"]).shape == (1, 2) and found.text_column == "text"


def test_a_path_that_leads_nowhere_is_named(tmp_path):
    with pytest.raises(KDError, match=r"expected a run, a Hugging Face folder or an export in .*, found nothing"):
        load(tmp_path / "nowhere")
    with pytest.raises(KDError, match=r"expected the directory of a kd run, found no status.json"):
        load(tmp_path)
