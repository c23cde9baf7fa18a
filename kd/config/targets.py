"""Decide which code a configuration may name, before any of it is imported or called. Needs no torch.

Whole packages cannot be allowed: ``kd.run.directory`` writes files, ``torch.hub`` runs what it downloads, and every
module holds others, such as ``os``. So a ``_target_`` must be a class that a module of `CLASSES` defines, a function of
`FUNCTIONS`, or something that one of the user's own modules defines. The user names these modules on the command line;
a file cannot.
"""

from __future__ import annotations

import importlib.util
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from fnmatch import fnmatchcase
from types import FunctionType
from typing import Any
from unittest import mock

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from kd.errors import KDError

CLASSES = (
    *("kd.data.tokenizers.*", "kd.features.*", "kd.losses.*", "kd.methods.*", "kd.models.*"),
    *("kd.runtime.progress_bar.*", "kd.teacher.answers.*", "kd.teacher.assistant.*", "kd.teacher.ensemble.*"),
    *("kd.teacher.teacher.*", "kd.transfer.*"),
    *("lightning.pytorch.callbacks.*", "lightning.pytorch.loggers.*", "lightning.pytorch.plugins.*"),
    *("lightning.pytorch.profilers.*", "lightning.pytorch.strategies.*", "lightning.pytorch.trainer.*"),
    *("lightning.fabric.plugins.*", "torch.nn.*", "torch.optim.*", "torchmetrics.*", "transformers.models.*Config"),
    *("kd.training.pruning.*", "optuna.pruners.*", "optuna.samplers.*"),
)
"""Where the classes are defined that a configuration may name."""

FRONTS = ("lightning", "lightning.pytorch", "transformers")
"""Modules that export such classes under shorter names."""

FUNCTIONS = (
    *("kd.data.sources.from_files", "kd.data.sources.from_files_or_hub", "kd.data.sources.from_hub"),
    *("kd.methods.learning_rate.warm_up_and_decay", "kd.models.pretrained.pretrained_config"),
)

PLUGINS = ("hydra_plugins.*", "hydra._internal.core_plugins.*")
"""Launchers and sweepers. Hydra makes only those classes of them that it has found as plugins."""

LOGGING = re.compile(r"logging\.(handlers\.)?[A-Z]\w*|colorlog\.ColoredFormatter|rich\.logging\.RichHandler")
"""What Hydra's logging configuration may make."""

MODULES = "KD_MODULES"
"""Environment variable with the user's own modules, separated by commas; all processes of a command share it."""


def trust(modules: Iterable[str]) -> None:
    """Set the user's own modules, for this process and those that it starts; refuse names that are no modules."""
    names = list(modules)
    for name in names:
        if not isinstance(name, str) or not all(part.isidentifier() for part in name.split(".")):
            raise KDError(f"modules: expected names of modules, as in modules=[mylib.losses], got {name!r}")
        with suppress(ImportError, ValueError):  # a package above it is missing, or is no package
            if importlib.util.find_spec(name):
                continue
        raise KDError(f"modules: expected modules that can be imported, found no '{name}'; correct it or PYTHONPATH")
    os.environ[MODULES] = ",".join(names)


def trusted() -> list[str]:
    """Return patterns that match what the user's own modules define."""
    return [f"{name}.*" for name in os.environ.get(MODULES, "").split(",") if name]


def check(config: Any, place: str = "") -> None:
    """Refuse a configuration that names code outside these lists; the message names the first. Nothing is imported.

    Args:
        config: any part of a configuration whose interpolations can be resolved.
        place: where the part stands, for the message.

    Raises:
        KDError: with the first such name; or arguments are given by their order, so that checks of names miss them.
    """
    config = plain(config)
    for key, target in named(config, place):
        require_name(target, key)
    require_names_of_arguments(config, place)


def require_names_of_arguments(config: Any, place: str) -> None:
    """Refuse arguments that are given by their order, because checks that look at names would miss them.

    Raises:
        KDError: with the place of the first such list.
    """
    for key, _ in values_of(config, place, ("_args_",)):
        raise KDError(f"{key}: expected arguments by name, found a list of arguments; write each as NAME: VALUE")


def find(target: Any, key: str = "_target_") -> Any:
    """Import the class or function of a name.

    Raises:
        KDError: no configuration may name it, or it does not exist.
    """
    require_name(target, key)
    module, _, name = target.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise KDError(f"{key}: there is no '{target}' ({error}); check the name") from error
    # A module also holds what it imports. So what counts is where the class or function is defined.
    own = isinstance(found, type | FunctionType) and fits(f"{found.__module__}.{name}", trusted())
    ours = isinstance(found, type) and fits(f"{found.__module__}.{found.__qualname__}", CLASSES)
    if not (own or ours or target in FUNCTIONS):
        raise refusal(target, key)
    return found


