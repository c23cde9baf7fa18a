"""A sweep, ranks and a preempted run on a real SLURM of one machine, which slurm_cluster.sh starts."""

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import pandas
import pytest

from tests.conftest import run_kd

pytestmark = pytest.mark.long
SCRIPT = Path(__file__).with_name("slurm_cluster.sh")
EPOCHS = 6
CANCEL = """
import subprocess, sys, time
while True:
    time.sleep(0.2)
    command = ["squeue", "--me", "--noheader", "--states=running", "--format=%i %j"]
    found = subprocess.run(command, capture_output=True, text=True).stdout.splitlines()
    if jobs := [line.split()[0] for line in found if "kd-cancelled" in line]:
        sys.exit(subprocess.call(["scancel", *jobs]))
"""


@pytest.fixture(scope="module")
def slurm(tmp_path_factory):
    """Start a cluster whose jobs find this checkout and these tests."""
    if not find_spec("submitit"):
        pytest.skip("submitit is not installed: pip install 'kd[slurm]'")
    folder = tmp_path_factory.mktemp("slurm")
    for place in [folder, *folder.parents][:3]:
        place.chmod(0o755)
    started = subprocess.run([SCRIPT, "start", folder], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if started.returncode == 3:
        pytest.skip(started.stdout.strip())
    assert started.returncode == 0, started.stdout
    kept = {name: os.environ.get(name) for name in ("SLURM_CONF", "PYTHONPATH")}
    os.environ["SLURM_CONF"] = str(folder / "slurm.conf")
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(Path(__file__).parents[2]), kept["PYTHONPATH"]]))
    yield folder
    subprocess.run(["scancel", "--me"], check=False)
    subprocess.run([SCRIPT, "stop", folder], check=True)
    for name, value in kept.items():
        os.environ.pop(name) if value is None else os.environ.update({name: value})


@pytest.fixture
def slow_options(slurm, options) -> list[str]:
    """Return options of runs that last long enough to be preempted."""
    Path("flag").touch()
    trouble = "+callbacks.trouble={_target_:tests.end_to_end.trouble.Trouble,flag:%s,seed:${seed},plan:{0:slow}}"
    own = ["modules=[tests.end_to_end.trouble]", trouble % Path("flag").absolute()]
    return [*options, "student=dan", f"trainer.max_epochs={EPOCHS}", *own]


def until(condition, seconds: float = 120):
    """Wait until a condition returns something true, and return that."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "it did not come"
        time.sleep(0.1)
    return found


def facts_of(job: str) -> dict[str, str]:
    said = subprocess.run(["scontrol", "show", "job", job], capture_output=True, text=True).stdout
    return dict(word.split("=", 1) for word in said.split() if "=" in word)


def require_same(one: Path, other: Path) -> None:
    """Compare metrics and curves of two runs."""
    found = [json.loads((run / "metrics.json").read_text()) for run in (one, other)]
    for split in ("validation", "test"):
        assert found[0][split] == found[1][split]
    curves = [pandas.read_csv(run / "metrics.csv") for run in (one, other)]
    pandas.testing.assert_frame_equal(*curves, check_like=True, check_exact=False, rtol=1e-6)


def undisturbed(options: list[str]) -> None:
    """Do the same run without SLURM in a new process, since kd starts the second rank as it was started itself."""
    command = [sys.executable, "-m", "kd", "train", *options, "hydra.run.dir=undisturbed"]
    subprocess.run(command, check=True, capture_output=True)


def test_a_sweep_is_one_array_and_ends_as_on_this_machine(slurm, options, capsys, monkeypatch):
    monkeypatch.setattr("kd.sweep.slurm.POLL", 0.5)
    sweep = [*options, "student=dan", "method=supervised,distillation", "seed=0,1"]
    there = ["hydra/launcher=slurm", "hydra.launcher.report=false", "sweep=there"]
    assert run_kd("train", "-m", *sweep, *there) == 0
    arrays = {file.read_text().split("_")[0] for file in Path("outputs/sweeps/there").glob("*/.slurm")}
    assert len(arrays) == 1 and len(list(Path("outputs/sweeps/there").glob("*/metrics.json"))) == 4
    assert run_kd("train", "-m", *sweep, "sweep=here") == 0
    for run in Path("outputs/sweeps/here").glob("*/metrics.json"):
        require_same(run.parent, Path("outputs/sweeps/there") / run.parent.name)
    capsys.readouterr()
    assert run_kd("train", "-m", *sweep, *there) == 0
    assert capsys.readouterr().out.count("done before") == 4, "finished jobs are found"


def test_a_job_that_slurm_ends_fails_with_the_reason(slow_options, capsys, monkeypatch):
    monkeypatch.setattr("kd.sweep.slurm.POLL", 0.5)
    canceller = subprocess.Popen([sys.executable, "-c", CANCEL])
    try:
        there = ["hydra/launcher=slurm", "hydra.launcher.report=false", "sweep=cancelled"]
        assert run_kd("train", "-m", *slow_options, *there, "trainer.max_epochs=1000") == 2
    finally:
        canceller.kill()
        canceller.wait()
    assert "CANCELLED" in capsys.readouterr().err


@pytest.mark.parametrize("ranks", [1, 2])
def test_a_preempted_job_of_a_sweep_ends_as_if_undisturbed(slow_options, ranks):
    """With submitit's signal, for one task and for two tasks that train together."""
    common = [*slow_options, f"trainer.devices={ranks}"]
    arguments = ["-m", *common, "hydra/launcher=slurm", "hydra.launcher.report=false", "sweep=preempted"]
    sweep = subprocess.Popen([sys.executable, "-m", "kd", "train", *arguments])
    try:
        last = until(lambda: next(Path("outputs/sweeps/preempted").glob("*/checkpoints/last.ckpt"), None))
        run = last.parents[1]
        job = (run / ".slurm").read_text()
        subprocess.run(["scancel", "--signal=USR2", job], check=True)
        until(lambda: facts_of(job).get("Restarts") == "1")
        assert sweep.wait(240) == 0
    finally:
        sweep.kill()
        sweep.wait()
    assert "resuming the interrupted run" in (run / "job.log").read_text()
    assert facts_of(job)["NumTasks"] == str(ranks)
    undisturbed(common)
    require_same(run, Path("undisturbed"))


