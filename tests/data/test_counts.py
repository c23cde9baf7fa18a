"""Counting rows that are left out."""

from kd.data.counts import LINES_KEPT, Counts, Tally


def test_counts_keep_the_first_lines_and_the_first_fault():
    tally = Tally()
    for line in range(2, 40):
        tally.add(line, f"fault of line {line}")
    assert (tally.count, tally.lines, tally.fault) == (38, list(range(2, 2 + LINES_KEPT)), "fault of line 2")
    counts = Counts()
    counts.add_unread("a.csv", {"malformed": tally, "empty": Tally()})
    assert (counts.read, counts.fates, counts.faults) == (38, {"malformed": 38}, {"malformed": "fault of line 2"})
    assert counts.lines["malformed"][0] == "a.csv:2" and len(counts.lines["malformed"]) == LINES_KEPT


def test_counts_of_later_rows_are_added():
    first, second = Counts(3, {"empty": 1}, {"empty": ["a:1"]}), Counts(4)
    second.add("empty", 2, ["b:1", "b:2"], "nothing in it")
    first.merge(second)
    assert (first.read, first.fates, first.faults) == (7, {"empty": 3}, {"empty": "nothing in it"})
    assert first.lines == {"empty": ["a:1", "b:1", "b:2"]}
