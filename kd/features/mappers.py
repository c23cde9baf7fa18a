"""All mappers by name."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from kd.errors import KDError, OptionError
from kd.features.fitted_mapper import PCA, LeastSquares, Procrustes
from kd.features.mapper import MLP, AttentionPooling, Identity, Linear, LowRank, Mapper

MAPPERS: dict[str, type[Mapper]] = {
    mapper.name: mapper for mapper in (Linear, MLP, LowRank, Identity, PCA, LeastSquares, Procrustes, AttentionPooling)
}
"""The mappers that a spec may name."""


def new_mapper(spec: Mapping[str, Any], in_size: int, out_size: int) -> Mapper:
    """Build the mapper that a spec describes, without a saved state.

    Args:
        spec: ``name``, a key of `MAPPERS`, and options; options left out keep their defaults.
        in_size: width of the input vectors.
        out_size: width of the output vectors.

    Raises:
        KDError: an unknown name or option, or a value that the mapper refuses.

    >>> new_mapper({"name": "low_rank", "rank": 4}, 32, 8).spec()
    {'name': 'low_rank', 'rank': 4}
    """
    options = dict(spec)
    name = options.pop("name", None)
    if name not in list(MAPPERS):  # a list, as the name of a damaged file may be unhashable
        raise OptionError("mapper.name", f"one of {', '.join(MAPPERS)}", name)
    mapper = MAPPERS[name]
    try:
        arguments = inspect.signature(mapper).bind(in_size, out_size, **options)
    except TypeError as error:
        raise KDError(f"mapper '{name}' {error}; see conf/mapper/{name}.yaml for its options") from error
    return mapper(*arguments.args, **arguments.kwargs)
