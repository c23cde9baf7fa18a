"""Weightings against values by hand, written again in numpy or by textbook procedure."""

import copy
import math

import numpy as np
import pytest
import torch
from torch import nn

from kd.errors import KDError
from kd.methods import weighting
from kd.methods.weighting import (
    ConstantWeighting,
    GradNorm,
    PCGrad,
    UncertaintyWeighting,
    gradient_products,
    gradnorm_step,
    surgery,
)

NAMES = ["label", "soft_target", "hint"]
SHARES = {"label": 0.5, "soft_target": 0.3, "hint": 0.2}


class Net(nn.Module):
    """A shared layer, and a head for each of three terms."""

    def __init__(self, scales=(1.0, 1.0, 1.0)):
        super().__init__()
        generator = torch.Generator().manual_seed(3)
        self.body = nn.Parameter(torch.randn(4, 6, generator=generator) / 2)
        self.heads = nn.Parameter(torch.randn(3, 4, generator=generator) / 2)
        self.scales = scales
        self.inputs = torch.randn(32, 6, generator=generator)
        self.targets = torch.randn(3, 32, generator=generator)

    def terms(self, names=NAMES) -> dict[str, torch.Tensor]:
        features = (self.inputs @ self.body.T).tanh()
        rows = [
            scale * (features @ head - target).square().mean()
            for scale, head, target in zip(self.scales, self.heads, self.targets, strict=True)
        ]
        return {name: rows[NAMES.index(name)] for name in names}

    def shared(self) -> list[nn.Parameter]:
        return [self.body]

    def all(self) -> list[nn.Parameter]:
        return [self.body, self.heads]


def flat_gradient(value: torch.Tensor, parameters: list[nn.Parameter]) -> np.ndarray:
    gradients = torch.autograd.grad(value, parameters, retain_graph=True, materialize_grads=True)
    return torch.cat([gradient.flatten() for gradient in gradients]).double().numpy()


def never():
    raise AssertionError("asked for parameters that it does not need")


@pytest.mark.parametrize("alpha", [0.0, 0.25, 1 / 3, 1.0])
def test_constant_weighting_is_the_documented_objective_bit_for_bit(alpha):
    label, term = torch.tensor(0.1234567, requires_grad=True), torch.tensor(7.654321, requires_grad=True)
    shares = {name: share for name, share in {"label": 1 - alpha, "soft_target": alpha}.items() if share}
    terms = {name: value for name, value in {"label": label, "soft_target": term}.items() if name in shares}
    total, curves = ConstantWeighting(["label", "soft_target"])(terms, shares, never)
    assert torch.equal(total, (1 - alpha) * label + alpha * term)
    assert curves == {}
    if alpha in (0, 1):
        assert total is {0: label, 1: term}[alpha]


def test_constant_weighting_of_many_terms():
    terms = {"label": torch.tensor(2.0), "soft_target": torch.tensor(4.0), "hint": torch.tensor(10.0)}
    total, _ = ConstantWeighting(NAMES)(terms, SHARES, never)
    assert total.item() == pytest.approx(0.5 * 2 + 0.3 * 4 + 0.2 * 10)


def test_uncertainty_by_hand():
    module = UncertaintyWeighting(NAMES)
    module.log_variances.data = torch.tensor([0.5, 9.0, -1.0])
    label, hint = torch.tensor(2.0, requires_grad=True), torch.tensor(3.0, requires_grad=True)
    total, curves = module({"hint": hint, "label": label}, SHARES, never)
    assert total.item() == pytest.approx(math.exp(-0.5) * 0.5 * 2 + 0.25 + math.e * 0.2 * 3 - 0.5)
    total.backward()
    assert label.grad.item() == pytest.approx(math.exp(-0.5) * 0.5)
    assert hint.grad.item() == pytest.approx(math.e * 0.2)
    expected = [0.5 - math.exp(-0.5) * 1.0, 0.0, 0.5 - math.e * 0.6]
    assert module.log_variances.grad.tolist() == pytest.approx(expected)
    assert {name: value.item() for name, value in curves.items()} == pytest.approx(
        {"weight/label": math.exp(-0.5), "weight/hint": math.e}
    )


