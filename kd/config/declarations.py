"""Compare a configuration with the declarations of its options: those of its sections and of every ``_target_``."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from omegaconf import DictConfig, OmegaConf

from kd.config import targets
from kd.config.make import plain
from kd.options.declared import Option, options_of, written
from kd.options.methods import METHODS
from kd.options.sections import SECTIONS


@dataclass(frozen=True)
class Declaration:
    """The options that may stand at one place of a configuration.

    Args:
        place: as on the command line; "" for the top.
        options: by name.
    """

    place: str
    options: Mapping[str, Option]

    def from_section(self, name: str) -> bool:
        """Return whether kd itself declares the option, and not only the library that takes it."""
        return self.place in SECTIONS and name in options_of(SECTIONS[self.place])

    def node(self, config: DictConfig) -> DictConfig:
        """Return the keys at this place; none if a name in it has a dot, which ``kd.config.check`` refuses."""
        return (OmegaConf.select(config, self.place) or OmegaConf.create()) if self.place else config

    def key(self, name: str) -> str:
        """Return an option as it is set on the command line."""
        return f"{self.place}.{name}" if self.place else name


def declarations(config: DictConfig) -> list[Declaration]:
    """Find the declarations for a configuration: of each section, then of each ``_target_``."""
    found = {place: dict(options_of(section)) for place, section in SECTIONS.items()}
    for key, target in targets.named(config):
        place = key.removesuffix("_target_").rstrip(".")
        declares = METHODS.get(target) or targets.find(target, key)
        found[place] = {**options_of(declares), **found.get(place, {})}
    return [Declaration(place, options) for place, options in found.items()]


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
                    yield f"{key}: expected {option.expected}, got {found}"


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
