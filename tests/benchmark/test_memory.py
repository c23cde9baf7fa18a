"""The memory of a process that answers: the size of the model is in it, and torch is where it is needed alone."""

import pytest

from kd.benchmark import memory
from kd.benchmark.forms import Form
from kd.benchmark.memory import resident
from kd.commands.benchmark import memory_of
from kd.errors import KDError


def test_an_export_needs_less_memory_than_the_libraries_of_torch(exported):
    assert 20e6 < resident(exported / "onnx", ["a film"] * 8, 1) < 200e6  # importing torch alone takes more


def test_what_cannot_be_loaded_is_said(tmp_path):
    with pytest.raises(KDError, match=r"cannot measure the memory of .* expected a run, a Hugging Face folder"):
        resident(tmp_path / "nothing", ["a film"], 1)


def test_a_failure_does_not_stop_the_benchmark(tmp_path, monkeypatch, caplog):
    form = Form("student", "eager", None, None, 0, 0, tmp_path / "nothing", [])
    monkeypatch.setattr(memory, "SECONDS", 0.01)
    with pytest.raises(KDError, match=r"no answer in 0\.01 s"):
        resident(form.path, ["a film"], 1)
    assert memory_of(form, ["a film"], 1) is None and "cannot measure the memory of" in caplog.text
