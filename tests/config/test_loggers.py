"""The loggers that a list of choices makes, and what is missing for them."""

from pathlib import Path

import pytest
from lightning.pytorch.loggers import CSVLogger, MLFlowLogger, TensorBoardLogger, WandbLogger

from kd.config import loggers
from kd.config.compose import composed
from kd.config.loggers import make_loggers
from kd.errors import KDError


@pytest.mark.parametrize(
    ("words", "kinds"),
    [
        ([], [CSVLogger]),
        (["logger=csv"], [CSVLogger]),
        (["logger=[csv,tensorboard]"], [CSVLogger, TensorBoardLogger]),
        (["logger=[csv,mlflow,wandb]"], [CSVLogger, MLFlowLogger, WandbLogger]),
        (["logger=[]"], []),
    ],
)
def test_a_list_of_choices_makes_loggers(words, kinds, tmp_path):
    made = make_loggers(composed(words).logger, tmp_path / "run", tmp_path)
    assert [type(each) for each in made] == kinds


def test_nothing_is_sent_without_an_account(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("WANDB_API_KEY", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    nodes = composed(["logger=[wandb]"]).logger
    (one,) = make_loggers(nodes, tmp_path / "run", tmp_path)
    assert one._offline
    (tmp_path / ".netrc").write_text("machine api.wandb.ai login user password secret\n")
    (tmp_path / ".netrc").chmod(0o600)  # as wandb login makes it
    assert not make_loggers(nodes, tmp_path / "run", tmp_path)[0]._offline
    assert make_loggers(composed(["logger=[wandb]", "logger.wandb.offline=true"]).logger, tmp_path, tmp_path)[
        0
    ]._offline
    monkeypatch.setenv("WANDB_MODE", "offline")
    assert make_loggers(nodes, tmp_path / "run", tmp_path)[0]._offline


def test_mlflow_takes_the_server_of_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/own.db")
    made = make_loggers(composed(["logger=[mlflow]"]).logger, tmp_path / "run", tmp_path)
    assert isinstance(made[0], MLFlowLogger) and not (tmp_path / "mlflow.db").exists()


def test_a_missing_package_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(loggers, "find_spec", lambda name: None)
    with pytest.raises(
        KDError, match=r"logger=wandb: expected the package wandb, found none; pip install 'kd\[wandb\]'"
    ):
        make_loggers(composed(["logger=[wandb]"]).logger, Path(tmp_path), Path(tmp_path))
