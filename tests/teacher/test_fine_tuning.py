"""Training of a teacher: once, on one device or several, and again where the stored one is damaged."""

import dataclasses
import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from kd.errors import KDError
from kd.runtime.devices import Devices
from kd.teacher.fine_tuning import stored


def test_a_damaged_teacher_is_trained_again(teacher, splits, tmp_path, caplog):
    first = teacher.ready(splits, tmp_path)
    weights = first.folder / "model.safetensors"
    before = {name: value.clone() for name, value in load_file(weights).items()}
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    again = teacher.ready(splits, tmp_path)
    assert "damaged" in caplog.text
    after = load_file(again.folder / "model.safetensors")
    assert all(torch.equal(before[name], after[name]) for name in before), (
        "the recipe and the seed give the same weights"
    )


@pytest.fixture(scope="module")
def steady(teacher_folder, tmp_path_factory) -> Path:
    """A backbone without dropout, since each rank would draw its own."""
    folder = Path(shutil.copytree(teacher_folder, tmp_path_factory.mktemp("steady") / "backbone"))
    config = json.loads((folder / "config.json").read_text())
    config |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.mark.parametrize(
    "sharded",
    [pytest.param(False, marks=pytest.mark.slow, id="ddp"), pytest.param(True, marks=pytest.mark.long, id="fsdp")],
)
def test_two_devices_fine_tune_as_one_does(teacher, steady, splits, tmp_path, sharded, caplog):
    """The steps have the same rows on one device and on two; of 60 rows, the last step has 12."""
    caplog.set_level("INFO")
    teacher = dataclasses.replace(teacher, name_or_path=str(steady), epochs=2, gradient_clip=0.5)
    one = teacher.ready(splits, tmp_path / "one")
    two = teacher.ready(splits, tmp_path / "two", Devices("cpu", 2, sharded))
    assert "trained by 2 of 2 devices, 8 rows each" in caplog.text
    assert two.folder.parent.name == one.folder.parent.name, "the name is that of the recipe"
    assert two.facts["rows"] == 60 and two.facts["validation_accuracy"] == one.facts["validation_accuracy"]
    weights, whole = (load_file(ready.folder / "model.safetensors") for ready in (two, one))
    assert weights.keys() == whole.keys()
    assert all(torch.allclose(weights[name], whole[name], atol=1e-4) for name in whole)
    before = load_file(steady / "model.safetensors")
    assert any(not torch.allclose(whole[name], before[name], atol=1e-3) for name in before if name in whole)


def test_as_many_devices_train_as_share_a_step_evenly(teacher, splits, tmp_path, caplog):
    caplog.set_level("INFO")
    dataclasses.replace(teacher, batch_size=9).ready(splits, tmp_path, Devices("cpu", 2))
    assert "trained by 1 of 2 devices, 9 rows each" in caplog.text


@pytest.mark.slow
def test_a_failed_device_is_named_and_leaves_no_teacher(teacher, splits, tmp_path):
    teacher = dataclasses.replace(teacher, learning_rate=1e6, gradient_clip=0.0)
    with pytest.raises(KDError, match=r"over 2 devices failed: rank .* is not finite at step"):
        teacher.ready(splits, tmp_path, Devices("cpu", 2))
    assert not list((tmp_path / "teachers").glob("*/"))


def test_a_failed_training_leaves_nothing(tmp_path):
    def fail(folder: Path) -> None:
        (folder / "half").write_text("")
        raise RuntimeError("out of memory")

    (tmp_path / "key.building-1").mkdir()
    with pytest.raises(RuntimeError, match="out of memory"):
        stored(tmp_path, "key", fail)
    assert not list(tmp_path.glob("key*/"))
