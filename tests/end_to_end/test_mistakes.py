"""Mistakes that only a whole command shows: never trained, links that lead out, other scripts, killed ranks."""

import json
import shutil
import sys
from pathlib import Path

import pytest

from tests.conftest import run_kd
from tests.end_to_end.test_devices import TWO, start
from tests.end_to_end.test_sweep import OWN, tests_are_found, trouble  # noqa: F401  the first is a fixture

ALONE = ["student=dan", "method=supervised", "teacher=none", "tokenizer=words", "embeddings=random"]


@pytest.fixture
def command(reviews_file, tmp_path, monkeypatch) -> list[str]:
    """Return the command of a small run without a teacher, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(reviews_file, "reviews.csv")
    common = ["data=files", "data.path=reviews.csv", "data.batch_size=16", "trainer=cpu", "trainer.max_epochs=1"]
    return ["train", *ALONE, *common, "callbacks=[checkpoint]", "threads=1", "student.embedding_size=16"]


def test_a_student_that_was_never_trained_has_no_accuracy(command, capsys):
    assert run_kd(*command, "optim.optimizer.lr=1e-30", "hydra.run.dir=run") == 2
    assert "expected a training that changes the student" in capsys.readouterr().err
    status = json.loads(Path("run/status.json").read_text())
    assert status["state"] == "failed" and "after 9 steps" in status["reason"]
    assert not Path("run/metrics.json").exists() and not Path("run/model").exists()


@pytest.mark.parametrize("name", [".hydra", "train.log", "previous", "checkpoints/last.ckpt"])
def test_a_link_that_leads_out_of_the_run_directory_is_not_followed(name, command, capsys):
    """Files of the run itself are moved away; what is written into must not be a link."""
    Path("elsewhere").mkdir()
    link = Path("run") / name
    if "/" in name:
        assert run_kd(*command, "hydra.run.dir=run") == 0
        run = json.loads(Path("run/status.json").read_text())
        (Path("run") / "status.json").write_text(
            json.dumps({"state": "running", "time": run["time"], "identity": run["identity"]})
        )
        shutil.move(link, "elsewhere/last.ckpt")
    link.parent.mkdir(exist_ok=True)
    link.symlink_to(Path("elsewhere", *(["last.ckpt"] if "/" in name else [])).absolute())
    before = {path: path.read_bytes() for path in Path("elsewhere").iterdir()}
    assert run_kd(*command, "hydra.run.dir=run") == 2
    assert "which leads out of it" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in Path("elsewhere").iterdir()} == before


def test_paths_and_labels_in_any_script_need_no_quotes(command):
    Path("数据").mkdir()
    text = Path("reviews.csv").read_text().replace("negative", "负面").replace("positive", "正面 (好)")
    Path("数据/评论 (1).csv").write_text(text)
    words = ["data.path=数据/评论 (1).csv", "data.label_names=[负面,正面 (好)]", "hydra.run.dir=r1"]
    assert run_kd(*command, *words) == 0
    assert json.loads(Path("r1/model/config.json").read_text())["id2label"] == {"0": "负面", "1": "正面 (好)"}


@pytest.mark.parametrize("place", ["reviews.csv", "reviews.csv/run", "/proc/run"])
def test_a_run_directory_that_cannot_be_written_is_named(place, command, capsys):
    if place.startswith("/proc") and sys.platform != "linux":
        pytest.skip("a folder of Linux")
    assert run_kd(*command, f"hydra.run.dir={place}") == 2
    said = capsys.readouterr().err
    assert f"cannot use the path '{place}'" in said and "check that it exists and is writable" in said


@pytest.mark.slow
def test_a_killed_rank_is_named(command, tests_are_found):  # noqa: F811
    killed = start(*command, *TWO, "trainer.max_epochs=3", OWN, trouble("0:kill", rank=1), "hydra.run.dir=two")
    assert killed.returncode == 2
    assert killed.stdout.splitlines()[-1] == "kd train: rank 1 was killed (signal 9); repeat the command to resume"
    assert json.loads(Path("two/status.json").read_text())["reason"] == "rank 1 was killed (signal 9)"
