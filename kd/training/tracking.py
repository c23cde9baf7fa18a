"""Give the trackers of a run its parameters, final figures, model card and report."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import CSVLogger, Logger, MLFlowLogger, TensorBoardLogger, WandbLogger

from kd.errors import KDError
from kd.report import write_report
from kd.run.directory import RunDirectory
from kd.run.identity import flat

log = logging.getLogger(__name__)


def trackers(loggers: Sequence[Logger]) -> list[Logger]:
    """Return the loggers that take more than curves: all but the CSV file of the run itself."""
    return [logger for logger in loggers if not isinstance(logger, CSVLogger)]


def begin(loggers: list[Logger], config: dict[str, Any]) -> list[Logger]:
    """Log the options of a run as parameters, before it trains; return the loggers.

    Raises:
        KDError: a tracker does not take them, such as a server that cannot be reached.
    """
    for logger in trackers(loggers):
        try:
            logger.log_hyperparams({key: "null" if value is None else value for key, value in flat(config)})
        except Exception as error:  # of one of many libraries
            reason = " ".join(str(error).split())[:300]
            raise KDError(
                f"logger: expected that {type(logger).__name__} takes the run, got {type(error).__name__}: {reason}; "
                "correct its options, or leave it out"
            ) from error
    return loggers


def finish(loggers: Sequence[Logger], run: RunDirectory, figures: dict[str, Any]) -> None:
    """Log the final figures, the model card and the page of the report of a run that is done.

    The run is kept whatever a tracker raises, such as a server that is gone.
    """
    if not (found := trackers(loggers)):
        return
    numbers = {key: float(value) for key, value in flat(figures) if isinstance(value, int | float)}
    files = [run.model / "README.md", run.metrics_file]
    try:
        files.append(write_report([run.path], run.path / "report"))
    except KDError as error:
        log.warning("no report for the trackers: %s", error)
    for logger in found:
        try:
            logger.log_metrics({f"final/{key.replace('.', '/')}": value for key, value in numbers.items()})
            _keep(logger, files)
            logger.finalize("success")
        except Exception as error:
            log.warning("%s has not taken everything: %s", type(logger).__name__, error)


def _keep(logger: Logger, files: Sequence[Path]) -> None:
    if isinstance(logger, TensorBoardLogger):  # which has texts, but no files
        logger.experiment.add_text("model card", files[0].read_text())
        if (page := files[-1].with_name("report.md")).is_file():
            logger.experiment.add_text("report", page.read_text())
    elif isinstance(logger, MLFlowLogger):
        for file in files:
            logger.experiment.log_artifact(logger.run_id, str(file))
    elif isinstance(logger, WandbLogger):
        import wandb

        artifact = wandb.Artifact(f"run-{logger.experiment.id}", type="run")
        for file in files:
            artifact.add_file(str(file))
        logger.experiment.log_artifact(artifact)
        logger.experiment.finish()
