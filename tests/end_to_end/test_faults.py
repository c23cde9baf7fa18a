"""Faults of the machine: a full or read-only disk, a flipped byte, a cut file, a killed run."""

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pandas
import pytest
from safetensors.torch import load_file

from kd.run.directory import RunDirectory
from tests.conftest import run_kd

ROOT = Path(__file__).parents[2]
SIZE = 8 << 10


@contextlib.contextmanager
def mounted(place: Path, *options: str) -> Iterator[Path]:
    """Mount a new file system in memory; skip the test if this user may not mount one."""
    place.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", *options, "tmpfs", str(place)], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"no file system can be mounted here: {done.stderr.strip()}")
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


def fill(disk: Path, kilobytes: int) -> Path:
    """Write a file that leaves only so many kilobytes free, and return its path."""
    ballast = disk / "ballast"
    ballast.unlink(missing_ok=True)
    with ballast.open("wb", buffering=0) as file:
        free = os.statvfs(disk).f_bavail * os.statvfs(disk).f_bsize - 1024 * kilobytes
        file.write(bytes(max(0, free)))
    return ballast


def products(run: Path) -> dict:
    found = RunDirectory.finished(run)
    weights = load_file(found.model / "model.safetensors")
    return {
        "weights": {name: value.numpy().tobytes() for name, value in weights.items()},
        "predictions": pandas.read_parquet(found.predictions_file).astype(str).to_dict("list"),
        "test": found.metrics()["test"],
    }


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_full_disk_is_named_and_complete_files_are_kept(fresh_options, tmp_path, capsys):
    """The command is repeated with more and more room: it stops with a sentence, or ends like an undisturbed run."""
    command = ["train", *fresh_options, "student=dan", "teacher.epochs=1"]
    with mounted(tmp_path / "disk", "-o", f"size={SIZE}k") as disk:
        refusals, complete = 0, {}
        for room in (8, 40, 120, 160, 200, 280, 400, 2000):
            ballast = fill(disk, room)
            code = run_kd(*command, f"outputs={disk}/outputs", f"hydra.run.dir={disk}/run")
            said = capsys.readouterr().err
            for path, changed in complete.items():
                assert path.stat().st_mtime_ns == changed, f"{path} was complete, but was made again"
            complete |= {path: path.stat().st_mtime_ns for path in disk.glob("outputs/*/*/*.json")}
            if code == 0:
                break
            assert code == 2 and "the disk is full" in said and "Traceback" not in said, said
            refusals += 1
        assert code == 0 and refusals > 2
        ballast.unlink()
        assert not list(disk.rglob("*.building-*"))
        assert run_kd(*command, "hydra.run.dir=roomy") == 0
        assert products(disk / "run") == products(Path("roomy"))


def test_a_read_only_folder_is_named(options, tmp_path, capsys):
    with mounted(tmp_path / "sealed", "-o", "ro") as sealed:
        command = ["train", *options, "student=dan", "method=supervised"]
        for place in (f"hydra.run.dir={sealed}/run", f"outputs={sealed}/outputs"):
            assert run_kd(*command, place) == 2
            said = capsys.readouterr().err
            assert str(sealed) in said and "Read-only" in said and "Traceback" not in said, said
        assert run_kd(*command[:1], "-m", *command[1:], f"hydra.sweep.dir={sealed}/sweep") == 2
        said = capsys.readouterr().err
        assert str(sealed) in said and "Traceback" not in said, said


@pytest.mark.parametrize("harm", ["flipped", "cut", "empty"])
def test_a_damaged_checkpoint_costs_the_epochs_and_nothing_else(options, harm, capsys):
    """An interrupted run with a damaged last.ckpt says so, trains from scratch, and has the same result."""
    command = ["train", *options, "student=dan", "method=supervised", "trainer.max_epochs=3", "hydra.run.dir=run"]
    assert run_kd(*command) == 0
    expected = products(Path("run"))
    RunDirectory(Path("run")).set_status("running", identity=RunDirectory(Path("run")).status()["identity"])
    last = Path("run/checkpoints/last.ckpt")
    content = bytearray(last.read_bytes())
    content[len(content) // 2] ^= 0x10
    last.write_bytes({"flipped": content, "cut": content[: len(content) // 2], "empty": b""}[harm])
    assert run_kd(*command) == 0
    assert "is damaged: the run starts from scratch" in capsys.readouterr().out
    assert products(Path("run")) == expected
    assert list(Path("run/previous").glob("*/checkpoints/last.ckpt")), "it was moved aside, not removed"


def test_a_flipped_byte_in_a_cache_is_noticed(options, capsys):
    """The caches of the other splits are kept."""
    command = ["train", *options, "student=dan"]
    assert run_kd(*command, "hydra.run.dir=before") == 0
    values = sorted(Path("outputs/teacher_cache").glob("*/values.npy"))
    others = {path: path.stat().st_mtime_ns for path in values[1:]}
    content = bytearray(values[0].read_bytes())
    content[-5] ^= 1
    values[0].write_bytes(content)
    assert run_kd(*command, "hydra.run.dir=after") == 0
    said = capsys.readouterr().out
    assert "is damaged" in said and "it is built again" in said
    assert products(Path("before")) == products(Path("after"))
    assert {path: path.stat().st_mtime_ns for path in others} == others


@pytest.mark.long
@pytest.mark.skipif(sys.platform != "linux", reason="process groups are killed by Linux's ways")
def test_fifty_kills_are_survived():
    done = subprocess.run(
        [sys.executable, "-m", "tests.end_to_end.kill_nine", "--kills", "50"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "all" in done.stdout and done.stdout.split()[-2:] == ["50", "50"]


@pytest.mark.slow
def test_kills_are_survived():
    """One kill in each phase; the slow test does fifty."""
    folder = Path(shutil.which("true") or "/").parent  # somewhere else than the checkout
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "tests.end_to_end.kill_nine", "--kills", "7", "--seed", "1"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.split()[-2:] == ["7", "7"], done.stdout
