"""Ranks that torchrun or srun started, and messages between them. Imports torch only to exchange messages."""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from hydra.core.override_parser.types import Quote, QuotedString

from kd.errors import KDError

JOINING, CHECK = timedelta(minutes=30), timedelta(minutes=1)
"""How long ranks wait for each other to start, and how often a waiting rank checks that rank 0 is still there."""

STEPS = ("place", "train")
"""What rank 0 sends, in this order: the directory of the run, and whether there is something to train."""

STAY = 5.0
"""Seconds for which a failing rank 0 stays, so that the others can receive the reason."""


@dataclass(frozen=True)
class Launch:
    """How this process was started as one of several ranks.

    Args:
        by: torchrun or srun.
        rank: number of this process among all ranks.
        size: number of ranks.
        name: name of the launch, the same for all ranks and restarts; None if it has none.
    """

    by: str
    rank: int
    size: int
    name: str | None

    @classmethod
    def found(cls) -> Launch | None:
        """Return the launch that the environment describes, None if there is none.

        As for SLURM and Lightning, a process of a job named bash or interactive is no rank. A batch script that starts
        kd without srun has one process, whatever number of tasks the job has.
        """
        own = os.environ.get
        if name := own("TORCHELASTIC_RUN_ID"):
            size = int(own("WORLD_SIZE", "1"))
            return cls("torchrun", int(own("RANK", "0")), size, None if name == "none" else name)
        tasks = own("SLURM_NTASKS")
        if not tasks or own("SLURM_JOB_NAME") in ("bash", "interactive"):
            return None
        if step := own("SLURM_STEP_ID"):
            return cls("srun", int(own("SLURM_PROCID", "0")), int(tasks), f"{own('SLURM_JOB_ID')}.{step}")
        return cls("srun", 0, 1, None)


def tasks_per_node(counts: str) -> str:
    """Return the number of ranks on each node of a SLURM step.

    Args:
        counts: the tasks of the nodes as SLURM writes them: 4, or 4(x2) for two nodes.

    Raises:
        KDError: the nodes have different numbers of tasks.

    >>> tasks_per_node("4(x2)")
    '4'
    """
    count, _, times = counts.partition("(x")
    if not (count.isdecimal() and (not times or times.rstrip(")").isdecimal())):
        raise KDError(
            f"expected the same number of tasks on every node, found {counts or 'no'} tasks; set srun --nodes, and "
            "--ntasks-per-node to trainer.devices"
        )
    return count


def quoted(text: str) -> str:
    r"""Quote a text for Hydra's override grammar, in which a backslash is an escape only before a quote.

    >>> print(quoted(r"C:\it's"))
    'C:\it\'s'
    """
    return QuotedString(text, Quote.single).with_quotes()


def set_step_variables() -> None:
    """Set the variables by which torch finds rank 0 of a SLURM step, and Lightning the number of ranks a node."""
    from lightning.fabric.plugins.environments.slurm import SLURMEnvironment

    os.environ["SLURM_NTASKS_PER_NODE"] = tasks_per_node(os.environ.get("SLURM_STEP_TASKS_PER_NODE", ""))
    slurm = SLURMEnvironment()  # which refuses a step without the variable above
    os.environ |= {"MASTER_ADDR": slurm.main_address, "MASTER_PORT": str(slurm.main_port)}


class Rendezvous:
    """Messages from rank 0 to the other ranks, one for each of `STEPS`.

    They go through the store by which torch connects the ranks when training begins: torchrun's own, or one in rank 0.
    """

    def __init__(self, launch: Launch) -> None:
        from torch.distributed import PrefixStore, rendezvous

        if launch.by == "srun":
            set_step_variables()
        store, _, _ = next(rendezvous("env://", launch.rank, launch.size, timeout=JOINING))
        self.launch, self.store = launch, PrefixStore("kd", store)
        self.missing = list(STEPS)
        """What rank 0 has not sent yet."""

    def send(self, step: str, value: Any) -> None:
        """Send a step's value from rank 0; a second value of the same step is dropped."""
        if step in self.missing:
            self.missing.remove(step)
            self.store.set(step, json.dumps({"value": value}))

    def receive(self, step: str) -> Any:
        """Wait in another rank for a step's value, and return it.

        Raises:
            KDError: rank 0 has failed, or is gone.
        """
        from torch.distributed import DistNetworkError, DistStoreError

        while True:
            try:
                self.store.wait([step], CHECK)
                message = json.loads(self.store.get(step))
                break
            except DistNetworkError as error:
                raise KDError("rank 0 is gone and left no reason; see its output") from error
            except DistStoreError:  # nothing came within CHECK
                continue
        if "failed" in message:
            self.store.add("reasons received", 1)
            raise KDError(f"rank 0: {message['failed']}")
        return message["value"]

    def fail(self, reason: str) -> None:
        """Send a reason in place of the missing steps, and wait a short time until all ranks have received it."""
        if not self.missing:
            return
        for step in self.missing:
            self.store.set(step, json.dumps({"failed": reason}))
        deadline = time.monotonic() + STAY
        while self.store.add("reasons received", 0) < self.launch.size - 1 and time.monotonic() < deadline:
            time.sleep(0.05)