def require_name(target: Any, key: str) -> None:
    """Refuse a name that cannot belong to `CLASSES`, `FUNCTIONS` or the user's own modules."""
    known = isinstance(target, str) and (
        target in FUNCTIONS or target.rpartition(".")[0] in FRONTS or fits(target, (*CLASSES, *trusted()))
    )
    if not known:
        raise refusal(target, key)


def fits(name: str, patterns: Iterable[str]) -> bool:
    """Return whether a dotted name matches one of the patterns."""
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def refusal(target: Any, key: str) -> KDError:
    """Return the error for a name that is not allowed."""
    module = str(target).rpartition(".")[0] or "MODULE"
    return KDError(
        f"{key}: expected a class of kd, torch.nn, torch.optim, lightning, torchmetrics or a transformers config, got "
        f"'{target}', which no configuration may call; code of your own is allowed on the command line: "
        f"modules=[{module}] (--modules {module} for kd evaluate and kd reproduce)"
    )


def named(config: Any, place: str = "") -> Iterator[tuple[str, Any]]:
    """Find every ``_target_`` in a configuration, at any depth, with its key."""
    return values_of(plain(config), place, ("_target_",))


def plain(config: Any) -> Any:
    """Return a resolved configuration as containers, which are read ten times as fast; anything else as it is."""
    return OmegaConf.to_container(config, resolve=True) if OmegaConf.is_config(config) else config


def values_of(node: Any, place: str, names: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
    """Find the values of some names, at any depth, with their keys."""
    numbered = isinstance(node, list) or OmegaConf.is_list(node)
    if numbered or isinstance(node, dict) or OmegaConf.is_dict(node):
        for name in range(len(node)) if numbered else list(node):
            key = f"{place}[{name}]" if numbered else f"{place}.{name}".lstrip(".")
            value = _resolved(node, name, key)
            if name in names:
                yield key, value
            else:
                yield from values_of(value, key, names)


def _resolved(node: Any, name: Any, key: str) -> Any:
    """Return a value; None if it is only known later, such as the directory of a run."""
    try:
        return None if OmegaConf.is_config(node) and OmegaConf.is_missing(node, name) else node[name]
    except OmegaConfBaseException:
        raw: Any = OmegaConf.to_container(node)
        written = str(raw[name])
        if "oc." in written:  # such a resolver could make a call later, unchecked
            raise KDError(f"{key}: '{written}' has no value yet, and could become a call; leave it out") from None
        return None


def check_composed(config: DictConfig, multirun: bool) -> None:
    """Check what Hydra itself would call or set for a configuration, and set the user's own modules.

    Args:
        config: as Hydra has composed it, with Hydra's keys.
        multirun: whether a launcher and a sweeper will be made.

    Raises:
        KDError: Hydra's keys name code that is not allowed; or a file sets modules or environment variables, which
            only the command line may set.
    """
    modules = OmegaConf.select(config, "modules")
    if not OmegaConf.is_list(modules):
        raise KDError(f"modules: expected a list of names, as in modules=[mylib.losses], got {modules}")
    written = [override.lstrip("+") for override in config.hydra.overrides.task]
    if modules and not any(override.startswith(("modules=", "modules.")) for override in written):
        names = [str(name) for name in modules]
        raise KDError(
            f"modules: a configuration file lists {', '.join(names)}, and which code may run is set on the command "
            f"line alone; add modules=[{','.join(names)}] if you trust it"
        )
    trust(modules)
    with mock.patch.object(HydraConfig.instance(), "cfg", config):  # ${hydra:...} refers to it, as it will later
        _check_hydra(config.hydra, multirun)


def _check_hydra(settings: DictConfig, multirun: bool) -> None:
    """Refuse what Hydra would make of its own keys if no configuration may name it."""
    for group in ("callbacks", "launcher", "sweeper") if multirun else ("callbacks",):
        require_names_of_arguments(settings[group], f"hydra.{group}")
        for key, target in list(values_of(settings[group], f"hydra.{group}", ("_target_",))):
            if key not in ("hydra.launcher._target_", "hydra.sweeper._target_"):
                find(target, key)
            elif not fits(str(target), PLUGINS):
                raise refusal(target, key)
    for group in ("job_logging", "hydra_logging"):
        for key, factory in values_of(settings[group], f"hydra.{group}", ("()", "class")):
            if not LOGGING.fullmatch(str(factory)):
                raise KDError(f"{key}: expected a class of Python's logging, got '{factory}'; leave it out")
    written = [override.lstrip("+") for override in settings.overrides.hydra]
    for name in settings.job.env_set or {}:
        if not any(override.startswith(f"hydra.job.env_set.{name}=") for override in written):
            raise KDError(
                f"hydra.job.env_set: a configuration file sets the environment variable {name}; set it yourself if you "
                "trust it"
            )
