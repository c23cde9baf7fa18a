"""`kd report` on runs that were trained, small as they are."""

import csv
import json
import shlex
from pathlib import Path

import pytest

from kd.cli import main
from kd.run.directory import RunDirectory
from kd.storage.files import write_json
from tests.report.written import table


@pytest.mark.slow
def test_from_training_to_the_page(said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    taught = [*said, "temperature=1,4", "seed=0,1", "loss=[soft_target]", "hydra.sweep.dir=outputs/taught"]
    assert main(["train", "-m", "method=distillation", *taught]) == 0
    outputs = Path("outputs")
    capsys.readouterr()
    assert main(["report", "outputs"]) == 0
    assert "no supervised baseline" in capsys.readouterr().out.replace("No", "no")

    # The command that the report gives trains what it asks for.
    (missing,) = table(outputs, "missing-baselines")
    command = shlex.split(missing["command that trains the baseline"])
    assert command[:3] == ["kd", "train", "-m"] and missing["seeds"] == "0, 1"
    assert main(command[1:]) == 0
    capsys.readouterr()
    assert main(["report", "outputs"]) == 0
    printed = capsys.readouterr().out
    assert (
        "no supervised baseline" not in printed.replace("No", "no")
        and "distillation temperature=4 - supervised" in printed
    )
    assert not table(outputs, "missing-baselines")
    assert {row["seeds"] for row in table(outputs, "gain")} == {"0, 1 (n = 2)"}
    assert {row["verdict"] for row in table(outputs, "gain")} <= {"better", "worse", "not decided"}
    with (outputs / "report" / "figures" / "curves.csv").open() as file:
        epochs = [(row["model"], row["epoch"], row["seeds"]) for row in csv.DictReader(file)]
    assert ("supervised", "1", "2") in epochs and ("supervised", "2", "2") in epochs

    # Looking at the test rows again is counted; at the validation rows it is not.
    run = RunDirectory(next(outputs.glob("taught/*/status.json")).parent)
    assert "energy" in run.metrics(), "told, or None where the hardware does not tell it"
    for split in ("validation", "test", "test"):
        assert main(["evaluate", str(run.path), "--split", split]) == 0
    assert run.test_reads() == 3
    assert main(["report", "outputs"]) == 0
    assert "was read 8 times" in " ".join((outputs / "report" / "report.md").read_text().split())

    # A second training of the same run agrees to the bit, and the report says so; a third that does not is named.
    config = [word for word in taught if word.partition("=")[0] not in ("temperature", "seed", "hydra.sweep.dir")]
    again = ["method=distillation", *config, "temperature=1", "seed=0"]
    assert main(["train", *again, "hydra.run.dir=outputs/again"]) == 0
    assert main(["report", "outputs"]) == 0
    assert "1 further run of the same configuration" in (outputs / "report" / "report.md").read_text()
    environment = RunDirectory(outputs / "again").environment()
    assert environment["packages"]["torch"], "what runs are held to agree by"
    other = json.loads(json.dumps(environment))
    other["packages"]["torch"] = "another"
    write_json(outputs / "again" / "environment.json", other)
    RunDirectory(outputs / "again").set_status("done")  # as if this were what the run had written
    assert main(["report", "outputs"]) == 0
    assert "Their results may differ" in (outputs / "report" / "report.md").read_text()


def test_training_again_keeps_the_count_of_readings(said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options = ["method=supervised", *said, "teacher=none", "embeddings=random", "tokenizer=words", "hydra.run.dir=one"]
    options = [word for word in options if not word.startswith("teacher.")]
    assert main(["train", *options]) == 0
    assert main(["evaluate", "one", "--split", "test"]) == 0
    assert main(["train", *options, "rerun=true"]) == 0
    assert RunDirectory(Path("one")).test_reads() == 3, "two trainings and one look in between"
