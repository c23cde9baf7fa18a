"""Names that have changed. Runs, commands and files with the first names go on working. Needs no torch.

`current` renames to the names of today: in a finished run's configuration when it is read, in a new one when it is
composed. `first` does the reverse for the identity of a run (`kd.run.identity`), which is a hash of the first names: so
a rename does not change the identity of a run that is done.
"""

from __future__ import annotations

import copy
import logging
import re
from collections.abc import Iterable, Mapping
from dataclasses import fields
from typing import Any

from omegaconf import OmegaConf, open_dict, read_write

from kd.errors import KDError
from kd.options.methods import CompositionOptions, HintsOptions, MethodOptions
from kd.options.sections import Data

log = logging.getLogger(__name__)

MOVED = {
    "kd.features.fitted_mapper": ("kd.mapper", "PCA LeastSquares Procrustes"),
    "kd.features.mapper": ("kd.mapper", "Linear MLP LowRank Identity AttentionPooling"),
    "kd.losses.annealing": ("kd.losses.structured", "Annealing"),
    "kd.losses.correlation": ("kd.losses.structured", "DIST"),
    "kd.losses.decoupled": ("kd.losses.structured", "DKD NKD"),
    "kd.losses.reverse": ("kd.losses.logits", "ReverseKL SymmetricCrossEntropy JensenShannon"),
    "kd.losses.standardised": ("kd.losses.structured", "Standardised"),
    "kd.methods.confidence": ("kd.methods.balance", "EveryRow GoldProbability Certainty OnlyCorrect"),
    "kd.methods.learning_rate": ("kd.methods.schedule", "warm_up_and_decay"),
    "kd.methods.schedules": (
        "kd.methods.balance",
        "Constant Linear Cosine WarmUp TemperatureWarmUp AnnealedTemperature Switch LearnedTemperature",
    ),
    "kd.runtime.progress_bar": ("kd.progress_bar", "ProgressBar"),
    "kd.teacher.assistant": ("kd.assistant", "Assistant"),
    "kd.teacher.ensemble": ("kd.ensemble", "Ensemble"),
    "kd.teacher.teacher": ("kd.teacher", "Teacher"),
    "kd.training.pruning": ("kd.pruning", "Pruning"),
}
"""Module of today -> its first name, and the classes and functions that a configuration may name in it."""

FIRST = {f"{new}.{name}": f"{old}.{name}" for new, (old, names) in MOVED.items() for name in names.split()}
NOW = {old: new for new, old in FIRST.items()}

FEATURE_MAPPING = "kd.methods.feature_mapping."
"""One method with an option ``direction`` at first, two methods today."""

DIRECTIONS: dict[str, tuple[str, str, type[MethodOptions]]] = {
    "to_teacher": ("hints", "kd.methods.hints.Hints", HintsOptions),
    "to_student": ("composition", "kd.methods.composition.Composition", CompositionOptions),
}
"""Direction -> name, ``_target_`` and options of the method of today."""

OF_EITHER = {option.name: option.default for kind in (HintsOptions, CompositionOptions) for option in fields(kind)}
"""The options of both directions, all of which stood in one file."""

OF_RUN = {option.name for option in fields(Data)}
"""The keys of ``data`` that were not repeated under ``data.source``, which has no node of its own today."""

_WARNED: set[str] = set()
"""First names that this process has already warned of."""


def overrides(words: Iterable[str]) -> list[str]:
    """Put the keys of today into the words of a command line."""
    found = {word: re.sub(r"^([+~]*data)\.source\.", r"\1.", word) for word in words}
    _warn({old.partition("=")[0]: new.partition("=")[0] for old, new in found.items() if old != new})
    return list(found.values())


