"""The table of explanations in the report."""

from kd.storage import explanation_record, records
from tests.report.written import page, table, words
from tests.storage.test_explanation_record import CONTENT


def test_a_row_for_each_model_that_a_student_was_compared_with(runs, capsys):
    places = [runs.write(f"run-{seed}", "distillation", seed=seed) for seed in range(3)]
    records.write(places[0] / explanation_record.NAME, CONTENT)
    records.write(places[1] / explanation_record.NAME, {**CONTENT, "data": None})
    (places[2] / explanation_record.NAME).write_text("{}")
    assert "with another run (other); mean over texts" in words(page(runs.folder))
    (row,) = table(runs.folder, "explanations")
    assert (row["with"], row["method"], row["texts"], row["seed"]) == ("teacher", "ig", "20 of validation", "0")
    assert (row["rank correlation"], row["95 % low"], row["area"]) == ("0.5", "0.25", "0.5")
    assert "left out: '" in capsys.readouterr().err
