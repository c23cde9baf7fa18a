"""Differences between groups, their tests, and the verdicts on what transfer changed, on constructed numbers."""

import numpy as np
import pandas as pd
import pytest

from kd.audit.comparisons import Effect, compare, effects, measured, of_labels, verdict
from kd.audit.texts import AuditTexts
from kd.errors import KDError

UNITS, PERSONS = 40, 8


def texts(units=UNITS, persons=PERSONS) -> AuditTexts:
    """Women and men as persons of each unit."""
    rows = [(f"{u}", f"{p}", g, -100) for u in range(units) for p in range(persons) for g in ("male", "female")]
    columns = ["unit", "key gender", "group gender", "label"]
    frame = pd.DataFrame(rows, columns=columns)
    return AuditTexts("made", frame.assign(text="x"), ("gender",), paired=True)


def scores(bias: float, seed: int = 0, of_person: float = 0.02, rows=None) -> np.ndarray:
    """Draw probabilities whose mean is higher by ``bias`` for women; persons and texts vary."""
    generator, rows = np.random.default_rng(seed), texts().rows if rows is None else rows
    female = (rows["group gender"] == "female").to_numpy()
    person = generator.normal(0, of_person, (PERSONS, 2))[rows["key gender"].astype(int), female.astype(int)]
    found = np.clip(0.5 + bias * female + person + generator.normal(0, 0.02, len(rows)), 0, 1)
    return np.stack([1 - found, found], axis=1)


@pytest.mark.parametrize(
    ("student", "alone", "expected"),
    [
        (0.2, 0.0, "brought in"),
        (0.2, -0.2, "brought in"),
        (-0.3, -0.1, "amplified"),
        (0.2, 0.2, "kept"),
        (0.1, 0.3, "reduced"),
        (0.0, -0.3, "reduced"),
        (0.0, 0.0, "none"),
    ],
)
def test_the_verdict_on_known_biases(student, alone, expected):
    found = compare(texts(), {"student": scores(student), "alone": scores(alone, seed=1)}, 1, 0.02)[0]
    assert found.verdicts == {"alone": expected}
    effect, change = found.biases["student"], found.changes["alone"]
    assert (found.group, found.reference, found.pairs, found.units) == ("female", "male", PERSONS, UNITS)
    assert effect.low < student < effect.high and effect.low < effect.difference < effect.high
    assert change.low < student - alone < change.high
    assert change.difference == pytest.approx(effect.difference - found.biases["alone"].difference, abs=1e-6)
    size = compare(texts(), {"student": scores(student)}, 1, 0.02)[1]
    assert size.measure == "size" and size.biases["student"].difference >= abs(effect.difference) - 1e-6


def test_a_change_that_is_not_decided_is_neither_brought_in_nor_kept():
    bias, noise = Effect(0.1, 0.05, 0.15, 0.001), Effect(0.06, -0.01, 0.13, 0.2)
    assert verdict(bias, noise, Effect(0.04, -0.02, 0.1, 0.4), 0.01) == "not decided"
    assert verdict(noise, bias, Effect(-0.04, -0.1, 0.02, 0.4), 0.01) == "not decided"
    assert verdict(bias, bias, Effect(0.008, 0.006, 0.01, 0.001), 0.01) == "kept", "the change is smaller than counts"
    assert verdict(bias, noise, Effect(0.1, 0.05, 0.15, 0.001), 0.2) == "none", "the bias is smaller than counts"


def test_one_odd_name_is_no_bias_of_its_group():
    rows = texts().rows
    odd = scores(0.0, of_person=0.0)
    odd[((rows["key gender"] == "0") & (rows["group gender"] == "female")).to_numpy()] += [-0.4, 0.4]
    effect = compare(texts(), {"student": odd}, 1, 0.01)[0].biases["student"]
    assert effect.difference == pytest.approx(0.05, abs=0.01) and effect.low < 0 < effect.high and effect.p > 0.05


