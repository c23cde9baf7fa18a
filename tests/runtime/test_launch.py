"""Ranks that torchrun or srun started: they exchange messages, train as kd's own ranks do, and end together."""

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
from hydra.core.override_parser.overrides_parser import OverridesParser

from kd.errors import KDError
from kd.runtime import ranks
from kd.runtime.launch import Launch, Rendezvous, quoted, set_step_variables, tasks_per_node
from kd.storage.locks import lock
from tests.runtime.conftest import SRUN, TORCHRUN


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
def test_who_started_a_rank(monkeypatch, found, launch):
    for name, value in found.items():
        monkeypatch.setenv(name, value)
    assert Launch.found() == launch
    assert ranks.default_name() == (f"{launch.by}-{launch.name}" if launch and launch.name else None)


def test_nodes_of_unequal_size_are_refused():
    assert [tasks_per_node(counts) for counts in ("2", "8(x16)")] == ["2", "8"]
    for counts in ("2,1", "2(x2),1", ""):
        with pytest.raises(KDError, match="expected the same number of tasks on every node"):
            tasks_per_node(counts)


def test_a_step_of_srun_finds_rank_0(monkeypatch):
    """As torch looks for it, even if srun was started without --ntasks-per-node."""
    for name, value in (SRUN | {"SLURM_JOB_ID": "412345", "SLURM_STEP_TASKS_PER_NODE": "1(x2)"}).items():
        monkeypatch.setenv(name, value)
    for name in ("SLURM_NTASKS_PER_NODE", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.setenv(name, "")  # so that it is restored afterwards
        monkeypatch.delenv(name)
    monkeypatch.setenv("SLURM_NODELIST", "node[5-6]")
    set_step_variables()
    found = [os.environ[name] for name in ("SLURM_NTASKS_PER_NODE", "MASTER_ADDR", "MASTER_PORT")]
    assert found == ["1", "node5", "17345"]


@pytest.mark.parametrize("text", ["plain", "it's", r"C:\data\x", "a,b={c}[d]", r"\'", "end\\", ""])
def test_a_quoted_value_is_read_back_as_it_was(text):
    (parsed,) = OverridesParser.create().parse_overrides([f"key={quoted(text)}"])
    assert parsed.value() == text


def free_port() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return str(free.getsockname()[1])


def waiting_rank(port: str, folder: str) -> None:
    """Be rank 1 of two, and write down what was received."""
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    rendezvous = Rendezvous(Launch("torchrun", 1, 2, None))
    Path(folder, "place").write_text(rendezvous.receive("place"))
    try:
        rendezvous.receive("train")
    except KDError as error:
        Path(folder, "reason").write_text(str(error))


def leading_rank(port: str, fails: bool) -> None:
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    rendezvous = Rendezvous(Launch("torchrun", 0, 2, None))
    rendezvous.send("place", "somewhere")
    rendezvous.send("place", "elsewhere")
    time.sleep(0.5)  # the other rank waits
    if fails:
        rendezvous.fail("no room left")
    else:
        os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize(("fails", "said"), [(True, "rank 0: no room left"), (False, "rank 0 is gone")])
def test_a_waiting_rank_receives_why_rank_0_ended(tmp_path, fails, said):
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
    """Start nodes of one process each, all on this machine, and return their exit codes and outputs."""
    port = free_port()
    started = []
    for node in reversed(range(nodes)):
        launcher = ["torch.distributed.run", f"--nnodes={nodes}", "--nproc-per-node=1", f"--node-rank={node}"]
        place = ["--master-addr=127.0.0.1", f"--master-port={port}"]
        command = [sys.executable, "-m", *launcher, *place, "-m", "kd", "train", *arguments]
        started.insert(0, subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True))
    printed = [one.communicate(timeout=240)[0] for one in started]
    return [(one.returncode, text) for one, text in zip(started, printed, strict=True)]


@pytest.mark.long
def test_two_nodes_train_as_two_ranks_of_one(fresh_options):
    """Rank 0 fine-tunes the teacher while the other waits. The run equals one whose ranks kd has started."""
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


@pytest.mark.long
def test_ranks_end_with_the_reason_of_rank_0(fresh_options):
    shared = [*fresh_options, "student=dan", "method=supervised", "teacher.epochs=1", "hydra.run.dir=run"]
    Path("run").mkdir()
    with lock(Path("run/.run")):  # only rank 0 takes this lock
        (code, first), (other, second) = torchrun(2, *shared, "trainer.num_nodes=2")
    assert code and other
    assert "is training in" in first and "kd train: rank 0: another process" in second
    (code, first), _ = torchrun(2, *shared, "trainer.devices=3")
    said = "expected 3 processes for trainer.devices=3 on trainer.num_nodes=1, found 2 that torchrun started"
    assert code and said in first
