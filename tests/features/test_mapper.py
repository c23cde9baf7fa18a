"""The mappers, against sklearn, numpy and scipy, and against what must hold of each."""

import copy
import inspect
import json
from pathlib import Path

import numpy as np
import pytest
import scipy.linalg
import torch
from hydra.utils import get_class, instantiate
from omegaconf import OmegaConf
from sklearn.decomposition import PCA as SklearnPCA
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from transformers import PreTrainedConfig, PreTrainedModel

from kd.errors import KDError
from kd.features import fitted_mapper
from kd.features.fitted_mapper import PCA, FittedMapper, LeastSquares, Procrustes
from kd.features.mapper import AttentionPooling, LowRank
from kd.features.mappers import MAPPERS, new_mapper

FILES = sorted((Path(__file__).parents[2] / "conf" / "mapper").glob("*.yaml"))
FITTED = [name for name, mapper in MAPPERS.items() if issubclass(mapper, FittedMapper)]
SPECS = [
    *({"name": name} for name in MAPPERS),
    {"name": "linear", "bias": False},
    {"name": "mlp", "hidden_size": 5, "activation": "tanh", "norm": "none", "dropout": 0.5},
    {"name": "low_rank", "rank": 2},
    {"name": "pca", "whiten": True},
    {"name": "least_squares", "ridge": 0.5},
    {"name": "procrustes", "scale": True},
    {"name": "attention_pooling", "heads": 3},
]
WIDTHS = [(6, 6), (4, 6), (6, 4)]

all_specs = pytest.mark.parametrize("spec", SPECS, ids=str)
by_name = pytest.mark.parametrize("spec", [{"name": name} for name in MAPPERS], ids=list(MAPPERS))
all_fitted = pytest.mark.parametrize("name", FITTED)
all_widths = pytest.mark.parametrize(("in_size", "out_size"), WIDTHS)


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    """Fits of a few dozen rows then run through several chunks, the last one ragged."""
    monkeypatch.setattr(fitted_mapper, "CHUNK", 16)


def draw(in_size, out_size, rows=75, seed=0):
    """Features far from the origin, with axes of different spread, and targets that depend on them."""
    numbers = np.random.default_rng(seed)
    spread = np.diag(np.linspace(3, 0.3, in_size)) @ numbers.normal(size=(in_size, in_size))
    source = numbers.normal(size=(rows, in_size)) @ spread + 5 * numbers.normal(size=in_size)
    target = source @ numbers.normal(size=(in_size, out_size)) + 0.5 * numbers.normal(size=(rows, out_size)) - 3
    return source, target


def build(spec, in_size=6, out_size=6):
    """A mapper that maps: fitted where it must be, and with no weight left at zero."""
    options = {"rank": 3} if spec == {"name": "low_rank"} else {}
    torch.manual_seed(0)
    mapper = new_mapper(spec | options, in_size, out_size)
    if isinstance(mapper, FittedMapper):
        mapper.fit(*draw(in_size, out_size))
    if isinstance(mapper, AttentionPooling):
        nn.init.normal_(mapper.queries)
    return mapper.eval()


def mapped(mapper, vectors):
    """The result for vectors ``[N, d]``, one a text, in float64."""
    states = torch.tensor(np.asarray(vectors), dtype=torch.float64).unsqueeze(1)
    return copy.deepcopy(mapper).double()(states, torch.ones(len(states), 1))[:, 0].detach().numpy()


def texts(width=6, dtype=torch.float32):
    """States of four texts with 5, 3, 1 and 4 tokens, the last with its padding in front."""
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0], [1, 0, 0, 0, 0], [0, 1, 1, 1, 1]])
    return torch.randn(4, 5, width, generator=torch.Generator().manual_seed(1)).to(dtype), mask


# --- the closed forms


@pytest.mark.parametrize("whiten", [False, True])
@pytest.mark.parametrize("out_size", [1, 4, 6])
def test_pca_is_that_of_sklearn(whiten, out_size):
    source, _ = draw(6, out_size)
    reference = SklearnPCA(out_size, whiten=whiten, svd_solver="full").fit(source)
    mapper = PCA(6, out_size, whiten=whiten).fit(source)
    unseen, _ = draw(6, out_size, seed=0, rows=9)
    np.testing.assert_allclose(mapped(mapper, unseen), reference.transform(unseen), rtol=2e-5, atol=2e-5)


