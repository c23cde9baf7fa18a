"""The kernel of AdamW on the CPU: where it is chosen, that it computes the same, and that a resumed run has it.

And the updates of tables with sparse gradients: their rows, clipping, checkpoints and schedules.
"""

import copy

import pytest
import torch
from torch import nn
from torch.optim import SGD, Adadelta, Adam, AdamW

from kd.errors import KDError
from kd.methods.optimizer import WithTables, clip_with_tables, is_fused, use_fused_kernel, with_tables


def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Embedding(30, 7), nn.Flatten(), nn.Linear(21, 2))


def steps(module: nn.Module, optimizer: torch.optim.Optimizer, count: int, first: int = 0) -> None:
    for number in range(first, first + count):
        ids = torch.randint(30, (8, 3), generator=torch.Generator().manual_seed(number))
        optimizer.zero_grad()
        module(ids).square().sum().backward()
        nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        optimizer.step()


def weights(module: nn.Module) -> torch.Tensor:
    return nn.utils.parameters_to_vector(module.parameters())


@pytest.mark.parametrize("kind", [Adam, AdamW])
def test_it_is_chosen_on_the_cpu_and_computes_the_same(kind):
    one, two = model(), model()
    optimizer = use_fused_kernel(kind(one.parameters(), lr=0.01, weight_decay=0.1))
    assert is_fused(optimizer) and all(group["fused"] for group in optimizer.param_groups)
    steps(one, optimizer, 20)
    steps(two, kind(two.parameters(), lr=0.01, weight_decay=0.1, fused=False), 20)
    torch.testing.assert_close(weights(one), weights(two), atol=1e-6, rtol=1e-5)
    assert not torch.equal(weights(one), weights(model()))


@pytest.mark.parametrize(
    "options", [{"fused": False}, {"foreach": True}, {"capturable": True}, {"differentiable": True}]
)
def test_what_the_configuration_says_stays(options):
    assert not is_fused(use_fused_kernel(AdamW(model().parameters(), **options)))


@pytest.mark.parametrize("kind", [Adadelta, SGD])
def test_other_optimizers_stay_as_they_are(kind):
    made = kind(model().parameters(), lr=0.1)
    assert use_fused_kernel(made) is made and not is_fused(made)


def test_weights_that_it_was_not_measured_with_are_left_to_torch():
    half, single = nn.Parameter(torch.zeros(2, dtype=torch.bfloat16)), nn.Parameter(torch.zeros(2))
    elsewhere = nn.Parameter(torch.zeros(2, device="meta"))
    optimizer = AdamW([{"params": [each]} for each in (half, single, elsewhere)])
    assert [group["fused"] for group in use_fused_kernel(optimizer).param_groups] == [None, True, None]


@pytest.mark.parametrize("fused", [None, True])
def test_a_resumed_run_keeps_the_kernel_of_its_process(fused):
    """Its checkpoint may be of a kd that left the kernel to torch, or of another device."""
    whole, halves = model(), model()
    steps(whole, use_fused_kernel(AdamW(whole.parameters())), 6)
    before = AdamW(halves.parameters(), fused=fused)
    steps(halves, before, 3)
    after = use_fused_kernel(AdamW(halves.parameters()))
    saved = copy.deepcopy(before.state_dict())
    after.load_state_dict(saved)
    assert is_fused(after) and saved["param_groups"][0]["fused"] is fused
    steps(halves, after, 3, first=3)
    torch.testing.assert_close(weights(halves), weights(whole), atol=1e-6, rtol=1e-5)


def table_model(sparse: bool) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Embedding(30, 7, sparse=sparse), nn.Flatten(), nn.Linear(21, 2))


def groups(module: nn.Module) -> list[dict]:
    return [{"params": list(module.parameters())[:2]}, {"params": list(module.parameters())[2:], "weight_decay": 0.0}]


def table_steps(module: nn.Module, optimizer: torch.optim.Optimizer, count: int, first: int = 0, clip: float = 1.0):
    for number in range(first, first + count):
        ids = torch.randint(20, (8, 3), generator=torch.Generator().manual_seed(number))  # rows 20 to 29 are never read
        optimizer.zero_grad()
        module(ids).square().sum().backward()
        module(ids[:4]).sum().backward()  # accumulated
        clip_with_tables(optimizer, clip, "norm")
        optimizer.step()


def new(module: nn.Module, **options) -> WithTables:
    return with_tables(module, groups(module), lambda parts: AdamW(parts, lr=0.01, **options))


def test_only_the_rows_of_a_batch_change_and_the_rest_as_with_adamw():
    module, before = table_model(True), table_model(True)
    optimizer = new(module, weight_decay=0.1)
    assert isinstance(optimizer, WithTables) and is_fused(optimizer)
    table_steps(module, optimizer, 4)
    assert torch.equal(module[0].weight[20:], before[0].weight[20:])
    assert not torch.allclose(module[0].weight[:20], before[0].weight[:20])
    plain = table_model(False)
    assert isinstance(with_tables(plain, groups(plain), AdamW), AdamW)


def test_a_step_that_reads_every_row_is_that_of_dense_adam():
    dense, sparse = table_model(False), table_model(True)
    pairs = [(dense, Adam(groups(dense), lr=0.01)), (sparse, with_tables(sparse, groups(sparse), adam))]
    for module, optimizer in pairs:
        for _ in range(3):
            optimizer.zero_grad()
            module(torch.arange(30).reshape(10, 3)).square().sum().backward()
            optimizer.step()
    torch.testing.assert_close(weights(sparse), weights(dense), atol=1e-5, rtol=1e-4)


def adam(parts):
    return Adam(parts, lr=0.01)


@pytest.mark.parametrize(("algorithm", "limit"), [("norm", 0.5), ("value", 0.01)])
def test_sparse_gradients_are_clipped_with_the_others_as_dense_ones(algorithm, limit):
    found = []
    for sparse in (True, False):
        module = table_model(sparse)
        optimizer = with_tables(module, groups(module), adam)
        module(torch.tensor([[1, 1, 2], [3, 1, 2]])).square().sum().backward()
        clip_with_tables(optimizer, limit, algorithm)
        found.append([each.grad.to_dense() for each in module.parameters()])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other)
    norm = torch.cat([each.flatten() for each in found[0]])
    assert norm.norm() == pytest.approx(0.5) if algorithm == "norm" else norm.abs().max() == pytest.approx(0.01)


def test_a_resumed_run_has_the_state_of_both_parts(tmp_path):
    whole, halves = table_model(True), table_model(True)
    table_steps(whole, new(whole), 6)
    before = new(halves)
    table_steps(halves, before, 3)
    torch.save(before.state_dict(), tmp_path / "state")
    after = new(halves)
    after.load_state_dict(torch.load(tmp_path / "state", weights_only=True))
    table_steps(halves, after, 3, first=3)
    assert torch.equal(weights(halves), weights(whole)) and is_fused(after)


def test_a_schedule_sets_the_rate_of_tables_too():
    module = table_model(True)
    optimizer = new(module)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.0)
    before = weights(module).clone()
    table_steps(module, optimizer, 2)
    schedule.step()
    assert torch.equal(weights(module), before)


def test_other_optimizers_refuse_tables():
    module = table_model(True)
    with pytest.raises(KDError, match=r"trained by Adam, got Adadelta; use optim=adamw, or student.sparse=false"):
        with_tables(module, groups(module), Adadelta)
