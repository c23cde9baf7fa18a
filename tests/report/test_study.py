"""Missing baselines, the choice by validation, and readings of the test rows."""

import csv

import yaml

from kd.cli import main
from kd.report.runs import find_runs
from kd.report.study import studies
from kd.run.directory import RunDirectory
from kd.storage.files import write_json
from tests.report.written import findings, page, printed, table, words, write_run


def test_validation_alone_chooses(runs):
    """The setting that is best on test is not the one that is highlighted."""
    right = runs.answers(0.80)
    runs.write("alone", "supervised", 0.70)
    better_on_test = {"validation": runs.answers(0.70)["validation"], "test": right["test"]}
    better_on_validation = {"validation": right["validation"], "test": runs.answers(0.72)["test"]}
    runs.write("one", "distillation", logits=better_on_test, temperature=1)
    runs.write("two", "distillation", logits=better_on_validation, temperature=2)
    text = words(page(runs.folder))
    assert "validation chose distillation temperature=2" in text
    assert "Highlighted: distillation temperature=2, the best by validation." in text
    with (runs.folder / "report" / "figures" / "heat-map-1.csv").open() as file:
        (best,) = [row["temperature"] for row in csv.DictReader(file) if row["best"] == "True"]
    assert best == "2.0"


def test_readings_of_the_test_split_are_counted(runs):
    runs.write("alone", "supervised")
    again = RunDirectory(runs.write("taught", "distillation"))
    again.record_test_read(command="kd evaluate")
    again.record_test_read(command="kd evaluate")
    text = words(page(runs.folder))
    assert "was read 4 times: once by each of 2 runs, after training, and 2 times more" in text


def test_a_missing_baseline_is_named_with_its_command(runs, capsys):
    hydra = ["method=distillation", "student=dan", "temperature=4", "loss=[soft_target]", "balance/alpha=linear"]
    for seed in (0, 1, 2):
        path = runs.write(f"taught-{seed}", "distillation", seed=seed, temperature=4)
        (path / ".hydra").mkdir()
        said = [*hydra, f"seed={seed}", "data.label_names=[bad,good]", "hydra.run.dir=x"]
        (path / ".hydra" / "overrides.yaml").write_text(yaml.safe_dump(said))
    runs.write("alone-1", "supervised", seed=1)
    assert main(["report", str(runs.folder)]) == 0
    command = "kd train -m method=supervised student=dan 'data.label_names=[bad,good]' seed=0,2"
    assert command in capsys.readouterr().out
    text = words((runs.folder / "report" / "index.html").read_text()).replace("&#39;", "'")
    assert command in text and "distillation" in text
    (row,) = table(runs.folder, "missing-baselines")
    assert row["seeds"] == "0, 2" and row["command that trains the baseline"] == command


def test_each_test_set_has_its_own_table(tmp_path, capsys):
    write_run(tmp_path / "a")
    write_run(tmp_path / "b", "distillation")
    write_run(tmp_path / "c", "distillation", test="others")
    lines = printed(capsys, tmp_path)
    assert sum(line.startswith("student dan on files") for line in lines) == 2
    assert len(findings(lines)) == 1, "runs on other rows are not compared"


def test_each_teacher_is_an_arm_with_its_own_figures(runs):
    first, other = runs.write("first", "distillation"), RunDirectory(runs.write("other", "distillation", temperature=9))
    runs.write("joint", "joint")
    write_json(other.path / "environment.json", other.environment() | {"teacher": {"checksum": "other"}})
    metrics = other.metrics()
    metrics["teacher_cost"] |= {"name": "org/small", "model_bytes": 7}
    write_json(other.metrics_file, metrics | {"test": metrics["test"] | {"teacher": {"macro_f1": 0.25}}})
    (study,) = studies(find_runs([first.parent]).runs)
    big, small = study.teachers
    assert (big.name, small.name) == ("teacher big", "teacher small") and {big.method, small.method} == {"teacher"}
    assert big.score == small.score == (runs.teacher["test"].argmax(1) == runs.labels["test"]).mean()
    assert small.mean("test", "macro_f1") == 0.25 and small.mean("model_bytes") == 7
    assert big.mean("test", "macro_f1") is None and small.validation is None and small.retained is None
    assert study.arms[0].retained == study.arms[0].score / big.score
