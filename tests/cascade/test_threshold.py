"""The threshold of a cascade: exact bounds, the order of the tests, and the promise over many samples."""

import numpy as np
import pytest
from scipy.stats import binom

from kd.cascade.threshold import NOBODY, Outcomes, choose, confidence_of, lower_bound, thresholds
from kd.errors import KDError


def sample(generator: np.random.Generator, rows: int) -> Outcomes:
    """A student whose answer differs from the teacher's with a probability of 1 - confidence: it is calibrated."""
    confidences = generator.uniform(0.5, 1, (1, rows))
    teacher = generator.integers(2, size=rows)
    differs = generator.random(rows) > confidences[0]
    return Outcomes(confidences, np.stack([np.where(differs, 1 - teacher, teacher), teacher]), teacher, 2)


def risk(threshold: float) -> float:
    """The true share of differing answers: the integral of 2 (1 - c) from the threshold to 1."""
    return (1 - min(threshold, 1)) ** 2


def test_the_first_student_that_is_sure_answers():
    confidences = np.array([[0.9, 0.6, 0.6], [0.95, 0.9, 0.6]])
    outcomes = Outcomes(confidences, np.array([[0, 0, 0], [1, 1, 1], [2, 2, 2]]), np.array([0, 1, 2]), 3)
    assert outcomes.answered_by(0.8).tolist() == [0, 1, 2] == outcomes.answered(0.8).tolist()
    assert outcomes.differing(0.8) == 2 and outcomes.differing(NOBODY) == 0
    assert outcomes.take(outcomes.labels > 0).differing(0.8) == 1
    assert thresholds(3)[0] > 0.999999 and outcomes.answered_by(thresholds(3)[-1]).tolist() == [0, 0, 0]


def test_the_chosen_threshold_is_the_loosest_before_the_first_that_fails():
    outcomes = sample(np.random.default_rng(1), 500)
    chosen = choose(outcomes, 0.98, 0.95)
    every = thresholds(2).tolist()
    p_values = [binom.cdf(outcomes.differing(one), 500, 0.02) for one in every]
    place = every.index(chosen)
    assert max(p_values[: place + 1]) <= 0.05 < p_values[place + 1]
    assert lower_bound(outcomes.differing(chosen), 500, 0.95) >= 0.98


@pytest.mark.parametrize("several", [False, True])
def test_the_promise_is_broken_in_at_most_one_of_twenty_samples_and_is_not_idle(several):
    """At a boundary of 5 %, more than 18 of 200 broken promises have a probability of 1 %."""
    generator, broken, chosen = np.random.default_rng(0), 0, []
    for _ in range(200):
        found = sample(generator, 400)
        if several:  # the same student twice: the second never answers, so that the risk is the same
            answers, confidences = found.answers[[0, 0, 1]], found.confidences[[0, 0]]
            found = Outcomes(confidences, answers, found.labels, 2)
        chosen.append(choose(found, 0.95, 0.95))
        broken += risk(chosen[-1]) > 0.05
    assert 0 < broken <= 18
    assert np.mean(chosen) < 0.9, "the boundary is 0.776; an idle rule would answer next to nothing"


def test_without_a_threshold_that_holds_the_teacher_answers_all():
    outcomes = sample(np.random.default_rng(0), 200)
    wrong = Outcomes(outcomes.confidences * 0 + 1, outcomes.answers, outcomes.labels, 2)
    assert choose(wrong, 0.98, 0.95) == NOBODY
    unsure = Outcomes(outcomes.confidences * 0, outcomes.answers, outcomes.labels, 2)
    assert choose(unsure, 0.98, 0.95) == NOBODY, "no student answers at the loosest threshold"


def test_too_few_rows():
    outcomes = sample(np.random.default_rng(0), 200)
    assert choose(outcomes.take(np.arange(149)), 0.98, 0.95)
    with pytest.raises(KDError, match=r"at least 149 calibration rows for a target of 0.98 .* 0.95, found 148"):
        choose(outcomes.take(np.arange(148)), 0.98, 0.95)


def test_confidence_and_bound():
    np.testing.assert_allclose(confidence_of(np.log([[0.2, 0.8], [0.5, 0.5]])), [0.8, 0.5])
    assert lower_bound(0, 149, 0.95) >= 0.98 > lower_bound(0, 148, 0.95)
