"""Sweeps on a tiny teacher and a few reviews: which jobs run, and what happens to those that fail."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pandas
import pytest
import torch
from safetensors.torch import load_file

from kd.run.directory import RunDirectory
from kd.run.identity import identity
from tests.conftest import make_reviews, run_kd

ROOT = Path(__file__).parents[2]
SWEEP = Path("outputs/sweeps/files")
SUPERVISED = {"_target_": "kd.methods.supervised.Supervised"}
MAPPED = {"_target_": "kd.methods.composition.Composition"}
TOWARDS = {"_target_": "kd.features.fitted_mapper.Procrustes"}


@pytest.fixture(autouse=True)
def tests_are_found(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))


def jobs(folder: Path = SWEEP) -> list[dict]:
    return json.loads((folder / "sweep.json").read_text())["jobs"]


def states(folder: Path = SWEEP) -> list[str]:
    return [job["state"] for job in jobs(folder)]


OWN = "modules=[tests.end_to_end.trouble]"


def trouble(plan: str, **others) -> str:
    """Return the override that adds the callback, and make its flag file."""
    Path("flag").touch()
    rest = "".join(f",{key}:{value}" for key, value in others.items())
    flag = Path("flag").absolute()
    target = "tests.end_to_end.trouble.Trouble"
    return f"+callbacks.trouble={{_target_:{target},flag:'{flag}',seed:${{seed}},plan:{{{plan}}}{rest}}}"


def left_running() -> list[int]:
    """Return the other processes whose working directory is this folder."""
    here, found = os.getcwd(), []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
                if os.readlink(entry / "cwd") == here and state not in "ZX":
                    found.append(int(entry.name))
            except OSError:
                continue
    return found


def nothing_left(within: float) -> bool:
    deadline = time.monotonic() + within
    while left_running() and time.monotonic() < deadline:
        time.sleep(0.05)
    return not left_running()


def stamps() -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in SWEEP.glob("*/metrics.json")}


@pytest.mark.slow
def test_each_run_once_and_one_teacher_for_all(fresh_options, capsys):
    """Two jobs start together without a teacher, two jobs are the same run; then the command is repeated and grows."""
    command = ["train", "-m", *fresh_options, "student=dan", "hydra.launcher.slots=2", "method=supervised,distillation"]
    assert run_kd(*command, "alpha=0.5,0.9") == 0
    assert len(list(Path("outputs/teachers").glob("*/teacher.json"))) == 1
    assert len(list(Path("outputs/teacher_cache").glob("*/meta.json"))) == 3
    logs = "".join(path.read_text() for path in SWEEP.glob("*/job.log"))
    assert logs.count("teacher: fine-tuning") == 1
    assert [logs.count(f"{name} rows (once)") for name in ("train", "validation", "test")] == [1, 1, 1]

    found = jobs()
    assert [job["state"] for job in found] == ["done"] * 4
    assert found[0]["identity"] == found[1]["identity"], "a supervised run reads no alpha"
    assert found[0]["directory"] == found[1]["directory"] and len({job["directory"] for job in found}) == 3
    for job in found:
        run = RunDirectory(SWEEP / job["directory"])
        assert job["directory"].endswith(job["identity"][:8]) and run.status()["identity"] == job["identity"]
        assert job["attempts"] == 1 and not job["found"] and (SWEEP / job["log"]).is_file()

    before = stamps()
    assert run_kd(*command, "alpha=0.5,0.9") == 0
    assert stamps() == before and all(job["found"] and job["attempts"] == 1 for job in jobs())
    assert run_kd(*command, "alpha=0.5,0.9", "seed=0,1", "cache.max_gb=9") == 0, "a limit changes no identity"
    assert {path: stamps()[path] for path in before} == before
    assert len(jobs()) == 8 and len(stamps()) == 6 and sum(job["found"] for job in jobs()) == 4
    assert "the same run as" in capsys.readouterr().out


@pytest.mark.slow
def test_a_job_is_the_single_run_bit_for_bit(options):
    """Imports before the fork change no result."""
    assert run_kd("train", "-m", *options, "student=textcnn", "seed=3", "hydra.sweep.subdir=named-${seed}") == 0
    (job,) = jobs()
    assert job["directory"] == "named-3"
    assert run_kd("train", *options, "student=textcnn", "seed=3", "hydra.run.dir=single") == 0
    one, two = (load_file(Path(place) / "model/model.safetensors") for place in (SWEEP / job["directory"], "single"))
    assert all(torch.equal(one[name], two[name]) for name in one)
    status = [RunDirectory(Path(place)).status() for place in (SWEEP / job["directory"], "single")]
    assert status[0]["identity"] == status[1]["identity"]


@pytest.mark.slow
def test_failed_jobs_are_reported_and_the_others_continue(options, capsys):
    """One raises, one hangs, one is killed, one has a wrong seed; the same command then repeats them."""
    command = ["train", "-m", *options, "student=dan", "method=supervised", "trainer.max_epochs=3"]
    command += ["hydra.launcher.slots=2", "seed=0,1,2,3,-4", trouble("1:raise,2:hang,3:kill"), OWN]
    assert run_kd(*command, "hydra.launcher.timeout_min=0.25") == 2
    printed = capsys.readouterr()
    assert "4 of 5 jobs failed" in printed.err
    found = jobs()
    assert [job["state"] for job in found] == ["done", "failed", "failed", "failed", "failed"]
    for job, reason in zip(
        found[1:], ("RuntimeError: broken on purpose", "timeout_min=0.25", "SIGKILL", "seed: expected"), strict=True
    ):
        assert reason in job["reason"] and reason in printed.out.replace("\n", "")
        status = RunDirectory(SWEEP / job["directory"]).status()
        assert status["state"] == "failed" and reason in status["reason"]
    assert "broken on purpose" in (SWEEP / found[1]["log"]).read_text()
    assert nothing_left(5)

    Path("flag").unlink()
    assert run_kd(*command) == 2
    found = jobs()
    assert [job["state"] for job in found] == ["done"] * 4 + ["failed"]
    assert [job["attempts"] for job in found] == [1, 2, 2, 2, 2] and found[0]["found"]
    resumed = [(SWEEP / job["directory"] / "job.log").read_text().count("resuming") for job in found]
    assert resumed == [0, 1, 1, 1, 0], "those with a checkpoint resume from it"


@pytest.mark.slow
def test_interrupted_again_and_again(options):
    """After kill -9 of the parent (twice) or its server, and after Ctrl-C, nothing runs; the same command finishes."""
    options = [*options, "student=dan", "method=supervised", "trainer.max_epochs=4", "seed=0,1,2"]
    command = [sys.executable, "-m", "kd", "train", "-m", *options, trouble("0:slow,1:slow,2:slow"), OWN]
    ended: set[str] = set()
    for sent, code in ((signal.SIGKILL, -9), (signal.SIGKILL, -9), ("server", 2), (signal.SIGINT, 130)):
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        deadline = time.monotonic() + 60
        kept = {path: path.stat().st_mtime_ns for path in SWEEP.glob("*/checkpoints/last.ckpt")}
        while time.monotonic() < deadline:  # until a new checkpoint is written
            now = {path: path.stat().st_mtime_ns for path in SWEEP.glob("*/checkpoints/last.ckpt") if path.exists()}
            if any(kept.get(path) != stamp for path, stamp in now.items()):
                break
            time.sleep(0.02)
        if sent == "server":
            children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
            os.kill(int(children[0]), signal.SIGKILL)
        else:
            process.send_signal(sent)
        printed, _ = process.communicate(timeout=20)
        assert process.returncode == code, printed
        assert nothing_left(2), "what the sweep started has ended with it"
        ended |= {job["directory"] for job in jobs() if job["state"] == "done"}
    assert "running" not in states(), "after Ctrl-C the record is complete"
    Path("flag").unlink()
    before = stamps()
    last = subprocess.run(command, capture_output=True, text=True)
    assert last.returncode == 0, last.stdout + last.stderr
    assert states() == ["done"] * 3
    assert {path: stamps()[path] for path in before} == before
    assert sum(job["attempts"] for job in jobs()) > 3
    for job in jobs():
        assert pandas.read_csv(SWEEP / job["directory"] / "metrics.csv")["epoch"].nunique() == 4


@pytest.mark.slow
@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_ended_while_its_server_imports(options, sent):
    """Jobs that have not started stay waiting, and the sweep ends without waiting for the imports."""
    command = [sys.executable, "-m", "kd", "train", "-m", *options, "student=dan", "method=supervised", "seed=0,1"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not ((SWEEP / "sweep.json").exists() and "running" in states()):
        time.sleep(0.02)
    process.send_signal(sent)
    printed, _ = process.communicate(timeout=20)
    assert process.returncode == {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGKILL: -9}[sent], printed
    assert nothing_left(1)
    if sent != signal.SIGKILL:
        assert states() == ["waiting"] * 2 and not list(SWEEP.glob("*/status.json"))


@pytest.mark.slow
def test_a_rank_that_breaks_ends_its_job_only(options):
    """The second of two ranks raises: the job fails with that reason, and no process is left."""
    command = ["train", "-m", *options, "student=dan", "method=supervised", "hydra.launcher.slots=2"]
    command += ["trainer.devices=2,1", "seed=0,1", "trainer.strategy=auto", trouble("1:raise", rank=1), OWN]
    assert run_kd(*command) == 2
    found = jobs()
    assert [job["state"] for job in found] == ["done", "failed", "done", "done"]
    assert found[1]["reason"] == "rank 1: RuntimeError: broken on purpose" and found[1]["seconds"] < 60
    assert nothing_left(2)
    assert {path.name for path in SWEEP.iterdir() if path.is_dir()} == {job["directory"] for job in found}
    healthy = RunDirectory(SWEEP / found[0]["directory"])
    assert healthy.status()["state"] == "done" and healthy.config()["trainer"]["devices"] == 2
    assert "x 2 devices)" in (SWEEP / found[0]["log"]).read_text()
    assert len(list(healthy.path.glob("metrics*.csv"))) == 1, "one rank writes"


@pytest.mark.slow
def test_a_daemon_ends_with_its_job_and_not_before(options):
    """A daemon has its own session, and its parent has ended. The end of a job must not end another job's daemon."""
    command = ["train", "-m", *options, "student=dan", "method=supervised", "hydra.launcher.slots=2", "seed=0,1"]
    assert run_kd(*command, trouble("0:daemon,1:daemon"), OWN) == 0
    assert nothing_left(2)


