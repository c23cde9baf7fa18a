"""A user's callback that breaks runs, for tests of sweeps."""

import os
import signal
import subprocess
import time
from pathlib import Path

import lightning


class Trouble(lightning.Callback):
    """Does what the plan has for the run's seed at the beginning of an epoch, if a file is there.

    Args:
        flag: the file.
        seed: the run's seed.
        plan: raise, hang, kill, slow or daemon, by seed. A daemon must live as long as the run.
        epoch: the epoch; slow begins with the first.
        rank: the rank that does it.
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
