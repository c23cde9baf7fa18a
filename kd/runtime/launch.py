"""Ranks that something other than kd started, and how they meet. Needs no torch, until they do."""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from kd.errors import KDError

JOINING, WORD = timedelta(minutes=30), timedelta(minutes=1)
"""How long ranks wait for each other to start, and how often one that waits for a word looks whether all is well."""

HEARD = 5.0
"""Seconds that a failing rank 0 gives the others to hear why."""


@dataclass(frozen=True)
class Launch:
    """What started the ranks of a run from outside.

    Args:
        by: torchrun or srun.
        rank: this process's number among all.
        size: how many there are.
        name: of the launch, the same for all its ranks and restarts; None where it has none.
    """

    by: str
    rank: int
    size: int
    name: str | None

    @classmethod
    def found(cls) -> Launch | None:
        """As the environment tells; None where there is no sign of a launcher.

        SLURM's rule, and Lightning's: in a job that is called bash or interactive, processes are on their own. A batch
        script that starts kd without srun has one process, whatever the job's tasks.
        """
        own = os.environ.get
        if name := own("TORCHELASTIC_RUN_ID"):
            found = cls(
                "torchrun", int(own("RANK", "0")), int(own("WORLD_SIZE", "1")), None if name == "none" else name
            )
        elif own("SLURM_NTASKS") and own("SLURM_JOB_NAME") not in ("bash", "interactive"):
            if step := own("SLURM_STEP_ID"):
                size, name = int(own("SLURM_NTASKS")), f"{own('SLURM_JOB_ID')}.{step}"
                found = cls("srun", int(own("SLURM_PROCID", "0")), size, name)
            else:
                found = cls("srun", 0, 1, None)
        else:
            return None
        return found


def tasks_per_node(counts: str) -> str:
    """How many ranks each node has, which Lightning wants to be told, however ``srun`` was.

    Args:
        counts: of a step's nodes, as SLURM writes them: 4, or 4(x2) for two nodes.

    Raises:
        KDError: they differ.

    >>> tasks_per_node("4(x2)")
    '4'
    """
    count, _, times = counts.partition("(x")
    if not (count.isdecimal() and (not times or times.rstrip(")").isdecimal())):
        raise KDError(
            f"expected as many tasks on every node, as trainer.devices has them, found {counts or 'no'} tasks; set "
            "srun --nodes and --ntasks-per-node"
        )
    return count


class Meeting:
    """Words from rank 0 to the others, each heard once, in order; they outlive no process of the run.

    The store is the one through which the ranks find each other when training begins: torchrun's own, or rank 0's.

    Args:
        launch: whose ranks meet.
    """

    def __init__(self, launch: Launch):
        from torch.distributed import PrefixStore, rendezvous

        if launch.by == "srun":
            from lightning.fabric.plugins.environments import SLURMEnvironment

            os.environ["SLURM_NTASKS_PER_NODE"] = tasks_per_node(os.environ.get("SLURM_STEP_TASKS_PER_NODE", ""))
            environment = SLURMEnvironment()
            _ = environment.main_address, environment.main_port  # which put them where torch looks
        opened = next(rendezvous("env://", launch.rank, launch.size, timeout=JOINING))
        self.launch, self.said, self.store = launch, 0, PrefixStore("kd", opened[0])

    def say(self, **word: Any) -> None:
        """Rank 0: the next word."""
        self.store.set(f"word {self.said}", json.dumps(word))
        self.said += 1

    def hear(self) -> dict[str, Any]:
        """The others: wait for the next word.

        Raises:
            KDError: rank 0 failed, or is gone.
        """
        from torch.distributed import DistNetworkError, DistStoreError

        key = f"word {self.said}"
        while True:
            try:
                self.store.wait([key], WORD)
                word = json.loads(self.store.get(key))
                break
            except DistNetworkError as error:
                raise KDError("rank 0 is gone, and did not say why; see what it printed") from error
            except DistStoreError:  # the minute is over
                continue
        self.said += 1
        if "failed" in word:
            self.store.add("heard", 1)
            raise KDError(f"rank 0: {word['failed']}")
        return word

    def fail(self, reason: str) -> None:
        """Rank 0 ends: tell the others why, and leave when they have heard it."""
        self.say(failed=reason)
        deadline = time.monotonic() + HEARD
        while self.store.add("heard", 0) < self.launch.size - 1 and time.monotonic() < deadline:
            time.sleep(0.05)
