"""``kd train``: the Hydra application."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from importlib.resources import files
from pathlib import Path
from typing import Any

import hydra
import yaml
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

import kd.models  # noqa: F401  registers the students
from kd import build
from kd.errors import KDError
from kd.run import RunDirectory
from kd.training import train_student

log = logging.getLogger(__name__)

# What may differ between two starts of the same run.
NOT_IDENTITY = ("resume", "rerun", "outputs")


def main(arguments: list[str]) -> int:
    """Run Hydra on the arguments; every job of a multirun is one call of `train`."""
    os.environ["HYDRA_FULL_ERROR"] = "1"  # errors reach us as they are; kd.cli decides what to show
    sys.argv = [sys.argv[0], *arguments]
    failures: list[Exception | None] = []

    def job(config: DictConfig) -> float | None:
        """One run; in a sweep its failure must not keep the others from running.

        Returns:
            validation accuracy, for a sweeper that searches.
        """
        in_sweep = HydraConfig.get().mode == RunMode.MULTIRUN
        try:
            accuracy = train(config)
            failures.append(None)
            return accuracy
        except KDError as error:
            if in_sweep:
                log.error("%s", error)
            failures.append(error)
        except Exception as error:
            if not in_sweep:
                raise
            log.exception("this job failed")
            failures.append(error)
        return None

    try:
        hydra.main(version_base="1.3", config_path=str(configuration_folder()), config_name="config")(job)()
    except (HydraException, OmegaConfBaseException) as error:
        raise KDError(one_sentence(error)) from error
    failed = [error for error in failures if error]
    if len(failures) > 1 and failed:
        raise KDError(f"{len(failed)} of {len(failures)} jobs failed; the first: {failed[0]}") from failed[0]
    if failed:
        raise failed[0]
    return 0


def configuration_folder() -> Path:
    """``conf/``: inside the package where kd is installed from a wheel, beside it in a checkout."""
    inside = Path(str(files("kd"))) / "conf"
    return inside if inside.is_dir() else Path(__file__).parents[2] / "conf"


def one_sentence(error: Exception) -> str:
    """Hydra's several lines in one, its hints included."""
    text = " ".join(str(error).split())
    cause = error.__cause__
    if isinstance(cause, OmegaConfBaseException):
        text += ": " + " ".join(str(cause).split("\n")[0].split())
    return text


def quiet() -> None:
    """Silence what libraries say about things that are as they should be."""
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    warnings.filterwarnings("ignore", message=".*GPU available but not used.*")
    warnings.filterwarnings("ignore", message=".*Experiment logs directory.*exists and is not empty.*")
    warnings.filterwarnings("ignore", message=".*isinstance.treespec, LeafSpec.*")
    warnings.filterwarnings("ignore", message=".*is smaller than the logging interval.*")
    for name in ("lightning.pytorch.utilities.rank_zero", "lightning.fabric.utilities.seed"):
        logging.getLogger(name).setLevel(logging.WARNING)
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()


def train(config: DictConfig) -> float:
    """Train one student and leave a run directory; returns its validation accuracy."""
    quiet()
    run = RunDirectory(Path(HydraConfig.get().runtime.output_dir))
    identity = build.resolved(config)
    checkpoint = starting_point(run, identity, config)
    if checkpoint == "done":
        log.info("already done: %s (rerun=true trains it again)", run.path)
        return run.metrics()["validation"]["accuracy"]
    run.config_file.write_text(yaml.safe_dump(identity, sort_keys=False, allow_unicode=True))
    run.set_status("running")
    try:
        figures = train_student(config, run, checkpoint)
    except BaseException as error:
        run.set_status("failed", reason=f"{type(error).__name__}: {error}")
        raise
    run.set_status("done")
    test = figures["test"]
    log.info("test accuracy %.3f on %d rows; the run is in %s", test["accuracy"], test["rows"], run.path)
    return figures["validation"]["accuracy"]


def starting_point(run: RunDirectory, identity: dict[str, Any], config: DictConfig) -> Path | str | None:
    """Where to start in this directory: "done", the checkpoint of an interrupted run, or None for anew."""
    if not run.config_file.is_file() or not run.status_file.is_file():
        return None
    before = yaml.safe_load(run.config_file.read_text())
    same = all(before.get(key) == value for key, value in identity.items() if key not in NOT_IDENTITY)
    last = run.checkpoints / "last.ckpt"
    if same and not config.rerun:
        if run.status()["state"] == "done":
            return "done"
        if config.resume and last.is_file():
            log.info("resuming the interrupted run from %s", last)
            return last
    place = run.set_aside_products()
    if place:
        log.info("an earlier run in this directory was moved to %s", place)
    return None
