"""``hydra/launcher=local``: run the jobs of a multirun as single runs of ``kd train`` on this machine; see `kd.sweep`.

Hydra imports this file in every application, so kd itself is imported only when a sweep begins.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from hydra.core.config_loader import ConfigLoader
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import JobReturn, JobStatus, setup_globals
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

if TYPE_CHECKING:
    from kd.sweep import Sweep
    from kd.sweep.jobs import Job
    from kd.sweep.queue import MakeQueue

BASIC_SWEEPER = "hydra._internal.core_plugins.basic_sweeper.BasicSweeper"
"""Hydra's own sweeper, which reads no figures and would stop at a failed job."""


class LocalLauncher(Launcher):
    """Runs jobs on this machine.

    Args:
        slots: how many jobs run at the same time; null: one for each GPU, or one without a GPU.
        timeout_min: minutes after which a job counts as hanging and is killed; null: never.
        report: write the report of the sweep's folder at the end; `kd train` reads this option.
    """

    def __init__(self, slots: int | None = None, timeout_min: float | None = None, report: bool = True) -> None:
        self.slots, self.timeout_min = slots, timeout_min
        self.sweep: Sweep | None = None

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Keep the configuration, and refuse a sweep over no value."""
        self.context, self.config = hydra_context, config
        params = (f"{key}={value}" for key, value in (config.hydra.sweeper.get("params") or {}).items())
        refuse_empty_choices([*params, *config.hydra.overrides.task], hydra_context.config_loader)
        keep_compositions(hydra_context)
        setup_globals()
        HydraConfig.instance().set_config(config)  # the sweeper resolves hydra.sweep.dir before the first job

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run a batch of jobs, except those that are done, and return the results of all."""
        jobs = self.open().launch([list(overrides) for overrides in job_overrides], initial_job_idx)
        HydraConfig.instance().set_config(self.config)
        return [self.returned(job) for job in jobs]

    def open(self) -> Sweep:
        """Return the sweep, which locks its folder until the user of `kd.sweep.OPENED` closes it."""
        from kd.sweep import Sweep

        if self.sweep is None:
            command = ["kd", "train", *sys.argv[1:]]
            loader = self.context.config_loader
            settings = self.slots, self.timeout_min, self.make_queue()
            self.sweep = Sweep(self.config, loader, command, self.flags(), *settings)
        return self.sweep

    def make_queue(self) -> MakeQueue | None:
        """Return what makes the queue of a cluster; None: jobs are forked on this machine."""
        return None

    def flags(self) -> list[str]:
        """Return the command-line options that affect how a job is composed."""
        flags = ["--config-name", self.config.hydra.job.config_name]
        for source in self.config.hydra.runtime.config_sources:
            if source.provider == "command-line":
                flags += ["--config-dir", os.path.abspath(source.path)]
            elif source.provider == "main" and source.schema == "file":
                flags += ["--config-path", os.path.abspath(source.path)]
        return flags

    def returned(self, job: Job) -> JobReturn:
        """Return a job's result for the sweeper: its figures, or why it has none."""
        from kd.errors import KDError, Pruned

        result = JobReturn(overrides=job.overrides, cfg=job.config, working_dir=str(job.directory))
        if job.state == "done":
            result.status, result.return_value = JobStatus.COMPLETED, job.run.objective(job.config.objective)
        elif self.config.hydra.sweeper._target_ == BASIC_SWEEPER:
            result.status, result.return_value = JobStatus.COMPLETED, None
        else:
            kind = Pruned if job.state == "pruned" else KDError
            result.status, result.return_value = JobStatus.FAILED, kind(job.reason)
        return result


def refuse_empty_choices(overrides: list[str], loader: ConfigLoader) -> None:
    """Refuse an empty list of values, such as ``range(3,1)``, for which Hydra would run no job without a message."""
    from kd.errors import KDError

    parser = OverridesParser.create(config_loader=loader)
    last = {one.get_key_element(): one for one in parser.parse_overrides(overrides)}  # the last of a key counts
    for key, one in last.items():
        if one.is_discrete_sweep() and next(one.sweep_string_iterator(), None) is None:
            raise KDError(f"{key}: expected at least one value, found none in '{one.input_line}'; give it values")


def keep_compositions(context: HydraContext) -> None:
    """Keep each configuration that the sweeper composes as a test, for the launcher, which needs it next.

    Composing takes 0.2 s a job, and Hydra's sweeper throws the result away.
    """
    compose = context.config_loader.load_sweep_config
    made: dict[tuple[str, ...], DictConfig] = {}

    def load_sweep_config(master_config: DictConfig, sweep_overrides: list[str]) -> DictConfig:
        key = tuple(sweep_overrides)
        if key in made:
            return made.pop(key)
        made[key] = compose(master_config, sweep_overrides)
        return made[key]

    context.config_loader.load_sweep_config = load_sweep_config  # type: ignore[method-assign]
