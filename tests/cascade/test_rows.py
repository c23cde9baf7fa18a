"""Which rows choose a threshold: test rows in halves, or a file without the texts of the training."""

import numpy as np
import pytest

from kd.cascade.rows import halves_of_test, of_file
from kd.errors import KDError
from kd.run.directory import RunDirectory
from kd.storage import records
from tests.conftest import make_reviews

NAMES = ["negative", "positive"]


def test_the_halves_are_all_test_rows_each_once(pair):
    runs = [RunDirectory(pair / name) for name in ("dan", "mlp")]
    found = halves_of_test(runs)
    assert sorted([*found.calibration, *found.measured]) == list(range(len(found.texts)))
    assert len(found.texts) == runs[0].metrics()["test"]["rows"] and set(found.labels) == {0, 1}
    assert [run.test_reads() for run in runs] == [2, 2]
    np.testing.assert_array_equal(halves_of_test(runs).calibration, found.calibration)


def test_runs_with_other_test_rows_are_refused(pair):
    runs = [RunDirectory(pair / name) for name in ("dan", "mlp")]
    environment = runs[1].environment()
    environment["data"]["test"] = "other"
    records.write(runs[1].path / "environment.json", environment)
    for students, others in ((runs, []), (runs[:1], runs[1:])):
        with pytest.raises(KDError, match=r"expected the test rows of .* found others in .*mlp'; .* --on FILE"):
            halves_of_test(students, others)
    assert runs[0].test_reads() == 1


def test_a_file_loses_what_a_run_has_seen_and_what_is_no_text(pair, tmp_path, caplog):
    run = RunDirectory(pair / "dan")
    new = [(text, label) for text, label in make_reviews(50, seed=4)]
    path = tmp_path / "rows.csv"
    lines = [f"{text},{NAMES[label]}" for text, label in [*make_reviews(160), *new]]
    path.write_text("\n".join(["text,label", *lines, ",positive", "a new film,"]) + "\n")
    found = of_file(path, "text", "label", NAMES, "utf-8", [run])
    known = {text for text, _ in make_reviews(160)}
    assert {text for text, _ in new} - known <= set(found.texts)
    assert len(known & set(found.texts)) == run.metrics()["test"]["rows"], "training and selection have not seen these"
    assert found.texts[-1] == "a new film" and found.labels[-1] == -100
    assert found.labels[-2] == new[-1][1] and len(found.measured) == 0
    assert "a run was trained or selected on" in caplog.text
    path.write_text("text\n" + "".join(f"{text}\n" for text, _ in make_reviews(160)[:1]))
    (tmp_path / "empty.csv").write_text("text\n\n")
    with pytest.raises(KDError, match=r"expected texts in .* found none"):
        of_file(tmp_path / "empty.csv", "text", "label", NAMES, "utf-8", [run])


def test_a_run_whose_data_is_gone_gives_a_warning(pair, tmp_path, caplog, reviews_file):
    run = RunDirectory(pair / "dan")
    run.config_file.write_text(run.config_file.read_text().replace(str(reviews_file), "gone.csv"))
    (tmp_path / "rows.csv").write_text("text\na film\n")
    assert of_file(tmp_path / "rows.csv", "text", "label", NAMES, "utf-8", [run]).texts == ["a film"]
    assert "it is not known which texts" in caplog.text
