"""Ranks that torchrun or srun started: they meet, train as kd's own do, and end together."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pandas
import pytest
import torch

from kd.errors import KDError
from kd.runtime import ranks
from kd.runtime.launch import Launch, Meeting, tasks_per_node
from kd.storage.locks import lock

TORCHRUN = {"TORCHELASTIC_RUN_ID": "mine", "RANK": "3", "LOCAL_RANK": "1", "WORLD_SIZE": "4"}
SRUN = {"SLURM_JOB_ID": "7", "SLURM_STEP_ID": "0", "SLURM_PROCID": "1", "SLURM_NTASKS": "2", "SLURM_JOB_NAME": "kd"}


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    """That of no launcher, whatever this machine has."""
    for name in [name for name in os.environ if name in ranks.OF_RANKS or name.startswith("SLURM_")]:
        monkeypatch.delenv(name)
    return monkeypatch


@pytest.mark.parametrize(
    ("found", "launch"),
    [
        ({}, None),
        (TORCHRUN, Launch("torchrun", 3, 4, "mine")),
        (TORCHRUN | {"TORCHELASTIC_RUN_ID": "none"}, Launch("torchrun", 3, 4, None)),
        (SRUN, Launch("srun", 1, 2, "7.0")),
        (TORCHRUN | SRUN, Launch("torchrun", 3, 4, "mine")),
        (SRUN | {"SLURM_JOB_NAME": "interactive"}, None),
        ({name: value for name, value in SRUN.items() if name != "SLURM_STEP_ID"}, Launch("srun", 0, 1, None)),
    ],
)
def test_who_started_a_rank(environment, found, launch):
    for name, value in found.items():
        environment.setenv(name, value)
    assert Launch.found() == launch
    assert ranks.default_name() == (f"{launch.by}-{launch.name}" if launch and launch.name else None)


def test_a_launch_of_one_process_is_no_launch(environment):
    for name, value in (SRUN | {"SLURM_NTASKS": "1", "SLURM_PROCID": "0"}).items():
        environment.setenv(name, value)
    with ranks.met(["student=dan"]) as arguments:
        assert arguments == ["student=dan"] and ranks.rank() == 0
    assert "SLURM_NTASKS" not in os.environ, "Lightning would wait for ranks that kd starts"


def test_sizes_that_do_not_agree_are_refused(environment):
    with pytest.raises(KDError, match="wants kd train started on every node"):
        ranks.require_size(1, 2)
    for name, value in TORCHRUN.items():
        environment.setenv(name, value)
    with (
        pytest.raises(KDError, match="expected one process for a sweep, found 4 that torchrun started"),
        ranks.met(["-m"]),
    ):
        pass


def test_nodes_of_unequal_size_are_refused():
    assert [tasks_per_node(counts) for counts in ("2", "8(x16)")] == ["2", "8"]
    for counts in ("2,1", "2(x2),1", ""):
        with pytest.raises(KDError, match="expected as many tasks on every node"):
            tasks_per_node(counts)


def free_port() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return str(free.getsockname()[1])


def waiting_rank(port: str, folder: str) -> None:
    """Rank 1 of two; leaves what became of its waiting."""
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    meeting = Meeting(Launch("torchrun", 1, 2, None))
    Path(folder, "place").write_text(meeting.hear()["place"])
    try:
        meeting.hear()
    except KDError as error:
        Path(folder, "reason").write_text(str(error))


def leading_rank(port: str, fails: bool) -> None:
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    meeting = Meeting(Launch("torchrun", 0, 2, None))
    meeting.say(place="somewhere")
    time.sleep(0.5)  # the other waits
    if fails:
        meeting.fail("no room left")
    else:
        os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize(("fails", "said"), [(True, "rank 0: no room left"), (False, "rank 0 is gone")])
def test_who_waits_hears_why_rank_0_ended(tmp_path, fails, said):
    port, spawn = free_port(), torch.multiprocessing.get_context("fork")
    both = [
        spawn.Process(target=leading_rank, args=(port, fails)),
        spawn.Process(target=waiting_rank, args=(port, str(tmp_path))),
    ]
    for one in both:
        one.start()
    both[1].join(20)
    for one in both:
        one.kill()
    assert (tmp_path / "place").read_text() == "somewhere"
    assert (tmp_path / "reason").read_text().startswith(said)


def torchrun(nodes: int, *arguments: str) -> list[tuple[int, str]]:
    """Start a node of one process each, all on this machine, and wait for their exit codes and what they printed."""
    port = free_port()
    started = []
    for node in reversed(range(nodes)):
        launcher = ["torch.distributed.run", f"--nnodes={nodes}", "--nproc-per-node=1", f"--node-rank={node}"]
        place = ["--master-addr=127.0.0.1", f"--master-port={port}"]
        command = [sys.executable, "-m", *launcher, *place, "-m", "kd", "train", *arguments]
        started.insert(0, subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True))
    printed = [one.communicate(timeout=240)[0] for one in started]
    return [(one.returncode, text) for one, text in zip(started, printed, strict=True)]


def test_two_nodes_train_as_two_ranks_of_one(fresh_options):
    """The teacher is fine-tuned by rank 0 while the other waits; nothing tells the runs apart but who started them."""
    shared = [*fresh_options, "student=dan", "teacher.epochs=2"]
    (code, first), (other, second) = torchrun(2, *shared, "trainer.num_nodes=2")
    assert (code, other) == (0, 0), first + second
    assert "fine-tuning" in first and "fine-tuning" not in second
    (two,) = Path("outputs/runs").glob("*/*")
    alone = ["trainer.devices=2", "hydra.run.dir=one"]
    subprocess.run([sys.executable, "-m", "kd", "train", *shared, *alone], check=True, capture_output=True)
    for split in ("validation", "test"):
        found = [json.loads((run / "metrics.json").read_text())[split] for run in (two, Path("one"))]
        assert found[0] == found[1]
    curves = [pandas.read_csv(run / "metrics.csv") for run in (two, Path("one"))]
    pandas.testing.assert_frame_equal(*curves, check_exact=False, rtol=1e-6)
    assert sorted(path.name for path in two.iterdir()) == sorted(path.name for path in Path("one").iterdir())
    assert [path.name for path in two.glob("*.log")] == ["train.log"], "rank 0 alone writes"


@pytest.mark.slow
def test_ranks_end_with_the_reason_of_rank_0(fresh_options):
    shared = [*fresh_options, "student=dan", "method=supervised", "teacher.epochs=1", "hydra.run.dir=run"]
    Path("run").mkdir()
    with lock(Path("run/.run")):  # which only rank 0 asks for
        (code, first), (other, second) = torchrun(2, *shared, "trainer.num_nodes=2")
    assert code and other
    assert "is training in" in first and "kd train: rank 0: another process" in second
    (code, first), _ = torchrun(2, *shared, "trainer.devices=3")
    assert code and "torchrun started 2 processes, and trainer.devices=3 on trainer.num_nodes=1 are 3" in first
