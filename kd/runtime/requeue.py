"""A run in a SLURM job that is about to be ended: it puts its job back into the queue, and goes on there.

``sbatch --signal=USR1@90`` has SLURM send the signal before the time is over, and a preempting cluster sends it with
``PreemptParameters=send_user_signal``. Lightning 2.6 answers it by saving a checkpoint on the spot and resuming in the
midst of the epoch, with its step's number but with the first rows of the epoch's order: some rows are seen twice and
others not at all (docs/clusters.md). So kd takes the signal in its place, and the requeued run goes on from
``last.ckpt``, the end of its last whole epoch, as every interrupted run does: with the metrics of an undisturbed one.
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import threading

from kd.runtime.ranks import is_first

log = logging.getLogger(__name__)


def requeue_when_told() -> None:
    """Answer SIGUSR1 by ``scontrol requeue`` in a SLURM job; ranks other than 0 ignore it."""
    job = slurm_job()
    if job is None or threading.current_thread() is not threading.main_thread():
        return
    if signal.getsignal(signal.SIGUSR1) == signal.SIG_DFL:  # whoever has it already, such as submitit, keeps it
        signal.signal(signal.SIGUSR1, (lambda *_: requeue(job)) if is_first() else signal.SIG_IGN)


def requeue(job: str) -> None:
    """Put this process's job back into the queue; SLURM ends it where it runs."""
    done = subprocess.run(["scontrol", "requeue", job], capture_output=True, text=True, check=False)
    if done.returncode:
        log.warning("SLURM does not requeue job %s: %s", job, done.stderr.strip())
    else:
        log.warning("requeued job %s: it goes on from the end of its last epoch", job)


def slurm_job() -> str | None:
    """This process's job, or element of an array, as ``scontrol`` knows it; None outside, and in interactive jobs."""
    own = os.environ.get
    if not own("SLURM_JOB_ID") or own("SLURM_JOB_NAME") in ("bash", "interactive"):
        return None
    array = own("SLURM_ARRAY_JOB_ID")
    return f"{array}_{own('SLURM_ARRAY_TASK_ID')}" if array else own("SLURM_JOB_ID")
