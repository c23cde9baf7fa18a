"""What answers say beyond their label, and how far two models' answers are apart."""

import numpy as np
import pytest

from kd.comparison.answers import divergences, information, softness


def test_information_is_zero_where_all_answers_with_a_label_are_equal():
    sure = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    assert information(sure) == 0 and information(np.full((4, 3), 1 / 3)) == pytest.approx(0)
    mixed = np.array([[0.9, 0.1], [0.6, 0.4]])
    middle = mixed.mean(axis=0)
    assert information(mixed) == pytest.approx((mixed * np.log(mixed / middle)).sum(axis=1).mean())


def test_a_sure_teacher_says_most_at_a_higher_temperature_and_a_hard_one_nothing():
    margins = np.random.default_rng(0).uniform(8, 30, 200)
    found = [softness(np.stack([margins, 0 * margins], axis=1), temperature) for temperature in (1, 8, 100)]
    assert found[1].information > 20 * found[0].information and found[1].information > 5 * found[2].information
    assert found[0].entropy < found[1].entropy < found[2].entropy
    same = np.stack([np.full(50, 30.0), np.zeros(50)], axis=1)
    assert max(softness(same, temperature).information for temperature in (1, 8, 100)) == pytest.approx(0, abs=1e-9)


def test_the_divergence_is_zero_for_equal_answers_and_log_2_for_opposite_ones():
    one = np.array([[1.0, 0.0], [0.3, 0.7]])
    assert divergences(one, one).tolist() == [0, 0]
    assert divergences(one, one[:, ::-1])[0] == pytest.approx(np.log(2))