def test_ranks_that_kd_did_not_start_are_refused(options, monkeypatch, capsys):
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert run_kd("train", *options) == 2
    assert "found LOCAL_RANK set by another launcher" in capsys.readouterr().err


def test_two_runs_in_one_directory_are_refused(options, capsys):
    command = ["train", "-m", *options, "student=dan", "hydra.sweep.subdir=same"]
    assert run_kd(*command, "seed=0,1") == 2
    assert "two different runs would have the directory" in capsys.readouterr().err
    assert not SWEEP.joinpath("same").exists()


@pytest.mark.slow
def test_a_clash_with_an_earlier_batch_is_refused(options, capsys):
    command = ["train", "-m", *options, "student=dan", "method=supervised", "hydra.sweep.subdir=same"]
    assert run_kd(*command, "seed=0,1", "hydra.sweeper.max_batch_size=1") == 2
    assert "two different runs would have the directory" in capsys.readouterr().err
    assert RunDirectory(SWEEP / "same").config()["seed"] == 0 and not (SWEEP / "same" / "previous").exists()


@pytest.mark.slow
def test_a_done_run_that_lost_its_predictions_is_trained_again(options):
    command = ["train", "-m", *options, "student=dan", "method=supervised", "seed=0,1"]
    assert run_kd(*command) == 0
    lost = SWEEP / jobs()[0]["directory"] / "predictions.parquet"
    lost.unlink()
    assert run_kd(*command) == 0
    assert [job["found"] for job in jobs()] == [False, True] and lost.is_file()


