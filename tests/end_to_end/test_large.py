"""Commands with a transfer set that is larger than memory."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from kd.run.directory import RunDirectory
from tests.conftest import make_reviews, run_kd
from tests.data.writing import transfer_files, write_rows


@pytest.fixture(scope="module")
def files(reviews_file, tmp_path_factory) -> list[Path]:
    return transfer_files(tmp_path_factory.mktemp("transfer"), reviews_file)


@pytest.mark.slow
def test_a_run_streams_what_kd_cache_build_has_labelled(options, files, tmp_path, capfd):
    stream = [
        *(
            *options,
            "student=dan",
            "tokenizer=words",
            "embeddings=random",
            f"data.unlabelled=[{','.join(map(str, files))}]",
        ),
        *("data.stream=true", "data.shard_rows=400", "trainer.max_epochs=1"),
    ]
    assert run_kd("cache", "build", *stream, "trainer.devices=2") == 0
    assert capfd.readouterr().out.count("labelled: ") == 2
    (store,) = Path("outputs/transfer").glob("*/")
    before = {place: place.stat().st_mtime_ns for place in store.rglob("values.npy")}
    shards = len(json.loads((store / "manifest.json").read_text())["shards"])
    assert len(before) == 3 * shards > 6, "the student's tokens, the teacher's tokens and the logits of every shard"
    assert run_kd("train", *stream, "hydra.run.dir=taught") == 0
    assert run_kd("train", *stream, "hydra.run.dir=alone", "method=supervised") == 0
    assert {place: place.stat().st_mtime_ns for place in store.rglob("values.npy")} == before
    taught, alone = (RunDirectory.finished(name) for name in ("taught", "alone"))
    facts = taught.environment()["data"]["transfer"]
    assert facts["rows"] > 2000 and facts["fates"]["duplicates"] > 100
    metrics = taught.metrics()
    assert metrics["teacher_cost"]["labelling_seconds"] > 0 and 0 <= metrics["padding_share"] < 0.5
    assert (taught.model / "tokenizer.json").read_bytes() == (alone.model / "tokenizer.json").read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize(("step", "processes"), [({"SLURM_STEP_ID": "0", "SLURM_PROCID": "1"}, 1), ({}, 2)])
def test_labelling_in_a_slurm_job(options, monkeypatch, capfd, step, processes):
    """A task of ``srun --ntasks=2`` is one of two that share the work; a script without srun starts them itself."""
    job = {"SLURM_JOB_ID": "7", "SLURM_JOB_NAME": "kd", "SLURM_NTASKS": "2", "SLURM_NODEID": "0", "SLURM_LOCALID": "0"}
    for name, value in (job | step).items():
        monkeypatch.setenv(name, value)
    assert run_kd("cache", "build", *options, "student=dan", "trainer.devices=2") == 0, capfd.readouterr().err
    assert capfd.readouterr().out.count("labelled: ") == processes


THREADS = """
import os, sys, yaml
from kd.training import single_run
config = yaml.safe_load(open(sys.argv[1]))
single_run.remember(config)
threads = [open(f"/proc/self/task/{name}/comm").read().strip() for name in os.listdir("/proc/self/task")]
print("threads:", *(name for name in threads if name != "jemalloc_bg_thd"))
"""
"""Those of a process that has read; jemalloc's own, which may start at any time, minds forks by itself."""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="/proc tells of threads that Python did not start")
def test_a_sweep_may_fork_after_it_has_read_and_a_run_is_found_from_elsewhere(options, tmp_path, monkeypatch, capsys):
    write_rows(tmp_path / "more.parquet", [text for text, _ in make_reviews(300, seed=7)])
    stream = ["data.unlabelled=[more.parquet]", "data.stream=true", "data.shard_rows=100", "trainer.max_epochs=1"]
    assert run_kd("train", *options, "student=dan", *stream, "hydra.run.dir=run") == 0
    shutil.rmtree("outputs/transfer")
    command = [sys.executable, "-c", THREADS, "run/config.yaml"]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[-1].split()
    assert Path("outputs/transfer").is_dir() and said[0] == "threads:" and len(said) == 2, said
    monkeypatch.chdir("/")
    assert run_kd("evaluate", tmp_path / "run") == 0, capsys.readouterr().err


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        (["method=joint", "cache.use=false"], "data.stream=true is read by method=distillation and by its baseline"),
        (["data.unlabelled=null"], "the texts of transfer=[...], got none"),
        (["data.limit=9"], "data.limit chooses rows in memory; with data.stream=true give a smaller file instead"),
        (["cache.use=false"], "data.stream=true reads the teacher's logits from disk; leave cache.use=true"),
        (["data.shard_rows=0"], "data.shard_rows: expected a whole number of at least 1, got 0"),
        (["data.unlabelled=[none.parquet]"], "there is no file none.parquet"),
    ],
    ids=lambda value: value[-1] if isinstance(value, list) else "",
)
def test_what_cannot_be_streamed_is_refused(fresh_options, files, setting, said, capsys):
    stream = ["data.stream=true", f"data.unlabelled=[{files[0]}]"]
    assert run_kd("train", *fresh_options, "student=dan", *stream, *setting) == 2
    assert said in capsys.readouterr().err
