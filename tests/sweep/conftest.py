"""Jobs that no sweep has planned."""

import time
from pathlib import Path

from omegaconf import OmegaConf

from kd.sweep.jobs import Job


def job_on(devices: int, accelerator: str = "gpu") -> Job:
    return Job(0, [], OmegaConf.create({"trainer": {"devices": devices, "accelerator": accelerator}}), "id", Path("x"))


def wait(*_) -> int:
    """What a fork server calls: a job, or a warm call, that takes long."""
    for _ in range(6000):
        time.sleep(0.1)
    return 0


def job_at(place: Path, number: int, **fields) -> Job:
    """A job with a directory and an identity of its own."""
    job = job_on(1, "cpu")
    job.number, job.directory, job.identity = number, place / f"run-{number}", f"identity-{number}"
    for name, value in fields.items():
        setattr(job, name, value)
    return job
