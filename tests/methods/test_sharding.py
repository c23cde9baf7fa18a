"""Sharding on one rank: which layers are gathered alone, and that the whole state comes back."""

import pytest
import torch
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor

from kd.methods.distillation import FrozenTeacher
from kd.methods.sharding import shard, whole_state
from tests.methods.test_base import assert_same, make_split, make_student, make_teacher, weights


@pytest.fixture
def mesh():
    torch.distributed.init_process_group("gloo", rank=0, world_size=1, store=torch.distributed.HashStore())
    yield init_device_mesh("cpu", (1,))
    torch.distributed.destroy_process_group()


def test_the_whole_state_of_a_sharded_model_is_the_one_before(mesh):
    model = make_teacher()
    before = weights(model)
    shard([model], mesh)
    shard([model], mesh)  # a model that two names share is sharded once
    sharded = [type(part).__name__ for part in model.modules() if isinstance(part, FSDPModule)]
    assert sharded == ["FSDPBertForSequenceClassification", "FSDPBertEmbeddings", "FSDPBertLayer"]
    assert all(isinstance(value, DTensor) for value in model.parameters())
    after = whole_state(model)
    assert_same(before, after)
    assert not any(isinstance(value, DTensor) for value in after.values())


def test_a_model_without_transformer_layers_is_sharded_as_a_whole(mesh):
    student, batch = make_student().eval(), make_split()[[0, 1]]
    expected = student(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    shard([student], mesh)
    assert [part for part in student.modules() if isinstance(part, FSDPModule)] == [student]
    found = student(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    torch.testing.assert_close(found, expected, rtol=0, atol=0)


def test_a_sharded_teacher_is_a_copy_with_the_same_output(mesh):
    teacher, batch = FrozenTeacher(make_teacher()), make_split()[[0, 1, 2]]
    expected = teacher(batch)[0]
    copied = teacher.sharded(mesh)
    torch.testing.assert_close(copied(batch)[0], expected, rtol=0, atol=0)
    assert not any(isinstance(value, DTensor) for value in teacher.model.parameters())