def test_uncertainty_starts_as_the_constant_weighting():
    net = Net()
    learned = UncertaintyWeighting(NAMES)(net.terms(), SHARES, never)[0]
    constant = ConstantWeighting(NAMES)(net.terms(), SHARES, never)[0]
    np.testing.assert_array_equal(flat_gradient(learned, net.all()), flat_gradient(constant, net.all()))


def test_uncertainty_comes_back_from_its_limit():
    module = UncertaintyWeighting(["label"], limit=2.0)
    module.log_variances.data.fill_(-50.0)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    total, curves = module({"label": torch.tensor(1.0)}, {"label": 1.0}, never)
    assert curves["weight/label"].item() == pytest.approx(math.exp(2))
    total.backward()
    optimizer.step()
    assert module.log_variances.item() > -2 + 0.1


def test_uncertainty_finds_the_variances():
    """At the optimum exp(-s) = 1 / (2 share L)."""
    module = UncertaintyWeighting(["label", "hint"])
    optimizer = torch.optim.SGD(module.parameters(), lr=0.5)
    for _ in range(200):
        optimizer.zero_grad()
        terms = {"label": torch.tensor(0.5), "hint": torch.tensor(8.0)}
        total, curves = module(terms, {"label": 0.5, "hint": 0.5}, never)
        total.backward()
        optimizer.step()
    assert [value.item() for value in curves.values()] == pytest.approx([2.0, 0.125], rel=1e-3)


def test_gradnorm_step_is_a_step_of_gradient_descent():
    generator = np.random.default_rng(0)
    for size in (2, 3, 5):
        weights, norms, rates = generator.uniform(0.2, 2, (3, size))
        log_weights = torch.tensor(np.log(weights), requires_grad=True)
        sizes = log_weights.exp() * torch.tensor(norms)
        mean = sizes.detach().mean()
        targets = mean * torch.tensor((rates / rates.mean()) ** 1.5)
        (slope,) = torch.autograd.grad((sizes - targets).abs().sum() / mean, log_weights)
        moved = np.exp(np.log(weights) - 0.025 * slope.numpy())
        expected = moved * weights.sum() / moved.sum()
        assert abs(expected - weights).max() > 1e-3
        found = gradnorm_step(*map(torch.tensor, (weights, norms, rates)))
        np.testing.assert_allclose(found.numpy(), expected)


def test_gradnorm_by_hand():
    """At the first step all rates are 1, and only the norms count; at the second the losses have gone apart."""
    net, module = Net(), GradNorm(NAMES, asymmetry=1.2, learning_rate=0.1)
    first, expected = {name: term.item() for name, term in net.terms().items()}, np.ones(3)
    for _ in range(2):
        terms = net.terms()
        norms = np.array([np.linalg.norm(flat_gradient(SHARES[name] * terms[name], net.shared())) for name in NAMES])
        rates = np.array([terms[name].item() / first[name] for name in NAMES])
        sizes = expected * norms
        signs = np.sign(sizes - sizes.mean() * (rates / rates.mean()) ** 1.2)
        moved = expected * np.exp(-0.1 * signs * sizes / sizes.mean())
        expected = 3 * moved / moved.sum()
        total, curves = module(terms, SHARES, net.shared)
        np.testing.assert_allclose([curves[f"weight/{name}"].item() for name in NAMES], expected, rtol=1e-5)
        assert total.item() == pytest.approx(
            sum(weight * SHARES[name] * terms[name].item() for name, weight in zip(NAMES, expected, strict=True))
        )
        net.targets[0] += 3.0  # the first loss is far above its start, which turns its sign around
    assert module.first_losses.tolist() == pytest.approx(list(first.values()))
    total.backward()
    assert net.body.grad.abs().sum() > 0
    assert (net.heads.grad.abs().sum(1) > 0).all()


def train(module, net, steps):
    """Weights step by step, the student learning along."""
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-3)
    history = []
    for _ in range(steps):
        optimizer.zero_grad()
        total, curves = module(net.terms(), SHARES, net.shared)
        total.backward()
        optimizer.step()
        history.append([float(curves[f"weight/{name}"]) for name in NAMES])
    return np.array(history)


