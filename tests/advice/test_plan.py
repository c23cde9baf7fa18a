"""Limits, budgets and the plan of tiny data."""

import pytest

from kd.advice.plan import Plan, Planned, beyond, fitted, limits_of, quantity, refuse_chosen
from kd.errors import KDError
from tests.conftest import run_kd


def planned(name: str, seconds: int, network: bool = True) -> Planned:
    options = [["trainer.max_epochs", "5"]] if network else []
    return Planned(name=name, choices=[], options=options, why=["why"], size=1, ms=1.0, seconds=seconds)


def plan(*candidates: Planned) -> Plan:
    return Plan(format=2, words=[], at_most=[], labels=True, teacher_seconds=10, said=[], candidates=list(candidates))


def test_limits_have_units():
    limits = limits_of(["1ms", "5 MB", "0.5 ms"], "2min", True)
    assert (limits.ms, limits.size, limits.seconds) == (0.5, 5e6, 120.0)
    assert beyond(0.4, 4_000_000, limits) is None and "0.60 ms for a text, more than 0.5 ms" in str(
        beyond(0.6, 1, limits)
    )
    assert "--to int8" in str(beyond(0.1, 19_000_000, limits)) and "int8" not in str(beyond(0.1, 21_000_000, limits))
    for wrong in ("1", "ms", "-1ms", "0 MB", "1 parsec", "1e3ms"):
        with pytest.raises(KDError, match="expected a number above 0 with one of ms"):
            quantity(wrong, ("time", "size"), "--at-most")


def test_a_budget_leaves_out_what_alone_is_too_long():
    bag = planned("bag", 10, network=False)
    found = fitted(plan(bag, planned("a", 50), planned("b", 96)), 105.0)
    assert [one.left_out is None for one in found.candidates] == [True, True, False]
    with pytest.raises(KDError, match="expected at least 60 s for the teacher and a network, got 50 s"):
        fitted(plan(bag, planned("a", 50)), 50.0)


@pytest.mark.parametrize(
    "word", ["student=dan", "trainer.max_epochs=3", "+student@peers.a=dan", "seed=0,1", "alpha=0.5"]
)
def test_what_is_chosen_is_refused(word):
    with pytest.raises(KDError, match=r"chosen for you|expected one value"):
        refuse_chosen([word])


def test_the_shortlist_of_tiny_data_is_printed(options, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "300")
    words = [word for word in options if not word.startswith(("student", "trainer.", "callbacks", "hydra"))]
    assert run_kd("advise", *words, "--at-most", "0.5MB", "--budget", "30min") == 0
    said = capsys.readouterr().out
    assert (
        "encoded gives at most 32" in said
        and "2 classes" in said
        and "The teacher is trained." in said
        and "left out: " in said
    )
    assert "bag: student=bag method=supervised" in said and "textcnn-small: student=textcnn method=distillation" in said
    alone = [word for word in words if not word.startswith("teacher")]
    assert run_kd("advise", "--no-labels", *alone, "teacher=none") == 2
    assert "--no-labels: expected a teacher that was trained" in capsys.readouterr().err
