"""The kernel of AdamW on the CPU: where it is chosen, that it computes the same, and that a resumed run has it."""

import copy

import pytest
import torch
from torch import nn
from torch.optim import SGD, Adadelta, Adam, AdamW

from kd.methods.optimizer import is_fused, use_fused_kernel


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