def test_gradnorm_shrinks_the_weight_of_a_gradient_a_hundred_times_too_large():
    net = Net(scales=(1.0, 100.0, 1.0))
    weights = train(GradNorm(NAMES), net, 250)
    assert (np.diff(weights[:50, 1]) < 0).all()
    assert weights[-1, 1] < 0.1 < 1 < weights[-1, 0]
    assert (weights > 0).all()
    np.testing.assert_allclose(weights.sum(1), 3, rtol=1e-5)
    terms = net.terms()
    norms = [np.linalg.norm(flat_gradient(SHARES[name] * terms[name], net.shared())) for name in NAMES]
    sizes = weights[-1] * norms
    assert sizes.max() / sizes.min() < 4 < max(norms) / min(norms) / 10


def test_gradnorm_favours_what_lags_behind():
    equal = torch.ones(2)
    lagging = gradnorm_step(equal, torch.tensor([1.0, 1.0]), torch.tensor([0.2, 0.9]))
    assert lagging[1] > 1 > lagging[0]
    torch.testing.assert_close(gradnorm_step(equal, equal, torch.tensor([0.2, 0.9]), asymmetry=0.0), equal)


def test_gradnorm_never_lets_a_weight_die():
    weights = torch.ones(2)
    for _ in range(1000):
        weights = gradnorm_step(weights, torch.tensor([1e6, 1e-6]), torch.ones(2))
    assert weights.min() > 5e-4
    for _ in range(1000):
        weights = gradnorm_step(weights, torch.tensor([1e-6, 1e6]), torch.ones(2))
    assert weights[0] > 1.9


@pytest.mark.parametrize(
    "say",
    [
        lambda x: 0 * x,
        lambda x: 0 * x + 5,
        lambda x: x - x.detach(),
        lambda x: x - x.detach() - 1,
        lambda x: x + math.inf,
        lambda x: x * math.nan,
        lambda x: (0 * x).sqrt() + 5,
    ],
    ids=["no_labels", "no_gradient", "zero", "negative", "infinite", "nan", "nan_gradient"],
)
def test_gradnorm_waits_for_a_term_that_says_nothing(say):
    """The other two go on, and nothing of it is remembered."""
    net, module = Net(), GradNorm(NAMES)
    _, curves = module(net.terms() | {"label": say(net.body.sum())}, SHARES, net.shared)
    assert curves["weight/label"] == 1
    assert curves["weight/hint"] != 1
    assert curves["weight/hint"] + curves["weight/soft_target"] == pytest.approx(2)
    assert module.first_losses[0] == 0
    assert (module.first_losses[1:] > 0).all()


def test_gradnorm_keeps_the_weight_of_an_absent_term():
    net, module = Net(), GradNorm(NAMES)
    train(module, net, 5)
    before = module.weights.clone()
    _, curves = module(net.terms(["hint", "label"]), SHARES, net.shared)
    assert set(curves) == {"weight/hint", "weight/label"}
    assert module.weights[1] == before[1]
    assert module.weights[0] != before[0]
    assert module.weights.sum().item() == pytest.approx(3)
    before = module.weights.clone()
    total, _ = module(net.terms(["hint"]), SHARES, never)
    assert total.item() == pytest.approx(before[2].item() * 0.2 * net.terms()["hint"].item())
    assert torch.equal(module.weights, before)


def textbook(gradients: list[np.ndarray], orders) -> np.ndarray:
    """Algorithm 1 of Yu et al. 2020, on the gradients themselves."""
    projected = [gradient.copy() for gradient in gradients]
    for i, order in enumerate(orders):
        for j in order:
            if j != i and projected[i] @ gradients[j] < 0:
                projected[i] -= projected[i] @ gradients[j] / (gradients[j] @ gradients[j]) * gradients[j]
    return sum(projected)


