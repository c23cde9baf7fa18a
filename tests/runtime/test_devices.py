"""The devices that a configuration names."""

import pytest
from omegaconf import OmegaConf

from kd.runtime.devices import ONE_CPU, Devices, global_batch, is_sharded, wants_gpu


def run(**trainer):
    node = {"accelerator": "cpu", "devices": 1, "num_nodes": 1, "strategy": "auto", "accumulate_grad_batches": 1}
    return OmegaConf.create({"trainer": node | trainer, "data": {"batch_size": 8}})


@pytest.mark.parametrize(("accelerator", "wanted"), [("auto", True), ("cuda", True), ("cpu", False), (None, False)])
def test_some_accelerators_use_a_gpu(accelerator, wanted):
    assert wants_gpu(accelerator) is wanted


def test_a_strategy_is_given_by_name_or_by_class():
    assert not is_sharded(run()) and not is_sharded(run(strategy="ddp"))
    sharded = run(strategy={"_target_": "kd.methods.sharding.FullySharded"}, devices=2, accelerator="gpu")
    assert is_sharded(sharded) and Devices.of(sharded) == Devices("gpu", 2, True)
    assert Devices.of(run()) == ONE_CPU


def test_the_global_batch_counts_accumulation_devices_and_nodes():
    assert global_batch(run()) == 8
    assert global_batch(run(devices=2, num_nodes=3, accumulate_grad_batches=5)) == 8 * 2 * 3 * 5
