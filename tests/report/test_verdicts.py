"""What is decided, and what is not."""

import numpy as np
import pytest

from kd.report.arms import Pair
from kd.report.verdicts import Judge
from tests.report.written import answers_of, one_arm


@pytest.mark.parametrize("seeds", [1, 3])
def test_interval_and_verdict_never_contradict_each_other(seeds):
    generator = np.random.default_rng(seeds)
    levels = np.linspace(0.68, 0.84, 12)
    arms = [one_arm(f"arm {level}", answers_of(seeds, 300, level, generator)) for level in levels]
    found = Judge(arms).compare([Pair("x", arm, arms[5]) for arm in arms if arm is not arms[5]])
    words = {one.verdict for one in found}
    assert words == {"better", "worse", "not decided"}, "the case should show all three"
    for one in found:
        low, high = one.interval
        assert one.decided == (low > 0 or high < 0)
        assert low <= one.difference <= high
        assert (one.verdict == "better") == (low > 0) and (one.verdict == "worse") == (high < 0)


def test_a_difference_of_one_lucky_start_is_not_decided():
    """Many rows and three seeds, of which one is far off: the rows alone would call it decided."""
    generator = np.random.default_rng(8)
    alone = generator.random((3, 5000)) < 0.75
    taught = np.stack([generator.random(5000) < level for level in (0.84, 0.75, 0.75)])
    (one,) = Judge([first := one_arm("taught", taught), second := one_arm("alone", alone)]).compare(
        [Pair("x", first, second)]
    )
    assert one.rows.p_value < 0.001 and one.spread.p_value > 0.05 and one.verdict == "not decided"