@pytest.mark.parametrize("size", [2, 3, 6])
def test_surgery_is_pcgrad(size):
    generator = np.random.default_rng(size)
    surgeries = 0
    for _ in range(20):
        gradients = list(generator.normal(size=(size, 8)))
        orders = [generator.permutation(size).tolist() for _ in range(size)]
        weights = surgery(torch.tensor(np.array(gradients) @ np.array(gradients).T), orders)
        combined = sum(weight * gradient for weight, gradient in zip(weights, gradients, strict=True))
        np.testing.assert_allclose(combined, textbook(gradients, orders), atol=1e-12)
        assert min(weights) >= 1
        surgeries += max(weights) > 1
    assert surgeries > 5


def opposed(net: Net) -> dict[str, torch.Tensor]:
    """Terms above 0 of which each works against both others."""
    terms = net.terms()
    total = sum(terms.values())
    return {name: 10 + 3 * term - total for name, term in terms.items()}


@pytest.mark.parametrize("seed", range(4))
def test_pcgrad_fills_the_textbook_gradient(seed):
    net, module = Net(), PCGrad(NAMES)
    terms = opposed(net)
    gradients = [flat_gradient(SHARES[name] * term, net.all()) for name, term in terms.items()]
    torch.manual_seed(seed)
    orders = torch.rand(3, 3).argsort(dim=1).tolist()
    torch.manual_seed(seed)
    total, curves = module(terms, SHARES, net.all)
    total.backward()
    found = np.concatenate([parameter.grad.flatten().numpy() for parameter in net.all()])
    np.testing.assert_allclose(found, textbook(gradients, orders), rtol=1e-4, atol=1e-6)
    assert abs(found - sum(gradients)).max() > 0.01
    assert min(curves.values()) > 1


def test_pcgrad_draws_the_order():
    net = Net()
    totals = {round(PCGrad(NAMES)(opposed(net), SHARES, net.all)[0].item(), 5) for _ in range(30)}
    assert len(totals) > 1


def test_pcgrad_without_conflict_is_the_plain_sum():
    net = Net()
    terms = {"label": net.terms()["label"], "hint": 2 * net.terms()["label"]}
    total, curves = PCGrad(NAMES)(terms, SHARES, net.all)
    assert curves == {"weight/label": 1.0, "weight/hint": 1.0}
    assert total.item() == ConstantWeighting(NAMES)(terms, SHARES, never)[0].item()


def test_pcgrad_ignores_a_term_without_gradient_and_a_gradient_that_is_not_finite():
    assert surgery(torch.tensor([[1.0, 0.0], [0.0, 0.0]]), [[1, 0], [0, 1]]) == [1, 1]
    for broken in (math.inf, -math.inf, math.nan):
        assert surgery(torch.tensor([[1.0, broken], [broken, 1.0]]), [[1, 0], [0, 1]]) == [1, 1]


ADAPTIVE = {"uncertainty": UncertaintyWeighting, "gradnorm": GradNorm, "pcgrad": PCGrad}
all_weightings = pytest.mark.parametrize("name", ["constant", *ADAPTIVE])


def build(name):
    return ADAPTIVE.get(name, ConstantWeighting)(NAMES)


@all_weightings
def test_plain_backward_fills_the_gradients_and_accumulates(name):
    torch.manual_seed(0)
    net, module = Net(), build(name)
    for _ in range(2):  # two forwards before the first backward too
        results = [module(opposed(net), SHARES, net.all) for _ in range(2)]
        for total, curves in results:
            assert total.shape == ()
            assert not any(torch.is_tensor(value) and value.requires_grad for value in curves.values())
            total.backward()
    for parameter in [*net.parameters(), *module.parameters()]:
        assert parameter.grad.isfinite().all()
        assert parameter.grad.abs().sum() > 0


@all_weightings
def test_evaluation_compares_no_gradients_and_changes_nothing(name):
    net, module = Net(), build(name).eval()
    before = copy.deepcopy(module.state_dict())
    with torch.no_grad():
        total, _ = module(net.terms(), SHARES, never)
    assert total.item() == pytest.approx(objective_by_hand(net), rel=1e-6)
    assert all(torch.equal(value, module.state_dict()[key]) for key, value in before.items())


def objective_by_hand(net):
    return sum(SHARES[name] * term.item() for name, term in net.terms().items())


