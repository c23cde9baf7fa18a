"""Jobs without a finished run, and repeated trainings."""

import numpy as np
import pytest

from benchmarks.report import CONFIG
from kd.run.directory import RunDirectory
from kd.storage.files import write_json
from tests.report.written import page, table, words


def test_jobs_that_failed_or_are_missing_are_named(runs):
    runs.write("jobs/0", "supervised")
    (runs.folder / "jobs" / "1").mkdir()
    RunDirectory(runs.folder / "jobs" / "1").set_status("failed", reason="out of memory")
    (runs.folder / "lone").mkdir()
    RunDirectory(runs.folder / "lone").set_status("running")
    (runs.folder / "jobs" / "5").mkdir()
    RunDirectory(runs.folder / "jobs" / "5").set_status("pruned", reason="behind")
    runs.write("jobs/6", "supervised", seed=6)
    job = lambda number, state, **more: {  # noqa: E731
        **{"number": number, "overrides": [f"seed={number}"], "directory": f"jobs/{number}", "state": state},
        **{"reason": None, "log": None, "identity": f"id-{number}", "attempts": 1, **more},
    }
    write_json(
        runs.folder / "sweep.json",
        {
            "format": 1,
            "command": ["kd", "train", "-m", "seed=0,1,2,3"],
            "jobs": [
                job(0, "done"),
                job(1, "failed", reason="killed: out of memory", log="jobs/1/train.log"),
                job(2, "waiting"),
                job(3, "done"),
                job(4, "failed", directory="jobs/1"),
                job(5, "pruned", reason="behind"),
                job(6, "failed", reason="trained again since"),
            ],
        },
    )
    text = words(page(runs.folder))
    assert "4 runs not in the tables" in text
    left_out = {row["run"]: row for row in table(runs.folder, "left-out")}
    assert left_out["seed=1"]["state"] == "failed" and left_out["seed=1"]["reason"] == "killed: out of memory"
    assert left_out["seed=1"]["log"].endswith("jobs/1/train.log")
    assert left_out["seed=2"]["state"] == "not started"
    assert left_out["seed=3"]["state"] == "missing"
    assert left_out[str(runs.folder / "lone")]["state"] == "not finished"
    assert len(left_out) == 4, "a run that two jobs share once, one that is done since not at all"
    assert "made by kd train -m seed=0,1,2,3" in text
    assert "1 run ended early, because other trials of the search were better" in text.replace("&#39;", "'")


@pytest.mark.parametrize(
    "found", ['{"format": 1, "jobs": [', '{"jobs": 7}', '{"jobs": [{"state": "done", "log": 7}, 3]}']
)
def test_a_sweep_file_that_cannot_be_read_is_no_obstacle(runs, found):
    (runs.write("one", "supervised") / "test_reads.jsonl").write_bytes(b"\xff\n")
    (runs.folder / "sweep.json").write_text(found)
    assert "No run here learnt from a teacher" in words(page(runs.folder))


@pytest.mark.parametrize("flaw", [None, "logits", "not promised"])
def test_runs_that_should_agree(runs, flaw):
    logits = runs.answers(0.75)
    runs.write("first", "supervised", logits=logits)
    other = {name: values.copy() for name, values in logits.items()}
    if flaw:
        other["test"][3] += np.array([1e-3, 0], dtype=np.float32)
    trainer = CONFIG["trainer"] | {"deterministic": flaw != "not promised"}
    runs.write("second", "supervised", logits=other, trainer=trainer)
    text = words(page(runs.folder))
    if flaw == "logits":
        assert (
            "Should be equal and are not" in text
            and "The logits of 1 row differ (by up to 0.001), the labels of 0" in text
        )
        assert "first" in text and "second" in text
    elif flaw:
        assert "are not" not in text.split("Reproducibility")[-1]
    else:
        assert "1 further run of the same configuration, seed, machine and software" in text
