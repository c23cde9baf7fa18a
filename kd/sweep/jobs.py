"""The jobs of a sweep: what each is, where it stands, and which of them are one."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from hydra.core.config_loader import ConfigLoader
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from kd.errors import KDError
from kd.run.directory import RunDirectory
from kd.run.identity import identity, unread
from kd.runtime.devices import wants_gpu

SLUG = 80
LOG = "job.log"


@dataclass
class Job:
    """One point of a sweep; several points may be the same run.

    Args:
        number: in the sweeper's order.
        overrides: as the sweeper gives them.
        config: composed, with Hydra's own keys.
        identity: of the run; see `kd.run.identity`.
        directory: of the run.
        state: waiting, running, done, pruned or failed.
        reason: why it failed or was pruned.
        attempts: how often the run was started, in earlier commands too.
        found: it was done before this command.
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
        """What the job printed."""
        return self.directory / LOG

    @property
    def devices(self) -> int:
        """How many devices it trains on; those of ``auto`` are not known before it runs."""
        devices = OmegaConf.select(self.config, "trainer.devices")
        return devices if isinstance(devices, int) and devices > 0 else 1

    @property
    def on_gpu(self) -> bool:
        """Whether it takes a GPU where there is one."""
        return wants_gpu(OmegaConf.select(self.config, "trainer.accelerator"))

    @cached_property
    def task(self) -> dict[str, Any]:
        """Its configuration without Hydra's own keys, resolved."""
        task = OmegaConf.masked_copy(self.config, [key for key in self.config if key != "hydra"])
        return OmegaConf.to_container(task, resolve=True, throw_on_missing=False)

    @cached_property
    def reads(self) -> str:
        """Equal for jobs that read the same rows in the same words."""
        return json.dumps([self.task.get(part) for part in ("data", "teacher", "tokenizer", "embeddings")], default=str)

    def name(self, root: Path) -> str:
        """What people call it: its directory as seen from the sweep's."""
        return str(self.directory.relative_to(root)) if self.directory.is_relative_to(root) else str(self.directory)

    def arguments(self, flags: Sequence[str]) -> list[str]:
        """Of ``kd``, for the single run that this job is.

        Args:
            flags: of the command line that are no overrides, such as ``--config-dir DIR``.
        """
        given = OmegaConf.to_container(self.config.hydra.overrides.hydra)
        kept = [override for override in given if not re.match(r"\+*hydra\.(mode|run\.dir)=", override)]
        own = [override for override in self.overrides if override not in kept]
        place = ["hydra.mode=RUN", f"hydra.run.dir={quoted(str(self.directory))}"]
        return ["train", *flags, *kept, *own, *place]


def quoted(text: str) -> str:
    """A value as Hydra's grammar reads it, whatever is in it."""
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def plan(
    loader: ConfigLoader,
    master: DictConfig,
    batch: Sequence[Sequence[str]],
    first: int,
    known: Mapping[str, Path],
    before: Sequence[Job] = (),
) -> list[Job]:
    """The jobs of a batch.

    Args:
        loader: Hydra's, for their configurations.
        master: the sweep's own configuration.
        batch: the overrides of each job.
        first: number of the first.
        known: directories of the sweep's runs by identity, of earlier commands too.
        before: the command's jobs in earlier batches.

    Raises:
        KDError: two runs in one directory.
    """
    constant = constant_keys(OmegaConf.to_container(master.hydra.overrides.task))
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
    """A job from its configuration."""
    with read_write(config.hydra), open_dict(config.hydra):
        config.hydra.job.num = number
        config.hydra.job.id = "job"
    HydraConfig.instance().set_config(config)  # which closes it
    task = OmegaConf.masked_copy(config, [key for key in config if key != "hydra"])
    resolved = OmegaConf.to_container(task, resolve=True, throw_on_missing=False)
    name, told = identity(resolved), constant | {key for key in keys_of(overrides) if is_unread(key, resolved)}
    with read_write(config.hydra), open_dict(config.hydra):
        config.hydra.job.id = f"{slug(overrides, told)}-{name[:8]}".lstrip("-")
    place = Path(config.hydra.sweep.dir) / str(config.hydra.sweep.subdir)
    return Job(number, overrides, config, name, place.absolute())


def constant_keys(overrides: Iterable[str]) -> set[str]:
    """The keys of a command line that do not vary."""
    parsed = OverridesParser.create().parse_overrides(list(overrides))
    return {override.key_or_group for override in parsed if not override.is_sweep_override()}


def keys_of(overrides: Iterable[str]) -> list[str]:
    """What the overrides set."""
    return [override.key_or_group for override in OverridesParser.create().parse_overrides(list(overrides))]


def is_unread(key: str, config: Mapping[str, Any]) -> bool:
    """Whether the run's method does not read what an override sets."""
    return re.split(r"[./@]", key)[0] in unread(config)


def slug(overrides: Iterable[str], constant: set[str]) -> str:
    """What varies, as a name for a folder: the last part of each key with its value.

    Args:
        constant: keys that the name leaves out.
    """
    words = []
    for override in OverridesParser.create().parse_overrides(list(overrides)):
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
            ours, theirs = (" ".join(part.overrides) for part in (job, other))
            raise KDError(
                f"two different runs would stand in '{job.directory}' ({theirs}; {ours}); give hydra.sweep.subdir the "
                "keys that vary, or leave it out: the default tells runs apart"
            )


def known_runs(root: Path) -> dict[str, Path]:
    """The directories of a folder's runs by their identity; of several with one identity, one that is done."""
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


def facts(job: Job, root: Path) -> dict[str, Any]:
    """A job as ``sweep.json`` holds it."""
    return {
        "number": job.number,
        "overrides": [override for override in job.overrides if not re.match(r"\+*hydra[./]", override)],
        "identity": job.identity,
        "directory": job.name(root),
        "state": job.state,
        "reason": job.reason,
        "log": f"{job.name(root)}/{LOG}" if job.log.is_file() else None,
        "attempts": job.attempts,
        "seconds": job.seconds,
        "found": job.found,
    }
