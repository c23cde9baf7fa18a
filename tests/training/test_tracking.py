"""Trackers get parameters, curves, final figures, model card and report; what they wrote is read back."""

from pathlib import Path

import pytest

import kd
from tests.conftest import run_kd

ALL = "logger=[csv,tensorboard,mlflow,wandb]"
SUPERVISED = ("student=dan", "method=supervised")


@pytest.fixture
def tracked(options, monkeypatch):
    """A run with every tracker, and no account."""
    for name in ("WANDB_API_KEY", "WANDB_MODE", "MLFLOW_TRACKING_URI", "WANDB_SILENT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(Path.cwd()))  # no netrc of this machine
    return kd.train(*options, ALL, *SUPERVISED, directory="runs/dan")


def test_every_tracker_has_the_whole_run(tracked):
    accuracy = tracked.metrics["test"]["accuracy"]
    of_tensorboard(tracked.directory / "tensorboard", accuracy)
    of_mlflow(accuracy)
    of_wandb(tracked.directory / "wandb", accuracy)
    assert (tracked.directory / "metrics.csv").is_file()
    assert run_kd("reproduce", "runs/dan") == 0


def of_tensorboard(folder: Path, accuracy: float, epochs: int = 2) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder))
    events.Reload()
    assert not epochs or len(events.Scalars("val/accuracy")) == epochs
    assert events.Scalars("final/test/accuracy")[0].value == pytest.approx(accuracy)
    texts = [tag for tag in events.Tags()["tensors"] if "text_summary" in tag]
    assert {"model card/text_summary", "report/text_summary"} <= set(texts)
    assert b"- knowledge-distillation\n" in events.Tensors("model card/text_summary")[0].tensor_proto.string_val[0]
    assert (folder / "hparams.yaml").read_text().count("temperature")


def of_mlflow(accuracy: float) -> None:
    from mlflow.tracking import MlflowClient

    client = MlflowClient(f"sqlite:///{Path('outputs/mlflow.db').absolute()}")
    (run,) = client.search_runs([client.get_experiment_by_name("files").experiment_id])
    assert run.info.status == "FINISHED" and run.info.run_name == "dan"
    assert run.data.params["choices.student"] == "dan" and run.data.params["seed"] == "0"
    assert run.data.metrics["final/test/accuracy"] == pytest.approx(accuracy)
    assert len(client.get_metric_history(run.info.run_id, "val/accuracy")) == 2
    assert {file.path for file in client.list_artifacts(run.info.run_id)} == {"README.md", "metrics.json", "index.html"}


def of_wandb(folder: Path, accuracy: float) -> None:
    """Look into the file that ``wandb sync`` would send: its format is LevelDB's log, without compression."""
    (file,) = folder.glob("offline-run-*/*.wandb")
    logged = file.read_bytes()
    for part in (
        "choices.student",
        "val/accuracy",
        "final/test/accuracy",
        str(accuracy)[:8],
        "index.html",
        "README.md",
    ):
        assert part.encode() in logged, part


@pytest.mark.slow
def test_jobs_of_a_sweep_share_a_store(options):
    sweep = [*options, *SUPERVISED, "seed=0,1", "hydra.launcher.slots=2", "hydra.sweep.dir=sweep"]
    assert run_kd("train", "-m", *sweep, "logger=[csv,tensorboard,mlflow]") == 0
    from mlflow.tracking import MlflowClient

    client = MlflowClient(f"sqlite:///{Path('outputs/mlflow.db').absolute()}")
    runs = client.search_runs([client.get_experiment_by_name("files").experiment_id])
    assert sorted(run.data.params["seed"] for run in runs) == ["0", "1"]
    assert len(list(Path("sweep").glob("*/tensorboard/events*"))) >= 2


def test_a_student_without_steps_has_its_figures_too(options):
    options = [word for word in options if "embedding_size" not in word]
    run = kd.train(*options, "student=bag", "method=supervised", ALL.replace(",wandb", ""), directory="runs/bag")
    of_tensorboard(run.directory / "tensorboard", run.metrics["test"]["accuracy"], epochs=0)
    assert Path("outputs/mlflow.db").is_file()


def test_a_server_that_cannot_be_reached_is_named(options, monkeypatch, capsys):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    server = "logger.mlflow.tracking_uri=http://127.0.0.1:9"
    assert run_kd("train", *options, *SUPERVISED, "logger=[csv,mlflow]", server, "hydra.run.dir=runs/gone") == 2
    assert "kd train: logger: expected that MLFlowLogger takes the run, got MlflowException" in capsys.readouterr().err
