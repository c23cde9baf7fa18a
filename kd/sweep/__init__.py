"""A sweep: every job a process group of its own, over slots, each run once, whatever happens to the others.

`Sweep` is what the launcher plugin of Hydra (``hydra_plugins/kd_launcher``) drives. Needs no torch: the imports of a
job are paid by a fork server, once.

    jobs.py     what each job is, where it stands, which of them are one
    slots.py    how many run side by side, and on what
    server.py   the process that forks them            client.py   the sweep's side of it
    slurm.py    in their place: SLURM's queue          ray.py      a Ray cluster
    record.py   sweep.json and the table               progress.py  done, running, failed, best, time left
    interrupts.py  Ctrl-C, kill, a closed terminal  sweep.py   all of it together
"""

from kd.sweep.record import print_table as print_table
from kd.sweep.sweep import OPENED as OPENED
from kd.sweep.sweep import Sweep as Sweep
