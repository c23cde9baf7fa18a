"""``hydra/launcher=local``: the jobs of a multirun as single runs of ``kd train``, over slots; see `kd.sweep`.

Hydra imports this file in every application, so that the rest waits until a sweep begins.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn, JobStatus, setup_globals
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

if TYPE_CHECKING:
    from kd.sweep import Sweep
    from kd.sweep.jobs import Job


class LocalLauncher(Launcher):
    """Runs jobs on this machine.

    Args:
        slots: how many run side by side; null: one a GPU, or one where there is none.
        timeout_min: minutes after which a job counts as hanging and is ended; null: never.
        report: write the report of the sweep's folder at the end; `kd train` reads it.
    """

    def __init__(self, slots: int | None = None, timeout_min: float | None = None, report: bool = True):
        self.slots, self.timeout_min = slots, timeout_min
        self.sweep: Sweep | None = None

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Keep what the jobs are made from."""
        self.context, self.config = hydra_context, config
        remember_compositions(hydra_context)
        setup_globals()
        HydraConfig.instance().set_config(config)  # the sweeper resolves hydra.sweep.dir before the first job

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run a batch of jobs; those that failed have status FAILED, and those that were done are not run again."""
        jobs = self.open().launch([list(overrides) for overrides in job_overrides], initial_job_idx)
        HydraConfig.instance().set_config(self.config)
        return [self.returned(job) for job in jobs]

    def open(self) -> Sweep:
        """The sweep, with its folder to itself; whoever looks after `kd.sweep.OPENED` closes it."""
        from kd.sweep import Sweep

        if self.sweep is None:
            command = ["kd", "train", *sys.argv[1:]]
            loader = self.context.config_loader
            self.sweep = Sweep(self.config, loader, command, self.flags(), self.slots, self.timeout_min, self.queue)
        return self.sweep

    queue = None
    """What starts the jobs in place of the sweep's fork server; see `kd.sweep.Sweep`."""

    def flags(self) -> list[str]:
        """The command line's options that decide how a job is composed."""
        flags = ["--config-name", self.config.hydra.job.config_name]
        for source in self.config.hydra.runtime.config_sources:
            if source.provider == "command-line":
                flags += ["--config-dir", os.path.abspath(source.path)]
            elif source.provider == "main" and source.schema == "file":
                flags += ["--config-path", os.path.abspath(source.path)]
        return flags

    def returned(self, job: Job) -> JobReturn:
        """What a sweeper hears of a job: its figures, or why it has none."""
        from kd.errors import KDError, Pruned

        result = JobReturn(overrides=job.overrides, cfg=job.config, working_dir=str(job.directory))
        if job.state == "done":
            result.status, result.return_value = JobStatus.COMPLETED, self.figures(job)
        elif self.stops_at_failures():
            result.status, result.return_value = JobStatus.COMPLETED, None
        else:
            kind = Pruned if job.state == "pruned" else KDError
            result.status, result.return_value = JobStatus.FAILED, kind(job.reason)
        return result

    def figures(self, job: Job) -> Any:
        """What ``objective`` names."""
        return job.run.objective(job.config.objective)

    def stops_at_failures(self) -> bool:
        """Hydra's own sweeper reads no figures, and would drop the batches after one with a failure."""
        return self.config.hydra.sweeper._target_ == "hydra._internal.core_plugins.basic_sweeper.BasicSweeper"


def remember_compositions(context: HydraContext) -> None:
    """Hand a job's configuration to the launcher that the sweeper has composed just before, to see whether it can.

    Composing takes a fifth of a second a job, and Hydra's sweeper throws the result away.
    """
    compose, made = context.config_loader.load_sweep_config, {}

    def load_sweep_config(master_config: DictConfig, sweep_overrides: list[str]) -> DictConfig:
        key = tuple(sweep_overrides)
        if key in made:
            return made.pop(key)
        made[key] = compose(master_config, sweep_overrides)
        return made[key]

    context.config_loader.load_sweep_config = load_sweep_config
