"""``hydra/sweeper=optuna``: a search over the jobs of a multirun; see `kd.sweep.search`.

Ours and not hydra-optuna-sweeper: its release 1.3.0 wants Optuna 2, and its candidates 1.4 want Hydra 1.4, which is not
released. It also starts n_trials anew with every command, leaves the trials of a killed command running for ever, and
knows no pruned jobs. Hydra imports this file in every application, so that the rest waits until a search begins.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from hydra_plugins.kd_launcher.local import LocalLauncher


class OptunaSweeper(Sweeper):
    """Asks Optuna for jobs, has the launcher run them, and tells Optuna what became of them.

    Args:
        sampler: Optuna's.
        n_trials: how many the study shall have in all, those of earlier commands too.
        n_jobs: how many are asked for at once; null: hydra.launcher.slots, or 1.
        study_name: null: the sweep's name.
        params: the search space, besides what the command line has.
    """

    def __init__(
        self,
        sampler: Any,
        n_trials: int,
        n_jobs: int | None = None,
        study_name: str | None = None,
        params: Mapping[str, Any] | None = None,
    ):
        self.sampler, self.n_trials, self.n_jobs = sampler, n_trials, n_jobs
        self.study_name, self.params = study_name, params or {}

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Make the launcher."""
        self.hydra_context, self.config = hydra_context, config
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> None:
        """Search."""
        from kd.errors import KDError
        from kd.run.directory import OBJECTIVES
        from kd.sweep.search import Search, Space

        if not isinstance(self.launcher, LocalLauncher):
            raise KDError("hydra/sweeper=optuna works with hydra/launcher=local, kd's own; leave the launcher as it is")
        for name, value in (("n_trials", self.n_trials), ("n_jobs", self.n_jobs)):
            if not (isinstance(value, int) and value > 0) and not (name == "n_jobs" and value is None):
                raise KDError(f"hydra.sweeper.{name}: expected a whole number of at least 1, got {value!r}")
        found = self.config.objective
        objectives = list(found) if OmegaConf.is_list(found) else [found]
        if unknown := [name for name in objectives if name not in OBJECTIVES]:
            raise KDError(f"objective: expected some of {', '.join(OBJECTIVES)}, got {', '.join(map(str, unknown))}")
        if OmegaConf.select(self.config, "callbacks.pruning") and objectives != ["accuracy"]:
            raise KDError(
                f"callbacks=[pruning] compares validation accuracies epoch by epoch, and objective={objectives} asks "
                "for something else; prune with objective=accuracy, or leave pruning out"
            )
        space = Space.of([*(f"{key}={value}" for key, value in self.params.items()), *arguments])
        sweep = self.launcher.open()
        name = self.study_name or str(self.config.sweep)
        batch = self.n_jobs or self.launcher.slots or 1
        search = Search(Path(sweep.place), name, objectives, space, self.sampler, self.n_trials, batch)
        search.run(lambda jobs, first: [result(one) for one in self.launcher.launch(jobs, first)])


def result(job: JobReturn) -> Any:
    """A job's figures, or why it has none."""
    return job.return_value if job.status == JobStatus.COMPLETED else job._return_value
