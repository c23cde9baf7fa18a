import numpy as np
import pytest
from scipy.stats import binomtest, bootstrap

from kd.statistics import accuracy_interval, compare


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
    paired = compare(*answers)
    correct, baseline = answers
    assert paired.difference == pytest.approx(correct.mean() - baseline.mean())
    assert paired.won - paired.lost == pytest.approx(len(correct) * paired.difference)
    assert paired.p_value == pytest.approx(binomtest(paired.won, paired.won + paired.lost).pvalue)


def test_interval_is_near_the_paired_bootstrap():
    """Against scipy's bootstrap over the rows, which knows nothing of McNemar; 40 rows won, 30 lost of 400."""
    first = np.arange(400) < 340
    second = (np.arange(400) >= 40) & (np.arange(400) < 370)
    paired = compare(first, second)
    assert (paired.won, paired.lost) == (40, 30)
    differences = first.astype(float) - second.astype(float)
    expected = bootstrap(
        (differences,), np.mean, n_resamples=10_000, method="percentile", rng=np.random.default_rng(1)
    ).confidence_interval
    assert (paired.low, paired.high) == pytest.approx((expected.low, expected.high), abs=0.006)


@pytest.mark.parametrize("won", range(0, 25))
@pytest.mark.parametrize("lost", [0, 3, 5, 9])
def test_interval_and_verdict_never_contradict_each_other(won, lost):
    first = np.array([True] * won + [False] * lost + [True] * 975)
    second = np.array([False] * won + [True] * lost + [True] * 975)
    paired = compare(first, second)
    assert paired.decided == (paired.low > 0 or paired.high < 0)


def test_verdicts():
    same = np.array([True, False] * 50)
    assert not compare(same, same).decided and compare(same, same).p_value == 1.0
    better, worse = np.arange(100) < 90, np.arange(100) < 60
    assert compare(better, worse).decided and compare(better, worse).low > 0 > compare(worse, better).high
