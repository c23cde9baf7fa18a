"""Names on the hub and the commits that were read."""

import logging

import pytest

from kd.storage import hub

COMMIT = "a" * 40


@pytest.fixture(autouse=True)
def nothing_read(monkeypatch, caplog):
    monkeypatch.setattr(hub, "READ", {})
    caplog.set_level(logging.WARNING)


def test_a_name_has_a_revision_or_none():
    assert hub.parted(f"org/model@{COMMIT}") == ("org/model", COMMIT)
    assert hub.parted("model@") == ("model", None)


@pytest.mark.parametrize("name", ["org/model", "org/model@main", f"org/model@{COMMIT[:7]}"])
def test_a_name_that_may_change_is_reported_once(name, caplog):
    hub.note(name, COMMIT)
    hub.note(name, COMMIT)
    assert len(caplog.records) == 1
    assert caplog.text.count(f"{name} is not pinned to a commit and may change; today it is org/model@{COMMIT}") == 1


def test_a_pinned_name_is_only_recorded(caplog):
    hub.note(f"org/model@{COMMIT}", COMMIT)
    assert not caplog.records
    assert hub.commits(["org/other", 3, None, f"org/model@{COMMIT}"]) == {f"org/model@{COMMIT}": COMMIT}
