"""A sweep: many runs from one command. Each job has its own process group, so a failed job does not stop the others.

`Sweep` is called by kd's launcher plugin for Hydra (``hydra_plugins/kd_launcher``). Needs no torch: a fork server
imports it a single time for all jobs.

    jobs.py     a job, its state and its directory      slots.py     how many jobs run at the same time, on what
    queue.py    the interface of what starts jobs       server.py    the process that forks jobs on this machine
    client.py   the sweep's connection to that process  slurm.py, ray.py  start jobs on a cluster instead
    record.py   sweep.json and the table                progress.py  the numbers shown while the sweep runs
    search.py   a search with Optuna                    interrupts.py  Ctrl-C, kill, a closed terminal
    sweep.py    all of it together
"""

from kd.sweep.record import print_table as print_table
from kd.sweep.sweep import OPENED as OPENED
from kd.sweep.sweep import Sweep as Sweep
