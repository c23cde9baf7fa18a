"""The table of evaluations in the report, and the line of the model card."""

from kd.report.document import section
from kd.report.evaluations import evaluations, on_other_data
from kd.report.runs import find_runs
from kd.report.study import studies
from kd.run.directory import RunDirectory
from kd.storage import evaluation_record, records
from tests.storage.test_evaluation_record import CONTENT


def test_a_row_for_each_data_set_of_each_run(runs, capsys):
    first, second = (runs.write(f"run-{seed}", "distillation", seed=seed) for seed in range(2))
    study = studies(find_runs([runs.folder]).runs)[0]
    assert evaluations(study) is None and on_other_data(RunDirectory(first)) == []
    records.write(first / evaluation_record.NAME, CONTENT)
    (second / evaluation_record.NAME).write_text("{}")
    (table,) = next(block.tables for block in section(study, "", []).blocks if block.title == "Other data")
    assert "run kd evaluate again" in capsys.readouterr().err
    one, two = (dict(zip(table.columns, (cell.text for cell in row), strict=True)) for row in table.rows)
    assert (one["data"], one["points"], one["flipped"], one["worst slice"]) == ("test", "", "75.0", "")
    assert (two["data"], two["points"], two["worst slice"]) == ("other.csv", "−10.0", "negation: −10.0")
    assert two["interval"] == "[−20.0, −5.0]"
    assert on_other_data(RunDirectory(first)) == ["75.0 % on `other.csv` (4 rows, 50.0 to 90.0; −10.0 points)"]
