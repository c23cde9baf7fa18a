"""No test of these runs in an environment of a launcher, whatever this machine has."""

import os

import pytest

from kd.runtime import ranks

TORCHRUN = {"TORCHELASTIC_RUN_ID": "mine", "RANK": "3", "LOCAL_RANK": "1", "WORLD_SIZE": "4"}
SRUN = {"SLURM_JOB_ID": "7", "SLURM_STEP_ID": "0", "SLURM_PROCID": "1", "SLURM_NTASKS": "2", "SLURM_JOB_NAME": "kd"}


@pytest.fixture(autouse=True)
def no_launcher(monkeypatch):
    for name in [name for name in os.environ if name in ranks.OF_RANKS or name.startswith("SLURM_")]:
        monkeypatch.delenv(name)
