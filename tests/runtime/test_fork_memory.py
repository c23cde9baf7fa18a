"""What is kept in memory, and for how long."""

import pytest

from kd.runtime import fork_memory


@pytest.fixture(autouse=True)
def nothing_stays(monkeypatch):
    monkeypatch.setattr(fork_memory, "_KEPT", {})


def test_nothing_is_kept_outside_of_keeping():
    made = []
    for _ in range(2):
        fork_memory.get_or_make("rows", lambda: pytest.fail("no key is needed"), lambda: made.append(1))
    assert len(made) == 2


def test_an_object_is_made_a_single_time_for_a_kind_and_a_key():
    with fork_memory.keeping():
        one = fork_memory.get_or_make("rows", lambda: "a", object)
        others = [
            fork_memory.get_or_make("rows", lambda: "b", object),
            fork_memory.get_or_make("words", lambda: "a", object),
        ]
    assert fork_memory.get_or_make("rows", lambda: "a", object) is one, "also after keeping has ended"
    assert one not in others
    assert fork_memory.get_or_make("rows", lambda: "new", object) is not fork_memory.get_or_make(
        "rows", lambda: "new", object
    ), "but nothing more is kept then"


def test_an_error_keeps_nothing():
    with pytest.raises(ZeroDivisionError), fork_memory.keeping():
        fork_memory.get_or_make("rows", lambda: "a", lambda: 1 / 0)
    assert fork_memory.get_or_make("rows", lambda: "a", lambda: 2) == 2
