"""Which code a configuration may name: looked at before any of it is imported or called. Needs no torch.

A package as a whole is no permission: ``kd.run.directory`` writes files, ``torch.hub`` runs what it downloads, and
every module has ``os`` at hand. So a ``_target_`` is a class that one of `CLASSES` defines, under whatever name it is
reached, or one of `FUNCTIONS`, or what the user's own modules define. Those are listed where only the user writes: on
the command line, never in a file.
"""

from __future__ import annotations

import importlib
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from fnmatch import fnmatchcase
from types import FunctionType
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from kd.errors import KDError

CLASSES = (
    *(
        "kd.teacher.assistant.*",
        "kd.data.tokenizers.*",
        "kd.teacher.ensemble.*",
        "kd.losses.*",
        "kd.features.*",
        "kd.methods.*",
    ),
    *("kd.models.*", "kd.runtime.progress_bar.*", "kd.training.pruning.*", "kd.teacher.teacher.*"),
    *("torch.nn.*", "torch.optim.*"),
    *("lightning.pytorch.callbacks.*", "lightning.pytorch.loggers.*", "lightning.pytorch.plugins.*"),
    *("lightning.pytorch.profilers.*", "lightning.pytorch.strategies.*", "lightning.pytorch.trainer.*"),
    *("lightning.fabric.plugins.*", "torchmetrics.*", "transformers.models.*Config"),
    *("optuna.pruners.*", "optuna.samplers.*"),
)
"""Where classes that a configuration may name are defined."""

FRONTS = ("lightning", "lightning.pytorch", "transformers")
"""Modules that show such classes under shorter names."""

FUNCTIONS = (
    *("kd.data.sources.from_files", "kd.data.sources.from_files_or_hub", "kd.data.sources.from_hub"),
    *("kd.methods.learning_rate.warm_up_and_decay", "kd.models.pretrained.pretrained_config"),
)

PLUGINS = ("hydra_plugins.*", "hydra._internal.core_plugins.*")
"""Launchers and sweepers, of which Hydra makes only classes that it has found as plugins."""

LOGGING = re.compile(r"logging\.(handlers\.)?[A-Z]\w*|colorlog\.ColoredFormatter|rich\.logging\.RichHandler")
"""What Hydra's logging configuration may make."""

MODULES = "KD_MODULES"
"""In the environment of all processes of a command: the user's own modules, split by commas."""


def trust(modules: Iterable[str]) -> None:
    """From here on the user's own modules are these, in this process and in those that it starts.

    Raises:
        KDError: what is no dotted name of a module.
    """
    names = list(modules)
    for name in names:
        if not isinstance(name, str) or not all(part.isidentifier() for part in name.split(".")):
            raise KDError(f"modules: expected names of modules, as in modules=[mylib.losses], got {name!r}")
    os.environ[MODULES] = ",".join(names)


def trusted() -> list[str]:
    """Patterns for what the user's own modules define."""
    return [f"{name}.*" for name in os.environ.get(MODULES, "").split(",") if name]


def check(config: Any, place: str = "") -> None:
    """Refuse a configuration that names other code, by the names alone.

    Args:
        config: any part of a configuration, whose interpolations can be resolved.
        place: where it stands, for the message.

    Raises:
        KDError: with the first such name.
    """
    for key, target in named(config, place):
        require_name(target, key)


def verify(config: Any, place: str = "") -> None:
    """`check`, and then import what is named, to see that it is defined where its name says."""
    found = list(named(config, place))
    for key, target in found:
        require_name(target, key)
    for key, target in found:
        find(target, key)


def find(target: Any, key: str = "_target_") -> Any:
    """The class or function of a name.

    Raises:
        KDError: one that no configuration may name, or there is none.
    """
    require_name(target, key)
    module, _, name = target.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise KDError(f"{key}: there is no '{target}' ({error}); check the name") from error
    home = f"{getattr(found, '__module__', None)}.{name}"
    own = isinstance(found, type | FunctionType) and fits(home, trusted())
    if not (own or target in FUNCTIONS or (isinstance(found, type) and fits(identity(found), CLASSES))):
        raise refusal(target, key)
    return found


def identity(kind: type) -> str:
    """Where a class is defined, whatever it is called elsewhere."""
    return f"{kind.__module__}.{kind.__qualname__}"


def require_name(target: Any, key: str) -> None:
    """Refuse a name that stands for nothing in `CLASSES`, `FUNCTIONS` or the user's own modules."""
    known = isinstance(target, str) and (
        target in FUNCTIONS or target.rpartition(".")[0] in FRONTS or fits(target, (*CLASSES, *trusted()))
    )
    if not known:
        raise refusal(target, key)


