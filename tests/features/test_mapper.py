"""Each learned mapper equals its formula; all mappers treat masks, precision and rows alike."""

import copy

import numpy as np
import pytest
import torch

from kd.errors import KDError
from kd.features.mapper import MLP, AttentionPooling, Identity, Linear, LowRank
from kd.features.mappers import new_mapper
from tests.features.conftest import all_specs, build, by_name, texts


def test_learned_mappers_are_their_formulas():
    states, mask = texts()
    x = states.double().numpy()

    def weights(mapper):
        return [p.detach().double().numpy() for p in mapper.parameters()]

    linear = build({"name": "linear"}, 6, 4)
    weight, bias = weights(linear)
    results = {linear: x @ weight.T + bias}
    low_rank = build({"name": "low_rank", "rank": 2}, 6, 4)
    down, up, bias = weights(low_rank)
    assert down.shape == (2, 6) and up.shape == (4, 2)
    results[low_rank] = x @ down.T @ up.T + bias
    mlp = build({"name": "mlp", "activation": "tanh"}, 4, 6)
    first, first_bias, gain, shift, second, second_bias = weights(mlp)
    assert first.shape == (6, 4), "the hidden layer is as wide as the wider side"
    hidden = x[..., :4] @ first.T + first_bias
    hidden = (hidden - hidden.mean(-1, keepdims=True)) / np.sqrt(hidden.var(-1, keepdims=True) + 1e-5) * gain + shift
    results[mlp] = np.tanh(hidden) @ second.T + second_bias
    for mapper, expected in results.items():
        result = mapper(states[..., : mapper.in_size], mask)[mask == 1]
        np.testing.assert_allclose(result.detach(), expected[mask == 1], rtol=1e-4, atol=1e-5)
    assert build({"name": "linear", "bias": False}).linear.bias is None


def test_mlp_drops_out_only_in_training():
    mapper = build({"name": "mlp", "dropout": 0.5})
    states, mask = texts()
    assert torch.equal(mapper(states, mask), mapper(states, mask))
    mapper.train()
    assert not torch.equal(mapper(states, mask), mapper(states, mask))


@pytest.mark.parametrize("heads", [1, 2])
def test_attention_pooling_is_the_formula(heads):
    mapper = build({"name": "attention_pooling", "heads": heads}, 6, 4)
    states, mask = texts()
    weight, bias, queries = (p.detach().double().numpy() for p in (*mapper.linear.parameters(), mapper.queries))
    for row, result in enumerate(mapper(states, mask)):
        tokens = states[row][mask[row] == 1].double().numpy()
        means = []
        for query in queries:
            strengths = np.exp(tokens @ query / np.sqrt(6))
            means.append(strengths @ tokens / strengths.sum())
        np.testing.assert_allclose(result[0].detach(), weight @ np.concatenate(means) + bias, rtol=1e-4, atol=1e-5)


def test_attention_pooling_starts_from_the_mean_and_learns_its_query():
    mapper = AttentionPooling(6, 4)
    states, mask = texts()
    means = torch.stack([row[keep == 1].mean(0) for row, keep in zip(states, mask, strict=True)])
    result = mapper(states, mask)
    torch.testing.assert_close(result[:, 0], mapper.linear(means))
    result.square().sum().backward()
    assert (mapper.queries.grad.abs() > 0).all()


def test_a_text_without_a_token_pools_to_the_bias():
    mapper = build({"name": "attention_pooling"}, 6, 4)
    result = mapper(torch.full((1, 3, 6), torch.inf), torch.zeros(1, 3))
    torch.testing.assert_close(result[0, 0], mapper.linear.bias)


@all_specs
def test_shapes(spec):
    in_size, out_size = (6, 6) if spec["name"] == "identity" else (6, 4)
    mapper = build(spec, in_size, out_size)
    states, mask = texts()
    assert mapper(states, mask).shape == (4, 1 if mapper.pools else 5, out_size)
    assert mapper.pools == (spec["name"] == "attention_pooling")