@pytest.mark.slow
def test_under_nohup_a_closed_terminal_does_not_end_it(options):
    command = [sys.executable, "-m", "kd", "train", "-m", *options, "student=dan", "method=supervised", "seed=0"]
    ignored = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # a child inherits this
    try:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    finally:
        signal.signal(signal.SIGHUP, ignored)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not ((SWEEP / "sweep.json").exists() and "running" in states()):
        time.sleep(0.02)
    process.send_signal(signal.SIGHUP)
    printed, _ = process.communicate(timeout=60)
    assert process.returncode == 0 and states() == ["done"], printed


@pytest.mark.parametrize("setting", ["slots=0", "slots=true", "slots=two", "timeout_min=-1"])
def test_settings_of_the_launcher_are_checked(options, setting, capsys):
    assert run_kd("train", "-m", *options, f"hydra.launcher.{setting}") == 2
    assert f"hydra.launcher.{setting.split('=')[0]}: expected" in capsys.readouterr().err


def test_a_second_command_in_a_sweep_is_refused(options, capsys):
    from kd.storage.locks import lock

    SWEEP.mkdir(parents=True)
    with lock(SWEEP / ".sweep"):
        assert run_kd("train", "-m", *options) == 2
    assert ") runs the sweep in" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("before", "after", "same"),
    [
        ({}, {"threads": 4, "outputs": "elsewhere", "trainer": {"accelerator": "gpu", "devices": 1}}, True),
        ({}, {"trainer": {"accelerator": "cpu", "devices": 2}}, False),
        ({}, {"seed": 1}, False),
        ({}, {"temperature": 4.0}, False),
        ({"temperature": 2.0}, {"temperature": 2}, True),
        ({"loss": {"hint": {"weight": 1.0}}}, {"loss": {"hint": {"weight": 1}}}, True),
        ({"trainer": {"limit_val_batches": 1.0}}, {"trainer": {"limit_val_batches": 1}}, False),
        ({"method": SUPERVISED}, {"method": SUPERVISED, "temperature": 4.0, "loss": {"hint": {"weight": 2}}}, True),
        ({"method": SUPERVISED}, {"method": SUPERVISED, "teacher": {"epochs": 3}}, False),
        ({"teacher": {"labelling_batch_size": 8}}, {"teacher": {"labelling_batch_size": 9}}, True),
        ({"method": MAPPED}, {"method": MAPPED, "embeddings": {"std": 2}, "choices": {"embeddings": "random"}}, True),
        ({"method": MAPPED, "mapper": TOWARDS}, {"method": MAPPED, "mapper": TOWARDS, "embeddings": {"std": 2}}, False),
    ],
)
def test_which_settings_change_the_identity(before, after, same):
    common = {
        "method": {"_target_": "kd.methods.distillation.Distillation"},
        "mapper": {"_target_": "kd.features.mapper.Linear"},
        "trainer": {"accelerator": "cpu", "devices": 1},
        "choices": {"embeddings": "pca"},
        "seed": 0,
    }
    assert (identity(common | before) == identity(common | after)) is same


