"""All mappers by name."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from kd.contract import option
from kd.errors import KDError
from kd.features.fitted_mapper import PCA, LeastSquares, Procrustes
from kd.features.mapper import MLP, AttentionPooling, Identity, Linear, LowRank, Mapper

MAPPERS: dict[str, type[Mapper]] = {
    mapper.name: mapper for mapper in (Linear, MLP, LowRank, Identity, PCA, LeastSquares, Procrustes, AttentionPooling)
}
"""All that a spec may name."""


def new_mapper(spec: Mapping[str, Any], in_size: int, out_size: int) -> Mapper:
    """The mapper that a spec describes; the state is for the caller to load.

    Args:
        spec: ``name``, a key of `MAPPERS`, and options; those left out keep their defaults.
        in_size: width of what it reads.
        out_size: width of what it gives.

    Raises:
        KDError: an unknown name or option, or what the mapper itself refuses.

    >>> new_mapper({"name": "low_rank", "rank": 4}, 32, 8).spec()
    {'name': 'low_rank', 'rank': 4}
    """
    options = dict(spec)
    mapper = MAPPERS[option("mapper.name", options.pop("name", None), MAPPERS)]
    try:
        arguments = inspect.signature(mapper).bind(in_size, out_size, **options)
    except TypeError as error:
        raise KDError(f"mapper '{mapper.name}' {error}; see conf/mapper/{mapper.name}.yaml for its options") from error
    return mapper(*arguments.args, **arguments.kwargs)
