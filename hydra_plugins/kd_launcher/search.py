"""``hydra/sweeper=optuna``: search with Optuna over the jobs of a multirun; see `kd.sweep.search`.

This does not use hydra-optuna-sweeper: its release 1.3.0 needs Optuna 2, and its candidates 1.4 need Hydra 1.4, which
is not released. It also runs n_trials again with every command, leaves the trials of a killed command in the state
"running", and cannot prune. Hydra imports this file in every application, so kd is imported only when a search begins.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.core.plugins import Plugins
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from hydra_plugins.kd_launcher.local import LocalLauncher


class OptunaSweeper(Sweeper):
    """Runs the trials of an Optuna study with the launcher.

    Args:
        sampler: Optuna's sampler.
        n_trials: total number of trials in the study, those of earlier commands included.
        n_jobs: how many trials run at the same time; null: hydra.launcher.slots, or 1.
        study_name: the study's name; null: the sweep's name.
        params: the search space, in addition to the command line.
        first: parameters of the trials that come first, such as ``[{alpha: 0.5}]``.
        minutes: all trials together may take this long; null: no limit. What still runs then is ended, and fails.
    """

    def __init__(
        self,
        sampler: Any,
        n_trials: int,
        n_jobs: int | None = None,
        study_name: str | None = None,
        params: Mapping[str, Any] | None = None,
        first: Sequence[Mapping[str, Any]] = (),
        minutes: float | None = None,
    ) -> None:
        self.sampler, self.n_trials, self.n_jobs = sampler, n_trials, n_jobs
        self.study_name, self.params, self.first, self.minutes = study_name, params or {}, first, minutes

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.config = config
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> None:
        """Run the search over the overrides of the command line.

        Raises:
            KDError: an option is outside its range, or the launcher is not kd's.
        """
        from kd.errors import KDError
        from kd.run.directory import OBJECTIVES
        from kd.sweep.search import Search, Space

        launcher, config = self.launcher, self.config
        if config is None or not isinstance(launcher, LocalLauncher):
            raise KDError("hydra/sweeper=optuna works with hydra/launcher=local, slurm or ray only; choose one of them")
        for name, value in (("n_trials", self.n_trials), ("n_jobs", self.n_jobs)):
            if not (isinstance(value, int) and value > 0) and not (name == "n_jobs" and value is None):
                raise KDError(f"hydra.sweeper.{name}: expected a whole number of at least 1, got {value!r}")
        if self.minutes is not None and not (isinstance(self.minutes, int | float) and self.minutes > 0):
            raise KDError(f"hydra.sweeper.minutes: expected minutes above 0, or null, got {self.minutes!r}")
        found = config.objective
        objectives = list(found) if OmegaConf.is_list(found) else [found]
        if unknown := [name for name in objectives if name not in OBJECTIVES]:
            raise KDError(f"objective: expected some of {', '.join(OBJECTIVES)}, got {', '.join(map(str, unknown))}")
        if OmegaConf.select(config, "callbacks.pruning") and objectives != [config.metric]:
            raise KDError(
                f"callbacks=[pruning] compares metric={config.metric} on validation, but objective={objectives} is "
                f"something else; set objective={config.metric}, or leave pruning out"
            )
        space = Space.of([*(f"{key}={value}" for key, value in self.params.items()), *arguments])
        sweep = launcher.open()
        name = self.study_name or str(config.sweep)
        batch = self.n_jobs or launcher.slots or 1
        seconds = None if self.minutes is None else 60 * self.minutes
        limits = self.n_trials, batch, self.first, seconds
        search, timeout = Search(Path(sweep.place), name, objectives, space, self.sampler, *limits), sweep.timeout

        def launch(jobs: list[list[str]], first: int) -> list[Any]:
            sweep.timeout = min(search.left(), timeout or math.inf) if seconds else timeout
            # The public `return_value` would raise the exception of a job that has no figures.
            return [job._return_value for job in launcher.launch(jobs, first)]

        search.run(launch)
