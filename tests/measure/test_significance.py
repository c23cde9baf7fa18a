"""Intervals and paired tests against scipy and counting by hand."""

from itertools import chain, combinations, product

import numpy as np
import pytest
from scipy.stats import binomtest, bootstrap

from kd.measure.significance import PairedTest, accuracy_interval, holm
from tests.report.written import answers_of


@pytest.fixture
def answers():
    generator = np.random.default_rng(3)
    baseline = generator.random(400) < 0.8
    return np.where(generator.random(400) < 0.15, ~baseline, baseline), baseline


def test_interval_is_wilsons(answers):
    correct, _ = answers
    n, p, z = len(correct), correct.mean(), 1.959963984540054
    centre, half = p + z**2 / (2 * n), z * np.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    assert accuracy_interval(correct) == pytest.approx(
        ((centre - half) / (1 + z**2 / n), (centre + half) / (1 + z**2 / n))
    )


def test_difference_and_discordant_rows(answers):
    correct, baseline = answers
    won, lost = (correct & ~baseline).sum(), (~correct & baseline).sum()
    test = PairedTest.of(correct, baseline)
    assert test == PairedTest((won + lost,), won - lost, 400)
    assert test.total / test.rows == pytest.approx(correct.mean() - baseline.mean())
    assert test.p_value == pytest.approx(binomtest(won, won + lost).pvalue)


def test_interval_is_near_the_paired_bootstrap():
    """Against scipy's bootstrap over the rows, which knows nothing of McNemar; 40 rows won, 30 lost of 400."""
    first = np.arange(400) < 340
    second = (np.arange(400) >= 40) & (np.arange(400) < 370)
    test = PairedTest.of(first, second)
    assert (test.sizes, test.total) == ((70,), 10)
    differences = first.astype(float) - second.astype(float)
    expected = bootstrap(
        (differences,), np.mean, n_resamples=10_000, method="percentile", rng=np.random.default_rng(1)
    ).confidence_interval
    assert test.interval() == pytest.approx((expected.low, expected.high), abs=0.006)


@pytest.mark.parametrize("won", range(0, 25))
@pytest.mark.parametrize("lost", [0, 3, 5, 9])
def test_interval_and_verdict_never_contradict_each_other(won, lost):
    first = np.array([True] * won + [False] * lost + [True] * 975)
    second = np.array([False] * won + [True] * lost + [True] * 975)
    test = PairedTest.of(first, second)
    low, high = test.interval()
    assert (test.p_value < 0.05) == (low > 0 or high < 0)


def test_what_is_decided():
    same = np.array([True, False] * 50)
    assert PairedTest.of(same, same).p_value == 1.0 and PairedTest.of(same, same).interval() == (0.0, 0.0)
    better, worse = np.arange(100) < 90, np.arange(100) < 60
    test, turned = PairedTest.of(better, worse), PairedTest.of(worse, better)
    assert test.p_value < 0.05 and test.interval()[0] > 0 > turned.interval()[1]


def signs_by_hand(net: np.ndarray) -> float:
    """Two-sided p-value over all signs of the rows, each as likely as any."""
    sizes, total = np.abs(net[net != 0]), net.sum()
    sums = np.array([np.dot(signs, sizes) for signs in product((-1, 1), repeat=len(sizes))])
    return min(1.0, 2 * min((sums >= total).mean(), (sums <= total).mean()))


@pytest.mark.parametrize("seed", range(5))
def test_several_seeds_by_counting_all_signs(seed):
    generator = np.random.default_rng(seed)
    first, second = generator.random((2, 3, 14)) < np.array([0.8, 0.55])[:, None, None]
    net = first.sum(axis=0).astype(int) - second.sum(axis=0)
    assert PairedTest.of(first, second).p_value == pytest.approx(signs_by_hand(net), abs=1e-12)


def test_one_seed_is_mcnemar_with_clopper_and_pearson():
    generator = np.random.default_rng(0)
    first, second = answers_of(1, 300, 0.8, generator)[0], answers_of(1, 300, 0.74, generator)[0]
    won, lost = (first & ~second).sum(), (second & ~first).sum()
    expected = binomtest(won, won + lost)
    test = PairedTest.of(first, second)
    assert test.p_value == pytest.approx(expected.pvalue, abs=1e-12)
    for level in (0.05, 0.01):
        bounds = expected.proportion_ci(1 - level, method="exact")
        scaled = [(2 * bound - 1) * (won + lost) / 300 for bound in (bounds.low, bounds.high)]
        assert test.interval(level) == pytest.approx(scaled)
        # The way of several seeds, on rows where the second of two seeds tells nothing, halves the difference.
        doubled = PairedTest((*test.sizes, 0), test.total, test.rows).interval(level)
        assert doubled == pytest.approx([bound / 2 for bound in scaled], abs=1e-8)


def test_interval_of_rows_leaves_out_zero_just_where_the_test_decides():
    generator = np.random.default_rng(1)
    for _ in range(200):
        sizes = tuple(map(int, generator.integers(0, 30, size=generator.integers(1, 5))))
        largest = sum(size * count for size, count in enumerate(sizes, start=1))
        test = PairedTest(sizes, 2 * int(generator.integers(0, largest + 1)) - largest, 500)
        for level in (0.05, 0.004):
            low, high = test.interval(level)
            assert (low > 0 or high < 0) == (test.p_value < level), (sizes, test.total)


def test_rows_of_several_seeds_are_not_counted_as_independent():
    """Three seeds that answer alike show no more than one of them."""
    generator = np.random.default_rng(2)
    first, second = answers_of(1, 400, 0.8, generator), answers_of(1, 400, 0.75, generator)
    one = PairedTest.of(first, second)
    assert PairedTest.of(first.repeat(3, axis=0), second.repeat(3, axis=0)).p_value == pytest.approx(one.p_value)


@pytest.mark.parametrize("seed", range(4))
def test_holm_is_the_closed_test_of_bonferroni(seed):
    """A comparison falls when every set of hypotheses that holds it does: all sets, by hand."""
    values = np.random.default_rng(seed).random(6) ** 3
    sets = chain.from_iterable(combinations(range(6), size) for size in range(1, 7))
    of_sets = {chosen: min(1.0, len(chosen) * values[list(chosen)].min()) for chosen in sets}
    expected = [max(p for chosen, p in of_sets.items() if place in chosen) for place in range(6)]
    adjusted, levels = holm(values)
    assert adjusted == pytest.approx(expected)
    assert ((adjusted < 0.05) == (values < levels)).all()
