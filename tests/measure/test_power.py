"""The rows and seeds that would decide a difference: against simulated tests."""

import numpy as np
import pytest

from kd.measure.power import Needed
from kd.measure.significance import PairedTest


def differences(won: int, lost: int, rows: int) -> np.ndarray:
    """Rows that the first model alone has right, that the second alone has right, and the others."""
    return np.repeat([1.0, -1.0, 0.0], [won, lost, rows - won - lost])[None]


@pytest.mark.parametrize(("won", "lost", "level"), [(60, 40, 0.05), (60, 40, 0.01), (25, 18, 0.05)])
def test_mcnemars_test_has_the_promised_power_on_so_many_rows(won, lost, level):
    needed = Needed(differences(won, lost, 889), level).rows
    generator = np.random.default_rng(0)
    shares = [won / 889, lost / 889, 1 - (won + lost) / 889]
    tests = [
        PairedTest((first + second,), first - second, needed)
        for first, second, _ in generator.multinomial(needed, shares, size=1000)
    ]
    assert np.mean([test.p_value < level for test in tests]) == pytest.approx(0.8, abs=0.05)


def test_agrees_with_connors_formula():
    """n = (z sqrt(p) + z' sqrt(p - d^2))^2 / d^2, with p the discordant share and d the difference."""
    p, d = 100 / 889, 20 / 889
    connor = (1.959964 * p**0.5 + 0.841621 * (p - d**2) ** 0.5) ** 2 / d**2
    assert Needed(differences(60, 40, 889), 0.05).rows == pytest.approx(connor, rel=0.01)


def drawn(generator, seeds: int, rows: int, gain=0.02, of_seed=0.02, of_row=0.3) -> np.ndarray:
    return gain + of_seed * generator.normal(size=(seeds, 1)) + of_row * generator.normal(size=(seeds, rows))


def test_the_spread_over_seeds_is_met_by_seeds_and_not_by_rows():
    values = drawn(np.random.default_rng(1), 4, 4000)
    assert Needed(values, 0.05).rows is None
    seeds = Needed(values, 0.05).seeds
    assert 5 <= seeds < 60 and str(Needed(values, 0.05)) == f"about {seeds} seeds"


def test_so_many_seeds_have_the_promised_power():
    """A t-test over seeds, with the variances known: the seeds that the formula names find the gain in 80 %."""
    generator = np.random.default_rng(2)
    values = drawn(generator, 40, 2000, gain=0.008)
    values += 0.008 - values.mean()
    seeds = Needed(values, 0.05).seeds or 40
    spread = values.mean(axis=1).std(ddof=1)
    means = 0.008 + spread * generator.normal(size=(4000, seeds))
    from scipy.stats import ttest_1samp

    assert (ttest_1samp(means, 0, axis=1).pvalue < 0.05).mean() == pytest.approx(0.8, abs=0.06)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (differences(60, 40, 889), "about 1,800 test rows"),
        (differences(10, 10, 889), ""),
        (np.array([[1.0] + [0.0] * 10 + [-0.99999]]), "more than 10,000,000 test rows"),
    ],
)
def test_the_words(values, words):
    assert str(Needed(values, 0.05)) == words


def test_more_of_both():
    generator = np.random.default_rng(3)
    values = drawn(generator, 2, 50, gain=0.0, of_seed=0.5, of_row=2.0)
    values += 0.001 - values.mean()
    assert str(Needed(values, 0.05)) == "more rows and more seeds together"
