"""The memory of a process that answers: the size of the model is in it, and torch is where it is needed alone."""

import pytest

from kd.benchmark.memory import resident
from kd.errors import KDError


def test_an_export_needs_less_memory_than_the_libraries_of_torch(exported):
    assert 20e6 < resident(exported / "onnx", ["a film"] * 8) < 200e6  # importing torch alone takes more


def test_what_cannot_be_loaded_is_said(tmp_path):
    with pytest.raises(KDError, match=r"cannot measure the memory of .* expected a run, a Hugging Face folder"):
        resident(tmp_path / "nothing", ["a film"])
