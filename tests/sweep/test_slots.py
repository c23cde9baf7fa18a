"""GPUs and cores are divided into slots."""

import pytest

from kd.errors import KDError
from kd.sweep.slots import Slot, slots_for, usable_cores, visible_gpus
from tests.sweep.conftest import job_on


def test_slots_divide_gpus_and_cores():
    gpus = ["0", "1", "2", "3"]
    assert [slot.gpus for slot in slots_for([job_on(1)], None, gpus, 16)] == [("0",), ("1",), ("2",), ("3",)]
    assert [slot.gpus for slot in slots_for([job_on(2), job_on(1)], None, gpus, 16)] == [("0", "1"), ("2", "3")]
    assert [slot.gpus for slot in slots_for([job_on(1)], 8, gpus[:2], 16)] == [("0",), ("1",)] * 4
    (one,) = slots_for([job_on(1, "cpu")], None, gpus, 16)
    assert one == Slot((), 16)
    assert slots_for([job_on(1, "auto")], 3, [], 16) == [Slot((), 5)] * 3
    with pytest.raises(KDError, match=r"needs trainer.devices=4.*set hydra.launcher.slots=1"):
        slots_for([job_on(4)], 2, gpus, 16)


def test_visible_gpus_are_those_of_the_environment(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3, GPU-ab")
    assert visible_gpus() == ["3", "GPU-ab"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    assert visible_gpus() == []


def test_gpus_are_counted_without_cuda(monkeypatch, tmp_path):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert visible_gpus() == []
    command = tmp_path / "nvidia-smi"
    command.write_text("#!/bin/sh\necho 'GPU 0: one'\necho 'GPU 1: another'\n")
    command.chmod(0o755)
    assert visible_gpus() == ["0", "1"]
    assert usable_cores() >= 1
