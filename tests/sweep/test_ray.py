"""What a Ray worker does; a real cluster runs in tests/end_to_end/test_ray.py."""

import sys

import pytest

from kd.errors import KDError
from kd.sweep.ray import RayQueue, run


def test_without_ray_the_extra_is_named(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(KDError, match=r"needs Ray; pip install 'kd\[ray\]'"):
        RayQueue(tmp_path, [])


def test_a_worker_runs_kd_and_returns_its_exit_code(tmp_path):
    code = run(["--version"], str(tmp_path / "log"), str(tmp_path), {"PYTHONPATH": ":".join(sys.path)})
    assert code == 0 and (tmp_path / "log").read_text().startswith("kd ")
