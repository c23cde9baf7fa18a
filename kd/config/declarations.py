"""Hold a configuration against the declarations of its options: those of its sections and of every ``_target_``."""

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
        """Whether kd itself declares the option, and not only the library whose class it is given to."""
        return self.place in SECTIONS and name in options_of(SECTIONS[self.place])

    def node(self, config: DictConfig) -> DictConfig:
        """Return the keys at this place; none where a name in it has a dot, which `Joint` refuses."""
        return (OmegaConf.select(config, self.place) or OmegaConf.create()) if self.place else config

    def key(self, name: str) -> str:
        """Return an option as it is set on the command line."""
        return f"{self.place}.{name}" if self.place else name


def declarations(config: DictConfig) -> list[Declaration]:
    """Find the declarations for a configuration, section by section and target by target."""
    found = {place: dict(options_of(section)) for place, section in SECTIONS.items()}
    for key, target in targets.named(config):
        place = key.removesuffix("_target_").rstrip(".")
        declares = METHODS.get(target) or targets.find(target, key)
        found[place] = {**options_of(declares), **found.get(place, {})}
    return [Declaration(place, options) for place, options in found.items()]


def missing_sections(config: DictConfig) -> list[str]:
    """Find sections that are not keys with values, one sentence each: without them nothing else can be read."""
    found = {place: OmegaConf.to_container(config, resolve=False).get(place) for place in SECTIONS if place}
    return [
        f"{place}: expected keys with values, got {written(node)}; leave the group as it is"
        for place, node in found.items()
        if "." not in place and not isinstance(node, dict)
    ]


def option_mistakes(config: DictConfig, declared: list[Declaration]) -> Iterator[str]:
    """Find every option whose value is not what its declaration expects, one sentence each."""
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
    """Whether a value is made into an object first, whose own declaration holds."""
    if isinstance(value, dict):
        return "_target_" in value or any(map(_makes_an_object, value.values()))
    return isinstance(value, list) and any(map(_makes_an_object, value))


def _origin(config: DictConfig, node: DictConfig, declaration: Declaration, name: str) -> str:
    """Return the key that a user sets: where the value is only an interpolation, the key that it comes from."""
    written = OmegaConf.to_container(node, resolve=False)[name]
    single = re.fullmatch(r"\$\{(\w[\w.]*)\}", written) if isinstance(written, str) else None
    return single[1] if single and OmegaConf.select(config, single[1]) is not None else declaration.key(name)