def test_a_batch_job_of_two_ranks_requeues_itself(slow_options):
    """With ``srun kd train`` in a batch script, and the signal that Lightning would handle."""
    options = [*slow_options, "trainer.devices=2"]
    command = shlex.join([sys.executable, "-m", "kd", "train", *options])
    asked = ["--ntasks-per-node=2", "--signal=USR1@60", "--requeue", "--open-mode=append", "--output=out"]
    script = f"#!/bin/bash\nsrun --kill-on-bad-exit=1 {command}\n"
    sbatch = ["sbatch", "--parsable", *asked]
    job = subprocess.run(sbatch, input=script, capture_output=True, text=True, check=True).stdout.strip()
    run = Path(f"outputs/runs/srun-{job}.0")
    until(lambda: (run / "checkpoints/last.ckpt").is_file())
    subprocess.run(["scancel", "--signal=USR1", job], check=True)
    until(lambda: facts_of(job).get("Restarts") == "1")
    until(lambda: facts_of(job).get("JobState") in ("COMPLETED", "FAILED"))
    said = Path("out").read_text()
    assert facts_of(job)["JobState"] == "COMPLETED" and "resuming the interrupted run" in said, said
    undisturbed(options)
    require_same(run, Path("undisturbed"))


def test_tasks_without_their_number_a_node(slow_options):
    """``srun --ntasks`` sets no SLURM_NTASKS_PER_NODE: two ranks train, and two processes label."""
    kd = ["srun", "--ntasks=2", "--job-name=mine", sys.executable, "-m", "kd"]
    train = [*kd, "train", *slow_options, "trainer.devices=2", "hydra.run.dir=run"]
    done = subprocess.run(train, capture_output=True, text=True)
    assert done.returncode == 0 and Path("run/metrics.json").is_file(), done.stderr
    build = [*kd, "cache", "build", *slow_options, "outputs=others"]
    done = subprocess.run(build, capture_output=True, text=True)
    assert done.stdout.count("labelled: ") == 2, done.stderr


@pytest.mark.parametrize("silent", [False, True])
def test_an_interrupted_sweep_leaves_nothing_in_the_queue(slurm, slow_options, silent):
    """One job runs and one waits for its place, with a SLURM controller that answers and with a silent one."""
    place = Path(f"outputs/sweeps/interrupted-{silent}")
    there = ["hydra/launcher=slurm", "hydra.launcher.array_parallelism=1", f"sweep={place.name}"]
    arguments = ["-m", *slow_options, *there, "seed=0,1", "trainer.max_epochs=1000"]
    controller = int((slurm / "slurmctld.pid").read_text())
    with Path("printed").open("w") as printed:
        command = [sys.executable, "-m", "kd", "train", *arguments]
        sweep = subprocess.Popen(command, stdout=printed, stderr=printed)
    try:
        until(lambda: list(place.glob("seed-0*/checkpoints/last.ckpt")))
        (run,) = place.glob("seed-0*/")
        job = (run / ".slurm").read_text()
        time.sleep(6)  # until the sweep has seen that it runs
        if silent:
            os.kill(controller, signal.SIGSTOP)
        sweep.send_signal(signal.SIGINT)
        assert sweep.wait(timeout=150) == 130
    finally:
        os.kill(controller, signal.SIGCONT)
        sweep.kill()
        sweep.wait()
    states = {one["number"]: one["state"] for one in json.loads((place / "sweep.json").read_text())["jobs"]}
    assert states == {0: "failed", 1: "waiting"}
    if silent:
        said = Path("printed").read_text()
        assert "ended by: scancel" in said and job in said.rpartition("ended by:")[2]
        subprocess.run(["scancel", job.split("_")[0]], check=False)
    until(lambda: not subprocess.check_output(["squeue", "--me", "--noheader"]))
