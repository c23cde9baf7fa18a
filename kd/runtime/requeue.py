"""Requeue a SLURM job that is about to be ended, so that its run resumes later.

``sbatch --signal=USR1@90`` makes SLURM send the signal 90 s before the time is over; a cluster with
``PreemptParameters=send_user_signal`` sends it before a preemption. Lightning 2.6 handles this signal itself: it saves
a checkpoint within the epoch and later resumes at that step, but with the first rows of the epoch's order, so some rows
are read twice and others not at all (docs/clusters.md). kd handles the signal instead. The requeued run resumes from
``last.ckpt``, the end of its last whole epoch, like every interrupted run, and has the metrics of an undisturbed one.
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import threading

from kd.runtime.ranks import is_first

log = logging.getLogger(__name__)


def requeue_on_signal() -> None:
    """Handle SIGUSR1 with ``scontrol requeue`` if this is a SLURM job; ranks other than 0 ignore the signal."""
    job = slurm_job()
    if job is None or threading.current_thread() is not threading.main_thread():
        return
    if signal.getsignal(signal.SIGUSR1) == signal.SIG_DFL:  # keep a handler that is there, such as submitit's
        signal.signal(signal.SIGUSR1, (lambda *_: requeue(job)) if is_first() else signal.SIG_IGN)


def requeue(job: str) -> None:
    """Put this process's job back into the queue; SLURM then ends this process."""
    done = subprocess.run(["scontrol", "requeue", job], capture_output=True, text=True, check=False)
    if done.returncode:
        log.warning("SLURM does not requeue job %s: %s", job, done.stderr.strip())
    else:
        log.warning("requeued job %s: it will resume from the end of its last epoch", job)


def slurm_job() -> str | None:
    """Return the id of this process's job or array element; None outside SLURM and in interactive jobs."""
    own = os.environ.get
    if not own("SLURM_JOB_ID") or own("SLURM_JOB_NAME") in ("bash", "interactive"):
        return None
    array = own("SLURM_ARRAY_JOB_ID")
    return f"{array}_{own('SLURM_ARRAY_TASK_ID')}" if array else own("SLURM_JOB_ID")
