"""The line that says how a sweep goes."""

import time

from kd.sweep.progress import Progress, duration
from tests.sweep.conftest import job_at


def test_the_time_left_is_estimated_from_the_jobs_so_far(tmp_path):
    done = job_at(tmp_path, 0, state="done", seconds=200.0)
    jobs = [done, job_at(tmp_path, 1, state="running"), job_at(tmp_path, 2, state="waiting")]
    progress = Progress(jobs, tmp_path, slots=1)
    progress.since[1] = time.monotonic() - 100
    assert progress.summary() == "1 done of 3, 1 running, about 5 min left"
    assert [duration(seconds) for seconds in (4.2, 600, 7300)] == ["4 s", "10 min", "2.0 h"]


def test_the_end_of_a_job_is_a_line_with_its_reason(tmp_path, capsys):
    job = job_at(tmp_path, 0, state="running")
    progress = Progress([job], tmp_path, slots=1)
    progress.started(job)
    job.state, job.reason, job.seconds = "failed", "no memory", 2.0
    progress.ended(job)
    assert capsys.readouterr().out == "start  run-0\nfailed run-0 in 2.0 s: no memory | 0 done of 1, 1 failed\n"
