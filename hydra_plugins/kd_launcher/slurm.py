"""``hydra/launcher=slurm``: the jobs of a multirun in SLURM's queue; see `kd.sweep.slurm`.

Submitit, and not its plugin for Hydra: hydra-submitit-launcher runs every job, whatever is done already, names its
folder by the number in the queue, so that the same command finds nothing, and raises at the first job that failed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from hydra_plugins.kd_launcher.local import LocalLauncher

if TYPE_CHECKING:
    from pathlib import Path

    from kd.sweep.jobs import Job


class SlurmLauncher(LocalLauncher):
    """Runs jobs where SLURM puts them; the options are submitit's, and each job's are resolved for itself.

    Args:
        timeout_min: minutes that a job may take.
        nodes, tasks_per_node: its ranks.
        cpus_per_task: threads of each.
        gpus_per_node: GPUs; None: none are asked for.
        mem_gb: memory a node; None: the partition's default.
        partition: None: the cluster's default.
        signal_delay_s: how long before its end a job is told, and requeued.
        max_num_timeout: how often a job is requeued whose time was over.
        array_parallelism: how many run side by side.
        setup: lines of shell before ``srun``.
        additional_parameters: further options of ``sbatch``.
        report: write the report of the sweep's folder at the end; `kd train` reads it.
    """

    def __init__(
        self,
        timeout_min: int,
        nodes: int,
        tasks_per_node: int,
        cpus_per_task: int,
        gpus_per_node: int | None,
        mem_gb: float | None,
        partition: str | None,
        signal_delay_s: int,
        max_num_timeout: int,
        array_parallelism: int,
        setup: list[str],
        additional_parameters: dict[str, Any],
        report: bool = True,
    ):
        super().__init__(report=report)

    def queue(self, place: Path, jobs: Sequence[Job]) -> Any:
        """Where the jobs are started."""
        from kd.sweep.slurm import SlurmQueue

        return SlurmQueue(place, jobs)