def current(config: Any, say: bool = False) -> None:
    """Put the names of today into a configuration, in place.

    Args:
        config: a dict or DictConfig, whose interpolations stay.
        say: warn of the first names that were found.

    Raises:
        KDError: an option of one direction of feature mapping is set, and the run goes in the other.
    """
    found = {}
    if OmegaConf.is_dict(config):
        with read_write(config), open_dict(config):
            found = _renamed(config, OmegaConf.to_container(config))
    elif isinstance(config, dict):
        found = _renamed(config, config)
    if say:
        _warn(found)


def _warn(found: Mapping[str, str]) -> None:
    if lines := [f"{old} is now {new}" for old, new in found.items() if old not in _WARNED]:
        _WARNED.update(found)
        log.warning("old names, which go on working: %s", ", ".join(lines))


def _renamed(config: Any, raw: Any) -> dict[str, str]:
    """Rename in place; return what was renamed.

    Args:
        config: a dict or DictConfig.
        raw: its content as a dict, with interpolations as text.
    """
    found = _replace_targets(config, raw, NOW)
    return found | _split_feature_mapping(config, raw) | _lift_source(config, raw)


def _replace_targets(config: Any, raw: Any, names: Mapping[str, str]) -> dict[str, str]:
    """Replace every ``_target_`` that has another name, at any depth; return what was replaced."""
    found = {}
    for key, value in list(raw.items() if isinstance(raw, dict) else enumerate(raw)):
        if key == "_target_" and value in names:
            config[key] = found[value] = names[value]
        elif isinstance(value, dict | list):
            found |= _replace_targets(config[key], value, names)
    return found


def _split_feature_mapping(config: Any, raw: Any) -> dict[str, str]:
    """Turn ``method=feature_mapping`` into the method that its direction means."""
    if not str(_section(raw, "method").get("_target_")).startswith(FEATURE_MAPPING):
        return {}
    method = config["method"]
    direction = method["_target_"].removeprefix(FEATURE_MAPPING)
    if direction not in DIRECTIONS:
        raise KDError(f"method.direction: expected to_student or to_teacher, got '{direction}'")
    name, method["_target_"], options = DIRECTIONS[direction]
    own = {option.name for option in fields(options)}
    for key in [key for key in method if key in {"direction", *OF_EITHER} - own]:
        value = method.pop(key)
        if key != "direction" and value != OF_EITHER[key]:
            raise KDError(f"method.{key}={value} is not read by method={name}; leave it out")
    if _section(raw["hydra"]["runtime"] if "hydra" in raw else raw, "choices").get("method") == "feature_mapping":
        config["choices"]["method"] = name
    old = "method=feature_mapping" + (" method.direction=to_student" if direction == "to_student" else "")
    return {old: f"method={name}"}


def _lift_source(config: Any, raw: Any) -> dict[str, str]:
    """Move the options of ``data.source`` to ``data``; there they repeated the keys of ``data`` by interpolation."""
    source = _section(_section(raw, "data"), "source")
    if not source:
        return {}
    data = config["data"]
    data.pop("source")
    for key, value in source.items():
        if key == "_target_":
            data[key] = NOW.get(value, value)
        elif key != "_convert_" and value != f"${{..{key}}}":
            data[key] = value.replace("${..", "${.") if isinstance(value, str) else value
    return {"data.source": "data"}


def _section(raw: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return the keys with values of a section; none if it is missing or something else."""
    found = raw.get(name)
    return found if isinstance(found, dict) else {}


def first(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy of a resolved configuration with the names that its options had at first."""
    found = copy.deepcopy(dict(config))
    _replace_targets(found, found, FIRST)
    for direction, (name, target, _) in DIRECTIONS.items():
        if _section(found, "method").get("_target_") == target:
            found["method"] = OF_EITHER | found["method"] | {"direction": direction}
            found["method"]["_target_"] = FEATURE_MAPPING + direction
            if _section(found, "choices").get("method") == name:
                found["choices"]["method"] = "feature_mapping"
    data = _section(found, "data")
    if "_target_" in data:
        source = {key: data[key] for key in data if key not in OF_RUN}
        data["source"] = source | {"_convert_": "all"}
        del data["_target_"]
    return found
