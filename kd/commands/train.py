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
import torch
import yaml
from filelock import FileLock, Timeout
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

import kd.models  # noqa: F401  registers the students
from kd import build
from kd.check import check
from kd.data.sources import Splits
from kd.errors import KDError
from kd.run import RunDirectory, write_text
from kd.training import row_checksums, train_student

log = logging.getLogger(__name__)

# What may differ between two starts of the same run.
NOT_IDENTITY = ("resume", "rerun", "outputs", "cache.max_gb")


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
    except ValueError as error:
        if "Config group override" in str(error):
            raise KDError(f"{error}; say teacher=none, loss=[] or callbacks=[] for nothing") from error
        raise
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
    warnings.filterwarnings("ignore", message=".*in eval mode at the start of training.*")  # a frozen encoder
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
    try:
        identity, splits = prepared(config)
    except KDError as error:
        if not run.status_file.exists():
            run.set_status("failed", reason=str(error))
        raise
    try:
        with FileLock(run.path / ".lock", timeout=0):
            return train_in(run, config, identity, splits)
    except Timeout:
        raise KDError(
            f"another process is training in '{run.path}'; wait for it, or give another hydra.run.dir"
        ) from None


def prepared(config: DictConfig) -> tuple[dict[str, Any], Splits]:
    """The resolved configuration and the rows, both checked."""
    make_absolute(config)
    try:
        identity = build.resolved(config)
    except MissingMandatoryValue as error:
        raise KDError(f"{str(error).splitlines()[0]}; set it on the command line") from error
    check(config)
    return identity, build.splits(config)


def train_in(run: RunDirectory, config: DictConfig, identity: dict[str, Any], splits: Splits) -> float:
    """`train`, with the run directory to itself."""
    checkpoint = starting_point(run, identity, splits, config)
    if checkpoint == "done":
        log.info("already done: %s (rerun=true trains it again)", run.path)
        return run.metrics()["validation"]["accuracy"]
    run.set_status("running")
    write_text(run.config_file, yaml.safe_dump(identity, sort_keys=False, allow_unicode=True))
    try:
        figures = train_student(config, run, splits, checkpoint)
    except BaseException as error:
        run.set_status("failed", reason=f"{type(error).__name__}: {error}")
        raise
    run.set_status("done")
    test = figures["test"]
    log.info("test accuracy %.3f on %d rows; the run is in %s", test["accuracy"], test["rows"], run.path)
    return figures["validation"]["accuracy"]


def make_absolute(config: DictConfig) -> None:
    """Paths of data files as seen from anywhere, so that `kd evaluate` finds them from another folder."""
    for key in ("path", "train", "validation", "test"):
        place = config.data.get(key)
        if isinstance(place, str) and Path(place).exists():
            config.data[key] = str(Path(place).resolve())


def starting_point(
    run: RunDirectory, identity: dict[str, Any], splits: Splits, config: DictConfig
) -> Path | str | None:
    """Where to start in this directory: "done", the checkpoint of an interrupted run, or None for anew."""
    last = run.checkpoints / "last.ckpt"
    if not config.rerun and same_run(run, identity, splits):
        if run.status()["state"] == "done":
            return "done"
        if config.resume and last.is_file():
            if all(map(loads, run.checkpoints.glob("*.ckpt"))):
                log.info("resuming the interrupted run from %s", last)
                return last
            log.warning("a checkpoint in %s is damaged: training starts anew", run.checkpoints)
    place = run.set_aside_products()
    if place:
        log.info("an earlier run in this directory was moved to %s", place)
    return None


def same_run(run: RunDirectory, identity: dict[str, Any], splits: Splits) -> bool:
    """Whether the directory holds a run, finished or not, of this configuration on these rows."""
    try:
        before, rows = run.config(), run.environment()["data"]
        run.status()
    except (KDError, KeyError):
        return False
    same_rows = all(rows.get(name) == checksum for name, checksum in row_checksums(splits).items())
    return same_rows and decisive(before) == decisive(identity)


def decisive(config: dict[str, Any]) -> DictConfig:
    """The configuration without what may differ between two starts of the same run."""
    found = OmegaConf.create(config)
    for key in NOT_IDENTITY:
        OmegaConf.update(found, key, None, force_add=True)
    return found


def loads(checkpoint: Path) -> bool:
    """Whether a checkpoint can be read to its end."""
    try:
        torch.load(checkpoint, map_location="cpu", weights_only=True)
    except Exception:  # a cut or overwritten archive shows as any of several kinds
        return False
    return True
