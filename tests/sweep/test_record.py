"""sweep.json, and the table that is printed from it."""

from kd.run.directory import RunDirectory
from kd.sweep.record import FILE, Record, print_table, read, score
from tests.sweep.conftest import job_at


def test_attempts_of_earlier_commands_are_kept(tmp_path):
    record = Record(tmp_path, ["kd", "train", "-m"])
    assert record.attempts == {} and read(tmp_path) == {}
    record.jobs += [job_at(tmp_path, 0, attempts=2), job_at(tmp_path, 1, attempts=1, identity="identity-0")]
    record.write()
    assert read(tmp_path)["finished"] is None
    record.write(finished=True)
    assert read(tmp_path)["finished"] and read(tmp_path)["command"] == ["kd", "train", "-m"]
    assert Record(tmp_path, []).attempts == {"identity-0": 2}


def test_the_entry_of_a_job(tmp_path):
    job = job_at(tmp_path, 3, overrides=["seed=1", "+hydra.job.env_set.X=1"], state="failed", reason="why", attempts=2)
    record = Record(tmp_path, [])
    record.jobs.append(job)
    record.write()
    (found,) = read(tmp_path)["jobs"]
    assert found["overrides"] == ["seed=1"] and found["directory"] == "run-3" and found["log"] is None
    job.directory.mkdir()
    job.log.write_text("")
    record.write()
    assert read(tmp_path)["jobs"][0]["log"] == "run-3/job.log"


def test_a_file_of_another_format_is_not_read(tmp_path):
    for content in ('{"format": 99, "jobs": []}', '{"jobs": []}', "{", "[]"):
        (tmp_path / FILE).write_text(content)
        assert read(tmp_path) == {}


def test_the_table_has_each_run_and_the_reasons(tmp_path, capsys):
    print_table(tmp_path)
    assert capsys.readouterr().out == ""
    record = Record(tmp_path, [])
    jobs = [job_at(tmp_path, 0, state="failed", reason="no memory", seconds=3.2), job_at(tmp_path, 1, state="done")]
    record.jobs += [*jobs, job_at(tmp_path, 2, identity="identity-1", state="done")]
    record.write()
    print_table(tmp_path)
    printed = capsys.readouterr().out
    assert "0 failed: no memory" in printed and "the same run as 1 other job" in printed
    assert printed.count("run-") == 2, "two jobs are one run"


def test_a_run_without_figures_has_no_score(tmp_path):
    assert score(RunDirectory(tmp_path)) is None