def test_axes_of_pca_do_not_flip():
    source, _ = draw(6, 3)
    axes = PCA(6, 3).fit(source).weight
    assert (axes.gather(1, axes.abs().argmax(1, keepdim=True)) > 0).all()
    torch.testing.assert_close(PCA(6, 3).fit(source[::-1]).weight, axes)
    mirrored = 2 * source.mean(0) - source  # the same covariance
    torch.testing.assert_close(PCA(6, 3).fit(mirrored).weight, axes)


@all_widths
def test_least_squares_without_ridge_is_that_of_numpy(in_size, out_size):
    source, target = draw(in_size, out_size)
    columns = np.column_stack([source, np.ones(len(source))])
    solution = np.linalg.lstsq(columns, target, rcond=None)[0]
    for ridge in (0.0, 1e-12):
        result = mapped(LeastSquares(in_size, out_size, ridge=ridge).fit(source, target), source)
        np.testing.assert_allclose(result, columns @ solution, rtol=1e-4, atol=1e-4)


def test_least_squares_with_ridge_solves_the_normal_equations():
    source, target = draw(5, 3)
    x, y = source - source.mean(0), target - target.mean(0)
    held = x.T @ x + 0.3 * np.trace(x.T @ x) / 5 * np.eye(5)
    solution = np.linalg.solve(held, x.T @ y)
    mapper = LeastSquares(5, 3, ridge=0.3).fit(source, target)
    np.testing.assert_allclose(mapper.weight.T, solution, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(mapped(mapper, source), x @ solution + target.mean(0), rtol=1e-4, atol=1e-4)
    rescaled = LeastSquares(5, 3, ridge=0.3).fit(1000 * source, target)
    np.testing.assert_allclose(mapped(rescaled, 1000 * source), mapped(mapper, source), rtol=1e-3, atol=1e-3)


def test_least_squares_without_ridge_survives_too_few_rows():
    source, target = draw(6, 3, rows=4)
    x, y = source - source.mean(0), target - target.mean(0)
    mapper = LeastSquares(6, 3, ridge=0).fit(source, target)
    np.testing.assert_allclose(mapper.weight.T, np.linalg.lstsq(x, y, rcond=None)[0], rtol=1e-4, atol=1e-5)


@all_widths
def test_procrustes_is_that_of_scipy(in_size, out_size):
    source, target = draw(in_size, out_size)
    x, y = source - source.mean(0), target - target.mean(0)
    if in_size == out_size:
        rotation, strength = scipy.linalg.orthogonal_procrustes(x, y)
    else:
        left, strengths, right = np.linalg.svd(x.T @ y, full_matrices=False)
        rotation, strength = left @ right, strengths.sum()
    mapper = Procrustes(in_size, out_size).fit(source, target)
    np.testing.assert_allclose(mapper.weight.T, rotation, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(mapped(mapper, source), x @ rotation + target.mean(0), rtol=1e-5, atol=1e-4)
    factor = strength / np.square(x @ rotation).sum()
    scaled = Procrustes(in_size, out_size, scale=True).fit(source, target)
    np.testing.assert_allclose(scaled.weight.T, factor * rotation, rtol=1e-5, atol=1e-6)
    error = [np.square(s * x @ rotation - y).sum() for s in (0.99 * factor, factor, 1.01 * factor)]
    assert error[1] == min(error)


@all_widths
def test_procrustes_finds_the_rotation_that_was_made(in_size, out_size):
    source, _ = draw(in_size, out_size)
    wide = max(in_size, out_size)
    rotation = np.linalg.qr(np.random.default_rng(3).normal(size=(wide, wide)))[0][:in_size, :out_size]
    if in_size > out_size:
        # Only what lies in the narrower space can be brought there without loss.
        source = source @ rotation @ rotation.T
    mapper = Procrustes(in_size, out_size, scale=True).fit(source, 2 * source @ rotation + 1)
    np.testing.assert_allclose(mapped(mapper, source), 2 * source @ rotation + 1, rtol=1e-4, atol=1e-4)
    weight = mapper.weight.double() / 2
    product = weight @ weight.T if out_size <= in_size else weight.T @ weight
    np.testing.assert_allclose(product, np.eye(min(in_size, out_size)), atol=1e-5)


@pytest.mark.parametrize("name", [name for name in FITTED if MAPPERS[name].needs_target])
def test_pairs_are_matched_row_by_row_whatever_their_order(name):
    source, target = draw(6, 4)
    mapper, shuffled, wrong = (MAPPERS[name](6, 4).fit(source, target) for _ in range(3))
    order = np.random.default_rng(4).permutation(len(source))
    torch.testing.assert_close(shuffled.fit(source[order], target[order]).weight, mapper.weight)
    assert not torch.allclose(wrong.fit(source[order], target).weight, mapper.weight, atol=0.1)


@all_fitted
@pytest.mark.parametrize("kind", [np.float16, np.float32, torch.float16, torch.bfloat16, torch.float32])
def test_fit_reads_arrays_and_tensors_of_any_precision(name, kind):
    """With the result for the very same numbers in float64: sums in half precision would miss it."""
    as_given = [
        torch.tensor(side, requires_grad=True).to(kind) if isinstance(kind, torch.dtype) else side.astype(kind)
        for side in draw(6, 4, rows=2000)
    ]
    exact = [np.asarray(torch.as_tensor(side).detach().double()) for side in as_given]
    first, second = MAPPERS[name](6, 4).fit(*as_given), MAPPERS[name](6, 4).fit(*exact)
    assert torch.equal(first.weight, second.weight) and torch.equal(first.origin, second.origin)
    assert first.weight.dtype == torch.float32 and not first.weight.requires_grad


def test_fit_reads_memory_mapped_features(tmp_path, recwarn):
    source, target = (side.astype(np.float16) for side in draw(6, 4))
    for name, side in (("source", source), ("target", target)):
        np.save(tmp_path / f"{name}.npy", side)
    columns = [np.load(tmp_path / f"{name}.npy", mmap_mode="r") for name in ("source", "target")]
    assert torch.equal(LeastSquares(6, 4).fit(*columns).weight, LeastSquares(6, 4).fit(source, target).weight)
    assert not recwarn.list


def test_fit_keeps_its_digits_far_from_the_origin():
    """Outlier dimensions of a teacher: a mean a thousand times the spread."""
    source, _ = draw(6, 3)
    source = source.astype(np.float32)
    far = source.astype(np.float64) + 2.0**20
    torch.testing.assert_close(PCA(6, 3).fit(far).weight, PCA(6, 3).fit(source).weight, rtol=1e-5, atol=1e-5)


@all_fitted
def test_fitted_mappers_learn_nothing_and_know_that_they_are_fitted(name, tmp_path):
    mapper = MAPPERS[name](6, 4)
    states, mask = texts()
    with pytest.raises(KDError, match=f"mapper '{name}' must be fitted before it maps"):
        mapper(states, mask)
    assert not mapper.is_fitted and not list(mapper.parameters())
    mapper.fit(*draw(6, 4))
    assert mapper.is_fitted
    torch.save(mapper.state_dict(), tmp_path / "state.pt")
    loaded = new_mapper(mapper.spec(), 6, 4)
    loaded.load_state_dict(torch.load(tmp_path / "state.pt"))
    assert loaded.is_fitted
    assert torch.equal(loaded(states, mask), mapper(states, mask))
    nn.ModuleList([mapper]).load_state_dict(nn.ModuleList([MAPPERS[name](6, 4)]).state_dict())
    with pytest.raises(KDError, match="must be fitted"):
        mapper(states, mask)


@all_fitted
def test_fitted_mappers_survive_a_moving_average(name):
    """The EMA callback averages buffers too, the flag among them."""
    mapper = MAPPERS[name](6, 4).fit(*draw(6, 4))
    average = AveragedModel(mapper, multi_avg_fn=get_ema_multi_avg_fn(0.99), use_buffers=True)
    for _ in range(3):
        average.update_parameters(mapper)
    assert average.module.is_fitted
    torch.testing.assert_close(average.module.weight, mapper.weight)


def test_gradient_passes_through_a_fitted_mapper():
    mapper = PCA(6, 4).fit(draw(6, 4)[0])
    states, mask = texts()
    mapper(states.requires_grad_(), mask).sum().backward()
    np.testing.assert_allclose(states.grad[0, 0], mapper.weight.sum(0), rtol=1e-5)


# --- attention pooling


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


# --- what holds of all


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
    """Neither the result nor any gradient changes, whatever stands there and however much there is of it."""
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


# --- specs


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_yaml_is_its_constructor_and_goes_round_through_a_spec(path):
    node = OmegaConf.load(path)
    mapper = get_class(node._target_)
    assert mapper is MAPPERS[path.stem] and mapper.name == path.stem
    parameters = dict(inspect.signature(mapper).parameters)
    del parameters["in_size"], parameters["out_size"]
    options = {key: value for key, value in node.items() if key not in ("_target_", "_partial_")}
    assert options == {key: parameter.default for key, parameter in parameters.items()}
    made = instantiate(node, _convert_="all")(20, 20)
    spec = json.loads(json.dumps(made.spec()))
    assert spec == made.spec() == {"name": path.stem, **options}
    again = new_mapper(spec, 20, 20)
    assert type(again) is mapper and again.spec() == spec
    assert (again.in_size, again.out_size) == (20, 20)
    again.load_state_dict(made.state_dict())


def test_every_mapper_has_its_yaml():
    assert sorted(MAPPERS) == [path.stem for path in FILES]


@all_specs
def test_spec_rebuilds_the_same_mapper(spec):
    mapper = build(spec)
    assert spec.items() <= mapper.spec().items()
    twin = new_mapper(json.loads(json.dumps(mapper.spec())), 6, 6).eval()
    twin.load_state_dict(mapper.state_dict())
    states, mask = texts()
    assert torch.equal(twin(states, mask), mapper(states, mask))


class Composition(PreTrainedModel):
    config_class = PreTrainedConfig

    def __init__(self, config):
        super().__init__(config)
        self.mapper = new_mapper(config.mapper, 6, 6)
        self.head = nn.Linear(6, 2)
        self.post_init()


@by_name
def test_a_saved_hugging_face_model_holds_its_mapper(spec, tmp_path):
    mapper = build(spec)
    model = Composition(PreTrainedConfig(mapper=mapper.spec()))
    model.mapper.load_state_dict(mapper.state_dict())
    model.save_pretrained(tmp_path)
    loaded = Composition.from_pretrained(tmp_path).eval()
    states, mask = texts()
    assert torch.equal(loaded.mapper(states, mask), mapper(states, mask))


# --- refusals


@pytest.mark.parametrize(
    ("action", "message"),
    [
        (lambda: new_mapper({"name": "identity"}, 6, 4), "needs two equal widths, found 6 -> 4; .* mapper=linear"),
        (lambda: PCA(4, 6), "at most as many numbers as it reads, found 4 -> 6; .* mapper=linear"),
        (lambda: LowRank(6, 4, rank=5), "from width 6 to 4 can be at most 4, found 5; .* smaller rank"),
        (lambda: LowRank(6, 4, rank=0), "rank must be a whole number >= 1, found 0"),
        (lambda: LowRank(6, 4, rank=2.0), "rank must be a whole number >= 1, found 2.0"),
        (lambda: new_mapper({"name": "linear"}, 0, 4), "in_size must be a whole number >= 1, found 0"),
        (lambda: new_mapper({"name": "linear"}, 4, None), "out_size must be a whole number >= 1, found None"),
        (lambda: new_mapper({"name": "linear", "bias": "no"}, 4, 4), "bias must be True or False, found 'no'"),
        (lambda: new_mapper({"name": "mlp", "activation": "elu"}, 4, 4), "activation must be gelu or relu or tanh"),
        (lambda: new_mapper({"name": "mlp", "norm": None}, 4, 4), "norm must be layer or none, found None"),
        (lambda: new_mapper({"name": "mlp", "dropout": 1}, 4, 4), r"dropout must be a number in \[0, 1\), found 1"),
        (lambda: new_mapper({"name": "mlp", "hidden_size": 0}, 4, 4), "hidden_size must be a whole number >= 1"),
        (lambda: new_mapper({"name": "pca", "whiten": 2}, 4, 4), "whiten must be True or False, found 2"),
        (lambda: LeastSquares(4, 4, ridge=-1), "ridge must be a number >= 0, found -1"),
        (lambda: Procrustes(4, 4, scale="yes"), "scale must be True or False, found 'yes'"),
        (lambda: AttentionPooling(4, 4, heads=0), "heads must be a whole number >= 1, found 0"),
        (lambda: new_mapper({"name": "os.system"}, 4, 4), "mapper.name must be linear or mlp .*, found 'os.system'"),
        (
            lambda: new_mapper({"_target_": "kd.features.mapper.Linear"}, 4, 4),
            "mapper.name must be linear or mlp .*, found None",
        ),
        (lambda: new_mapper({"name": "pca", "rank": 2}, 4, 4), "mapper 'pca' .*'rank'; see conf/mapper/pca.yaml"),
        (lambda: new_mapper({"name": "pca", "in_size": 2}, 4, 4), "mapper 'pca' .*'in_size'"),
    ],
)
def test_refused_at_construction(action, message):
    with pytest.raises(KDError, match=message):
        action()


def spoilt(value):
    source, target = draw(6, 4)
    source[-1, 2] = value
    return source, target


@pytest.mark.parametrize(
    ("mapper", "features", "message"),
    [
        (PCA(6, 4), (draw(6, 4, rows=3)[0],), "PCA to width 4 needs at least as many rows, found 3; .* smaller width"),
        (PCA(6, 4), (draw(5, 4)[0],), r"source features .* must be \[N, 6\] with N >= 1, found \[75, 5\]"),
        (PCA(6, 4), (np.zeros((0, 6)),), r"found \[0, 6\]"),
        (PCA(6, 4), (np.zeros((2, 3, 6)),), r"found \[2, 3, 6\]"),
        (PCA(6, 4), (spoilt(np.nan)[0],), "source features of mapper 'pca' must be finite, found inf or nan"),
        (LeastSquares(6, 4), spoilt(np.inf), "source features of mapper 'least_squares' must be finite"),
        (Procrustes(4, 6), spoilt(-np.inf)[::-1], "target features of mapper 'procrustes' must be finite"),
        (PCA(6, 4, whiten=True), (draw(6, 4, rows=4)[0],), "vary along 4 axes, found 3; .* whiten=false"),
        (PCA(6, 2, whiten=True), (np.ones((9, 6)),), "vary along 2 axes, found 0"),
        (
            LeastSquares(6, 4),
            (draw(6, 4)[0],),
            "'least_squares' is fitted on pairs and needs 75 target rows, found none",
        ),
        (Procrustes(6, 4), (draw(6, 4)[0], draw(6, 4, rows=7)[1]), "needs 75 target rows, found 7; .* same texts"),
        (Procrustes(6, 4), (draw(6, 4)[0], draw(6, 3)[1]), r"target features .* must be \[N, 4\] .*, found \[75, 3\]"),
    ],
)
def test_refused_in_fit(mapper, features, message):
    with pytest.raises(KDError, match=message):
        mapper.fit(*features)
    assert not mapper.is_fitted


@pytest.mark.parametrize("name", ["least_squares", "procrustes"])
def test_a_constant_source_maps_to_the_mean_of_the_target(name):
    options = {"scale": True} if name == "procrustes" else {}
    _, target = draw(6, 4)
    mapper = MAPPERS[name](6, 4, **options).fit(np.ones((len(target), 6)), target)
    np.testing.assert_allclose(mapped(mapper, np.ones((2, 6))), np.tile(target.mean(0), (2, 1)), rtol=1e-5)
