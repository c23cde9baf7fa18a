"""The jobs of a sweep: configurations, states, directories, and which jobs are the same run."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, cast

from hydra.core.config_loader import ConfigLoader
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from kd.errors import KDError
from kd.run.directory import RunDirectory
from kd.run.identity import identity, unread
from kd.runtime.devices import wants_gpu
from kd.runtime.launch import quoted

SLUG = 80
LOG = "job.log"


@dataclass
class Job:
    """One point of a sweep. Several points may be the same run.

    Args:
        number: its place in the sweeper's order.
        overrides: those that the sweeper has chosen.
        config: the composed configuration, with Hydra's own keys.
        identity: the run's identity; see `kd.run.identity`.
        directory: the run's directory.
        state: waiting, running, done, pruned or failed.
        reason: why it failed or was pruned.
        attempts: how often the run was started, earlier commands included.
        seconds: how long the last attempt took.
        found: the run was done before this command.
    """

    number: int
    overrides: list[str]
    config: DictConfig = field(repr=False)
    identity: str
    directory: Path
    state: str = "waiting"
    reason: str | None = None
    attempts: int = 0
    seconds: float | None = None
    found: bool = False

    @property
    def run(self) -> RunDirectory:
        return RunDirectory(self.directory)

    @property
    def log(self) -> Path:
        return self.directory / LOG

    @property
    def devices(self) -> int:
        """The number of devices for training; 1 for ``auto``, whose number is known only inside the run."""
        devices = OmegaConf.select(self.config, "trainer.devices")
        return devices if isinstance(devices, int) and devices > 0 else 1

    @property
    def on_gpu(self) -> bool:
        """Whether the job uses a GPU if there is one."""
        return wants_gpu(OmegaConf.select(self.config, "trainer.accelerator"))

    @cached_property
    def task(self) -> dict[str, Any]:
        """The configuration as plain values, without Hydra's own keys."""
        return plain_config(self.config)

    @cached_property
    def reads(self) -> str:
        """A key that is equal for jobs that read the same rows with the same tokenizer and word vectors."""
        return json.dumps([self.task.get(key) for key in ("data", "teacher", "tokenizer", "embeddings")], default=str)

    def name(self, root: Path) -> str:
        """Return the job's directory relative to the sweep's directory, for messages."""
        return str(self.directory.relative_to(root)) if self.directory.is_relative_to(root) else str(self.directory)

    def arguments(self, flags: Sequence[str]) -> list[str]:
        """Return the arguments of ``kd`` that start this job as a single run.

        Args:
            flags: the sweep's command-line options that are no overrides, such as ``--config-dir DIR``.
        """
        given: list[str] = list(self.config.hydra.overrides.hydra)
        kept = [override for override in given if not re.match(r"\+*hydra\.(mode|run\.dir)=", override)]
        own = [override for override in self.overrides if override not in kept]
        place = ["hydra.mode=RUN", f"hydra.run.dir={quoted(str(self.directory))}"]
        return ["train", *flags, *kept, *own, *place]

    def launcher_options(self) -> dict[str, Any]:
        """Return the options of ``hydra.launcher`` for this job, as plain values."""
        return cast(dict[str, Any], OmegaConf.to_container(self.config.hydra.launcher, resolve=True))


def plain_config(config: DictConfig) -> dict[str, Any]:
    """Return a job's configuration as plain values, resolved and without Hydra's own keys."""
    task = OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])
    return cast(dict[str, Any], OmegaConf.to_container(task, resolve=True, throw_on_missing=False))


def plan(
    loader: ConfigLoader,
    master: DictConfig,
    batch: Sequence[Sequence[str]],
    first: int,
    known: Mapping[str, Path],
    before: Sequence[Job] = (),
) -> list[Job]:
    """Return the jobs of a batch.

    Args:
        loader, master: those of the sweep; see `kd.sweep.sweep.Sweep`.
        batch: the overrides of each job.
        first: number of the first job.
        known: directories of the sweep's runs by identity, earlier commands included.
        before: the command's jobs in earlier batches.

    Raises:
        KDError: two different runs have the same directory.
    """
    constant = constant_keys(master.hydra.overrides.task)
    jobs: list[Job] = []
    places = dict(known)
    for number, overrides in enumerate(batch, start=first):
        config = loader.load_sweep_config(master, list(overrides))
        job = planned(config, list(overrides), number, constant)
        job.directory = places.setdefault(job.identity, job.directory)
        jobs.append(job)
    refuse_clashes([*before, *jobs])
    return jobs