@all_weightings
def test_a_resumed_run_repeats_an_unbroken_one(name):
    def run(module, net, steps):
        torch.manual_seed(steps)
        optimizer = torch.optim.SGD([*net.parameters(), *module.parameters()], lr=0.01)
        for _ in range(steps):
            optimizer.zero_grad()
            total, curves = module(opposed(net), SHARES, net.shared)
            total.backward()
            optimizer.step()
        return total, curves

    net, module = Net(), build(name)
    run(module, net, 4)
    resumed_net, resumed = Net(), build(name)
    resumed_net.load_state_dict(net.state_dict())
    resumed.load_state_dict(module.state_dict())
    assert run(module, net, 3) == run(resumed, resumed_net, 3)
    expected = {"uncertainty": {"log_variances"}, "gradnorm": {"weights", "first_losses"}}
    assert set(module.state_dict()) == expected.get(name, set())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_gradients_are_compared_in_float32(dtype):
    """Products of such gradients overflow float16 and lose their digits in bfloat16."""
    parameter = nn.Parameter(torch.tensor([300.0, 1.0, 2.0], dtype=dtype))
    unused = nn.Parameter(torch.ones(2, 2, dtype=dtype))
    with torch.autocast("cpu", torch.bfloat16):
        terms = [parameter.float().square().sum() / 2, parameter.float().sum()]
        products = gradient_products(terms, [parameter, unused])
    assert products.dtype == torch.float32
    assert products.tolist() == [[90005.0, 303.0], [303.0, 3.0]]


@all_weightings
def test_weightings_in_half_precision_stay_finite(name):
    net, module = Net().to(torch.bfloat16), build(name).to(torch.bfloat16)
    net.inputs, net.targets = net.inputs.bfloat16(), net.targets.bfloat16()
    for _ in range(3):
        total, _ = module(net.terms(), SHARES, net.all)
        total.backward()
    assert total.isfinite()
    assert all(parameter.grad.isfinite().all() for parameter in net.all())


@pytest.mark.parametrize("name", ["gradnorm", "pcgrad"])
def test_all_ranks_weigh_alike(name, monkeypatch):
    """Two processes with other rows and other random numbers, the sum over them played back."""
    sent = []

    def run(rank, all_reduce):
        monkeypatch.setattr(weighting.torch.distributed, "all_reduce", all_reduce)
        net = Net()
        net.inputs, net.targets = net.inputs[rank::2], net.targets[:, rank::2]
        torch.manual_seed(rank)
        _, curves = build(name)(opposed(net) if name == "pcgrad" else net.terms(), SHARES, net.all)
        return list(map(float, curves.values()))

    alone = [run(rank, None) for rank in (0, 1)]
    assert alone[0] != alone[1]
    monkeypatch.setattr(weighting.torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(weighting.torch.distributed, "get_world_size", lambda: 2)
    for rank in (0, 1):
        run(rank, lambda values: sent.append(values.clone()))
    together = [run(rank, lambda values: values.copy_(sum(sent))) for rank in (0, 1)]
    assert together[0] == together[1]
    assert together[0] != [1, 1, 1]
    monkeypatch.setattr(weighting.torch.distributed, "all_reduce", lambda values: values.add_(4.0))
    assert weighting.mean_over_ranks(torch.tensor([2.0])).item() == 3


@pytest.mark.parametrize(
    ("make", "options", "words"),
    [
        (UncertaintyWeighting, {"names": NAMES, "limit": 0}, ["limit", "a number above 0"]),
        (GradNorm, {"names": NAMES, "asymmetry": -1}, ["asymmetry", "of at least 0"]),
        (GradNorm, {"names": NAMES, "learning_rate": 0}, ["learning_rate", "a number above 0"]),
        (GradNorm, {"names": ["label"]}, ["GradNorm balances terms against each other, found only 'label'", "loss=["]),
        (PCGrad, {"names": ["hint"]}, ["PCGrad balances terms against each other, found only 'hint'", "constant"]),
        (PCGrad, {"names": []}, ["found none"]),
    ],
)
def test_wrong_options_are_refused(make, options, words):
    with pytest.raises(KDError) as error:
        make(**options)
    for word in words:
        assert word in str(error.value)
