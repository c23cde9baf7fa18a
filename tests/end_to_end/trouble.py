"""A user's callback that breaks runs, for tests of what a sweep makes of it."""

import os
import signal
import subprocess
import time
from pathlib import Path

import lightning


def wait(*_) -> int:
    """A job, or what is read for jobs, that takes long."""
    for _ in range(6000):
        time.sleep(0.1)
    return 0


class Trouble(lightning.Callback):
    """At the beginning of an epoch, as long as a file is there, do what the plan has for the run's seed.

    Args:
        flag: the file.
        seed: of the run.
        plan: raise, hang, kill, slow or daemon, by seed; what daemon starts must live as long as the run.
        epoch: when; slow is so from the first.
        rank: whose.
    """

    def __init__(self, flag: str, seed: int, plan: dict[int, str], epoch: int = 1, rank: int = 0):
        self.flag, self.does, self.epoch, self.rank = Path(flag), plan.get(seed), epoch, rank
        self.daemon: int | None = None

    def on_train_epoch_start(self, trainer, method):
        if not self.flag.exists() or trainer.global_rank != self.rank:
            return
        if self.does == "slow":
            time.sleep(0.3)
        if trainer.current_epoch < self.epoch:
            return
        if self.does == "raise":
            raise RuntimeError("broken on purpose")
        if self.does == "hang":
            time.sleep(600)
        if self.does == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.does == "daemon" and not self.daemon:
            started = subprocess.check_output("setsid sleep 600 >/dev/null 2>&1 & echo $!", shell=True)
            self.daemon = int(started)

    def on_train_end(self, trainer, method):
        if self.daemon:
            os.kill(self.daemon, 0)
