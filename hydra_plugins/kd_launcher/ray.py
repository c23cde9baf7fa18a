"""``hydra/launcher=ray``: the jobs of a multirun as tasks of a Ray cluster; see `kd.sweep.ray`.

Ray itself, and not its plugin for Hydra: hydra-ray-launcher 1.2.2 wants cloudpickle<3 and boto3, which do not go with
``constraints.txt``, runs every job, whatever is done already, and names its folder by its number in the sweep.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from hydra_plugins.kd_launcher.local import LocalLauncher

if TYPE_CHECKING:
    from pathlib import Path

    from kd.sweep.jobs import Job


class RayLauncher(LocalLauncher):
    """Runs jobs where Ray puts them.

    Args:
        address: of the cluster; None: RAY_ADDRESS, or a cluster of this machine for as long as the sweep lasts.
        cpus_per_device: of each of a job's ranks.
        gpus: of a job.
        resources: what else a job takes, as Ray calls it.
        timeout_min: minutes after which a job counts as hanging and is ended; None: never.
        report: write the report of the sweep's folder at the end; `kd train` reads it.
    """

    def __init__(
        self,
        address: str | None,
        cpus_per_device: float,
        gpus: float,
        resources: dict[str, float],
        timeout_min: float | None = None,
        report: bool = True,
    ):
        super().__init__(timeout_min=timeout_min, report=report)

    def queue(self, place: Path, jobs: Sequence[Job]) -> Any:
        """Where the jobs are started."""
        from kd.sweep.ray import RayQueue

        return RayQueue(place, jobs)
