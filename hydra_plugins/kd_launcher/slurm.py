"""``hydra/launcher=slurm``: run the jobs of a multirun in SLURM's queue; see `kd.sweep.slurm`.

This uses submitit, but not hydra-submitit-launcher, which runs jobs again that are done, names a job's folder by its
SLURM job id, so that the same command does not find it again, and stops at the first failed job.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hydra_plugins.kd_launcher.local import LocalLauncher

if TYPE_CHECKING:
    from kd.sweep.queue import MakeQueue


class SlurmLauncher(LocalLauncher):
    """Runs jobs with SLURM. The options are submitit's; each job has its own values.

    Args:
        timeout_min: minutes that a job may take.
        nodes: nodes of a job.
        tasks_per_node: ranks on each node.
        cpus_per_task: CPU threads of each rank.
        gpus_per_node: GPUs on each node; null: none.
        mem_gb: memory of each node; null: the partition's default.
        partition: SLURM's partition; null: the cluster's default.
        signal_delay_s: seconds before its end at which a job is sent a signal and requeued.
        max_num_timeout: how often a job whose time was over is requeued.
        array_parallelism: how many jobs run at the same time.
        setup: shell commands before ``srun``.
        additional_parameters: other options of ``sbatch``.
        report: write the report of the sweep's folder at the end; `kd train` reads this option.
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
    ) -> None:
        super().__init__(report=report)

    def make_queue(self) -> MakeQueue:
        from kd.sweep.slurm import SlurmQueue

        return SlurmQueue