def test_a_file_is_identified_by_its_content(tmp_path):
    def named(place: Path) -> str:
        return identity({"method": SUPERVISED, "data": {"path": str(place), "name": str(place.name)[:4]}})

    (tmp_path / "rows.csv").write_text("a")
    (tmp_path / "rows-moved.csv").write_text("a")
    (tmp_path / "rows-other.csv").write_text("b")
    assert named(tmp_path / "rows.csv") == named(tmp_path / "rows-moved.csv") != named(tmp_path / "rows-other.csv")


@pytest.mark.slow
@pytest.mark.parametrize("settings", ["method=supervised", "method=distillation", "data.stream=true"])
def test_what_a_run_reads_is_made_for_all_jobs_together(options, monkeypatch, settings):
    """A job that finds vocabulary, tokenised texts and first embeddings in memory makes none. Results are the same."""
    from kd.config import build
    from kd.data.tokenizers import WordTokenizer
    from kd.models.embeddings import TeacherEmbeddings
    from kd.runtime import fork_memory as memory
    from kd.training import single_run

    command = ["train", *options, "student=dan", settings, "embeddings=pca", "tokenizer=words"]
    if settings == "data.stream=true":
        Path("more.jsonl").write_text(
            "".join(json.dumps({"text": text}) + "\n" for text, _ in make_reviews(60, seed=7))
        )
        command += ["data.unlabelled=[more.jsonl]", "data.shard_rows=20", "trainer.max_epochs=1"]
    assert run_kd(*command, "hydra.run.dir=alone") == 0
    try:
        started, start, before = [], threading.Thread.start, set(threading.enumerate())
        with monkeypatch.context() as patched:  # also no thread that ends soon by itself
            patched.setattr(threading.Thread, "start", lambda thread: (started.append(thread), start(thread)))
            single_run.remember(RunDirectory(Path("alone")).config())
        others = [thread for thread in started if not thread.name.startswith("filelock-lease")]
        assert not others and set(threading.enumerate()) <= before, "a process with threads must not be forked"
        for place, name in ((build, "tokenize"), (WordTokenizer, "__call__"), (TeacherEmbeddings, "known")):
            monkeypatch.setattr(place, name, lambda *_, name=name: pytest.fail(f"{name} was called"))
        assert run_kd(*command, "hydra.run.dir=job") == 0
        assert run_kd(*command, "seed=1", "hydra.run.dir=other") == 0
    finally:
        memory._KEPT.clear()
    alone, job, other = (load_file(f"{place}/model/model.safetensors") for place in ("alone", "job", "other"))
    assert all(torch.equal(alone[name], job[name]) for name in alone)
    assert not all(torch.equal(alone[name], other[name]) for name in alone)
    predictions = [pandas.read_parquet(f"{place}/predictions.parquet") for place in ("alone", "job")]
    assert predictions[0].astype(str).equals(predictions[1].astype(str))