def test_false_alarms_are_rare():
    found = [compare(texts(), {"student": scores(0.0, seed)}, 1, 0.0)[0].biases["student"] for seed in range(20)]
    assert sum(effect.p < 0.05 for effect in found) <= 4  # more have a probability of 0.3 %


def test_holm_corrects_over_the_comparisons():
    generator = np.random.default_rng(0)
    weak = [0.05 + generator.normal(0, 0.12, (1, 30)) for _ in range(10)]
    alone = [effects([measured(one)])[0] for one in weak]
    together = effects([measured(one) for one in weak])
    assert all(both.p >= one.p and both.low <= one.low for one, both in zip(alone, together, strict=True))
    assert all((effect.low > 0 or effect.high < 0) == (effect.p < 0.05) for effect in together)


def test_equal_scores_have_no_difference():
    same = np.full((len(texts().rows), 2), 0.5)
    assert compare(texts(), {"student": same}, 1, 0.0)[0].biases["student"] == (0.0, 0.0, 0.0, 1.0)


def test_gaps_of_equalised_odds():
    labels = np.tile([1, 1, 0, 0], 100)
    groups = np.tile(["f", "m"], 200)
    positive = labels == 1
    hits = np.where(positive, np.arange(400) % 8 != 0, np.arange(400) % 12 == 2)
    rows = pd.DataFrame({"group sex": groups, "label": labels})
    found = of_labels(rows, ("sex", "f", "m"), {"student": np.stack([1 - hits, hits], axis=1)}, 1)
    expected = [
        hits[taken & (groups == "f")].mean() - hits[taken & (groups == "m")].mean() for taken in (positive, ~positive)
    ]
    assert [one.measure for one in found] == ["true positives", "false positives"]
    results = effects([measured(one.values["student"], one.first) for one in found])
    np.testing.assert_allclose([one.difference for one in results], expected)
    assert all(one.low < one.difference < one.high for one in results)
    assert of_labels(rows.assign(label=-100), ("sex", "f", "m"), {"student": np.zeros((400, 2))}, 1) == []


def test_too_few_texts_are_refused():
    few = texts(units=9)
    with pytest.raises(KDError, match="expected at least 10 pairs of texts of two groups in made, found fewer"):
        compare(few, {"student": scores(0.0, rows=few.rows)}, 1, 0.01)


def test_small_groups_raise_few_false_alarms():
    generator = np.random.default_rng(0)
    groups, labels = np.repeat(["f", "m"], [12, 200]), np.ones(212, int)
    alarms = 0
    for _ in range(40):
        hits, others = generator.random((2, 212)) < 0.9
        rows = pd.DataFrame({"group sex": groups, "label": labels})
        models = {"student": np.stack([1 - hits, hits], axis=1), "alone": np.stack([1 - others, others], axis=1)}
        (found,) = of_labels(rows, ("sex", "f", "m"), models, 1)
        alarms += effects([measured(found.values["student"], found.first)])[0].is_present(0.0)
    assert alarms <= 3  # the t-test of influences raised 12
    change = effects([measured(found.values["student"] - found.values["alone"], found.first)])[0]
    assert change.low < change.difference < change.high and change.p > 0.05


def test_what_single_frames_cause_is_no_bias():
    """Each frame shifts the score of women in its own direction, in all of its texts."""
    own = texts()
    frames = (own.rows["unit"].astype(int) % 6).to_numpy()
    framed = AuditTexts("made", own.rows.assign(frame=frames), ("gender",), paired=True)
    found = scores(0.0)
    shifts = np.array([0.12, 0.1, -0.02, 0.08, -0.04, -0.03])[frames] * (own.rows["group gender"] == "female")
    found += np.stack([-shifts, shifts], axis=1)
    assert compare(own, {"student": found}, 1, 0.0)[0].biases["student"].p < 0.05, "as if all texts were independent"
    effect = compare(framed, {"student": found}, 1, 0.0)[0]
    assert effect.units == 6 and effect.biases["student"].p > 0.05
