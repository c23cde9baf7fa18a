"""Make an object from a node of the configuration. The only caller of ``hydra.utils.instantiate``."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from kd.config import targets
from kd.config.targets import plain
from kd.errors import KDError, OptionError
from kd.run.identity import fingerprint
from kd.runtime import fork_memory


def make(node: DictConfig, **known: Any) -> Any:
    """Instantiate a node.

    Args:
        node: names a class or function in ``_target_`` and its arguments.
        known: further arguments, which are known only at run time.

    Raises:
        KDError: the constructor has raised it; the arguments do not fit; or the node names code that no configuration
            may name (`kd.config.targets`).
    """
    target, place = node.get("_target_", "?"), node._get_full_key(None)
    targets.check(node, place)  # all of the node, before any of it is imported
    for key, named in targets.named(node, place):
        targets.find(named, key)
    for name, value in known.items():
        if isinstance(value, str) and "${" in value:  # Hydra would resolve it, and make what it stands for
            raise KDError(f"{name}: a path or name must not contain '${{', got '{value}'; give it another name")
    try:
        made = instantiate(node, **known, _convert_="all")
        if isinstance(made, partial):  # the function itself would refuse its arguments only when it is called
            inspect.signature(made.func).bind_partial(**made.keywords)
        return made
    except TypeError as error:
        raise KDError(f"'{target}' could not be made from its configuration: {error}") from error
    except InstantiationException as error:
        cause = error.__cause__
        if isinstance(cause, OptionError):
            raise cause.at(place) from error
        if isinstance(cause, KDError):
            raise cause from error
        raise KDError(f"'{target}' could not be made from its configuration: {cause or error}") from error


def once(
    kind: str,
    config: DictConfig,
    places: tuple[str, ...],
    make: Callable[[], Any],
    facts: Callable[[], dict[str, Any]] = dict,
) -> Any:
    """Make something once for all runs of a sweep whose configurations agree in what decides it.

    Args:
        kind: of thing, as in `kd.runtime.fork_memory.get_or_make`.
        config: of the run.
        places: the parts of the configuration that decide the result.
        make: makes it.
        facts: returns what else decides the result.
    """

    def key() -> str:
        found = {place: OmegaConf.select(config, place) for place in places}
        return fingerprint({place: plain(part) for place, part in found.items()} | facts())

    return fork_memory.get_or_make(kind, key, make)


def resolve(config: DictConfig) -> dict[str, Any]:
    """Return the configuration as plain containers, with every interpolation resolved."""
    return OmegaConf.to_container(config, resolve=True, throw_on_missing=True)  # type: ignore[return-value]
