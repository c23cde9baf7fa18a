import numpy as np
import pytest
from scipy.stats import binomtest, bootstrap

from kd.measure.significance import PairedTest, accuracy_interval


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
