"""The Trainer of a run writes into the directory of the run, and nowhere else."""

import pytest
import torch

from kd.config.compose import composed
from kd.config.trainer import make_trainer
from kd.errors import KDError


def test_loggers_and_checkpoints_write_into_the_run(tmp_path):
    trainer = make_trainer(composed(["trainer=cpu"]), tmp_path)
    assert trainer.checkpoint_callback.dirpath == str(tmp_path / "checkpoints")
    assert trainer.logger.save_dir == trainer.default_root_dir == str(tmp_path)


def test_without_callbacks_no_checkpoint_is_written(tmp_path):
    trainer = make_trainer(composed(["trainer=cpu", "callbacks=[]", "logger=[]"]), tmp_path)
    assert not trainer.checkpoint_callbacks and trainer.logger is None


def test_several_processes_may_leave_a_parameter_without_a_gradient(tmp_path):
    trainer = make_trainer(composed(["trainer=cpu", "trainer.devices=2", "trainer.strategy=ddp"]), tmp_path)
    assert trainer.strategy._ddp_kwargs == {"find_unused_parameters": True}


@pytest.mark.parametrize(
    ("override", "key"),
    [
        ("callbacks.best.dirpath=../up", "callbacks.best.dirpath"),
        ("callbacks.best.filename=/up", "callbacks.best.filename"),
        ("logger.csv.name=../up", "logger.csv.name"),
    ],
)
def test_a_path_out_of_the_run_is_refused(override, key, tmp_path):
    with pytest.raises(KDError, match=rf"{key}: .* leads out of it"):
        make_trainer(composed(["trainer=cpu", override]), tmp_path)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_a_missing_gpu_is_named(tmp_path):
    with pytest.raises(KDError, match=r"expected a GPU that torch .* can use, found none"):
        make_trainer(composed(["trainer.accelerator=cuda"]), tmp_path)