@all_specs
@pytest.mark.parametrize("garbage", [1e30, torch.inf, torch.nan])
def test_nothing_outside_the_mask_is_read(spec, garbage):
    """Padding changes neither the result nor any gradient, whatever its values and its length."""
    mapper = build(spec)
    states, mask = texts()
    dirty = torch.cat([states, torch.zeros(4, 2, 6)], dim=1)
    wide_mask = torch.cat([mask, torch.zeros(4, 2, dtype=mask.dtype)], dim=1)
    dirty[wide_mask == 0] = garbage
    outcomes = []
    for given, where in ((states, mask), (dirty, wide_mask)):
        mapper.zero_grad()
        result = mapper(given.requires_grad_(), where)
        kept = result if mapper.pools else result[where == 1]
        kept.square().sum().backward()
        outcomes.append([kept, given.grad[where == 1], *(p.grad.clone() for p in mapper.parameters())])
        assert (given.grad[where == 0] == 0).all()
    for clean, other in zip(*outcomes, strict=True):
        torch.testing.assert_close(other, clean)


@all_specs
def test_rows_do_not_see_each_other(spec):
    mapper = build(spec)
    states, mask = texts()
    order = torch.tensor([2, 0, 3, 1])
    torch.testing.assert_close(mapper(states[order], mask[order]), mapper(states, mask)[order])


@all_specs
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_mixed_precision(spec, dtype):
    mapper = build(spec)
    states, mask = texts()
    exact = mapper(states, mask)
    for given in (states, states.to(dtype)):
        given = given.detach().requires_grad_()
        with torch.autocast("cpu", dtype):
            result = mapper(given, mask)
        result.float().square().sum().backward()
        torch.testing.assert_close(result.float(), exact, rtol=0.1, atol=0.1)
        assert given.grad.isfinite().all() and all(p.grad.isfinite().all() for p in mapper.parameters())


@all_specs
def test_half_precision_features_from_a_cache_need_no_autocast(spec):
    mapper = build(spec)
    states, mask = texts(dtype=torch.float16)
    torch.testing.assert_close(mapper(states, mask).float(), mapper(states.float(), mask))


@all_specs
def test_a_mapper_in_half_precision_maps(spec):
    mapper = build(spec)
    states, mask = texts()
    exact = mapper(states, mask)
    torch.testing.assert_close(mapper.bfloat16()(states, mask).float(), exact, rtol=0.1, atol=0.2)


@by_name
def test_copies_and_exports(spec):
    mapper = build(spec)
    states, mask = texts()
    twin = new_mapper(mapper.spec(), 6, 6)
    twin.load_state_dict(copy.deepcopy(mapper).state_dict())
    program = torch.export.export(twin.eval(), (states, mask)).module()
    torch.testing.assert_close(program(states, mask), mapper(states, mask))


@pytest.mark.parametrize(
    ("action", "message"),
    [
        (lambda: Identity(6, 4), "needs two equal widths, found 6 -> 4; .* mapper=linear"),
        (lambda: LowRank(6, 4, rank=5), "from width 6 to 4 can be at most 4, found 5; .* smaller rank"),
        (lambda: LowRank(6, 4, rank=0), "rank must be a whole number of at least 1, found 0"),
        (lambda: LowRank(6, 4, rank=2.0), "rank must be a whole number of at least 1, found 2.0"),
        (lambda: Linear(0, 4), "in_size must be a whole number of at least 1, found 0"),
        (lambda: Linear(4, None), "out_size must be a whole number of at least 1, found None"),
        (lambda: Linear(4, 4, bias="no"), "bias must be true or false, found 'no'"),
        (lambda: MLP(4, 4, activation="elu"), "activation must be gelu, relu or tanh"),
        (lambda: MLP(4, 4, norm=None), "norm must be layer or none, found None"),
        (lambda: MLP(4, 4, dropout=1), r"dropout must be a number in \[0, 0.95\], found 1"),
        (lambda: MLP(4, 4, hidden_size=0), "hidden_size must be a whole number of at least 1"),
        (lambda: AttentionPooling(4, 4, heads=0), "heads must be a whole number of at least 1, found 0"),
    ],
)
def test_refused_at_construction(action, message):
    with pytest.raises(KDError, match=message):
        action()
