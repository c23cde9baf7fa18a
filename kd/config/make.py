"""Configuration node -> object. The only caller of ``hydra.utils.instantiate``."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from kd.config import targets
from kd.errors import KDError, OptionError
from kd.run.identity import fingerprint
from kd.runtime import fork_memory as memory


def make(node: DictConfig, **known: Any) -> Any:
    """Instantiate a node, with a user's mistake as the `KDError` that the constructor raised.

    Raises:
        KDError: that, or code that no configuration may name; see `kd.config.targets`.
    """
    target = node.get("_target_", "?")
    targets.verify(node, node._get_full_key(None))
    for name, value in known.items():
        if isinstance(value, str) and "${" in value:  # which would be resolved, and may make another node
            raise KDError(f"{name}: a path or name must not contain '${{', got '{value}'; give it another name")
    try:
        made = instantiate(node, **known, _convert_="all")
        if isinstance(made, partial):  # whose arguments would be looked at when it is called, which may be late
            inspect.signature(made.func).bind_partial(**made.keywords)
        return made
    except TypeError as error:
        raise KDError(f"'{target}' could not be made from its configuration: {error}") from error
    except InstantiationException as error:
        if isinstance(error.__cause__, OptionError):
            raise error.__cause__.at(node._get_full_key(None)) from error
        if isinstance(error.__cause__, KDError):
            raise error.__cause__ from error
        raise KDError(f"'{target}' could not be made from its configuration: {error.__cause__ or error}") from error


def once(
    kind: str,
    config: DictConfig,
    places: tuple[str, ...],
    make: Callable[[], Any],
    facts: Callable[[], dict[str, Any]] = dict,
) -> Any:
    """What these places of the configuration, and further facts, decide: made once in a sweep.

    See `kd.runtime.fork_memory`.
    """

    def key() -> str:
        found = {place: OmegaConf.select(config, place) for place in places}
        return fingerprint({place: plain(part) for place, part in found.items()} | facts())

    return memory.once(kind, key, make)


def plain(part: Any) -> Any:
    """Return a part of a configuration as plain containers; anything else as it is."""
    return OmegaConf.to_container(part, resolve=True) if OmegaConf.is_config(part) else part


def resolve(config: DictConfig) -> dict[str, Any]:
    """The configuration as plain containers, every interpolation resolved."""
    return OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
