"""Modules that map features of one width into another space: teacher to student, or student to teacher.

B is the number of rows, L the number of tokens, N the number of feature vectors; ``x`` is one vector of ``in_size``
numbers. A `Mapper` is called as ``mapper(states, mask)``. The mappers here are trained with the student, except
`Identity`; those in `kd.features.fitted_mapper` are fitted to features before training.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from itertools import chain
from typing import Any, ClassVar, Literal, final

import numpy as np
import torch
from torch import Tensor, nn

from kd.contract import precise
from kd.errors import KDError
from kd.options.declared import Checked, Count, Probability, Width

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {"gelu": nn.GELU, "relu": nn.ReLU, "tanh": nn.Tanh}

NORMS: dict[str, Callable[[int], nn.Module]] = {"layer": nn.LayerNorm, "none": nn.Identity}

Features = np.ndarray | Tensor
"""``[N, d]`` of any floating type. A memory-mapped array is read in chunks."""


class Mapper(Checked, nn.Module, ABC):
    """A map from vectors of one width to vectors of another.

    Args:
        in_size: width of the input vectors.
        out_size: width of the output vectors.
        options: the further options of the concrete mapper, as plain JSON values; `spec` returns them.

    Raises:
        KDError: an option is outside its range, or the two widths do not fit this mapper.
    """

    name: ClassVar[str]
    """Its key in `kd.features.mappers.MAPPERS`."""

    pools: ClassVar[bool] = False
    """Whether it turns the tokens of a text into one vector."""

    needs_target: ClassVar[bool] = True
    """Whether the map depends on the target space; False for PCA, which depends on the source alone."""

    def __init__(self, in_size: Count, out_size: Count, **options: Any):
        super().__init__()
        self.in_size, self.out_size = in_size, out_size
        self.options = options

    @abstractmethod
    def map(self, states: Tensor, mask: Tensor) -> Tensor:
        """Compute `forward` on states of the mapper's own floating type, zero outside the mask."""

    @final  # type: ignore[misc]  # torch declares forward as an attribute
    def forward(self, states: Tensor, mask: Tensor) -> Tensor:
        """Return the mapped vectors.

        Args:
            states: ``[B, L, in_size]``, of any floating type. Values outside the mask are not read.
            mask: ``[B, L]``, 1 for a token.

        Returns:
            ``[B, L, out_size]``, with arbitrary values outside the mask; ``[B, 1, out_size]`` if it `pools`.
        """
        own = next(chain(self.parameters(), self.buffers()), states)
        return self.map(states.to(own.dtype).masked_fill((mask == 0).unsqueeze(-1), 0), mask)

    @final
    def spec(self) -> dict[str, Any]:
        """Return name and options as plain JSON, without the widths: `new_mapper` builds the mapper from them."""
        return {"name": self.name, **self.options}


@final
class Linear(Mapper):
    """A learned linear map.

    ``W x + b``

    Args:
        bias: add b.

    Source: Romero et al. 2015 (FitNets), https://arxiv.org/abs/1412.6550
    """

    name = "linear"

    def __init__(self, in_size: Count, out_size: Count, bias: bool = True):
        super().__init__(in_size, out_size, bias=bias)
        self.linear = nn.Linear(in_size, out_size, bias=bias)

    def map(self, states: Tensor, mask: Tensor) -> Tensor:
        return self.linear(states)


@final
class MLP(Mapper):
    """A learned map with one hidden layer.

    ``W2 dropout(activation(norm(W1 x + b1))) + b2``

    Args:
        hidden_size: width of the hidden layer; None: the larger of in_size and out_size.
        activation: function after the first linear map.
        norm: layer normalisation before the activation, or none.
        dropout: probability that a hidden number is set to zero in training.

    Source: Chen et al. 2023, https://arxiv.org/abs/2310.17183
    """

    name = "mlp"

    def __init__(
        self,
        in_size: Count,
        out_size: Count,
        hidden_size: Width | None = None,
        activation: Literal["gelu", "relu", "tanh"] = "gelu",
        norm: Literal["layer", "none"] = "layer",
        dropout: Probability = 0.0,
    ):
        super().__init__(in_size, out_size, hidden_size=hidden_size, activation=activation, norm=norm, dropout=dropout)
        width = hidden_size or max(in_size, out_size)
        self.layers = nn.Sequential(
            nn.Linear(in_size, width),
            NORMS[norm](width),
            ACTIVATIONS[activation](),
            nn.Dropout(dropout),
            nn.Linear(width, out_size),
        )

    def map(self, states: Tensor, mask: Tensor) -> Tensor:
        return self.layers(states)


@final
class LowRank(Mapper):
    """A learned linear map through a narrow hidden layer, with ``rank (in_size + out_size)`` weights.

    ``U V x + b``, where ``V x`` has rank numbers

    Args:
        rank: width of the hidden layer, at most the smaller of in_size and out_size.

    Source: Lan et al. 2020 (ALBERT, for word tables), https://arxiv.org/abs/1909.11942
    """

    name = "low_rank"

    def __init__(self, in_size: Count, out_size: Count, rank: Width = 16):
        super().__init__(in_size, out_size, rank=rank)
        if rank > min(in_size, out_size):
            raise KDError(
                f"the rank of a low-rank mapper from width {in_size} to {out_size} can be at most "
                f"{min(in_size, out_size)}, found {rank}; set a smaller rank, or use mapper=linear"
            )
        self.down = nn.Linear(in_size, rank, bias=False)
        self.up = nn.Linear(rank, out_size)

    def map(self, states: Tensor, mask: Tensor) -> Tensor:
        return self.up(self.down(states))


@final
class Identity(Mapper):
    """Unchanged vectors: ``x``, for two sides of equal width."""

    name = "identity"

    def __init__(self, in_size: Count, out_size: Count):
        super().__init__(in_size, out_size)
        if in_size != out_size:
            raise KDError(
                f"an identity mapper needs two equal widths, found {in_size} -> {out_size}; "
                "make the widths equal, or use another mapper, such as mapper=linear"
            )

    def map(self, states: Tensor, mask: Tensor) -> Tensor:
        return states


@final
class AttentionPooling(Mapper):
    """One vector for each text: a linear map of weighted means of its tokens, with learned weights.

    ``W [sum_l a_1l x_l; ...; sum_l a_hl x_l] + b``, ``a_h = softmax_l(q_h x_l / sqrt(in_size))`` over the tokens
    in the mask. The queries start at zero, so training starts from the mean. The result for a text without tokens is b.

    Args:
        heads: number of queries; W reads one weighted mean for each.

    Source: Lin et al. 2017, https://arxiv.org/abs/1703.03130
    """

    name = "attention_pooling"
    pools = True

    def __init__(self, in_size: Count, out_size: Count, heads: Width = 1):
        super().__init__(in_size, out_size, heads=heads)
        self.queries = nn.Parameter(torch.zeros(heads, in_size))
        self.linear = nn.Linear(heads * in_size, out_size)

    def map(self, states: Tensor, mask: Tensor) -> Tensor:
        scores = precise(states @ (self.queries / self.in_size**0.5).T)
        scores = scores.masked_fill((mask == 0).unsqueeze(-1), torch.finfo(scores.dtype).min)
        means = scores.softmax(1).to(states.dtype).transpose(1, 2) @ states
        return self.linear(means.flatten(1).unsqueeze(1))
