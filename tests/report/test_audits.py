"""The table of audits in the report."""

from kd.storage import audit_record, records
from tests.report.written import page, table, words
from tests.storage.test_audit_record import COMPARISON, CONTENT


def test_a_row_for_each_audit_beside_a_run(runs, capsys):
    first, second, third = (runs.write(f"run-{seed}", "distillation", seed=seed) for seed in range(3))
    assert "Audits" not in words(page(runs.folder))
    records.write(first / audit_record.NAME, CONTENT)
    teacher = {**COMPARISON, "verdicts": {"teacher": "reduced"}}
    records.write(
        second / audit_record.NAME,
        {**CONTENT, "models": {"student": ".", "teacher": "t"}, "comparisons": [teacher] * 2, "flips": None},
    )
    (third / audit_record.NAME).write_text("{}")
    assert "Audits" in words(page(runs.folder))
    one, two = table(runs.folder, "audits")
    assert (one["texts"], one["class"], one["against"], one["verdicts"]) == (
        "5,632 of templates",
        "positive",
        "alone",
        "kept 1",
    )
    assert (one["largest"], one["difference"], one["flips"]) == ("female − male", "-0.1", "0.25")
    assert (two["against"], two["verdicts"], two["flips"]) == ("teacher", "reduced 2", "")
    assert "left out: '" in capsys.readouterr().err
