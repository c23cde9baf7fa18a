"""``hydra/launcher=ray``: run the jobs of a multirun as tasks of a Ray cluster; see `kd.sweep.ray`.

This does not use hydra-ray-launcher 1.2.2: it needs cloudpickle<3 and boto3, which contradict ``constraints.txt``, runs
jobs again that are done, and names a job's folder by its number in the sweep.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hydra_plugins.kd_launcher.local import LocalLauncher

if TYPE_CHECKING:
    from kd.sweep.queue import MakeQueue


class RayLauncher(LocalLauncher):
    """Runs jobs on a Ray cluster.

    Args:
        address: the cluster's address; null: RAY_ADDRESS, or a new cluster on this machine that ends with the sweep.
        cpus_per_device: CPU cores of each of a job's ranks.
        gpus: GPUs of a job.
        resources: other resources of a job, by their names in Ray.
        timeout_min: minutes after which a job counts as hanging and is killed; null: never.
        report: write the report of the sweep's folder at the end; `kd train` reads this option.
    """

    def __init__(
        self,
        address: str | None,
        cpus_per_device: float,
        gpus: float,
        resources: dict[str, float],
        timeout_min: float | None = None,
        report: bool = True,
    ) -> None:
        super().__init__(timeout_min=timeout_min, report=report)

    def make_queue(self) -> MakeQueue:
        from kd.sweep.ray import RayQueue

        return RayQueue
