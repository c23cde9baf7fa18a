"""Compare a configuration with the declarations of its options: those of its sections and of every ``_target_``."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from difflib import get_close_matches
from typing import Any

import lightning
from omegaconf import DictConfig, OmegaConf
from torch.optim import Optimizer
from transformers import PretrainedConfig

from kd.config import targets
from kd.config.targets import plain
from kd.models.base import OwnConfig
from kd.options.declared import Option, options_of, written
from kd.options.methods import METHODS
from kd.options.sections import SECTIONS, Callback, Rates, Transformer

SPECIAL = frozenset({"_target_", "_partial_", "_convert_", "_recursive_"})
"""Hydra's own keys of a node."""

GROUPS = {
    "": frozenset({"student", "embeddings", "tokenizer", "teacher", "mapper", "method", *SECTIONS} - {""}),
    "balance": frozenset({"alpha", "temperature", "confidence", "weighting"}),
    "optim": frozenset({"optimizer", "schedule"}),
}
"""The groups below a section."""

ENTRIES = {
    **{"loss": "loss=[soft_target]", "transfer": "transfer=[rules]", "callbacks": "callbacks=[checkpoint]"},
    **{"logger": "logger=csv", "peers": "+student@peers.NAME=dan"},
}
"""Groups of several nodes, and how one is added."""


FOREIGN = {PretrainedConfig: Transformer, Optimizer: Rates, lightning.Callback: Callback}
"""For classes of other libraries: declarations that allow fewer values than their own."""


@dataclass(frozen=True)
class Declaration:
    """The options that may stand at one place of a configuration.

    Args:
        place: as on the command line; "" for the top.
        options: by name.
        names: all keys that may stand there, also undeclared ones; None if any key may.
    """

    place: str
    options: Mapping[str, Option]
    names: frozenset[str] | None

    def node(self, config: DictConfig) -> DictConfig:
        """Return the keys at this place; none if a name in it has a dot, which ``kd.config.check`` refuses."""
        found = OmegaConf.select(config, self.place) if self.place else config
        return found if OmegaConf.is_dict(found) else OmegaConf.create()

    def key(self, name: str) -> str:
        """Return an option as it is set on the command line."""
        return f"{self.place}.{name}" if self.place else name


def declarations(config: DictConfig) -> list[Declaration]:
    """Find the declarations for a configuration: of each section, then of each ``_target_``."""
    found = {place: dict(options_of(section)) for place, section in SECTIONS.items()}
    names: dict[str, frozenset[str] | None] = {
        place: frozenset(options) | GROUPS.get(place, frozenset()) for place, options in found.items()
    }
    for key, target in targets.named(config):
        place = key.removesuffix("_target_").rstrip(".")
        declares = METHODS.get(target) or targets.find(target, key)
        own_options = dict(options_of(declares))
        for kind, narrower in FOREIGN.items():
            ours = isinstance(declares, type) and declares.__module__.startswith("kd.")
            if isinstance(declares, type) and issubclass(declares, kind) and not ours:
                own_options |= {name: option for name, option in options_of(narrower).items() if name in own_options}
        found[place] = {**own_options, **found.get(place, {})}
        own, before = _keys(declares), names.get(place) or frozenset()
        names[place] = None if own is None else own | before
    return [Declaration(place, options, names[place]) for place, options in found.items()]


def _keys(declares: Any) -> frozenset[str] | None:
    """Return the keys that a node of this class or function may have; None if it takes any."""
    if isinstance(declares, type) and issubclass(declares, OwnConfig):  # its constructor accepts any key
        return frozenset(field.name for field in fields(declares)) | SPECIAL
    parameters = inspect.signature(declares).parameters.values()
    if any(each.kind is each.VAR_KEYWORD for each in parameters):
        return None
    return frozenset(each.name for each in parameters) | SPECIAL


def unknown_keys(config: DictConfig, declared: list[Declaration]) -> Iterator[str]:
    """Find keys that no declaration has, and entries that are no nodes, one sentence for each."""
    for declaration in declared:
        names = declaration.names
        for name in map(str, declaration.node(config)) if names is not None else ():
            if names is not None and name not in names:
                close = get_close_matches(name, names, 1)
                hint = f"did you mean {declaration.key(close[0])}?" if close else "leave it out"
                yield f"{declaration.key(name)}: there is no such option; {hint}"
    for group in ENTRIES:
        nodes = config[group] if OmegaConf.is_dict(config[group]) else {}
        for name, node in nodes.items():
            if not (OmegaConf.is_dict(node) and "_target_" in node):
                value = written(plain(node))
                yield f"{group}.{name}: expected a node, as {ENTRIES[group]} adds one, got {value}"


def missing_sections(config: DictConfig) -> list[str]:
    """Find sections that are not keys with values, one sentence for each. Nothing else can be checked before."""
    nodes: Any = OmegaConf.to_container(config)
    return [
        f"{place}: expected keys with values, got {written(nodes.get(place))}; leave the group as it is"
        for place in SECTIONS
        if place and "." not in place and not isinstance(nodes.get(place), dict)
    ]


def option_mistakes(config: DictConfig, declared: list[Declaration]) -> Iterator[str]:
    """Find every option whose value does not fit its declaration, one sentence for each."""
    seen = set()
    for declaration in declared:
        node = declaration.node(config)
        for name, option in declaration.options.items():
            if name in node and not OmegaConf.is_missing(node, name):
                value, key = plain(node[name]), _origin(config, node, declaration, name)
                if not (_makes_an_object(value) or option.fits(value) or key in seen):
                    seen.add(key)
                    found = repr(value) if isinstance(value, str) else written(value)
                    yield f"{key}: expected {option.expected_for(value)}, got {found}"


def _makes_an_object(value: Any) -> bool:
    """Return whether an object is made of a value or of a part of it; the declarations of its class hold for it."""
    if isinstance(value, dict):
        return "_target_" in value or any(map(_makes_an_object, value.values()))
    return isinstance(value, list) and any(map(_makes_an_object, value))


def _origin(config: DictConfig, node: DictConfig, declaration: Declaration, name: str) -> str:
    """Return the key that the user sets: if the value is just an interpolation, the key that it refers to."""
    raw: Any = OmegaConf.to_container(node)
    single = re.fullmatch(r"\$\{(\w[\w.]*)\}", raw[name]) if isinstance(raw[name], str) else None
    return single[1] if single and OmegaConf.select(config, single[1]) is not None else declaration.key(name)