def planned(config: DictConfig, overrides: list[str], number: int, constant: set[str]) -> Job:
    """Return the job with this configuration.

    Its directory's name leaves out the keys that are constant, and those that the run's method ignores.
    """
    with read_write(config.hydra), open_dict(config.hydra):
        config.hydra.job.num = number
        config.hydra.job.id = "job"
    HydraConfig.instance().set_config(config)  # this also makes config.hydra read-only again
    resolved = plain_config(config)
    keys = [override.key_or_group for override in parsed(overrides)]
    name, ignored = identity(resolved), unread(resolved)
    hidden = constant | {key for key in keys if re.split(r"[./@]", key)[0] in ignored}
    with read_write(config.hydra), open_dict(config.hydra):
        config.hydra.job.id = f"{slug(overrides, hidden)}-{name[:8]}".lstrip("-")
    place = Path(config.hydra.sweep.dir) / str(config.hydra.sweep.subdir)
    return Job(number, overrides, config, name, place.absolute())


def constant_keys(overrides: Iterable[str]) -> set[str]:
    """Return the keys of a command line that have one value only."""
    return {override.key_or_group for override in parsed(overrides) if not override.is_sweep_override()}


def parsed(overrides: Iterable[str]) -> list[Override]:
    return OverridesParser.create().parse_overrides(list(overrides))


def first_values(words: Iterable[str]) -> list[str]:
    """Return the overrides of a sweep with the first value of each key.

    >>> first_values(["seed=0,1", "alpha=0.5"])
    ['seed=0', 'alpha=0.5']
    """
    found = zip(parsed(words), words, strict=True)
    return [
        f"{one.get_key_element()}={next(one.sweep_string_iterator())}" if one.is_discrete_sweep() else word
        for one, word in found
    ]


def slug(overrides: Iterable[str], constant: set[str]) -> str:
    """Return a folder name made of the last word of each key and its value, without the constant keys."""
    words = []
    for override in parsed(overrides):
        key = override.key_or_group
        if key in constant or key.startswith("hydra."):
            continue
        last = re.split(r"[./@]", key)[-1]
        value = override.value()
        written = f"{value:.4g}" if isinstance(value, float) else override.get_value_element_as_str()
        value = re.sub(r"[^\w.+-]+", "-", written).strip("-")
        words.append(value if value and not value[0].isdigit() and key == last else f"{last}-{value}")
    return "_".join(words)[:SLUG].rstrip("_-.")


def refuse_clashes(jobs: Iterable[Job]) -> None:
    """Refuse two different runs in one directory."""
    owners: dict[Path, Job] = {}
    for job in jobs:
        other = owners.setdefault(job.directory, job)
        if other.identity != job.identity:
            raise KDError(
                f"two different runs would have the directory '{job.directory}' ({' '.join(other.overrides)}; "
                f"{' '.join(job.overrides)}); name the keys that vary in hydra.sweep.subdir, or leave it out: by "
                "default each run has a directory of its own"
            )


def known_runs(root: Path) -> dict[str, Path]:
    """Return the directories of the runs below a folder by identity; a finished run comes before an unfinished one."""
    found: dict[str, tuple[bool, Path]] = {}
    for file in sorted(root.glob("**/status.json")):
        if "previous" in file.relative_to(root).parts:
            continue
        try:
            status = RunDirectory(file.parent).status()
        except KDError:
            continue
        name, done = status.get("identity"), status.get("state") == "done"
        if name and (name not in found or (done and not found[name][0])):
            found[name] = (done, file.parent.absolute())
    return {name: place for name, (_, place) in found.items()}