def fits(name: str, patterns: Iterable[str]) -> bool:
    """Whether a dotted name fits one of the patterns."""
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def refusal(target: Any, key: str) -> KDError:
    """What is said of a name that is not allowed."""
    module = str(target).rpartition(".")[0] or "MODULE"
    return KDError(
        f"{key}: expected a class of kd, torch.nn, torch.optim, lightning, torchmetrics or a transformers config, got "
        f"'{target}', which no configuration may call; code of your own is allowed on the command line: "
        f"modules=[{module}] (--modules {module} for kd evaluate and kd reproduce)"
    )


def named(config: Any, place: str = "") -> Iterator[tuple[str, Any]]:
    """Every ``_target_`` in a configuration, at any depth, with its place."""
    if OmegaConf.is_config(config):  # at once, which takes a tenth of the time
        config = OmegaConf.to_container(config, resolve=True)
    return called(config, place, ("_target_",))


def called(node: Any, place: str, keys: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
    """The values of some keys, at any depth, with their places."""
    numbered = isinstance(node, list) or OmegaConf.is_list(node)
    if numbered or isinstance(node, dict) or OmegaConf.is_dict(node):
        for key in range(len(node)) if numbered else list(node):
            where = f"{place}[{key}]" if numbered else f"{place}.{key}".lstrip(".")
            value = resolved(node, key, where)
            if key in keys:
                yield where, value
            else:
                yield from called(value, where, keys)


def resolved(node: Any, key: Any, where: str) -> Any:
    """A value of a configuration; None for one that only has a value later, such as the place of a run."""
    try:
        return None if OmegaConf.is_config(node) and OmegaConf.is_missing(node, key) else node[key]
    except OmegaConfBaseException:
        written = str(OmegaConf.to_container(node, resolve=False)[key])
        if "oc." in written:  # which can make what was not looked at
            raise KDError(f"{where}: '{written}' has no value yet, and could become a call; leave it out") from None
        return None


def check_composed(config: DictConfig, multirun: bool) -> None:
    """What Hydra itself would call or set for a configuration that it has just composed, and the user's own modules.

    Args:
        config: with Hydra's keys.
        multirun: whether a launcher and a sweeper are to be made.

    Raises:
        KDError: code that no configuration may name; modules or environment variables that a file sets, and not the
            command line.
    """
    modules = OmegaConf.select(config, "modules")
    if not OmegaConf.is_list(modules):
        raise KDError(f"modules: expected a list of names, as in modules=[mylib.losses], got {modules}")
    said = [override.lstrip("+") for override in config.hydra.overrides.task]
    if modules and not any(override.startswith(("modules=", "modules.")) for override in said):
        raise KDError(
            f"modules: a configuration file lists {', '.join(map(str, modules))}, and which code may run is said on "
            f"the command line alone; add modules=[{','.join(map(str, modules))}] if you trust it"
        )
    trust(modules)
    with current(config):
        require_calls(config.hydra, multirun)


@contextmanager
def current(config: DictConfig) -> Iterator[None]:
    """Let ``${hydra:...}`` mean this configuration, as it will when it is used."""
    instance = HydraConfig.instance()
    before, instance.cfg = instance.cfg, config
    try:
        yield
    finally:
        instance.cfg = before


def require_calls(settings: DictConfig, multirun: bool) -> None:
    """Refuse what Hydra would make of its own keys and no configuration may name."""
    for key, target in list(called(settings.callbacks, "hydra.callbacks", ("_target_",))):
        find(target, key)
    for name in ("launcher", "sweeper") if multirun else ():
        for key, target in list(called(settings[name], f"hydra.{name}", ("_target_",))):
            if key != f"hydra.{name}._target_":
                find(target, key)
            elif not fits(str(target), PLUGINS):
                raise refusal(target, key)
    for name in ("job_logging", "hydra_logging"):
        for key, factory in called(settings[name], f"hydra.{name}", ("()", "class")):
            if not LOGGING.fullmatch(str(factory)):
                raise KDError(f"{key}: expected a class of Python's logging, got '{factory}'; leave it out")
    own = [override.lstrip("+") for override in settings.overrides.hydra]
    for name in settings.job.env_set or {}:
        if not any(override.startswith(f"hydra.job.env_set.{name}=") for override in own):
            raise KDError(
                f"hydra.job.env_set: a configuration file sets the environment variable {name}; set it yourself if you "
                "trust it"
            )
