"""The software and the machine of a run."""

import json
import platform

from kd.run import environment as module
from kd.run.environment import PACKAGES, environment, processor


def test_it_is_json_with_every_package():
    found = json.loads(json.dumps(environment()))
    assert set(found["packages"]) == set(PACKAGES) and found["packages"]["numpy"]
    assert found["python"] == platform.python_version() and found["machine"]["cores"] > 0


def test_a_missing_package_has_no_version(monkeypatch):
    monkeypatch.setattr(module, "PACKAGES", ("numpy", "no-such-package"))
    assert environment()["packages"]["no-such-package"] is None


def test_the_processor_has_a_name_without_proc(monkeypatch):
    assert isinstance(processor(), str)
    monkeypatch.setattr(module, "Path", lambda name: _Missing())
    assert processor() == platform.processor()


class _Missing:
    def read_text(self):
        raise OSError("no /proc")
