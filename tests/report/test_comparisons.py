"""The table of comparisons in the report."""

from kd.storage import comparison_record, records
from tests.report.written import page, table, words
from tests.storage.test_comparison_record import CONTENT


def test_a_row_for_each_comparison_beside_a_run(runs, capsys):
    first, second, third = (runs.write(f"run-{seed}", "distillation", seed=seed) for seed in range(3))
    records.write(first / comparison_record.NAME, CONTENT)
    without = {"agreement": None, "groups": [], "examples": [], "similarity": [], "probes": [[0.6, 0.8], []]}
    records.write(second / comparison_record.NAME, CONTENT | without)
    (third / comparison_record.NAME).write_text("{}")
    assert "Comparisons with the teacher" in words(page(runs.folder))
    one, two = table(runs.folder, "comparisons")
    assert (one["rows"], float(one["agree"]), float(one["CKA"])) == ("50 of validation", 0.9, 0.51)
    assert (one["least"], one["set"]) == ("gold good (80.0)", "data.max_length=64")
    assert (two["agree"], two["CKA"], two["student probe"]) == ("", "", "")
    assert "left out" in capsys.readouterr().err
