"""Mappers, features and texts for the tests of the mappers."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from kd.features import fitted_mapper
from kd.features.fitted_mapper import FittedMapper
from kd.features.mapper import AttentionPooling
from kd.features.mappers import MAPPERS, new_mapper

SPECS = [
    *({"name": name} for name in MAPPERS),
    {"name": "linear", "bias": False},
    {"name": "mlp", "hidden_size": 5, "activation": "tanh", "norm": "none", "dropout": 0.5},
    {"name": "low_rank", "rank": 2},
    {"name": "pca", "whiten": True},
    {"name": "least_squares", "ridge": 0.5},
    {"name": "procrustes", "scale": True},
    {"name": "attention_pooling", "heads": 3},
]
all_specs = pytest.mark.parametrize("spec", SPECS, ids=str)
by_name = pytest.mark.parametrize("spec", [{"name": name} for name in MAPPERS], ids=list(MAPPERS))


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    """Make a fit of a few dozen rows read several chunks, the last one shorter."""
    monkeypatch.setattr(fitted_mapper, "CHUNK", 16)


def draw(in_size, out_size, rows=75, seed=0):
    """Return features far from the origin, with axes of different variance, and targets that depend on them."""
    numbers = np.random.default_rng(seed)
    spread = np.diag(np.linspace(3, 0.3, in_size)) @ numbers.normal(size=(in_size, in_size))
    source = numbers.normal(size=(rows, in_size)) @ spread + 5 * numbers.normal(size=in_size)
    target = source @ numbers.normal(size=(in_size, out_size)) + 0.5 * numbers.normal(size=(rows, out_size)) - 3
    return source, target


def build(spec, in_size=6, out_size=6):
    """Build a mapper that is ready to map: fitted if necessary, and without zero weights."""
    options = {"rank": 3} if spec == {"name": "low_rank"} else {}
    torch.manual_seed(0)
    mapper = new_mapper(spec | options, in_size, out_size)
    if isinstance(mapper, FittedMapper):
        mapper.fit(*draw(in_size, out_size))
    if isinstance(mapper, AttentionPooling):
        nn.init.normal_(mapper.queries)
    return mapper.eval()


def mapped(mapper, vectors):
    """Return the mapped vectors ``[N, d]``, each a text of one token, in float64."""
    states = torch.tensor(np.asarray(vectors), dtype=torch.float64).unsqueeze(1)
    return copy.deepcopy(mapper).double()(states, torch.ones(len(states), 1))[:, 0].detach().numpy()


def texts(width=6, dtype=torch.float32):
    """Return states of four texts with 5, 3, 1 and 4 tokens, the last with padding on the left."""
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0], [1, 0, 0, 0, 0], [0, 1, 1, 1, 1]])
    return torch.randn(4, 5, width, generator=torch.Generator().manual_seed(1)).to(dtype), mask
