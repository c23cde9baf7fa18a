"""The fitted mappers, against sklearn, numpy and scipy."""

import numpy as np
import pytest
import scipy.linalg
import torch
from sklearn.decomposition import PCA as SklearnPCA
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from kd.errors import KDError
from kd.features.fitted_mapper import PCA, FittedMapper, LeastSquares, Procrustes
from kd.features.mappers import MAPPERS, new_mapper
from tests.features.conftest import draw, mapped, texts

FITTED = [name for name, mapper in MAPPERS.items() if issubclass(mapper, FittedMapper)]
WIDTHS = [(6, 6), (4, 6), (6, 4)]
all_fitted = pytest.mark.parametrize("name", FITTED)
all_widths = pytest.mark.parametrize(("in_size", "out_size"), WIDTHS)


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
        # A rotation to a narrower space loses nothing only if the source lies in that space.
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
    """The result equals that for the same numbers in float64, which sums in half precision would miss."""
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
    """Teachers have outlier dimensions, whose mean is a thousand times the standard deviation."""
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
    """The EMA callback averages buffers too, and `fitted` is one of them."""
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


@pytest.mark.parametrize(
    ("action", "message"),
    [
        (lambda: PCA(4, 6), "at most as many numbers as it reads, found 4 -> 6; .* mapper=linear"),
        (lambda: PCA(4, 4, whiten=2), "whiten must be true or false, found 2"),
        (lambda: LeastSquares(4, 4, ridge=-1), "ridge must be a number of at least 0, found -1"),
        (
            lambda: LeastSquares(4, 4, ridge=float("inf")),
            "ridge must be a number of at least 0 and at most",
        ),
        (lambda: Procrustes(4, 4, scale="yes"), "scale must be true or false, found 'yes'"),
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
            "'least_squares' is fitted on pairs: expected 75 target rows, found none",
        ),
        (Procrustes(6, 4), (draw(6, 4)[0], draw(6, 4, rows=7)[1]), "expected 75 target rows, found 7; .* same texts"),
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
