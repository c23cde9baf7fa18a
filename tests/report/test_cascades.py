"""The table of cascades in the report."""

from kd.storage import cascade_record, records
from tests.report.written import page, table, words
from tests.storage.test_cascade_record import CONTENT, ROWS


def test_a_row_for_each_cascade_beside_a_run(runs, capsys):
    first, second, third = (runs.write(f"run-{seed}", "distillation", seed=seed) for seed in range(3))
    assert "Cascades" not in words(page(runs.folder))
    measured = {**ROWS, "answered": [1, 3], "differing": 1, "accuracy": 0.75, "milliseconds": 0.5}
    records.write(first / cascade_record.NAME, {**CONTENT, "threshold": 0.9, "measured": measured})
    records.write(second / cascade_record.NAME, {**CONTENT, "kind": "accuracy", "source": "traffic.csv"})
    (third / cascade_record.NAME).write_text("{}")
    assert "Cascades" in words(page(runs.folder))
    one, two = table(runs.folder, "cascades")
    assert (one["promise"], one["threshold"], one["rows"]) == ("agreement ≥ 98 %, 95 %", "0.9", "4 of test")
    assert [one[name] for name in ("by students", "agreement", "accuracy", "times teacher")] == [
        "0.25",
        "0.75",
        "0.75",
        "0.5",
    ]
    assert (two["promise"], two["threshold"], two["rows"]) == (
        "kept ≥ 98 %, 95 %",
        "",
        "4 of traffic.csv, which chose it",
    )
    assert "left out: '" in capsys.readouterr().err
